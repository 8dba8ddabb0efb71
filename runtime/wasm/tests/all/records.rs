//! What a node knows after it came back.

use std::time::Duration;

use sampan_cri::{ContainerRuntime as _, ContainerState};
use sampan_wasm::artifact::Flavor;

use super::node::{Node, container};
use super::text;

#[tokio::test]
async fn containers_of_an_earlier_run_are_listed_with_what_became_of_them() {
    let node = Node::new();
    let pod = node.pod("127.42.3.1").await;
    let exits = node.image(Flavor::CoreP1, &text::core("", "(call $exit (i32.const 9))"));
    let (ended, exit) = pod.run(container(&exits)).await;
    let mut config = container(&node.image(Flavor::CoreP1, &text::spinner()));
    config.name = "spinner".into();
    config.log_path = "spinner/0.log".into();
    let spinning = pod.start(config).await;
    node.logged(&spinning, "up").await;

    let back = node.restarted();
    let status = back.runtime.container_status(&ended).await.unwrap();
    let ContainerState::Exited(known) = status.state else { panic!("{status:?}") };
    assert_eq!((known.code, known.reason), (9, "Error".to_owned()));
    assert!(exit.finished_at.duration_since(known.finished_at).unwrap() < Duration::from_millis(2));

    let status = back.runtime.container_status(&spinning).await.unwrap();
    let ContainerState::Exited(lost) = status.state else { panic!("{status:?}") };
    assert_eq!((lost.code, lost.reason.as_str()), (255, "Unknown"));
    assert_eq!(status.name, "spinner");
    assert!(back.log(&spinning).await.iter().any(|(_, line)| line == "up"));

    let sandboxes = back.runtime.list_sandboxes().await.unwrap();
    assert_eq!((sandboxes.len(), sandboxes[0].ready), (1, false));
    assert_eq!(back.runtime.list_containers(Some(&pod.sandbox)).await.unwrap().len(), 2);
    back.runtime.remove_sandbox(&pod.sandbox).await.unwrap();
    assert!(back.restarted().runtime.list_containers(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_torn_record_is_forgotten_and_does_not_stop_the_node() {
    let node = Node::new();
    node.pod("127.42.3.1").await;
    std::fs::write(node.path("runtime/containers/torn.json"), "{\"id\":").unwrap();
    std::fs::write(node.path("runtime/containers/half.tmp"), "").unwrap();
    let back = node.restarted();
    assert!(back.runtime.list_containers(None).await.unwrap().is_empty());
    assert_eq!(back.runtime.list_sandboxes().await.unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(node.path("runtime/containers")).unwrap().count(), 0);
}
