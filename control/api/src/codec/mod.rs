//! Request bodies to `serde_json::Value`: JSON with its duplicates noticed, and protobuf.
//!
//! Objects are JSON inside. Nothing is encoded here: answers are JSON, which every client accepts.

pub mod json;
pub mod protobuf;
mod wire;

/// A body that cannot be read. `Display` is the sentence as Kubernetes words it; answers are
/// 400 `BadRequest` with more words around it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value does not have its field's type or format.
    #[error("{0}")]
    Type(String),
    /// The bytes are not the protobuf they claim to be.
    #[error("{0}")]
    Wire(String),
    /// The protobuf is of a kind that is not known.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
}
