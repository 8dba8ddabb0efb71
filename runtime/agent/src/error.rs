//! Why an agent could not start or keep what it has to keep.

use std::path::PathBuf;

/// Why an agent could not start, or could not write what it keeps.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or directory of the agent cannot be used.
    #[error("{path}: cannot be read or written")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The key that seals the cache has the wrong length.
    #[error(
        "{path}: not a key of 32 bytes; with another key the cache cannot be read, so remove the file only to start anew"
    )]
    Key {
        /// The key's file.
        path: PathBuf,
    },
    /// This system gives no random numbers.
    #[error("no random numbers can be had")]
    Random(#[source] getrandom::Error),
    /// The read-only API for local clients cannot start.
    #[error("the read-only API for local clients cannot start")]
    LocalApi(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No server was named, and none is known from an earlier run.
    #[error("no server is known: name one with --server")]
    NoServers,
}
