//! The pod network of a running node: what was set up, and the addresses in use.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::plan::{self, Addressing, Choice, NetworkError, RangeConfig};
use crate::range::PodRange;
use crate::{node_address, route};

/// How the pods' addresses came to be local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetUp {
    /// By a route, which is taken back when the node stops.
    Routed,
    /// They are loopback addresses; why.
    Loopback {
        /// For people.
        why: String,
    },
}

/// A node's pod network. Shared by reference; all methods take `&self`.
#[derive(Debug)]
pub struct PodNetwork {
    range: Mutex<PodRange>,
    net: Ipv4Net,
    set_up: SetUp,
    node: IpAddr,
}

impl PodNetwork {
    /// Sets up the node's part of the range: tries the local route, falls back to loopback
    /// addresses where the configuration lets it.
    pub async fn set_up(config: &RangeConfig) -> Result<Self, NetworkError> {
        let (routed, loopback) = plan::node_ranges(config)?;
        let attempt = match config.addressing {
            Addressing::Loopback => None,
            Addressing::Auto | Addressing::Routed => Some(route::add_local(routed).await),
        };
        let (net, set_up) = match plan::choose(config.addressing, attempt) {
            Choice::Routed => (routed, SetUp::Routed),
            Choice::Loopback { why } => (loopback, SetUp::Loopback { why }),
            Choice::Refused { why } => return Err(NetworkError::Route { net: routed, why }),
        };
        match &set_up {
            SetUp::Routed => tracing::info!(range = %net, "pod addresses are routed"),
            SetUp::Loopback { why } => {
                tracing::info!(range = %net, why, "pod addresses are loopback addresses")
            }
        }
        Ok(Self {
            range: Mutex::new(PodRange::new(net)),
            net,
            set_up,
            node: config.node_address.unwrap_or_else(node_address::primary),
        })
    }

    /// The node's range.
    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// How it was set up.
    pub fn how(&self) -> &SetUp {
        &self.set_up
    }

    /// The node's own address.
    pub fn node_address(&self) -> IpAddr {
        self.node
    }

    /// An address for a pod.
    pub fn allocate(&self) -> Result<Ipv4Addr, NetworkError> {
        self.range.lock().allocate(Instant::now()).ok_or(NetworkError::Exhausted(self.net))
    }

    /// The address that a pod had before, if it is free, else another one.
    pub fn allocate_again(&self, before: Option<IpAddr>) -> Result<Ipv4Addr, NetworkError> {
        match before {
            Some(IpAddr::V4(address)) if self.range.lock().claim(address) => Ok(address),
            _ => self.allocate(),
        }
    }

    /// Marks an address as in use by a pod of an earlier run. False if it cannot be had.
    pub fn claim(&self, address: Ipv4Addr) -> bool {
        self.range.lock().claim(address)
    }

    /// Gives an address back.
    pub fn release(&self, address: Ipv4Addr) {
        self.range.lock().release(address, Instant::now());
    }

    /// Takes back what [`PodNetwork::set_up`] changed on the machine.
    pub async fn tear_down(&self) {
        if self.set_up == SetUp::Routed
            && let Err(why) = route::remove_local(self.net).await
        {
            tracing::warn!(range = %self.net, why, "the pod range's route stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn loopback() -> PodNetwork {
        let config = RangeConfig { addressing: Addressing::Loopback, ..Default::default() };
        PodNetwork::set_up(&config).await.unwrap()
    }

    #[tokio::test]
    async fn loopback_addresses_can_be_bound_without_any_set_up() {
        let network = loopback().await;
        assert_eq!(network.net().to_string(), "127.42.0.0/24");
        let address = network.allocate().unwrap();
        assert!(tokio::net::TcpListener::bind((address, 0)).await.is_ok());
    }

    #[tokio::test]
    async fn a_pod_gets_its_former_address_if_it_is_free() {
        let network = loopback().await;
        let former: IpAddr = "127.42.0.9".parse().unwrap();
        assert_eq!(network.allocate_again(Some(former)).unwrap(), former);
        assert_ne!(network.allocate_again(Some(former)).unwrap(), former);
        assert!(network.allocate_again(Some("::1".parse().unwrap())).is_ok());
    }

    #[tokio::test]
    async fn automatic_set_up_ends_with_addresses_that_can_be_bound() {
        // A part of the range that no other test or cluster of this machine uses.
        let config = RangeConfig { node_index: 213, ..Default::default() };
        let network = PodNetwork::set_up(&config).await.unwrap();
        let address = network.allocate().unwrap();
        let bound = tokio::net::TcpListener::bind((address, 0)).await;
        network.tear_down().await;
        assert!(bound.is_ok(), "{address} is not local after {:?}", network.how());
    }
}
