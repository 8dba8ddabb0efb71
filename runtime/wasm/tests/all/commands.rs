//! How commands start and end.

use sampan_cri::{ContainerResources, ContainerRuntime as _, RuntimeError};
use sampan_wasm::artifact::Flavor;

use super::node::{Node, container};
use super::text;

#[tokio::test]
async fn exit_codes_arrive_whole_from_every_kind_of_guest() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let exits = |code: i32| text::core("", &format!("(call $exit (i32.const {code}))"));
    let cases = [
        (Flavor::CoreP1, text::core("", ""), 0, "Completed"),
        (Flavor::CoreP1, exits(3), 3, "Error"),
        (Flavor::CoreP1, exits(200), 200, "Error"),
        (Flavor::CommandP2, text::exit_with_code(0), 0, "Completed"),
        (Flavor::CommandP2, text::exit_with_code(77), 77, "Error"),
        (Flavor::CommandP3, text::p3_command(0), 0, "Completed"),
        (Flavor::CommandP3, text::p3_command(1), 1, "Error"),
    ];
    for (flavor, text, code, reason) in cases {
        let (_, exit) = pod.run(container(&node.image(flavor, &text))).await;
        assert_eq!((exit.code, exit.reason.as_str()), (code, reason), "{flavor:?}");
        assert!(exit.started_at.unwrap() <= exit.finished_at);
    }
}

#[tokio::test]
async fn traps_are_errors_with_their_text_in_the_log() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let cases = [
        ("unreachable", 134, "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", 134, "divide by zero"),
        ("(drop (call $recurse (i32.const 0)))", 139, "stack"),
    ];
    for (attempt, (start, code, text)) in cases.into_iter().enumerate() {
        let mut config = container(&node.image(Flavor::CoreP1, &text::core("", start)));
        config.log_path = format!("guest/{attempt}.log").into();
        let (id, exit) = pod.run(config).await;
        assert_eq!((exit.code, exit.reason.as_str()), (code, "Error"), "{exit:?}");
        assert!(exit.message.contains(text), "{exit:?}");
        let log = node.log(&id).await;
        assert!(log.iter().any(|(stream, line)| stream == "stderr" && line.contains(text)), "{log:?}");
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_is_an_out_of_memory_kill() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let grows = "(loop (drop (memory.grow (i32.const 16))) (br 0))";
    let mut config = container(&node.image(Flavor::CoreP1, &text::core("", grows)));
    config.resources = ContainerResources { memory_limit_bytes: Some(8 << 20), ..Default::default() };
    let (id, exit) = pod.run(config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
    let stats = node.runtime.container_stats(&id).await.unwrap();
    assert!(stats.memory_peak_bytes > 6 << 20 && stats.memory_peak_bytes <= 8 << 20, "{stats:?}");
    assert_eq!(stats.memory_bytes, 0);
}

#[tokio::test]
async fn a_limit_below_the_initial_memory_kills_at_the_start() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let mut config = container(&node.image(Flavor::CoreP1, &text::core("", "")));
    config.resources = ContainerResources { memory_limit_bytes: Some(65_536), ..Default::default() };
    let (_, exit) = pod.run(config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test]
async fn arguments_and_environment_reach_the_guest() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    // Both come as strings that end with NUL, one after the other.
    let prints = |sizes: &str, get: &str| {
        text::core(
            "\\n",
            &format!(
                "(drop (call {sizes} (i32.const 16) (i32.const 20)))
                 (drop (call {get} (i32.const 4096) (i32.const 8192)))
                 (call $print (i32.const 1) (i32.const 8192) (i32.load (i32.const 20)))
                 (call $print (i32.const 1) (i32.const 1024) (i32.const 1))"
            ),
        )
    };
    let mut config = container(&node.image(Flavor::CoreP1, &prints("$args_sizes", "$args")));
    config.args = vec!["-v".into(), "two words".into()];
    let (id, _) = pod.run(config).await;
    assert_eq!(node.log(&id).await, [("stdout".to_owned(), "/guest.wasm\0-v\0two words\0".to_owned())]);

    let mut config = container(&node.image(Flavor::CoreP1, &prints("$env_sizes", "$env")));
    config.env = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
    config.log_path = "guest/1.log".into();
    let (id, _) = pod.run(config).await;
    assert_eq!(node.log(&id).await, [("stdout".to_owned(), "HOSTNAME=pod\0A=2\0".to_owned())]);
}

#[tokio::test]
async fn an_import_that_the_host_lacks_is_refused_by_name() {
    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let text = r#"(module (import "env" "missing" (func)) (func (export "_start")))"#;
    let config = container(&node.image(Flavor::CoreP1, text));
    let error = node.runtime.create_container(&pod.sandbox, config).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Invalid { why } if why.contains("missing")), "{error}");
}

#[tokio::test]
async fn a_container_is_started_once_and_told_of_twice() {
    use futures::StreamExt as _;
    use sampan_cri::ContainerEvent;

    let node = Node::new();
    let pod = node.pod("127.42.1.1").await;
    let mut events = node.runtime.events();
    let (id, _) = pod.run(container(&node.image(Flavor::CoreP1, &text::core("", "")))).await;
    let started = events.next().await.unwrap();
    let exited = events.next().await.unwrap();
    assert!(matches!(&started, ContainerEvent::Started { container, .. } if *container == id), "{started:?}");
    assert!(matches!(&exited, ContainerEvent::Exited { container, .. } if *container == id), "{exited:?}");
    assert!(matches!(node.runtime.start_container(&id).await, Err(RuntimeError::Start { .. })));
    node.runtime.remove_container(&id).await.unwrap();
    node.runtime.remove_container(&id).await.unwrap();
    assert!(matches!(node.runtime.container_status(&id).await, Err(RuntimeError::NotFound { .. })));
}
