//! Guests' sockets have the pod's address.

use std::net::TcpListener;

use sampan_cri::ContainerConfig;
use sampan_wasm::artifact::Flavor;

use super::node::{Node, container};
use super::text;

/// The codes of `wasi:sockets` 0.2 and 0.3 that the guests add to 100.
const P2_ADDRESS_NOT_BINDABLE: i32 = 111;
const P2_ACCESS_DENIED: i32 = 101;
const P3_ADDRESS_NOT_BINDABLE: i32 = 106;

async fn code(node: &Node, pod: &str, text: &str) -> i32 {
    node.pod(pod).await.run(container(&node.image(Flavor::CommandP2, text))).await.1.code
}

#[tokio::test]
async fn any_and_loopback_are_bound_as_the_pods_own_address() {
    let node = Node::new();
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [127, 42, 6, 77]] {
        assert_eq!(code(&node, "127.42.6.77", &text::binds_tcp_p2(address)).await, 77, "{address:?}");
        assert_eq!(code(&node, "127.42.6.77", &text::binds_tcp_p3(address)).await, 77, "{address:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_the_pods_cannot_be_bound() {
    let node = Node::new();
    let other = [127, 42, 6, 78];
    assert_eq!(code(&node, "127.42.6.77", &text::binds_tcp_p2(other)).await, P2_ADDRESS_NOT_BINDABLE);
    assert_eq!(code(&node, "127.42.6.77", &text::binds_tcp_p3(other)).await, P3_ADDRESS_NOT_BINDABLE);
}

#[tokio::test]
async fn connections_leave_from_the_pods_address() {
    let node = Node::new();
    let other = TcpListener::bind("127.42.6.90:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(code(&node, "127.42.6.77", &text::connects_tcp_p2([127, 42, 6, 90], port)).await, 77);
    assert_eq!(other.accept().unwrap().1.ip().to_string(), "127.42.6.77");
}

#[tokio::test]
async fn the_loopback_address_leads_to_the_pod_itself_and_not_to_the_node() {
    let node = Node::new();
    let own = TcpListener::bind("127.42.6.77:0").unwrap();
    let port = own.local_addr().unwrap().port();
    assert_eq!(code(&node, "127.42.6.77", &text::connects_tcp_p2([127, 0, 0, 1], port)).await, 77);
    let nodes_own = TcpListener::bind("127.0.0.53:0").unwrap();
    let port = nodes_own.local_addr().unwrap().port();
    assert_eq!(
        code(&node, "127.42.6.77", &text::connects_tcp_p2([127, 0, 0, 53], port)).await,
        P2_ACCESS_DENIED
    );
}

/// A container of the test guest with arguments.
fn told(image: &str, name: &str, words: &[&str]) -> ContainerConfig {
    let mut config = container(image);
    config.name = name.into();
    config.log_path = format!("{name}/0.log").into();
    config.args = words.iter().map(|word| (*word).to_owned()).collect();
    config
}

fn stdout(log: Vec<(String, String)>) -> Vec<String> {
    log.into_iter().filter(|(stream, _)| stream == "stdout").map(|(_, line)| line).collect()
}

#[tokio::test]
async fn pods_reach_each_other_by_tcp_and_udp() {
    let node = Node::new();
    let image = node.testguest();
    let (server, client) = (node.pod("127.42.6.101").await, node.pod("127.42.6.102").await);
    for kind in ["tcp", "udp"] {
        let echo = format!("{kind}-echo");
        let serving = server.start(told(&image, &echo, &[&echo, "0.0.0.0:18083", "1"])).await;
        node.logged(&serving, "listening on 127.42.6.101:18083").await;
        let send = format!("{kind}-send");
        let (id, exit) = client.run(told(&image, &send, &[&send, "127.42.6.101:18083", "hello"])).await;
        assert_eq!((exit.code, stdout(node.log(&id).await)), (0, vec!["hello".to_owned()]), "{kind}");
        assert_eq!(node.ended(&serving).await.code, 0);
        let peers = stdout(node.log(&serving).await);
        assert!(kind == "udp" || peers.contains(&"connection from 127.42.6.102".to_owned()), "{peers:?}");
    }
}

#[tokio::test]
async fn a_pod_knows_itself_by_name() {
    let node = Node::new();
    let pod = node.pod("127.42.6.103").await;
    let image = node.testguest();
    for (name, address) in [("pod", "127.42.6.103"), ("localhost", "127.0.0.1"), ("10.9.8.7", "10.9.8.7")] {
        let (id, exit) = pod.run(told(&image, name, &["resolve", name])).await;
        assert_eq!(exit.code, 0);
        let lines = stdout(node.log(&id).await);
        assert!(lines.iter().any(|line| line.starts_with(address)), "{name}: {lines:?}");
    }
    let (_, exit) = pod.run(told(&image, "none", &["resolve", "no-such-name.invalid"])).await;
    assert_eq!(exit.code, 1);
}
