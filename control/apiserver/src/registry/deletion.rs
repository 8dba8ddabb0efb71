//! What a deletion does to an object, decided without touching anything.

use jiff::{SignedDuration, Timestamp};
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::time;
use serde_json::Value;

use super::strategy::Strategy;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// The object is being deleted already; nothing changes.
    Wait,
    /// The object is marked as being deleted, and stays for now.
    Mark(Value),
    /// The object goes.
    Remove,
}

/// Decides a deletion with the grace period that was asked for.
pub(super) fn plan(strategy: &dyn Strategy, object: &Value, requested: Option<i64>, now: Timestamp) -> Plan {
    let meta = ObjectMeta::of(object);
    let held = !meta.finalizers().is_empty() || !strategy.may_be_removed(object);
    let grace = strategy.grace_period(object, requested).map(|seconds| seconds.max(0));
    let Some(since) = meta.deletion_timestamp() else {
        return match grace {
            Some(seconds) if seconds > 0 => Plan::Mark(mark(strategy, object, now, seconds)),
            _ if held => Plan::Mark(mark(strategy, object, now, 0)),
            _ => Plan::Remove,
        };
    };
    let pending = meta.deletion_grace_period_seconds().filter(|_| grace.is_some());
    match (pending, requested.map(|seconds| seconds.max(0))) {
        // The period is over, or the kind knows none: only what holds the object keeps it.
        (None, _) if held => Plan::Wait,
        (None, _) => Plan::Remove,
        // Whoever asks again may only ask for less.
        (Some(pending), Some(seconds)) if seconds < pending => {
            if seconds == 0 && !held {
                return Plan::Remove;
            }
            let mut object = object.clone();
            let moved = time::parse(since)
                .and_then(|at| at.checked_sub(SignedDuration::from_secs(pending - seconds)).ok());
            meta::set(&mut object, "deletionTimestamp", time::format_seconds(moved.unwrap_or(now)));
            meta::set(&mut object, "deletionGracePeriodSeconds", seconds);
            Plan::Mark(object)
        }
        (Some(_), _) => Plan::Wait,
    }
}

fn mark(strategy: &dyn Strategy, object: &Value, now: Timestamp, seconds: i64) -> Value {
    let mut object = object.clone();
    let at = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    meta::set(&mut object, "deletionTimestamp", time::format_seconds(at));
    meta::set(&mut object, "deletionGracePeriodSeconds", seconds);
    let generation = ObjectMeta::of(&object).generation();
    if generation > 0 {
        meta::set_generation(&mut object, generation + 1);
    }
    strategy.prepare_for_deletion(&mut object);
    object
}

#[cfg(test)]
mod tests {
    use sampan_api::scheme::by_gvr;
    use serde_json::json;

    use super::*;
    use crate::registry::strategies;

    fn strategy(plural: &str) -> std::sync::Arc<dyn Strategy> {
        let resource = by_gvr("", "v1", plural).unwrap();
        strategies::all().into_iter().find(|s| s.resource() == resource).unwrap()
    }

    fn decide(plural: &str, object: &Value, requested: Option<i64>) -> String {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        match plan(&*strategy(plural), object, requested, now) {
            Plan::Wait => "wait".into(),
            Plan::Remove => "remove".into(),
            Plan::Mark(object) => {
                let meta = ObjectMeta::of(&object);
                let seconds = meta.deletion_grace_period_seconds().unwrap();
                format!("mark {} {seconds}", meta.deletion_timestamp().unwrap())
            }
        }
    }

    #[test]
    fn kinds_without_a_grace_period_go_unless_finalizers_hold_them() {
        let free = json!({"metadata": {"name": "a"}});
        let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}});
        let deleting = |finalizers: Value| {
            json!({"metadata": {"name": "a", "finalizers": finalizers, "deletionGracePeriodSeconds": 0,
                "deletionTimestamp": "2026-01-01T00:00:00Z"}})
        };
        assert_eq!(decide("configmaps", &free, None), "remove");
        assert_eq!(decide("configmaps", &free, Some(30)), "remove");
        assert_eq!(decide("configmaps", &held, None), "mark 2026-01-01T00:01:00Z 0");
        assert_eq!(decide("configmaps", &deleting(json!(["example.com/f"])), None), "wait");
        assert_eq!(decide("configmaps", &deleting(json!([])), None), "remove");
    }

    #[test]
    fn pods_are_given_time_that_may_be_cut_but_not_extended() {
        let running = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        let waiting = json!({"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": 30}});
        let mut ending = running.clone();
        meta::set(&mut ending, "deletionTimestamp", "2026-01-01T00:00:30Z");
        meta::set(&mut ending, "deletionGracePeriodSeconds", 30);
        for (pod, requested, expected) in [
            (&running, None, "mark 2026-01-01T00:01:30Z 30"),
            (&running, Some(5), "mark 2026-01-01T00:01:05Z 5"),
            (&running, Some(0), "remove"),
            (&waiting, None, "remove"),
            (&ending, None, "wait"),
            (&ending, Some(60), "wait"),
            (&ending, Some(10), "mark 2026-01-01T00:00:10Z 10"),
            (&ending, Some(0), "remove"),
        ] {
            assert_eq!(decide("pods", pod, requested), expected, "{requested:?} {pod}");
        }
    }

    #[test]
    fn a_namespace_ends_when_its_content_is_gone() {
        let full = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(marked) = plan(&*strategy("namespaces"), &full, None, Timestamp::UNIX_EPOCH) else {
            panic!("a namespace with content stays for now");
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        assert_eq!(decide("namespaces", &marked, None), "wait");
        let mut empty = marked;
        empty["spec"]["finalizers"] = json!([]);
        assert_eq!(decide("namespaces", &empty, None), "remove");
    }
}
