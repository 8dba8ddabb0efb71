//! CPU limits hold. Nothing here says how fast a machine is: only how much of it is used.

use std::time::{Duration, Instant};

use sampan_cri::{ContainerId, ContainerResources, ContainerRuntime as _};
use sampan_wasm::artifact::Flavor;

use super::node::{Node, Pod, container};
use super::text;

fn limited(millis: u64) -> ContainerResources {
    ContainerResources { cpu_limit_millis: Some(millis), ..Default::default() }
}

async fn spin(pod: &Pod<'_>, image: &str, name: &str, resources: ContainerResources) -> ContainerId {
    let mut config = container(image);
    config.name = name.into();
    config.log_path = format!("{name}/0.log").into();
    config.resources = resources;
    pod.start(config).await
}

async fn used(node: &Node, id: &ContainerId) -> Duration {
    Duration::from_nanos(node.runtime.container_stats(id).await.unwrap().cpu_nanos)
}

#[tokio::test]
async fn a_busy_guest_uses_no_more_than_its_limit() {
    let node = Node::new();
    let pod = node.pod("127.42.7.1").await;
    let image = node.image(Flavor::CoreP1, &text::spinner());
    let started = Instant::now();
    let small = spin(&pod, &image, "small", limited(50)).await;
    let large = spin(&pod, &image, "large", limited(250)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (small, large) = (used(&node, &small).await, used(&node, &large).await);
    let wall = started.elapsed();
    // The burst and one slice on top.
    let slack = Duration::from_millis(60);
    assert!(small <= wall * 50 / 1000 + slack, "{small:?} of {wall:?}");
    assert!(large <= wall * 250 / 1000 + slack, "{large:?} of {wall:?}");
    assert!(small > Duration::ZERO && large > Duration::ZERO);
}

#[tokio::test]
async fn a_limit_can_be_changed_while_the_guest_runs() {
    let node = Node::new();
    let pod = node.pod("127.42.7.1").await;
    let image = node.image(Flavor::CoreP1, &text::spinner());
    let id = spin(&pod, &image, "spinner", ContainerResources::default()).await;
    node.logged(&id, "up").await;
    node.runtime.update_resources(&id, limited(20)).await.unwrap();
    // What was charged before the change is not held against it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, started) = (used(&node, &id).await, Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = used(&node, &id).await - before;
    assert!(spent <= started.elapsed() * 20 / 1000 + Duration::from_millis(60), "{spent:?}");
}

#[tokio::test]
async fn busy_guests_do_not_hold_up_the_node_nor_each_other() {
    let node = Node::with(|config| config.threads = 1);
    let pod = node.pod("127.42.7.1").await;
    let image = node.image(Flavor::CoreP1, &text::spinner());
    for number in 0..20 {
        spin(&pod, &image, &format!("spinner-{number}"), ContainerResources::default()).await;
    }
    let exits = node.image(Flavor::CoreP1, &text::core("", "(call $exit (i32.const 4))"));
    let (_, exit) = pod.run(container(&exits)).await;
    assert_eq!(exit.code, 4);
}
