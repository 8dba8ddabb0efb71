//! Events: about what, how often, when last.

use jiff::Timestamp;
use sampan_api::time;
use serde_json::Value;

use super::{NAME, column, name, wide};
use crate::registry::strategy::Column;
use crate::validation::view::{int, member, opt_text, part, text};

/// The columns of events. The name comes last, and only in wide output.
pub(crate) const EVENT: &[Column] = &[
    column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    column("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    column(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    column("Object", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    column("Message", "A human-readable description of the status of this operation."),
    wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide("Count", "The number of times this event has occurred."),
    Column { priority: 1, ..NAME },
];

/// The cells of an event.
pub(crate) fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let since = |at: &Value, name: &str| time::age(opt_text(at, name), now);
    let first = if part(event, "firstTimestamp").is_some() {
        since(event, "firstTimestamp")
    } else {
        since(event, "eventTime")
    };
    let count = int(event, "count").unwrap_or_default();
    let (last, count) = match part(event, "series") {
        Some(series) => (since(series, "lastObservedTime"), int(series, "count").unwrap_or_default()),
        None if part(event, "lastTimestamp").is_some() => (since(event, "lastTimestamp"), count.max(1)),
        None => (first.clone(), count.max(1)),
    };
    let involved = member(event, "involvedObject");
    let kind = text(involved, "kind").to_lowercase();
    let about = match text(involved, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        about.into(),
        text(involved, "fieldPath").into(),
        source(event).into(),
        text(event, "message").trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

/// Who reported, and where from.
fn source(event: &Value) -> String {
    let either = |old: &str, new: &str| {
        let said = text(member(event, "source"), old);
        if said.is_empty() { text(event, new).to_owned() } else { said.to_owned() }
    };
    let component = either("component", "reportingComponent");
    match either("host", "reportingInstance") {
        host if host.is_empty() => component,
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_both_apis() {
        let now = "2025-01-01T01:00:00Z".parse().unwrap();
        let old = json!({
            "metadata": {"name": "p.1"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "firstTimestamp": "2025-01-01T00:50:00Z",
            "lastTimestamp": "2025-01-01T00:59:00Z",
            "count": 3,
            "type": "Warning",
            "reason": "BackOff",
            "message": " Back-off \n",
            "source": {"component": "kubelet", "host": "n1"},
        });
        assert_eq!(
            cells(&old, now),
            json!([
                "60s",
                "Warning",
                "BackOff",
                "pod/p",
                "spec.containers{c}",
                "kubelet, n1",
                "Back-off",
                "10m",
                3,
                "p.1"
            ])
            .as_array()
            .unwrap()
            .as_slice()
        );
        let new = json!({
            "metadata": {"name": "n.1"},
            "involvedObject": {"kind": "Node"},
            "eventTime": "2025-01-01T00:00:00.000000Z",
            "series": {"count": 7, "lastObservedTime": "2025-01-01T00:59:55.000000Z"},
            "reportingComponent": "c",
            "type": "Normal",
        });
        assert_eq!(
            cells(&new, now),
            json!(["5s", "Normal", "", "node", "", "c", "", "60m", 7, "n.1"]).as_array().unwrap().as_slice()
        );
        let single = cells(&json!({"eventTime": "2025-01-01T00:00:00.000000Z"}), now);
        assert_eq!((&single[0], &single[8]), (&json!("60m"), &json!(1)));
        assert_eq!(cells(&json!({}), now)[0], "<unknown>");
    }
}
