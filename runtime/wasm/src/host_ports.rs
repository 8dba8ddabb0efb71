//! Where a container's ports are reached: on the pod's own address, and on the node's for host
//! ports. A host port of a handler is one more listening socket of the handler; one of a command
//! is a socket of the node that forwards connections to the pod.
//!
//! The node's addresses are bound one by one, never all at once: a socket on every address
//! would take the port away from every pod of the node.

use std::io;
use std::net::{IpAddr, SocketAddr};

use sampan_cri::{ContainerConfig, ContainerPort};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::net::PodNet;

/// The port of a handler that declares none.
const DEFAULT_PORT: u16 = 8080;
const BACKLOG: u32 = 1024;

/// Refuses host ports that cannot be had.
///
/// # Errors
/// A text for the user.
pub(crate) fn check(config: &ContainerConfig) -> Result<(), String> {
    let other = config.ports.iter().find(|port| port.host_port.is_some() && port.protocol != "TCP");
    match other {
        Some(port) => Err(format!("hostPort for {} is not supported, only for TCP", port.protocol)),
        None => Ok(()),
    }
}

/// The addresses on which a handler listens.
pub(crate) fn of_handler(ports: &[ContainerPort], net: &PodNet, node: &[IpAddr]) -> Vec<SocketAddr> {
    let tcp: Vec<_> = ports.iter().filter(|port| port.protocol == "TCP").collect();
    let mut own: Vec<u16> = tcp.iter().map(|port| port.container_port).collect();
    if own.is_empty() {
        own.push(DEFAULT_PORT);
    }
    if net.is_host_network() {
        return addresses(node, own);
    }
    let mut all = addresses(net.address().as_slice(), own);
    all.extend(addresses(node, tcp.iter().filter_map(|port| port.host_port)));
    all
}

fn addresses(at: &[IpAddr], ports: impl IntoIterator<Item = u16>) -> Vec<SocketAddr> {
    ports.into_iter().flat_map(|port| at.iter().map(move |address| SocketAddr::new(*address, port))).collect()
}

/// Which connections to the node are forwarded to a command's pod: from, to.
pub(crate) fn of_command(
    ports: &[ContainerPort],
    net: &PodNet,
    node: &[IpAddr],
) -> Vec<(SocketAddr, SocketAddr)> {
    let Some(pod) = net.address().filter(|_| !net.is_host_network()) else { return vec![] };
    let forward = |port: &ContainerPort| {
        let target = SocketAddr::new(pod, port.container_port);
        port.host_port
            .map(|host_port| addresses(node, [host_port]).into_iter().map(move |from| (from, target)))
    };
    ports.iter().filter(|port| port.protocol == "TCP").filter_map(forward).flatten().collect()
}

/// Listens on an address.
///
/// # Errors
/// When it cannot be had, with the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))
}

/// Forwarded ports of a command.
pub(crate) struct Forwards {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Forwards connections. Called where the runtime of the handlers is entered.
///
/// # Errors
/// When an address cannot be had; then nothing is forwarded.
pub(crate) fn forward(pairs: &[(SocketAddr, SocketAddr)]) -> io::Result<Forwards> {
    let bound = pairs.iter().map(|(from, to)| Ok((bind(*from)?, *to)));
    let forwards = Forwards { stop: CancellationToken::new(), tasks: TaskTracker::new() };
    for (listener, target) in bound.collect::<io::Result<Vec<_>>>()? {
        let (stop, tasks) = (forwards.stop.clone(), forwards.tasks.clone());
        forwards.tasks.spawn(async move {
            stop.run_until_cancelled(accept(listener, target, &stop, &tasks)).await;
        });
    }
    Ok(forwards)
}

impl Forwards {
    /// Closes sockets and connections; when it returns, the ports are free again.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, stop: &CancellationToken, tasks: &TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stop = stop.clone();
                tasks.spawn(async move {
                    if let Some(Err(error)) = stop.run_until_cancelled(carry(stream, target)).await {
                        tracing::debug!(%target, %error, "a forwarded connection ended early");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections to a host port");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn carry(mut stream: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut pod = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    pod.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut pod).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampan_cri::{PodRef, SandboxConfig};

    use super::*;
    use crate::net::HostNetwork;

    fn net(host_network: bool) -> PodNet {
        let config = SandboxConfig {
            pod: PodRef { namespace: "default".into(), name: "web".into(), uid: "1".into() },
            attempt: 0,
            hostname: "web".into(),
            addresses: vec!["127.42.0.7".parse().unwrap()],
            host_network,
            log_directory: "/tmp".into(),
            host_aliases: vec![],
        };
        PodNet::new(&config, Arc::new(HostNetwork::default()))
    }

    fn port(container_port: u16, host_port: Option<u16>, protocol: &str) -> ContainerPort {
        ContainerPort { name: None, container_port, host_port, protocol: protocol.into() }
    }

    fn texts(addresses: &[SocketAddr]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_handler_listens_on_the_pod_and_for_host_ports_on_the_node() {
        let node: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let ports = [port(80, Some(8000), "TCP"), port(53, None, "UDP"), port(81, None, "TCP")];
        assert_eq!(
            texts(&of_handler(&ports, &net(false), &node)),
            ["127.42.0.7:80", "127.42.0.7:81", "127.0.0.1:8000", "192.0.2.1:8000"]
        );
        assert_eq!(texts(&of_handler(&[], &net(false), &node)), ["127.42.0.7:8080"]);
        assert_eq!(
            texts(&of_handler(&[port(80, Some(80), "TCP")], &net(true), &node)),
            ["127.0.0.1:80", "192.0.2.1:80"]
        );
    }

    #[test]
    fn a_commands_host_ports_lead_to_its_pod() {
        let node: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap()];
        let ports = [port(80, Some(8000), "TCP"), port(81, None, "TCP")];
        let forwarded = of_command(&ports, &net(false), &node);
        assert_eq!(forwarded, [("127.0.0.1:8000".parse().unwrap(), "127.42.0.7:80".parse().unwrap())]);
        assert_eq!(of_command(&ports, &net(true), &node), []);
    }
}
