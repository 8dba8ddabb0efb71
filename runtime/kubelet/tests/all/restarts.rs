//! The agent stops, crashes, and comes back.

use sampan_cri::ContainerState;
use serde_json::json;

use crate::harness::{TestNode, eventually};

#[tokio::test]
async fn pods_come_back_after_the_agent_crashed() {
    let node = TestNode::start().await;
    node.simple("other", "Always", &["run"]);
    node.phase("other", "Running").await;
    node.simple("p", "Always", &["run"]);
    let before = node.phase("p", "Running").await;
    let node = node.crash().await;
    let pod = node
        .until("p", "a restart", |pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["restartCount"] == 1 && container["state"]["running"].is_object()
        })
        .await;
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"], "its address stays");
    assert_eq!(pod["status"]["startTime"], before["status"]["startTime"]);
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((last["exitCode"].as_i64(), last["reason"].as_str()), (Some(255), Some("Unknown")));
}

#[tokio::test]
async fn pods_that_run_once_are_failed_by_a_crash() {
    let node = TestNode::start().await;
    node.simple("p", "Never", &["run"]);
    node.phase("p", "Running").await;
    let node = node.crash().await;
    let pod = node.phase("p", "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 255);
}

#[tokio::test]
async fn a_stopping_agent_ends_its_pods_without_reporting_them_ended() {
    let node = TestNode::start().await;
    node.simple("p", "OnFailure", &["polite"]);
    node.simple("q", "Always", &["run"]);
    node.phase("p", "Running").await;
    node.phase("q", "Running").await;
    let left = node.stop().await;
    let running =
        left.1.containers().iter().filter(|c| !matches!(c.status.state, ContainerState::Exited(_))).count();
    assert_eq!(running, 0, "all were asked to end");
    for name in ["p", "q"] {
        assert_eq!(left.0.get("pods", "ns", name).unwrap()["status"]["phase"], "Running");
    }
    let node = TestNode::start_again(left).await;
    for name in ["p", "q"] {
        node.until(name, "back", |pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["restartCount"] == 1 && container["state"]["running"].is_object()
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_left_of_pods_that_are_gone_is_removed() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    let pod = node.phase("p", "Running").await;
    node.runtime.print("a", "hello");
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let left = node.stop().await;
    assert!(left.2.path().join("pods").join(&uid).exists());
    left.0.delete_pod("ns", "p", 0);
    let node = TestNode::start_again(left).await;
    eventually("no sandboxes", || node.runtime.sandboxes().is_empty().then_some(()), String::new).await;
    let gone = || !node.path().join("pods").join(&uid).exists();
    eventually("no directory", || gone().then_some(()), String::new).await;
    let logs = || std::fs::read_dir(node.path().join("logs")).unwrap().count() == 0;
    eventually("no logs", || logs().then_some(()), String::new).await;
}

#[tokio::test]
async fn finished_pods_stay_finished_and_keep_their_logs() {
    let node = TestNode::start().await;
    node.simple("p", "Never", &["print", "done", "0"]);
    let before = node.phase("p", "Succeeded").await;
    let node = node.crash().await;
    node.simple("q", "Always", &["run"]);
    node.phase("q", "Running").await;
    assert_eq!(node.api.get("pods", "ns", "p").unwrap()["status"], before["status"]);
    assert_eq!(node.ask("/containerLogs/ns/p/a").await, (200, "done\n".into()));
    node.api.delete_pod("ns", "p", 30);
    node.gone("p").await;
    assert!(node.runtime.newest("a").is_some_and(|newest| newest.status.pod.name == "q"));
}

#[tokio::test]
async fn a_pod_deleted_while_the_agent_was_away_ends_when_it_is_back() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    let left = node.stop().await;
    left.0.delete_pod("ns", "p", 30);
    let node = TestNode::start_again(left).await;
    node.gone("p").await;
    assert!(node.runtime.sandboxes().is_empty());
}

#[tokio::test]
async fn only_the_last_two_runs_of_a_container_are_kept() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    let mut node = node;
    for count in 1..=3 {
        node.runtime.print("a", &format!("run {count}"));
        node = node.crash().await;
        node.until("p", "a restart", |pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["restartCount"] == count && container["state"]["running"].is_object()
        })
        .await;
    }
    eventually("two containers", || (node.runtime.containers().len() == 2).then_some(()), String::new).await;
    eventually("two sandboxes", || (node.runtime.sandboxes().len() == 2).then_some(()), String::new).await;
    assert_eq!(node.ask("/containerLogs/ns/p/a?previous=true").await, (200, "run 3\n".into()));
    let pod = node.api.get("pods", "ns", "p").unwrap();
    let directory = format!("ns_p_{}", pod["metadata"]["uid"].as_str().unwrap());
    let logs = || std::fs::read_dir(node.path().join("logs").join(&directory).join("a")).unwrap().count();
    eventually("one log", || (logs() == 1).then_some(json!(null)), String::new).await;
}
