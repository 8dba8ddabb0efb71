//! What a stream is for: its first two bytes on the wire.

use std::fmt;

use crate::identity::Role;

/// What a stream is for. An acceptor refuses one that it does not know, or that the opener's role
/// does not permit, by name: the opener's first read says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Raft messages between members.
    Raft,
    /// A Raft snapshot, so that it does not stall heartbeats.
    RaftSnapshot,
    /// Writes and administration that a follower forwards to the leader.
    Forward,
    /// Kubernetes API requests of a node (HTTP/1.1).
    Api,
    /// Requests of a server to a node's kubelet.
    Node,
    /// Requests to a node that hangs on another server.
    Relay,
    /// Small exchanges of the machines themselves (who leads, where are the servers).
    Control,
}

/// A number that is no purpose of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("streams of kind {0} are not known")]
pub struct UnknownPurpose(pub u16);

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Raft, Self::RaftSnapshot, Self::Forward, Self::Api, Self::Node, Self::Relay, Self::Control];

    /// The number on the wire. Numbers are never used again for something else.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Raft => 1,
            Self::RaftSnapshot => 2,
            Self::Forward => 3,
            Self::Api => 4,
            Self::Node => 5,
            Self::Relay => 6,
            Self::Control => 7,
        }
    }

    /// Whether a peer of role `opener` may open such a stream to one of role `acceptor`.
    #[must_use]
    pub fn permitted(self, opener: Role, acceptor: Role) -> bool {
        match self {
            Self::Raft | Self::RaftSnapshot | Self::Forward | Self::Relay => {
                opener == Role::Server && acceptor == Role::Server
            }
            Self::Api => opener == Role::Node && acceptor == Role::Server,
            Self::Node => opener == Role::Server && acceptor == Role::Node,
            Self::Control => true,
        }
    }
}

impl TryFrom<u16> for Purpose {
    type Error = UnknownPurpose;

    fn try_from(number: u16) -> Result<Self, UnknownPurpose> {
        Self::ALL.into_iter().find(|p| p.number() == number).ok_or(UnknownPurpose(number))
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raft => "raft",
            Self::RaftSnapshot => "raft-snapshot",
            Self::Forward => "forward",
            Self::Api => "api",
            Self::Node => "node",
            Self::Relay => "relay",
            Self::Control => "control",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_purposes_and_others_are_refused() {
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::try_from(purpose.number()), Ok(purpose));
        }
        assert_eq!(Purpose::try_from(0), Err(UnknownPurpose(0)));
        assert_eq!(Purpose::try_from(8), Err(UnknownPurpose(8)));
    }

    #[test]
    fn a_node_opens_api_streams_and_nothing_of_the_servers() {
        use Role::{Node, Server};
        let of_a_node: Vec<_> = Purpose::ALL.into_iter().filter(|p| p.permitted(Node, Server)).collect();
        assert_eq!(of_a_node, [Purpose::Api, Purpose::Control]);
        assert!(Purpose::Node.permitted(Server, Node));
        assert!(!Purpose::Api.permitted(Server, Server));
        assert!(!Purpose::Raft.permitted(Server, Node));
    }
}
