//! A node without a control plane of its own: the API over one outgoing connection, a sealed cache to start from.
