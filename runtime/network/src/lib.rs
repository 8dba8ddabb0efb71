//! The node's network: pod address range, local routes.
