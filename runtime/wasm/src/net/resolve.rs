//! The network of a node that has no cluster network of its own: names from the host's
//! resolver, everything reachable but the node's loopback services.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use sampan_cri::PodRef;

use super::PodNetwork;

/// Why a name did not resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It is no name.
    #[error("not a host name")]
    Invalid,
    /// There is no such name, or it has no address.
    #[error("no such name")]
    Unresolvable,
    /// Nobody answered.
    #[error("the resolver does not answer")]
    Temporary,
}

/// The node's own resolver and routes.
#[derive(Clone, Debug)]
pub struct HostNetwork {
    /// The parts of 127.0.0.0/8 in which pods and services live: address and prefix length.
    pub loopback_ranges: Vec<(Ipv4Addr, u8)>,
}

impl Default for HostNetwork {
    /// Pods in 127.42.0.0/16, services in 127.43.0.0/16.
    fn default() -> Self {
        let loopback_ranges = vec![(Ipv4Addr::new(127, 42, 0, 0), 16), (Ipv4Addr::new(127, 43, 0, 0), 16)];
        Self { loopback_ranges }
    }
}

impl HostNetwork {
    fn in_ranges(&self, address: Ipv4Addr) -> bool {
        self.loopback_ranges.iter().any(|(network, length)| {
            let mask = u32::MAX.checked_shl(32 - u32::from((*length).min(32))).unwrap_or(0);
            u32::from(*network) & mask == u32::from(address) & mask
        })
    }
}

#[async_trait]
impl PodNetwork for HostNetwork {
    async fn resolve(&self, _: &PodRef, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let found = tokio::net::lookup_host((name, 0)).await.map_err(|_| ResolveError::Unresolvable)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|address| address.ip().to_canonical()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(ResolveError::Unresolvable) } else { Ok(addresses) }
    }

    fn may_connect(&self, _: &PodRef, remote: SocketAddr) -> bool {
        match remote.ip().to_canonical() {
            IpAddr::V4(address) => !address.is_loopback() || self.in_ranges(address),
            IpAddr::V6(address) => !address.is_loopback(),
        }
    }

    fn may_accept(&self, _: &PodRef, _: SocketAddr) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_matched_by_prefix() {
        let network = HostNetwork { loopback_ranges: vec![(Ipv4Addr::new(127, 42, 3, 0), 24)] };
        assert!(network.in_ranges(Ipv4Addr::new(127, 42, 3, 255)));
        assert!(!network.in_ranges(Ipv4Addr::new(127, 42, 4, 0)));
        let everything = HostNetwork { loopback_ranges: vec![(Ipv4Addr::UNSPECIFIED, 0)] };
        assert!(everything.in_ranges(Ipv4Addr::LOCALHOST));
    }
}
