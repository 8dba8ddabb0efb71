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
