//! Events: one object, two APIs.

use serde_json::{Value, json};

use crate::harness::{cluster, names};

const CORE: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn core_event(name: &str, pod: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": "default", "apiVersion": "v1"},
        "reason": "Started", "message": "Started container", "type": "Normal", "count": 3,
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:05Z",
    })
}

#[tokio::test]
async fn an_event_of_the_core_api_is_seen_in_the_new_one() {
    let c = cluster().await;
    let made = c.post(CORE, &core_event("e", "p")).await.expect(201);
    let seen = c.get(&format!("{NEW}/e")).await.expect(200);
    assert_eq!(seen["apiVersion"], "events.k8s.io/v1");
    assert_eq!(seen["regarding"]["name"], "p");
    assert_eq!(seen["note"], "Started container");
    assert_eq!(seen["deprecatedCount"], 3);
    assert_eq!(seen["deprecatedSource"]["component"], "kubelet");
    assert_eq!(seen["metadata"], made["metadata"]);
    let list = c.get(NEW).await.expect(200);
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"][0]["note"], "Started container");
}

#[tokio::test]
async fn an_event_of_the_new_api_is_seen_in_the_core_one() {
    let c = cluster().await;
    let mut watch = c.watch(&format!("{CORE}?watch=true")).await;
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "sampan.dev/test",
        "reportingInstance": "i", "action": "Testing", "reason": "Tested", "note": "n", "type": "Normal",
    });
    let made = c.post(NEW, &event).await.expect(201);
    assert_eq!(made["note"], "n");
    let seen = watch.next().await.unwrap()["object"].clone();
    assert_eq!(seen["apiVersion"], "v1");
    assert_eq!(seen["involvedObject"]["name"], "p");
    assert_eq!(seen["message"], "n");
    assert_eq!(seen["reportingComponent"], "sampan.dev/test");
    let patched = c
        .patch(
            &format!("{NEW}/e"),
            "merge-patch",
            &json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}),
        )
        .await;
    assert_eq!(patched.expect(200)["series"]["count"], 2);
}

#[tokio::test]
async fn events_are_selected_by_what_they_are_about() {
    let c = cluster().await;
    for (name, pod) in [("a", "p"), ("b", "q")] {
        c.post(CORE, &core_event(name, pod)).await.expect(201);
    }
    for (path, expected) in [
        (format!("{CORE}?fieldSelector=involvedObject.name%3Dp,involvedObject.uid%3D"), vec!["a"]),
        (format!("{CORE}?fieldSelector=involvedObject.name!%3Dp,type%3DNormal"), vec!["b"]),
        (format!("{NEW}?fieldSelector=regarding.name%3Dq"), vec!["b"]),
    ] {
        assert_eq!(names(&c.get(&path).await.expect(200)), expected, "{path}");
    }
}
