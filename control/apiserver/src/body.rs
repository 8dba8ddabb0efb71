//! The body of requests and answers: bytes, or a stream of them.

/// The body type of the whole server.
pub type Body = axum::body::Body;
