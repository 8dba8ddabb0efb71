//! Pods from their creation to their end.

use serde_json::json;

use crate::harness::{TestNode, eventually};

#[tokio::test]
async fn a_pod_comes_to_run_with_an_address_and_events() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run", "$(HOME)"]);
    let pod = node.phase("p", "Running").await;
    assert_eq!(pod["status"]["podIP"], "127.42.0.1");
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);
    assert!(pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().starts_with("wasm://"));
    assert_eq!(node.event("p", "Pulled").await, "Container image \"there:1\" already present on machine");
    assert_eq!(node.event("p", "Created").await, "Container created");
    assert_eq!(node.event("p", "Started").await, "Container started");
    let sandbox = &node.runtime.sandboxes()[0];
    assert_eq!((sandbox.config.hostname.as_str(), sandbox.config.host_network), ("p", false));
}

#[tokio::test]
async fn a_pod_that_starts_well_costs_few_writes_and_none_while_it_runs() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    assert!(node.api.writes("PATCH", "/pods/p/status") <= 2);
    let before = node.api.writes("PATCH", "/pods/p/status");
    // A change of the object that concerns nobody.
    node.api.edit("pods", "ns", "p", |pod| pod["metadata"]["labels"] = json!({ "x": "y" }));
    node.simple("q", "Always", &["run"]);
    node.phase("q", "Running").await;
    assert_eq!(node.api.writes("PATCH", "/pods/p/status"), before);
}

#[tokio::test]
async fn pods_that_do_not_restart_tell_how_they_ended() {
    let node = TestNode::start().await;
    node.simple("good", "Never", &["exit", "0"]);
    node.simple("bad", "Never", &["say", "last words", "3"]);
    let pod = node.phase("good", "Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let pod = node.phase("bad", "Failed").await;
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((terminated["exitCode"].as_i64(), terminated["reason"].as_str()), (Some(3), Some("Error")));
    assert_eq!(terminated["message"], "last words");
}

#[tokio::test]
async fn the_end_of_the_log_stands_in_for_last_words() {
    let node = TestNode::start().await;
    node.pod(
        "p",
        json!({ "restartPolicy": "Never", "containers": [{
        "name": "a", "image": "there:1", "command": ["print", "it went wrong", "1"],
        "terminationMessagePolicy": "FallbackToLogsOnError"
    }] }),
    );
    let pod = node.phase("p", "Failed").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], "it went wrong\n");
}

#[tokio::test]
async fn a_container_that_crashes_is_restarted_at_once_and_then_waits() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["exit", "1"]);
    let message = node.waiting("p", "CrashLoopBackOff").await;
    assert!(message.starts_with("back-off 10s restarting failed container=a pod=p_ns("), "{message}");
    let pod = node.api.get("pods", "ns", "p").unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    let told = node.event("p", "BackOff").await;
    assert!(told.starts_with("Back-off restarting failed container a in pod p_ns("), "{told}");
}

#[tokio::test]
async fn init_containers_and_sidecars_come_before_the_rest() {
    let node = TestNode::start().await;
    let container =
        |name: &str, command: &[&str]| json!({ "name": name, "image": "there:1", "command": command });
    let mut sidecar = container("s", &["run"]);
    sidecar["restartPolicy"] = json!("Always");
    node.pod(
        "p",
        json!({
            "restartPolicy": "Never",
            "initContainers": [container("i", &["exit", "0"]), sidecar],
            "containers": [container("a", &["run"])]
        }),
    );
    let pod = node.phase("p", "Running").await;
    let init = &pod["status"]["initContainerStatuses"];
    assert_eq!((&init[0]["ready"], &init[0]["started"]), (&json!(true), &json!(false)));
    assert_eq!((&init[1]["ready"], &init[1]["started"]), (&json!(true), &json!(true)));
    let main = node.runtime.newest("a").unwrap();
    node.runtime.end(&main.status.id, 0, "Completed");
    node.phase("p", "Succeeded").await;
    let sidecar = node.runtime.newest("s").unwrap();
    assert!(matches!(sidecar.status.state, sampan_cri::ContainerState::Exited(_)), "stopped with the rest");
}

#[tokio::test]
async fn a_deleted_pod_is_stopped_and_nothing_of_it_is_left() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    let pod = node.phase("p", "Running").await;
    let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
    node.runtime.print("a", "hello");
    assert!(node.path().join("pods").join(&uid).exists());
    node.api.delete_pod("ns", "p", 30);
    node.gone("p").await;
    assert_eq!(node.event("p", "Killing").await, "Stopping container a");
    assert!(node.runtime.containers().is_empty() && node.runtime.sandboxes().is_empty());
    assert!(!node.path().join("pods").join(&uid).exists());
    assert_eq!(std::fs::read_dir(node.path().join("logs")).unwrap().count(), 0);
    assert_eq!(node.api.writes("DELETE", "/pods/p"), 1);
}

#[tokio::test]
async fn a_pod_that_is_forced_out_ends_although_its_object_is_gone() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    node.api.delete_pod("ns", "p", 0);
    eventually("the runtime is empty", || node.runtime.sandboxes().is_empty().then_some(()), String::new)
        .await;
    // Its name is free at once for another pod.
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
}

#[tokio::test]
async fn a_pod_that_ran_too_long_is_failed() {
    let node = TestNode::start().await;
    node.pod(
        "p",
        json!({
            "activeDeadlineSeconds": 1, "restartPolicy": "Always",
            "containers": [{ "name": "a", "image": "there:1", "command": ["run"] }]
        }),
    );
    let pod = node.phase("p", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], "Pod was active on the node longer than the specified deadline");
}

#[tokio::test]
async fn many_pods_at_once_all_come_to_run_with_addresses_of_their_own() {
    let node = TestNode::start_with(|config| config.max_pods = 400).await;
    for n in 0..200 {
        node.simple(&format!("p{n}"), "Always", &["run"]);
    }
    let running = || {
        let pods = node.api.list("pods");
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
        let ips: std::collections::BTreeSet<String> =
            running.map(|pod| pod["status"]["podIP"].to_string()).collect();
        (ips.len() == 200).then_some(())
    };
    eventually("200 pods", running, String::new).await;
}
