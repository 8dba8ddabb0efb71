//! Events, which two APIs write: the old one may do almost anything, the new one may not.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::names;
use serde_json::Value;

use super::checks::{Errors, each, immutable};
use super::view::{int, member, part, same, text};

const SHORT_MAX: usize = 128;
const MESSAGE_MAX: usize = 1024;

/// Through which API an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `v1`: nothing is asked beyond what always was.
    Core,
    /// `events.k8s.io/v1`: its own rules hold too.
    Events,
}

/// Fields that the new API does not change, by the names of the stored shape and in messages.
const FIXED: &[(&str, &str)] = &[
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("reason", "reason"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// What is wrong with a new event.
pub fn validate(event: &Value, api: Api) -> Vec<FieldError> {
    let mut out = Errors::new();
    of_old(event, &mut out);
    if api == Api::Core {
        return out;
    }
    series(event, &mut out);
    if part(event, "eventTime").is_none() {
        out.push(FieldError::required(&FieldPath::new("eventTime"), ""));
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        let text = format!("has invalid value: {kind}");
        out.push(FieldError::invalid(&FieldPath::new("type"), "", text));
    }
    let source = member(event, "source");
    let set = [
        ("firstTimestamp", part(event, "firstTimestamp").is_some()),
        ("lastTimestamp", part(event, "lastTimestamp").is_some()),
        ("count", int(event, "count").unwrap_or_default() != 0),
        ("source", ["component", "host"].iter().any(|name| !text(source, name).is_empty())),
    ];
    for (name, _) in set.iter().filter(|(_, is_set)| *is_set) {
        out.push(FieldError::invalid(&FieldPath::new(*name), "", "needs to be unset"));
    }
    out
}

/// What is wrong with a changed event.
pub fn validate_update(new: &Value, old: &Value, api: Api) -> Vec<FieldError> {
    let mut out = Errors::new();
    of_old(new, &mut out);
    if api == Api::Core {
        return out;
    }
    if !same(member(new, "series"), member(old, "series")) {
        series(new, &mut out);
    }
    for (name, shown) in FIXED {
        immutable(member(new, name), member(old, name), &FieldPath::new(*shown), &mut out);
    }
    out
}

fn series(event: &Value, out: &mut Errors) {
    let Some(series) = part(event, "series") else { return };
    if int(series, "count").unwrap_or_default() < 2 {
        out.push(FieldError::invalid(&FieldPath::new("series.count"), "", "should be at least 2"));
    }
    if part(series, "lastObservedTime").is_none() {
        out.push(FieldError::required(&FieldPath::new("series.lastObservedTime"), ""));
    }
}

/// What has always held.
fn of_old(event: &Value, out: &mut Errors) {
    let namespace = text(member(event, "metadata"), "namespace");
    let involved = text(member(event, "involvedObject"), "namespace");
    let new_style = part(event, "eventTime").is_some();
    let agrees = match (involved, new_style) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (_, false) => namespace == involved,
        (_, true) => true,
    };
    if !agrees {
        let path = FieldPath::new("involvedObject").child("namespace");
        out.push(FieldError::invalid(&path, involved, "does not match event.namespace"));
    }
    if new_style {
        reporter(event, out);
        bounded(event, "action", "action", out);
        bounded(event, "reason", "reason", out);
        if text(event, "message").len() > MESSAGE_MAX {
            too_long("message", MESSAGE_MAX, out);
        }
    }
    each(&FieldPath::new("namespace"), namespace, names::is_dns1123_subdomain(namespace), out);
}

fn reporter(event: &Value, out: &mut Errors) {
    let path = FieldPath::new("reportingController");
    let controller = text(event, "reportingComponent");
    if controller.is_empty() {
        out.push(FieldError::required(&path, ""));
    }
    each(&path, controller, names::is_qualified_name(controller), out);
    bounded(event, "reportingInstance", "reportingInstance", out);
}

fn bounded(event: &Value, name: &str, shown: &str, out: &mut Errors) {
    let value = text(event, name);
    if value.is_empty() {
        out.push(FieldError::required(&FieldPath::new(shown), ""));
    }
    if value.len() > SHORT_MAX {
        too_long(shown, SHORT_MAX, out);
    }
}

fn too_long(shown: &str, most: usize, out: &mut Errors) {
    let text = format!("can have at most {most} characters");
    out.push(FieldError::invalid(&FieldPath::new(shown), "", text));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::testing::texts;

    fn old_event() -> Value {
        json!({"metadata": {"namespace": "n"}, "involvedObject": {"namespace": "n", "name": "p"}, "reason": "R",
            "count": 1, "firstTimestamp": "2025-01-01T00:00:00Z", "type": "Normal"})
    }

    fn new_event() -> Value {
        json!({"metadata": {"namespace": "n"}, "involvedObject": {"namespace": "n", "name": "p"}, "reason": "R",
            "action": "A", "reportingComponent": "example.com/c", "reportingInstance": "i", "type": "Normal",
            "eventTime": "2025-01-01T00:00:00.000000Z"})
    }

    #[test]
    fn events_of_old_are_about_something_in_their_namespace() {
        assert_eq!(texts(&validate(&old_event(), Api::Core)), [""; 0]);
        for (namespace, involved, good) in
            [("n", "n", true), ("n", "m", false), ("n", "", false), ("default", "", true)]
        {
            let mut event = old_event();
            event["metadata"]["namespace"] = json!(namespace);
            event["involvedObject"]["namespace"] = json!(involved);
            let found = texts(&validate(&event, Api::Core));
            let text = format!(
                "involvedObject.namespace: Invalid value: \"{involved}\": does not match event.namespace"
            );
            assert_eq!(found, if good { vec![] } else { vec![text] }, "{namespace} {involved}");
        }
    }

    #[test]
    fn events_of_the_new_api_say_who_reports_and_what_was_done() {
        assert_eq!(texts(&validate(&new_event(), Api::Events)), [""; 0]);
        let found = texts(&validate(&old_event(), Api::Events));
        assert_eq!(
            found,
            [
                "eventTime: Required value",
                "firstTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        for (name, value, expected) in [
            ("action", json!(""), vec!["action: Required value"]),
            (
                "action",
                json!("x".repeat(129)),
                vec!["action: Invalid value: \"\": can have at most 128 characters"],
            ),
            (
                "message",
                json!("x".repeat(1025)),
                vec!["message: Invalid value: \"\": can have at most 1024 characters"],
            ),
            ("type", json!("Odd"), vec!["type: Invalid value: \"\": has invalid value: Odd"]),
            ("reportingInstance", json!(""), vec!["reportingInstance: Required value"]),
            (
                "series",
                json!({"count": 1}),
                vec![
                    "series.count: Invalid value: \"\": should be at least 2",
                    "series.lastObservedTime: Required value",
                ],
            ),
            ("source", json!({"host": "h"}), vec!["source: Invalid value: \"\": needs to be unset"]),
        ] {
            let mut event = new_event();
            event[name] = value;
            assert_eq!(texts(&validate(&event, Api::Events)), expected, "{name}");
        }
    }

    #[test]
    fn the_new_api_changes_nothing_but_the_series() {
        let mut event = new_event();
        event["series"] = json!({"count": 2, "lastObservedTime": "2025-01-01T00:00:00.000000Z"});
        assert_eq!(texts(&validate_update(&event, &new_event(), Api::Events)), [""; 0]);
        event["message"] = json!("other");
        assert_eq!(
            texts(&validate_update(&event, &new_event(), Api::Events)),
            ["message: Invalid value: \"other\": field is immutable"]
        );
        assert_eq!(texts(&validate_update(&event, &new_event(), Api::Core)), [""; 0]);
    }
}
