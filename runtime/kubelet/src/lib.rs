//! The node agent: pod workers, volumes, status manager, node status, server.
