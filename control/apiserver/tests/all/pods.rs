//! Pods: admission, binding, graceful deletion, status, logs.

use serde_json::{Value, json};

use crate::harness::{cluster, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_pod_gets_its_account_its_token_and_its_tolerations() {
    let c = cluster().await;
    let refused = c.post(PODS, &pod("p")).await;
    assert_eq!(
        refused.refusal(403, "Forbidden"),
        "pods \"p\" is forbidden: error looking up service account default/default: serviceaccount \"default\" not found"
    );
    c.service_account().await;
    let made = c.pod("p").await;
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(made["status"]["phase"], "Pending");

    let mut classy = pod("q");
    classy["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(c.post(PODS, &classy).await.expect(201)["spec"]["priority"], 2_000_001_000);
    classy["metadata"]["name"] = json!("r");
    classy["spec"]["priorityClassName"] = json!("golden");
    let text = c.post(PODS, &classy).await.refusal(403, "Forbidden");
    assert!(text.ends_with("no PriorityClass with name golden was found"), "{text}");
}

#[tokio::test]
async fn a_pod_is_bound_to_one_node() {
    let c = cluster().await;
    c.service_account().await;
    c.pod("p").await;
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/p/binding");
    assert_eq!(c.post(&path, &binding).await.expect(201)["status"], "Success");
    let bound = c.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|x| x["type"] == "PodScheduled" && x["status"] == "True"));
    let text = c.post(&path, &binding).await.refusal(409, "Conflict");
    assert!(text.ends_with("pod p is already assigned to node \"n1\""), "{text}");
    let list = c.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    c.post(&format!("{PODS}/p/binding"), &json!({"metadata": {"name": "p"}, "target": {}}))
        .await
        .refusal(422, "Invalid");
}

#[tokio::test]
async fn a_running_pod_is_given_time_and_the_time_can_be_cut() {
    let c = cluster().await;
    c.service_account().await;
    c.pod("p").await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
    c.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    let path = format!("{PODS}/p");
    let ending = c.delete(&path, &json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!(ending["kind"], "Pod");
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let before = c.storage.revision();
    c.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(c.storage.revision(), before);
    let shorter = c.delete(&path, &json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(
        shorter["metadata"]["deletionTimestamp"].as_str() < ending["metadata"]["deletionTimestamp"].as_str()
    );
    c.delete(&path, &json!({"gracePeriodSeconds": 0})).await.expect(200);
    c.get(&path).await.refusal(404, "NotFound");

    // A pod that never ran needs no time.
    c.pod("q").await;
    c.delete(&format!("{PODS}/q"), &Value::Null).await.expect(200);
    c.get(&format!("{PODS}/q")).await.refusal(404, "NotFound");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let c = cluster().await;
    c.service_account().await;
    let made = c.pod("p").await;
    let mut changed = made.clone();
    changed["status"]["phase"] = json!("Running");
    changed["metadata"]["labels"] = json!({"a": "b"});
    let path = format!("{PODS}/p");
    let main = c.put(&path, &changed).await.expect(200);
    assert_eq!(main["status"]["phase"], "Pending");
    assert_eq!(main["metadata"]["labels"]["a"], "b");
    let patch = json!({"status": {"phase": "Running"}, "spec": {"nodeName": "sneaky"}});
    let status = c.patch(&format!("{path}/status"), "merge-patch", &patch).await.expect(200);
    assert_eq!(status["status"]["phase"], "Running");
    assert!(status["spec"]["nodeName"].is_null());
    let image = json!([{"op": "replace", "path": "/spec/containers/0/command", "value": ["x"]}]);
    c.patch(&path, "json-patch", &image).await.refusal(422, "Invalid");
}

#[tokio::test]
async fn logs_come_from_the_pods_node() {
    let c = cluster().await;
    c.service_account().await;
    c.pod("p").await;
    let path = format!("{PODS}/p/log");
    assert!(c.get(&path).await.text.is_empty());
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
    c.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    c.get(&path).await.refusal(503, "ServiceUnavailable");
    c.nodes.answers.lock().insert("n1".into(), (200, "hello\n".into()));
    let answer = c.get(&format!("{path}?tailLines=5&timestamps=true")).await;
    assert_eq!(answer.code, 200);
    assert_eq!(&answer.text[..], b"hello\n");
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let asked = c.nodes.asked.lock().last().cloned().unwrap();
    assert_eq!(
        asked,
        ("n1".to_owned(), "/containerLogs/default/p/main?timestamps=true&tailLines=5".to_owned())
    );
    let waiting = "container \"main\" in pod \"p\" is waiting to start: ContainerCreating";
    c.nodes.answers.lock().insert("n1".into(), (400, waiting.into()));
    assert_eq!(c.get(&path).await.refusal(400, "BadRequest"), waiting);
    c.get(&format!("{path}?tailLines=-1")).await.refusal(422, "Invalid");
    c.get(&format!("{path}?container=x")).await.refusal(400, "BadRequest");
    c.get(&format!("{PODS}/none/log")).await.refusal(404, "NotFound");
}
