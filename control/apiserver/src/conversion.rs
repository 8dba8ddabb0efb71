//! One stored object, several APIs: the shapes of kinds that are served in more than one.
//!
//! Events are the only such kind: stored as the core API has them, served as `events.k8s.io` too.
//! Everything else passes through untouched.

use sampan_api::scheme::Resource;
use sampan_api::selector::fields::{FieldSelector, Operator, escape};
use serde_json::{Map, Value};

/// Names of an event's members: core, then `events.k8s.io`.
const EVENT_MEMBERS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Whether a resource is served in another shape than it is stored in.
pub(crate) fn differs(requested: &Resource) -> bool {
    requested.group == "events.k8s.io" && requested.plural == "events"
}

/// From the shape that is requested to the one that is stored.
pub(crate) fn to_stored(requested: &Resource, object: &mut Value) {
    if differs(requested) {
        rename(object, |(core, new)| (new, core));
        set_api_version(object, "v1");
    }
}

/// From the shape that is stored to the one that is requested.
pub(crate) fn from_stored(requested: &Resource, object: &mut Value) {
    if differs(requested) {
        rename(object, |(core, new)| (core, new));
        set_api_version(object, "events.k8s.io/v1");
    }
}

/// A field selector in the words of the stored shape.
pub(crate) fn selector_to_stored(requested: &Resource, selector: FieldSelector) -> FieldSelector {
    if !differs(requested) {
        return selector;
    }
    let terms: Vec<String> = selector
        .requirements()
        .iter()
        .map(|r| {
            let operator = match r.operator {
                Operator::Equals => "=",
                Operator::NotEquals => "!=",
            };
            format!("{}{operator}{}", stored_label(&r.field), escape(&r.value))
        })
        .collect();
    FieldSelector::parse(&terms.join(",")).unwrap_or(selector)
}

/// The label of the stored shape behind a label of `events.k8s.io`.
fn stored_label(label: &str) -> String {
    let (first, rest) = label.split_once('.').map_or((label, ""), |(first, rest)| (first, rest));
    let renamed = EVENT_MEMBERS.iter().find(|(_, new)| *new == first).map_or(first, |(core, _)| core);
    if rest.is_empty() { renamed.to_owned() } else { format!("{renamed}.{rest}") }
}

fn rename(
    object: &mut Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(members) = object.as_object_mut() else { return };
    let mut renamed = Map::new();
    for (from, to) in EVENT_MEMBERS.iter().map(|pair| direction(*pair)) {
        if let Some(value) = members.remove(from) {
            renamed.insert(to.to_owned(), value);
        }
    }
    members.append(&mut renamed);
}

fn set_api_version(object: &mut Value, version: &str) {
    if let Some(at) = object.get_mut("apiVersion") {
        *at = version.into();
    }
}

#[cfg(test)]
mod tests {
    use sampan_api::scheme::by_gvr;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_have_two_shapes_and_lose_nothing_between_them() {
        let requested = by_gvr("events.k8s.io", "v1", "events").unwrap();
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "n", "reason": "r", "action": "a", "type": "Normal",
            "reportingController": "c", "reportingInstance": "i", "eventTime": "t", "series": {"count": 2},
            "deprecatedCount": 1, "deprecatedSource": {"component": "x"},
        });
        let mut stored = new.clone();
        to_stored(requested, &mut stored);
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["reportingComponent"], "c");
        assert!(stored.get("note").is_none());
        from_stored(requested, &mut stored);
        assert_eq!(stored, new);
    }

    #[test]
    fn selectors_are_translated_with_their_values_intact() {
        let requested = by_gvr("events.k8s.io", "v1", "events").unwrap();
        let given = FieldSelector::parse("regarding.name=a\\,b,reportingController!=c,type=Normal").unwrap();
        let wanted =
            FieldSelector::parse("involvedObject.name=a\\,b,reportingComponent!=c,type=Normal").unwrap();
        let got = selector_to_stored(requested, given);
        assert!(wanted.requirements().iter().all(|r| got.requirements().contains(r)), "{got:?}");
    }
}
