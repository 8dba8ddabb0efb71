//! The node's network: the range of addresses that its pods get, and what makes them local.
//!
//! The kubelet calls this crate when it starts ([`PodNetwork::set_up`]) and for each pod
//! ([`PodNetwork::allocate`], [`PodNetwork::release`]). Decisions ([`range`], [`plan`],
//! [`conflict`]) are pure; only [`route`] and [`node_address`] talk to the kernel. Nothing here
//! persists: a node that starts again claims the addresses that its pods' statuses name.

pub mod conflict;
pub mod node_address;
pub mod plan;
mod pod_network;
mod privilege;
pub mod range;
pub mod route;

pub use plan::{Addressing, NetworkError, RangeConfig};
pub use pod_network::{PodNetwork, SetUp};
pub use privilege::can_route;
pub use range::PodRange;
