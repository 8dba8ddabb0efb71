//! What the mirror holds, as data: rows, tokens, which of them are still needed, and how much of a
//! hurry a change is in. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sampan_api::meta::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refs::{self, Reference};

/// What matters for a start is on disk after this time;
const SOON: Duration = Duration::from_secs(1);
/// what would only be nice to have, after this.
const LATER: Duration = Duration::from_secs(300);

/// An object as a server told it, perhaps with what the node itself added since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Its JSON, without the resourceVersion.
    pub(crate) value: Bytes,
    /// The server's resourceVersion.
    pub(crate) revision: u64,
}

/// A service account's token, as the server answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    /// The UID of the pod that it is bound to; empty if to none.
    pub(crate) pod: String,
    /// The answer's JSON.
    pub(crate) answer: Bytes,
}

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// Objects by their keys in a store.
    pub(crate) rows: BTreeMap<Bytes, Row>,
    /// Tokens by what was asked for.
    pub(crate) tokens: BTreeMap<String, TokenRow>,
    /// Keys of objects that were too large to keep.
    pub(crate) left_out: BTreeSet<Bytes>,
}

/// How long a change may wait before it is written; `None`: it need not be.
pub(crate) fn urgency(old: Option<&[u8]>, new: Option<&[u8]>) -> Option<Duration> {
    let (Some(old), Some(new)) = (old, new) else { return (old != new).then_some(SOON) };
    if old == new {
        return None;
    }
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap_or_default();
    let (mut old, mut new) = (parse(old), parse(new));
    let phase = |object: &Value| object.pointer("/status/phase").cloned();
    if phase(&old) != phase(&new) {
        return Some(SOON);
    }
    let (mut before, mut after) = (take_status(&mut old), take_status(&mut new));
    if old != new {
        return Some(SOON);
    }
    without_heartbeats(&mut before);
    without_heartbeats(&mut after);
    (before != after).then_some(LATER)
}

fn take_status(object: &mut Value) -> Value {
    object.as_object_mut().and_then(|members| members.remove("status")).unwrap_or_default()
}

/// The times that say only that something was written are no news.
fn without_heartbeats(status: &mut Value) {
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        condition.remove("lastHeartbeatTime");
    }
}

/// How long a new token may wait: an older one is better than none, so not at all urgent.
pub(crate) fn token_urgency(known: bool) -> Duration {
    if known { LATER } else { SOON }
}

/// The place of a key: `(plural, namespace, name)`, where it is one of the core group's.
fn place(key: &[u8]) -> Option<(&str, &str, &str)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix("/registry/core/")?;
    let (plural, rest) = rest.split_once('/')?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Some((plural, namespace, name))
}

impl Contents {
    /// The pods.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Value> {
        let pods = self.rows.iter().filter(|(key, _)| matches!(place(key), Some(("pods", ..))));
        pods.filter_map(|(_, row)| serde_json::from_slice(&row.value).ok())
    }

    /// What the pods refer to.
    pub(crate) fn references(&self) -> BTreeSet<Reference> {
        self.pods().flat_map(|pod| refs::of_pod(&pod)).collect()
    }

    /// Lets go of what no pod refers to any more; the keys that went.
    pub(crate) fn forget_unused(&mut self) -> Vec<Bytes> {
        let wanted = self.references();
        let wanted: BTreeSet<(&str, &str, &str)> =
            wanted.iter().map(|(plural, ns, name)| (*plural, ns.as_str(), name.as_str())).collect();
        let mut gone = Vec::new();
        self.rows.retain(|key, _| {
            let kept = match place(key) {
                Some(("pods" | "nodes", ..)) | None => true,
                Some(place) => wanted.contains(&place),
            };
            if !kept {
                gone.push(key.clone());
            }
            kept
        });
        let uids: BTreeSet<String> = self.pods().map(|pod| ObjectMeta::of(&pod).uid().to_owned()).collect();
        self.tokens.retain(|_, token| token.pod.is_empty() || uids.contains(&token.pod));
        gone
    }

    /// The same without leases, which say something only while they are fresh.
    pub(crate) fn without_leases(mut self) -> Self {
        self.rows.retain(|key, _| !key.starts_with(b"/registry/coordination.k8s.io/leases/"));
        self
    }

    /// What is to be written: everything, but of config maps and secrets the largest are left out
    /// until the rest fits into `limit` bytes. Pods are never left out: a pod that is not in the
    /// mirror would be taken for one that is gone.
    pub(crate) fn within(&self, limit: usize) -> Self {
        let mut kept = self.clone();
        kept.left_out.clear();
        let size = |row: &Row| row.value.len() + 64;
        let mut total: usize = self.rows.iter().map(|(key, row)| key.len() + size(row)).sum();
        total += self.tokens.iter().map(|(key, token)| key.len() + token.answer.len() + 64).sum::<usize>();
        let mut large: Vec<(usize, &Bytes)> = self
            .rows
            .iter()
            .filter(|(key, _)| matches!(place(key), Some(("configmaps" | "secrets", ..))))
            .map(|(key, row)| (key.len() + size(row), key))
            .collect();
        large.sort();
        while total > limit
            && let Some((size, key)) = large.pop()
        {
            kept.rows.remove(key);
            kept.left_out.insert(key.clone());
            total -= size;
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: &Value) -> Row {
        Row { value: value.to_string().into(), revision: 1 }
    }

    fn contents(objects: &[(&str, Value)]) -> Contents {
        let rows =
            objects.iter().map(|(key, value)| (Bytes::from(format!("/registry/core/{key}")), row(value)));
        Contents { rows: rows.collect(), ..Contents::default() }
    }

    fn pod(map: &str) -> Value {
        json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u1"}, "spec": {
            "volumes": [{"name": "v", "configMap": {"name": map}}]
        }})
    }

    #[test]
    fn what_a_start_needs_is_urgent_and_heartbeats_are_nothing() {
        let node = |beat: &str, ready: &str, label: &str| {
            json!({"metadata": {"labels": {"a": label}}, "status": {"conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": beat}
            ]}})
            .to_string()
        };
        let of = |old: Option<&String>, new: Option<&String>| {
            urgency(old.map(String::as_bytes), new.map(String::as_bytes))
        };
        let first = node("1", "True", "x");
        assert_eq!(of(None, Some(&first)), Some(SOON));
        assert_eq!(of(Some(&first), None), Some(SOON));
        assert_eq!(of(Some(&first), Some(&node("2", "True", "x"))), None);
        assert_eq!(of(Some(&first), Some(&node("1", "False", "x"))), Some(LATER));
        assert_eq!(of(Some(&first), Some(&node("1", "True", "y"))), Some(SOON));
        let phase = |phase: &str| json!({"status": {"phase": phase}}).to_string();
        assert_eq!(of(Some(&phase("Running")), Some(&phase("Succeeded"))), Some(SOON));
    }

    #[test]
    fn what_no_pod_refers_to_is_forgotten() {
        let mut held = contents(&[
            ("nodes/n1", json!({})),
            ("pods/ns/p", pod("used")),
            ("configmaps/ns/used", json!({})),
            ("configmaps/ns/unused", json!({})),
            ("configmaps/other/used", json!({})),
            ("namespaces/ns", json!({})),
            ("namespaces/other", json!({})),
        ]);
        for pod in ["u1", "u2", ""] {
            held.tokens.insert(format!("t{pod}"), TokenRow { pod: pod.into(), answer: Bytes::new() });
        }
        let gone = held.forget_unused();
        assert_eq!(
            gone,
            [
                "/registry/core/configmaps/ns/unused",
                "/registry/core/configmaps/other/used",
                "/registry/core/namespaces/other"
            ]
        );
        assert_eq!(held.tokens.keys().collect::<Vec<_>>(), ["t", "tu1"]);
    }

    #[test]
    fn the_largest_config_maps_and_secrets_are_left_out_and_never_a_pod() {
        let large = |size: usize| json!({"data": "x".repeat(size)});
        let held = contents(&[
            ("nodes/n1", large(10)),
            ("pods/ns/p", large(5000)),
            ("configmaps/ns/a", large(3000)),
            ("configmaps/ns/b", large(100)),
            ("secrets/ns/c", large(2000)),
        ]);
        assert_eq!(held.within(1 << 20), held);
        let kept = held.within(8000);
        assert_eq!(kept.left_out.iter().collect::<Vec<_>>(), ["/registry/core/configmaps/ns/a"]);
        let kept = held.within(10);
        assert_eq!(kept.rows.len(), 2, "pods and nodes stay: {:?}", kept.rows.keys());
    }
}
