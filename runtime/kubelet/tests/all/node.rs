//! The node's own object.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{TestNode, eventually};

fn condition<'a>(node: &'a Value, type_: &str) -> &'a Value {
    let conditions = node["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == type_).unwrap()
}

#[tokio::test]
async fn a_node_registers_with_what_it_has() {
    let node = TestNode::start_with(|config| {
        config.node_labels.insert("disk".into(), "ssd".into());
        config.max_pods = 7;
    })
    .await;
    let object = node.api.get("nodes", "", "n1").unwrap();
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["metadata"]["labels"]["disk"], "ssd");
    assert_eq!(object["status"]["capacity"]["pods"], "7");
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    assert_eq!(object["spec"]["podCIDR"], "127.42.0.0/23");
    assert_eq!(object["status"]["images"][0]["names"], json!(["there:1"]));
    for (type_, status) in
        [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")]
    {
        assert_eq!(condition(&object, type_)["status"], status, "{type_}");
    }
    let lease = eventually("a lease", || node.api.get("leases", "kube-node-lease", "n1"), String::new).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
}

#[tokio::test]
async fn an_idle_node_writes_only_its_lease() {
    let node = TestNode::start_with(|config| {
        config.periods.node_check = Duration::from_millis(20);
        config.periods.lease = Duration::from_millis(20);
    })
    .await;
    let renewed = |times: usize| node.api.writes("PUT", "/leases/") >= times;
    eventually("renewals", || renewed(2).then_some(()), String::new).await;
    let before = node.api.writes("PATCH", "/nodes/");
    eventually("more renewals", || renewed(10).then_some(()), String::new).await;
    assert_eq!(node.api.writes("PATCH", "/nodes/"), before);
}

#[tokio::test]
async fn a_node_that_stops_says_so() {
    let node = TestNode::start().await;
    let (api, ..) = node.stop().await;
    let object = api.get("nodes", "", "n1").unwrap();
    assert_eq!(condition(&object, "Ready")["status"], "False");
    assert_eq!(condition(&object, "Ready")["message"], "node is shutting down");
}

#[tokio::test]
async fn statistics_and_metrics_tell_what_containers_use() {
    let node = TestNode::start().await;
    node.simple("p", "Always", &["run"]);
    node.phase("p", "Running").await;
    let (code, text) = node.ask("/stats/summary").await;
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 200);
    assert_eq!(summary["node"]["nodeName"], "n1");
    assert_eq!(summary["pods"][0]["podRef"]["name"], "p");
    assert_eq!(summary["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"], 1_500_000_000);
    let (_, metrics) = node.ask("/metrics/resource").await;
    assert!(metrics.contains(
        "container_cpu_usage_seconds_total{container=\"a\",namespace=\"ns\",pod=\"p\"} 1.500000000 "
    ));
    assert!(metrics.contains("pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 4096 "));
    let (_, pods) = node.ask("/pods").await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    assert_eq!(node.ask("/healthz").await, (200, "ok".into()));
}
