//! Priority: the number behind a pod's priority class.
//!
//! The two classes of the system exist; PriorityClass objects are not served yet, so that any other
//! name is refused as not found.

use async_trait::async_trait;
use sampan_api::status::Status;
use serde_json::Value;

use super::{Operation, Plugin, Review};

const CLASSES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    async fn admit(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        if review.operation != Operation::Create || !review.is_core("pods") {
            return Ok(());
        }
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let class = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default();
        let value = match CLASSES.iter().find(|(name, _)| *name == class) {
            Some((_, value)) => *value,
            None if class.is_empty() => 0,
            None => return Err(review.forbid(&format!("no PriorityClass with name {class} was found"))),
        };
        let given = spec.get("priority").and_then(Value::as_i64);
        if let Some(given) = given.filter(|given| *given != value) {
            return Err(review.forbid(&format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            )));
        }
        let policy = spec.get("preemptionPolicy").and_then(Value::as_str).unwrap_or(DEFAULT_POLICY);
        if policy != DEFAULT_POLICY {
            return Err(review.forbid(&format!(
                "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority \
                 admission controller computed {DEFAULT_POLICY} from the given PriorityClass name"
            )));
        }
        spec.insert("priority".into(), value.into());
        spec.insert("preemptionPolicy".into(), DEFAULT_POLICY.into());
        Ok(())
    }
}
