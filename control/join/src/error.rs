//! Why a machine did not join, or a command did not do what it should: one clear line each.

use std::path::PathBuf;

use sampan_apiserver::pki::PkiError;

use crate::TokenError;

/// What went wrong on the side of whoever asks.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server's address is none.
    #[error("{0:?} is not the address of a server; it is https://HOST:6443")]
    Address(String),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is for agents, and a server wants to join.
    #[error("the token is for agents; a server joins with one of 'sampan token create --role server'")]
    AgentToken,
    /// The directory belongs to a cluster already.
    #[error("{} already holds the keys of a cluster; name an empty directory with --data-dir to join another one", .0.display())]
    AlreadyJoined(PathBuf),
    /// Nobody answers, or the connection broke.
    #[error("{server} cannot be reached")]
    Unreachable {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server is of another cluster than the token.
    #[error(
        "{server} is a server of another cluster than the token is for; check --server, or make a token there with 'sampan token create'"
    )]
    WrongCluster {
        /// The server.
        server: String,
    },
    /// The server showed a certificate that the cluster's authorities did not sign.
    #[error(
        "{server} does not prove to be a server of this cluster; check the address, or what stands between"
    )]
    NotProven {
        /// The server.
        server: String,
        /// What TLS said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// HTTP's status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The server's answer is not what it should be.
    #[error("{server} answered what cannot be understood: {what}")]
    Answer {
        /// The server.
        server: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{}: cannot be read or written", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file holds what it should not.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A key cannot be made or used.
    #[error("{}: not a usable key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        #[source]
        source: rcgen::Error,
    },
    /// Keys or certificates cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// A kubeconfig lacks something.
    #[error("the kubeconfig {0}")]
    Kubeconfig(String),
    /// The store did not answer.
    #[error("the store does not answer")]
    Storage(#[from] sampan_store::StorageError),
}

impl JoinError {
    /// Whether trying again may help: nobody answered, or the server was not able to.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => *code >= 500 || *code == 429,
            _ => false,
        }
    }
}
