//! A pod's network as its guests see it.
//!
//! A pod has addresses but no network namespace: its sockets live among the node's. So every
//! address that a guest names is translated here: "any" and the loopback address become the
//! pod's own when the guest binds, the loopback address becomes the pod's own when it connects,
//! and connections leave from the pod's own address. Guests of host-network pods are left alone.

mod names;
mod p2;
mod p3;
mod resolve;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use sampan_cri::{PodRef, SandboxConfig};
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::sockets::SocketAddrUse;

use self::names::own_names;
pub use self::resolve::{HostNetwork, ResolveError};

/// What the node decides about its pods' connections and names. The default is
/// [`HostNetwork`].
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// The addresses of a name that is not the pod's own.
    ///
    /// # Errors
    /// When the name does not resolve.
    async fn resolve(&self, pod: &PodRef, name: &str) -> Result<Vec<IpAddr>, ResolveError>;

    /// Whether a pod may send to an address that is not its own.
    fn may_connect(&self, pod: &PodRef, remote: SocketAddr) -> bool;

    /// Whether a pod may be reached from an address.
    fn may_accept(&self, pod: &PodRef, remote: SocketAddr) -> bool;
}

/// One pod's network.
pub(crate) struct PodNet {
    pod: PodRef,
    hostname: String,
    addresses: Vec<IpAddr>,
    host_network: bool,
    host_aliases: Vec<(IpAddr, Vec<String>)>,
    network: Arc<dyn PodNetwork>,
}

impl PodNet {
    /// The network of a sandbox.
    #[must_use]
    pub(crate) fn new(config: &SandboxConfig, network: Arc<dyn PodNetwork>) -> Self {
        Self {
            pod: config.pod.clone(),
            hostname: config.hostname.clone(),
            addresses: config.addresses.clone(),
            host_network: config.host_network,
            host_aliases: config.host_aliases.clone(),
            network,
        }
    }

    /// The pod's host name.
    #[must_use]
    pub(crate) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The pod's primary address.
    #[must_use]
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }

    /// Whether the pod shares the node's network.
    #[must_use]
    pub(crate) fn is_host_network(&self) -> bool {
        self.host_network
    }

    /// The pod's own address of the same family.
    fn own(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == like.is_ipv4())
    }

    /// Where a guest's bind goes; `None` where it names an address that is not the pod's.
    #[must_use]
    pub(crate) fn bind_address(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        let ip = wanted.ip();
        if self.host_network || self.addresses.contains(&ip) {
            return Some(wanted);
        }
        let meant = ip.is_unspecified() || is_localhost(ip);
        let own = self.own(ip).filter(|_| meant)?;
        Some(SocketAddr::new(own, wanted.port()))
    }

    /// Where a guest's connection goes.
    #[must_use]
    pub(crate) fn connect_address(&self, wanted: SocketAddr) -> SocketAddr {
        if self.host_network || !is_localhost(wanted.ip()) {
            return wanted;
        }
        // Without an address of the family, the loopback address stays, and is denied.
        SocketAddr::new(self.own(wanted.ip()).unwrap_or(wanted.ip()), wanted.port())
    }

    /// The address that a connection to `remote` leaves from; `None`: the kernel chooses.
    #[must_use]
    pub(crate) fn source_address(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let own = self.own(remote.ip()).filter(|_| !self.host_network)?;
        Some(SocketAddr::new(own, 0))
    }

    /// Whether a socket may do what it is about to do.
    #[must_use]
    pub(crate) fn permits(&self, address: SocketAddr, use_: SocketAddrUse) -> bool {
        if self.host_network {
            return true;
        }
        let own = self.addresses.contains(&address.ip());
        match use_ {
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => own,
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                own || self.network.may_connect(&self.pod, address)
            }
            SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => {
                own || self.network.may_accept(&self.pod, address)
            }
        }
    }

    /// Resolves a name: address literals, the pod's own names, then the node's.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![address]);
        }
        if name.is_empty() || name.len() > 253 || name.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(ResolveError::Invalid);
        }
        let own = own_names(&name, &self.hostname, &self.addresses, &self.host_aliases);
        if !own.is_empty() {
            return Ok(own);
        }
        self.network.resolve(&self.pod, &name).await
    }

    /// Gives a guest its sockets.
    pub(crate) fn configure(self: &Arc<Self>, builder: &mut WasiCtxBuilder) {
        let net = self.clone();
        builder.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true).socket_addr_check(
            move |address, use_| {
                let permitted = net.permits(address, use_);
                Box::pin(std::future::ready(permitted)) as Pin<Box<dyn Future<Output = bool> + Send + Sync>>
            },
        );
    }
}

/// The one loopback address that guests know; the rest of 127.0.0.0/8 may be other pods.
fn is_localhost(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Puts the pod's view of sockets and names over the stock one.
///
/// # Errors
/// When the linker has no WASI sockets to shadow.
pub(crate) fn add_to_linker(
    linker: &mut wasmtime::component::Linker<crate::guest::Guest>,
) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    p2::add_to_linker(linker)?;
    p3::add_to_linker(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(host_network: bool) -> PodNet {
        let config = SandboxConfig {
            pod: PodRef { namespace: "default".into(), name: "web".into(), uid: "1".into() },
            attempt: 0,
            hostname: "web".into(),
            addresses: vec!["127.42.0.7".parse().unwrap()],
            host_network,
            log_directory: "/tmp".into(),
            host_aliases: vec![("192.0.2.1".parse().unwrap(), vec!["db".into()])],
        };
        PodNet::new(&config, Arc::new(HostNetwork::default()))
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn binds_land_on_the_pods_own_address_or_nowhere() {
        let cases = [
            ("0.0.0.0:80", Some("127.42.0.7:80")),
            ("127.0.0.1:80", Some("127.42.0.7:80")),
            ("127.42.0.7:80", Some("127.42.0.7:80")),
            ("127.42.0.8:80", None),
            ("192.168.1.1:80", None),
            ("[::]:80", None),
        ];
        for (wanted, expected) in cases {
            assert_eq!(net(false).bind_address(address(wanted)), expected.map(address), "{wanted}");
            assert_eq!(net(true).bind_address(address(wanted)), Some(address(wanted)));
        }
    }

    #[test]
    fn the_loopback_address_is_the_pod_itself() {
        assert_eq!(net(false).connect_address(address("127.0.0.1:80")), address("127.42.0.7:80"));
        assert_eq!(net(false).connect_address(address("127.42.0.9:80")), address("127.42.0.9:80"));
        assert_eq!(net(true).connect_address(address("127.0.0.1:80")), address("127.0.0.1:80"));
        assert_eq!(net(false).source_address(address("1.1.1.1:53")), Some(address("127.42.0.7:0")));
        assert_eq!(net(true).source_address(address("1.1.1.1:53")), None);
    }

    #[test]
    fn the_nodes_own_loopback_services_are_out_of_reach() {
        use SocketAddrUse::{TcpAccept, TcpBind, TcpConnect, UdpSend};
        let cases = [
            ("127.42.0.7:80", TcpBind, true),
            ("0.0.0.0:80", TcpBind, false),
            ("127.42.0.9:80", TcpConnect, true),
            ("127.0.0.53:53", UdpSend, false),
            ("127.0.0.1:22", TcpConnect, false),
            ("[::1]:22", TcpConnect, false),
            ("93.184.216.34:80", TcpConnect, true),
            ("127.42.0.9:1234", TcpAccept, true),
        ];
        for (remote, use_, expected) in cases {
            assert_eq!(net(false).permits(address(remote), use_), expected, "{remote} {use_:?}");
            assert!(net(true).permits(address(remote), use_));
        }
    }

    #[tokio::test]
    async fn literals_and_own_names_need_no_resolver() {
        let net = net(false);
        for (name, expected) in [
            ("10.1.2.3", "10.1.2.3"),
            ("localhost", "127.0.0.1"),
            ("web", "127.42.0.7"),
            ("WEB.", "127.42.0.7"),
            ("db", "192.0.2.1"),
        ] {
            assert_eq!(net.resolve(name).await.unwrap(), [expected.parse::<IpAddr>().unwrap()], "{name}");
        }
        for name in ["", "a b", "http://x"] {
            assert!(matches!(net.resolve(name).await, Err(ResolveError::Invalid)), "{name}");
        }
    }
}
