//! Guests' sockets have the pod's address.

use std::net::TcpListener;

use sampan_wasm::artifact::Flavor;

use super::guests;
use super::node::{Node, container};

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
        assert_eq!(code(&node, "127.42.6.77", &guests::binds_tcp_p2(address)).await, 77, "{address:?}");
        assert_eq!(code(&node, "127.42.6.77", &guests::binds_tcp_p3(address)).await, 77, "{address:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_the_pods_cannot_be_bound() {
    let node = Node::new();
    let other = [127, 42, 6, 78];
    assert_eq!(code(&node, "127.42.6.77", &guests::binds_tcp_p2(other)).await, P2_ADDRESS_NOT_BINDABLE);
    assert_eq!(code(&node, "127.42.6.77", &guests::binds_tcp_p3(other)).await, P3_ADDRESS_NOT_BINDABLE);
}

#[tokio::test]
async fn connections_leave_from_the_pods_address() {
    let node = Node::new();
    let other = TcpListener::bind("127.42.6.90:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(code(&node, "127.42.6.77", &guests::connects_tcp_p2([127, 42, 6, 90], port)).await, 77);
    assert_eq!(other.accept().unwrap().1.ip().to_string(), "127.42.6.77");
}

#[tokio::test]
async fn the_loopback_address_leads_to_the_pod_itself_and_not_to_the_node() {
    let node = Node::new();
    let own = TcpListener::bind("127.42.6.77:0").unwrap();
    let port = own.local_addr().unwrap().port();
    assert_eq!(code(&node, "127.42.6.77", &guests::connects_tcp_p2([127, 0, 0, 1], port)).await, 77);
    let nodes_own = TcpListener::bind("127.0.0.53:0").unwrap();
    let port = nodes_own.local_addr().unwrap().port();
    assert_eq!(
        code(&node, "127.42.6.77", &guests::connects_tcp_p2([127, 0, 0, 53], port)).await,
        P2_ACCESS_DENIED
    );
}
