//! DefaultTolerationSeconds: pods stay for five minutes on a node that is lost, unless they say
//! otherwise.

use async_trait::async_trait;
use sampan_api::status::Status;
use serde_json::{Value, json};

use super::{Operation, Plugin, Review};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    async fn admit(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Delete && review.is_core("pods") {
            complete(object);
        }
        Ok(())
    }
}

fn complete(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let tolerations = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
    let Some(tolerations) = tolerations.as_array_mut() else { return };
    let missing: Vec<&str> =
        TAINTS.into_iter().filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint))).collect();
    tolerations.extend(missing.into_iter().map(
        |key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}),
    ));
}

fn tolerates(toleration: &Value, taint: &str) -> bool {
    let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
    ["", taint].contains(&text("key")) && ["", "NoExecute"].contains(&text("effect"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_taints_without_a_toleration_get_one() {
        let cases = [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (
                json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]),
                2,
            ),
            (json!([{"key": "other", "operator": "Exists"}]), 3),
            (
                json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}]),
                3,
            ),
        ];
        for (given, count) in cases {
            let mut pod = json!({"spec": {"tolerations": given}});
            complete(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), count, "{given}");
            let once = pod.clone();
            complete(&mut pod);
            assert_eq!(pod, once);
        }
    }
}
