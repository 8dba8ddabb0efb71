//! HTTP handlers.

use std::time::Duration;

use sampan_cri::{ContainerConfig, ContainerPort, ContainerResources, ContainerRuntime as _, RuntimeError};
use sampan_wasm::artifact::Flavor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::node::{Node, PATIENCE, container};
use super::text;

fn serving(image: &str, ports: &[u16]) -> ContainerConfig {
    let mut config = container(image);
    let port = |port: &u16| ContainerPort {
        name: None,
        container_port: *port,
        host_port: None,
        protocol: "TCP".into(),
    };
    config.ports = ports.iter().map(port).collect();
    config
}

/// Counts its requests: 201, 202, …
const COUNTS: &str = "(call $answer (local.get $out) (i32.add (i32.const 200) (local.get $n)))";

async fn status(address: &str) -> u16 {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("an answer")
}

#[tokio::test]
async fn a_handler_answers_on_its_ports_and_reuses_its_instance() {
    let node = Node::new();
    let pod = node.pod("127.42.8.1").await;
    let id = pod.start(serving(&node.image(Flavor::HttpP2, &text::handler(COUNTS)), &[18_081, 18_082])).await;
    assert_eq!(status("127.42.8.1:18081").await, 201);
    assert_eq!(status("127.42.8.1:18082").await, 202);
    assert_eq!(status("127.42.8.1:18081").await, 203);
    let stats = node.runtime.container_stats(&id).await.unwrap();
    assert!(stats.cpu_nanos > 0 && stats.memory_bytes >= 65_536, "{stats:?}");
}

#[tokio::test]
async fn a_handler_without_ports_is_at_8080() {
    let node = Node::new();
    let pod = node.pod("127.42.8.2").await;
    pod.start(serving(&node.image(Flavor::HttpP2, &text::handler(COUNTS)), &[])).await;
    assert_eq!(status("127.42.8.2:8080").await, 201);
}

#[tokio::test]
async fn an_idle_handler_has_no_instance_and_no_files() {
    let node = Node::with(|config| config.handlers.idle_timeout = Duration::from_millis(50));
    let pod = node.pod("127.42.8.3").await;
    let id = pod.start(serving(&node.image(Flavor::HttpP2, &text::handler(COUNTS)), &[18_081])).await;
    assert!(!node.path("runtime/files").join(&id.0).exists());
    assert!(!node.path("logs/guest/0.log").exists());
    assert_eq!(status("127.42.8.3:18081").await, 201);
    let idle = async {
        while node.runtime.container_stats(&id).await.unwrap().memory_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.expect("the instance goes");
    assert_eq!(status("127.42.8.3:18081").await, 201);
}

#[tokio::test]
async fn a_trap_is_a_500_with_a_line_in_the_log_and_the_next_request_is_served() {
    let node = Node::new();
    let pod = node.pod("127.42.8.4").await;
    let third_traps = format!("(if (i32.eq (local.get $n) (i32.const 3)) (then unreachable)) {COUNTS}");
    let id = pod.start(serving(&node.image(Flavor::HttpP2, &text::handler(&third_traps)), &[18_081])).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(status("127.42.8.4:18081").await);
    }
    assert_eq!(seen, [201, 202, 500, 201]);
    node.logs(&id, |line| line.contains("unreachable")).await;
}

#[tokio::test]
async fn a_handler_that_never_answers_is_given_up() {
    let node = Node::with(|config| config.handlers.request_timeout = Duration::from_millis(300));
    let pod = node.pod("127.42.8.5").await;
    pod.start(serving(&node.image(Flavor::HttpP2, &text::handler("(loop (br 0))")), &[18_081])).await;
    let mut other = serving(&node.image(Flavor::HttpP2, &text::handler("")), &[18_082]);
    other.name = "silent".into();
    pod.start(other).await;
    assert_eq!(status("127.42.8.5:18081").await, 504);
    assert_eq!(status("127.42.8.5:18082").await, 500);
}

#[tokio::test]
async fn memory_over_all_instances_is_held_against_the_limit() {
    let node = Node::new();
    let pod = node.pod("127.42.8.6").await;
    let grows = "(loop (drop (memory.grow (i32.const 16))) (br 0))";
    let mut config = serving(&node.image(Flavor::HttpP2, &text::handler(grows)), &[18_081]);
    config.resources = ContainerResources { memory_limit_bytes: Some(8 << 20), ..Default::default() };
    let id = pod.start(config).await;
    let _ = TcpStream::connect("127.42.8.6:18081")
        .await
        .unwrap()
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    // The connection may be closed under the request: what counts is the end.
    let ask = async {
        let mut stream = TcpStream::connect("127.42.8.6:18081").await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        stream.read(&mut [0; 64]).await
    };
    let _ = tokio::time::timeout(PATIENCE, ask).await;
    let exit = node.ended(&id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn a_stopped_handler_finishes_what_it_has_begun_and_frees_its_port() {
    let node = Node::new();
    let pod = node.pod("127.42.8.7").await;
    let image = node.image(Flavor::HttpP2, &text::handler(COUNTS));
    let id = pod.start(serving(&image, &[18_081])).await;
    // A connection that is open and idle must not hold the end up.
    let mut idle = TcpStream::connect("127.42.8.7:18081").await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 201");
    node.runtime.stop_container(&id, PATIENCE).await.unwrap();
    assert_eq!(node.ended(&id).await.code, 143);
    assert!(TcpStream::connect("127.42.8.7:18081").await.is_err());
    let mut again = serving(&image, &[18_081]);
    again.attempt = 1;
    pod.start(again).await;
    assert_eq!(status("127.42.8.7:18081").await, 201);
}

#[tokio::test]
async fn a_port_in_use_fails_the_start_with_the_address() {
    let node = Node::new();
    let pod = node.pod("127.42.8.8").await;
    let _taken = std::net::TcpListener::bind("127.42.8.8:18081").unwrap();
    let config = serving(&node.image(Flavor::HttpP2, &text::handler(COUNTS)), &[18_081]);
    let id = node.runtime.create_container(&pod.sandbox, config).await.unwrap();
    let error = node.runtime.start_container(&id).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Start { why } if why.contains("127.42.8.8:18081")), "{error}");
    let exit = node.ended(&id).await;
    assert_eq!((exit.code, exit.reason.as_str()), (128, "ContainerCannotRun"));
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered() {
    let node = Node::with(|config| config.handlers.max_instances = 4);
    let pod = node.pod("127.42.8.9").await;
    let answers = "(call $answer (local.get $out) (i32.const 204))";
    pod.start(serving(&node.image(Flavor::HttpP2, &text::handler(answers)), &[18_081])).await;
    let asks: Vec<_> = (0..64).map(|_| tokio::spawn(status("127.42.8.9:18081"))).collect();
    for ask in asks {
        assert_eq!(ask.await.unwrap(), 204);
    }
}

#[tokio::test]
async fn host_ports_lead_to_handlers_and_commands() {
    let node = Node::with(|config| config.host_addresses = vec!["127.42.8.100".parse().unwrap()]);
    let pod = node.pod("127.42.8.10").await;
    let mut config = serving(&node.image(Flavor::HttpP2, &text::handler(COUNTS)), &[18_081]);
    config.ports[0].host_port = Some(18_091);
    pod.start(config).await;
    assert_eq!(status("127.42.8.100:18091").await, 201);

    let mut config = serving(&node.testguest(), &[18_082]);
    config.name = "echo".into();
    config.log_path = "echo/0.log".into();
    config.args = vec!["tcp-echo".into(), "0.0.0.0:18082".into()];
    config.ports[0].host_port = Some(18_092);
    let id = pod.start(config).await;
    node.logged(&id, "listening on 127.42.8.10:18082").await;
    let mut stream = TcpStream::connect("127.42.8.100:18092").await.unwrap();
    stream.write_all(b"over").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"over");
    node.runtime.stop_container(&id, PATIENCE).await.unwrap();
    assert!(TcpStream::connect("127.42.8.100:18092").await.is_err());
}

#[tokio::test]
async fn handlers_of_the_third_preview_answer_fail_and_are_reused() {
    let node = Node::new();
    let pod = node.pod("127.42.8.11").await;
    let handle = "(if (i32.eq (global.get $count) (i32.const 2)) (then (call $refuse)) (else (call $answer)))
                  (if (i32.eq (global.get $count) (i32.const 4)) (then unreachable))";
    let id = pod.start(serving(&node.image(Flavor::HttpP3, &text::handler_p3(handle)), &[18_081])).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(status("127.42.8.11:18081").await);
    }
    assert_eq!(seen, [201, 500, 203]);
    // The fourth traps after its answer: whichever arrives first, the instance is replaced.
    status("127.42.8.11:18081").await;
    node.logs(&id, |line| line.starts_with("error: request failed: ")).await;
    assert_eq!(status("127.42.8.11:18081").await, 201);
}
