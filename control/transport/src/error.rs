//! What can go wrong between machines, told apart by what the caller can do about it.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::certificate::CertificateFault;
use crate::hello::ProtocolRange;
use crate::identity::{KeyId, Role};

/// Why a peer said no. On the wire as its number; a number that this build does not know is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum RefusalCode {
    /// No common protocol version.
    Protocol,
    /// Our certificate has expired: it must be renewed by proof of the key.
    Expired,
    /// The peer is going down.
    Closing,
    /// The peer judged us after the connection stood: the text says why.
    Other,
}

impl From<u16> for RefusalCode {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::Protocol,
            2 => Self::Expired,
            3 => Self::Closing,
            _ => Self::Other,
        }
    }
}

impl From<RefusalCode> for u16 {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Other => 0,
            RefusalCode::Protocol => 1,
            RefusalCode::Expired => 2,
            RefusalCode::Closing => 3,
        }
    }
}

/// Why there is no endpoint, no connection or no stream.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The UDP socket cannot be had.
    #[error("cannot listen on UDP {address}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The machine's own certificate, key or authorities cannot be used.
    #[error("this machine's credentials cannot be used: {0}")]
    Credentials(String),
    /// A setting that cannot be.
    #[error("transport settings: {0}")]
    Settings(String),
    /// The file with the time floor cannot be read.
    #[error("cannot read the time floor {path}")]
    Floor {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answered, at any of the addresses. Trying again later may help.
    #[error("no answer from {0}")]
    Unreachable(String),
    /// The peer's certificate was not signed by any of our authorities: another cluster.
    #[error("{0} belongs to another cluster: its certificate is not signed by one of our authorities")]
    UnknownAuthority(String),
    /// The peer does not know the authority that signed our certificate: another cluster, seen by it.
    #[error("{0} belongs to another cluster: it does not know the authority of our certificate")]
    UnknownToPeer(String),
    /// The peer's certificate is no machine's certificate.
    #[error("the certificate of {address} cannot be accepted")]
    Certificate {
        /// Who sent it.
        address: String,
        /// What is wrong with it.
        #[source]
        source: CertificateFault,
    },
    /// The peer is something else than what was asked for.
    #[error("{address} is a {found} ({name}), not a {expected}")]
    WrongRole {
        /// Who answered.
        address: String,
        /// The name in its certificate.
        name: String,
        /// What was asked for.
        expected: Role,
        /// What it is.
        found: Role,
    },
    /// Another machine answered than the one that was asked for.
    #[error("{address} is another machine ({name}, key {found}) than expected (key {expected})")]
    WrongKey {
        /// Who answered.
        address: String,
        /// The name in its certificate.
        name: String,
        /// The key that was asked for.
        expected: KeyId,
        /// The key that it has.
        found: KeyId,
    },
    /// The peer's certificate has expired.
    #[error("the certificate of {name} at {address} has expired")]
    Expired {
        /// Who sent it.
        address: String,
        /// The name in it.
        name: String,
    },
    /// No common protocol version.
    #[error("{address} speaks protocol {theirs}, this build speaks {ours}: upgrade the older one first")]
    Protocol {
        /// The other side.
        address: String,
        /// What this build speaks.
        ours: ProtocolRange,
        /// What the other side speaks.
        theirs: ProtocolRange,
    },
    /// The peer refused us and said why.
    #[error("{address} refused the connection: {reason}")]
    Refused {
        /// The other side.
        address: String,
        /// The kind of refusal.
        code: RefusalCode,
        /// Its words.
        reason: String,
    },
    /// The handshake broke for another reason.
    #[error("the handshake with {address} failed: {reason}")]
    Handshake {
        /// The other side.
        address: String,
        /// What broke.
        reason: String,
    },
    /// The connection has ended.
    #[error("the connection is closed: {0}")]
    Closed(String),
}

impl TransportError {
    /// Whether there was simply no answer (all other errors of [`crate::Endpoint::connect`] are
    /// somebody's answer).
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Whether our own certificate was refused because it has expired: time to renew it by proof of
    /// the key.
    #[must_use]
    pub fn is_expired_here(&self) -> bool {
        matches!(self, Self::Refused { code: RefusalCode::Expired, .. })
    }

    /// How much an error says about the target; the most telling of several attempts is reported.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 0,
            Self::Handshake { .. } | Self::Closed(_) => 1,
            Self::WrongKey { .. } | Self::WrongRole { .. } | Self::Certificate { .. } => 2,
            Self::UnknownAuthority(_) | Self::UnknownToPeer(_) => 3,
            _ => 4,
        }
    }
}
