//! Which range a node's pods get: pure decisions, made once when the node starts.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// Why a node has no pod network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The configuration cannot be met.
    #[error("{0}")]
    Config(String),
    /// Local routes were demanded, but the kernel or the machine does not give them.
    #[error("cannot make the pod range {net} local: {why}")]
    Route {
        /// The range.
        net: Ipv4Net,
        /// The reason, for people.
        why: String,
    },
    /// Every address of the range is in use.
    #[error("no free address in the pod range {0}")]
    Exhausted(Ipv4Net),
}

/// How pods' addresses come to be local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Try [`Addressing::Routed`], fall back to [`Addressing::Loopback`].
    Auto,
    /// An AnyIP route makes the node's part of the cluster's range local. Needs `CAP_NET_ADMIN`.
    Routed,
    /// Addresses of 127.0.0.0/8, which are local everywhere. Needs nothing; reaches this machine only.
    Loopback,
}

/// What a node's range is cut from.
#[derive(Clone, Debug)]
pub struct RangeConfig {
    /// The range of the cluster's pods.
    pub cluster: Ipv4Net,
    /// The range to use where routes cannot be made.
    pub loopback: Ipv4Net,
    /// Which part of the range is this node's; the first node is 0.
    pub node_index: u32,
    /// The prefix length of a node's part; `None`: by `max_pods`.
    pub node_prefix: Option<u8>,
    /// How many pods the node may hold.
    pub max_pods: u32,
    /// How addresses are made local.
    pub addressing: Addressing,
    /// The node's own address; `None`: the one that the kernel uses towards the outside.
    pub node_address: Option<IpAddr>,
}

impl Default for RangeConfig {
    fn default() -> Self {
        Self {
            cluster: net(Ipv4Addr::new(10, 42, 0, 0), 16),
            loopback: net(Ipv4Addr::new(127, 42, 0, 0), 16),
            node_index: 0,
            node_prefix: None,
            max_pods: 110,
            addressing: Addressing::Auto,
            node_address: None,
        }
    }
}

/// A network from an address and a prefix that are known to be right; a wrong prefix is a /32.
fn net(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new(address, prefix).unwrap_or_else(|_| Ipv4Net::from(address))
}

/// The prefix length of a node's part: a /24, as everywhere, or as much larger as its pods need.
/// A quarter is kept in reserve, because a released address rests before it is used again.
pub fn node_prefix(max_pods: u32) -> u8 {
    if max_pods <= 250 {
        return 24;
    }
    let wanted = u64::from(max_pods) + u64::from(max_pods) / 4 + 2;
    let bits = u64::BITS - (wanted - 1).leading_zeros();
    u8::try_from(32_u32.saturating_sub(bits)).unwrap_or(0)
}

/// The `index`th part of `whole` with the given prefix length.
pub fn part(whole: Ipv4Net, prefix: u8, index: u32) -> Result<Ipv4Net, NetworkError> {
    if prefix < whole.prefix_len() || prefix > 30 {
        return Err(NetworkError::Config(format!(
            "a node needs a /{prefix} of pod addresses, which the range {whole} does not hold; \
             give a larger range or fewer pods per node"
        )));
    }
    let parts = 1_u64 << (prefix - whole.prefix_len());
    if u64::from(index) >= parts {
        return Err(NetworkError::Config(format!(
            "the pod range {whole} has {parts} parts of /{prefix}; node number {index} gets none"
        )));
    }
    let base = u32::from(whole.network()) | (index << (32 - u32::from(prefix)));
    Ok(net(Ipv4Addr::from(base), prefix))
}

/// The node's part of the cluster's range and of the loopback range.
pub fn node_ranges(config: &RangeConfig) -> Result<(Ipv4Net, Ipv4Net), NetworkError> {
    let prefix = config.node_prefix.unwrap_or_else(|| node_prefix(config.max_pods));
    if !config.loopback.addr().is_loopback() {
        return Err(NetworkError::Config(format!("{} is no loopback range", config.loopback)));
    }
    Ok((part(config.cluster, prefix, config.node_index)?, part(config.loopback, prefix, config.node_index)?))
}

/// What comes of the attempt to make the routed range local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The routed range is local.
    Routed,
    /// The loopback range is used; why.
    Loopback {
        /// For people.
        why: String,
    },
    /// Nothing can be used; why.
    Refused {
        /// For people.
        why: String,
    },
}

/// Decides by what was asked for and what came of the attempt (not made: `None`).
pub fn choose(asked: Addressing, attempt: Option<Result<(), String>>) -> Choice {
    match (asked, attempt) {
        (Addressing::Loopback, _) => Choice::Loopback { why: "loopback addresses were asked for".into() },
        (_, Some(Ok(()))) => Choice::Routed,
        (Addressing::Auto, Some(Err(why))) => Choice::Loopback { why },
        (Addressing::Auto, None) => Choice::Loopback { why: "no attempt at a local route was made".into() },
        (Addressing::Routed, Some(Err(why))) => Choice::Refused { why },
        (Addressing::Routed, None) => Choice::Refused { why: "no attempt at a local route was made".into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_a_slash_24_unless_it_holds_more_pods() {
        for (pods, prefix) in [(1, 24), (110, 24), (250, 24), (251, 23), (400, 23), (1000, 21), (10_000, 18)]
        {
            assert_eq!(node_prefix(pods), prefix, "{pods} pods");
        }
        for pods in [251_u32, 500, 1000, 10_000, 50_000] {
            let size = 1_u64 << (32 - node_prefix(pods));
            assert!(size >= u64::from(pods) + 2, "{pods}");
        }
    }

    #[test]
    fn each_node_has_its_own_part() {
        let whole = "10.42.0.0/16".parse().unwrap();
        assert_eq!(part(whole, 24, 0).unwrap().to_string(), "10.42.0.0/24");
        assert_eq!(part(whole, 24, 7).unwrap().to_string(), "10.42.7.0/24");
        assert_eq!(part(whole, 18, 3).unwrap().to_string(), "10.42.192.0/18");
        assert!(part(whole, 24, 256).is_err());
        assert!(part(whole, 15, 0).is_err());
        assert!(part(whole, 31, 0).is_err());
    }

    #[test]
    fn both_ranges_are_cut_alike() {
        let config = RangeConfig { node_index: 2, max_pods: 10_000, ..Default::default() };
        let (routed, loopback) = node_ranges(&config).unwrap();
        assert_eq!(routed.to_string(), "10.42.128.0/18");
        assert_eq!(loopback.to_string(), "127.42.128.0/18");
        let wrong = RangeConfig { loopback: "10.0.0.0/16".parse().unwrap(), ..Default::default() };
        assert!(node_ranges(&wrong).is_err());
    }

    #[test]
    fn falling_back_says_why_and_a_demand_is_not_softened() {
        let denied = || Some(Err("Operation not permitted".to_owned()));
        assert_eq!(choose(Addressing::Auto, Some(Ok(()))), Choice::Routed);
        assert_eq!(choose(Addressing::Routed, Some(Ok(()))), Choice::Routed);
        assert_eq!(
            choose(Addressing::Auto, denied()),
            Choice::Loopback { why: "Operation not permitted".into() }
        );
        assert_eq!(
            choose(Addressing::Routed, denied()),
            Choice::Refused { why: "Operation not permitted".into() }
        );
        assert!(matches!(choose(Addressing::Loopback, None), Choice::Loopback { .. }));
        assert!(matches!(choose(Addressing::Routed, None), Choice::Refused { .. }));
    }
}
