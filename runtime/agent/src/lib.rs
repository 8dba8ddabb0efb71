//! A node without a control plane of its own: the API over one outgoing connection, a sealed cache
//! to start from.
//!
//! On the node: [`Agent`] holds one connection to a server ([`link`]), gives the kubelet a client
//! whose requests travel on it ([`api`]), keeps a sealed copy of what the node's pods need
//! ([`mirror`]), answers from it while no server can be reached ([`offline`]), and serves it
//! read-only to local clients ([`local_api`]). On a server: [`Gateway`] takes the nodes'
//! connections, serves their requests, and reaches their kubelets; its own node is an [`OwnNode`], for
//! which there is no server while this one has no quorum.
//!
//! Nothing here drives containers, and nothing here touches a server's store.

mod agent;
pub mod api;
mod backoff;
mod control;
mod error;
mod gateway;
mod http1;
pub mod link;
pub mod local_api;
pub mod mirror;
pub mod offline;
mod own;
mod router;
pub mod servers;
mod standing;

pub use agent::{Agent, AgentConfig};
pub use api::{ApiError, ApiOverStreams};
pub use error::AgentError;
pub use gateway::{Gateway, NodeConnection};
pub use link::{Connected, Link, LinkConfig, LinkState, Timing};
pub use mirror::{Mirror, MirrorConfig};
pub use own::OwnNode;
pub use router::NodeRouter;
pub use servers::{ServerInfo, Servers, ServersView};
