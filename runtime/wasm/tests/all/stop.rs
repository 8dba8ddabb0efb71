//! How containers are asked to end, and made to.

use std::time::{Duration, Instant};

use sampan_cri::{ContainerRuntime as _, ContainerState};
use sampan_wasm::artifact::Flavor;

use super::node::{Node, PATIENCE, container};
use super::text;

/// Reads standard input until it ends, says so, and then does `then`.
fn reads_stdin(then: &str) -> String {
    text::core(
        "up\\nend\\n",
        &format!(
            "(call $print (i32.const 1) (i32.const 1024) (i32.const 3))
             (loop $again
               (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 64))
               (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
               (br_if $again (i32.load (i32.const 8))))
             (call $print (i32.const 1) (i32.const 1027) (i32.const 4))
             {then}"
        ),
    )
}

#[tokio::test]
async fn a_guest_that_cannot_notice_the_request_ends_at_once() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let id = pod.start(container(&node.image(Flavor::CoreP1, &text::spinner()))).await;
    node.logged(&id, "up").await;
    let asked = Instant::now();
    node.runtime.stop_container(&id, Duration::from_secs(600)).await.unwrap();
    assert!(asked.elapsed() < PATIENCE);
    assert_eq!(node.ended(&id).await.code, 143);
    node.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn standard_input_ends_with_the_request_and_the_guest_exits_by_itself() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let mut config = container(&node.image(Flavor::CoreP1, &reads_stdin("(call $exit (i32.const 5))")));
    config.stdin = true;
    let id = pod.start(config).await;
    node.logged(&id, "up").await;
    // It has to be waiting by now or soon; only then it can notice.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(
        node.runtime.container_status(&id).await.unwrap().state,
        ContainerState::Running { .. }
    ));
    node.runtime.stop_container(&id, PATIENCE).await.unwrap();
    assert_eq!(node.ended(&id).await.code, 5);
    assert!(node.log(&id).await.iter().any(|(_, line)| line == "end"));
}

#[tokio::test]
async fn input_is_at_its_end_from_the_start_unless_asked_for() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let (_, exit) = pod.run(container(&node.image(Flavor::CoreP1, &reads_stdin("")))).await;
    assert_eq!(exit.code, 0);
}

#[tokio::test]
async fn a_guest_that_ignores_the_request_is_killed_after_its_grace() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let mut config = container(&node.image(Flavor::CoreP1, &reads_stdin("(loop (br 0))")));
    config.stdin = true;
    let id = pod.start(config).await;
    node.logged(&id, "up").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.runtime.stop_container(&id, Duration::from_millis(300)).await.unwrap();
    assert_eq!(node.ended(&id).await.code, 137);
}

#[tokio::test]
async fn the_shutdown_pollable_fires_with_the_request() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let id = pod.start(container(&node.image(Flavor::CommandP2, &text::waits_for_shutdown()))).await;
    // Its memory grows once it was told that nobody has asked it to stop.
    let asked = async {
        while node.runtime.container_stats(&id).await.unwrap().memory_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the guest asks");
    node.runtime.stop_container(&id, PATIENCE).await.unwrap();
    assert_eq!(node.ended(&id).await.code, 0);
}

#[tokio::test]
async fn stopping_a_sandbox_kills_what_runs_and_takes_no_more() {
    let node = Node::new();
    let pod = node.pod("127.42.2.1").await;
    let image = node.image(Flavor::CoreP1, &text::spinner());
    let running = pod.start(container(&image)).await;
    let mut created = container(&image);
    created.name = "other".into();
    let created = node.runtime.create_container(&pod.sandbox, created).await.unwrap();
    node.runtime.stop_sandbox(&pod.sandbox).await.unwrap();
    assert_eq!(node.ended(&running).await.code, 137);
    assert_eq!(node.ended(&created).await.code, 143);
    assert!(!node.runtime.list_sandboxes().await.unwrap()[0].ready);
    assert!(node.runtime.create_container(&pod.sandbox, container(&image)).await.is_err());
    node.runtime.remove_sandbox(&pod.sandbox).await.unwrap();
    assert!(node.runtime.list_sandboxes().await.unwrap().is_empty());
    assert!(node.runtime.list_containers(None).await.unwrap().is_empty());
}
