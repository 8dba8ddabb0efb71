//! Which occurrences become new events, which raise the count of an old one, and which are
//! dropped. Pure: time comes in with the occurrence. The rules and figures are client-go's.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

/// Keys remembered at most; the oldest go first.
const REMEMBERED: usize = 4096;
/// So many different messages of one reason within the interval are folded into one event.
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
/// Events that one object may get in a burst, and how long one token takes to come back.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// Something that happened, as the recorder was told.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) object: ObjectReference,
    pub(super) kind: EventType,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) at: Timestamp,
}

/// What is to be done about an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The object got too many events.
    Drop,
    /// Make a new event.
    Create { message: String },
    /// Raise the count of an event.
    Repeat { name: String, message: String, count: i32 },
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ObjectKey {
    uid: String,
    namespace: String,
    name: String,
    field_path: String,
    kind: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct SimilarKey(ObjectKey, EventType, String);

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Written {
    name: String,
    count: i32,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// Remembers what was told before.
#[derive(Default)]
pub(super) struct Correlator {
    similar: HashMap<SimilarKey, Similar>,
    written: HashMap<(SimilarKey, String), Written>,
    buckets: HashMap<ObjectKey, Bucket>,
}

impl Correlator {
    /// Decides about an occurrence.
    pub(super) fn observe(&mut self, occurrence: &Occurrence) -> Decision {
        let message = self.fold(occurrence);
        if !self.take_token(occurrence) {
            return Decision::Drop;
        }
        let key = (similar_key(occurrence), self.identity(occurrence, &message));
        match self.written.get_mut(&key) {
            Some(written) => {
                written.count = written.count.saturating_add(1);
                written.last = occurrence.at;
                Decision::Repeat { name: written.name.clone(), message, count: written.count }
            }
            None => Decision::Create { message },
        }
    }

    /// Remembers the event that an occurrence became.
    pub(super) fn created(&mut self, occurrence: &Occurrence, name: String) {
        let message = self.folded_message(occurrence);
        let key = (similar_key(occurrence), self.identity(occurrence, &message));
        forget_oldest(&mut self.written, |w| w.last);
        self.written.insert(key, Written { name, count: 1, last: occurrence.at });
    }

    /// Counts the different messages of one reason; returns the message to write.
    fn fold(&mut self, occurrence: &Occurrence) -> String {
        forget_oldest(&mut self.similar, |s| s.last);
        let entry = self
            .similar
            .entry(similar_key(occurrence))
            .or_insert_with(|| Similar { messages: HashSet::new(), last: occurrence.at });
        if occurrence.at.duration_since(entry.last) > SIMILAR_INTERVAL {
            entry.messages.clear();
        }
        entry.last = occurrence.at;
        if entry.messages.len() < SIMILAR_LIMIT {
            entry.messages.insert(occurrence.message.clone());
        }
        self.folded_message(occurrence)
    }

    fn is_folded(&self, occurrence: &Occurrence) -> bool {
        self.similar.get(&similar_key(occurrence)).is_some_and(|s| s.messages.len() >= SIMILAR_LIMIT)
    }

    fn folded_message(&self, occurrence: &Occurrence) -> String {
        if self.is_folded(occurrence) {
            format!("(combined from similar events): {}", occurrence.message)
        } else {
            occurrence.message.clone()
        }
    }

    /// What makes two occurrences the same event: the message, unless they are folded.
    fn identity(&self, occurrence: &Occurrence, message: &str) -> String {
        if self.is_folded(occurrence) { String::new() } else { message.to_owned() }
    }

    fn take_token(&mut self, occurrence: &Occurrence) -> bool {
        forget_oldest(&mut self.buckets, |b| b.last);
        let bucket = self
            .buckets
            .entry(object_key(&occurrence.object))
            .or_insert(Bucket { tokens: BURST, last: occurrence.at });
        let passed = occurrence.at.duration_since(bucket.last).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        bucket.last = occurrence.at;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn object_key(object: &ObjectReference) -> ObjectKey {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    ObjectKey {
        uid: text(&object.uid),
        namespace: text(&object.namespace),
        name: text(&object.name),
        field_path: text(&object.field_path),
        kind: text(&object.kind),
    }
}

fn similar_key(occurrence: &Occurrence) -> SimilarKey {
    SimilarKey(object_key(&occurrence.object), occurrence.kind, occurrence.reason.clone())
}

/// Keeps a map within bounds: when full, the older half goes.
fn forget_oldest<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    last: impl Fn(&V) -> Timestamp,
) {
    if map.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Timestamp> = map.values().map(&last).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    map.retain(|_, value| last(value) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str, second: i64) -> Occurrence {
        Occurrence {
            object: ObjectReference { uid: Some("u".into()), name: Some("pod".into()), ..Default::default() },
            kind: EventType::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    fn tell(correlator: &mut Correlator, message: &str, second: i64) -> Decision {
        let occurrence = occurrence(message, second);
        let decision = correlator.observe(&occurrence);
        if matches!(decision, Decision::Create { .. }) {
            correlator.created(&occurrence, format!("event-{second}"));
        }
        decision
    }

    #[test]
    fn a_repeat_raises_the_count_of_the_first() {
        let mut correlator = Correlator::default();
        assert_eq!(tell(&mut correlator, "m", 1), Decision::Create { message: "m".into() });
        for (second, count) in [(2, 2), (3, 3)] {
            let expected = Decision::Repeat { name: "event-1".into(), message: "m".into(), count };
            assert_eq!(tell(&mut correlator, "m", second), expected);
        }
        assert_eq!(tell(&mut correlator, "other", 4), Decision::Create { message: "other".into() });
    }

    #[test]
    fn many_similar_events_become_one() {
        let mut correlator = Correlator::default();
        for n in 0..9 {
            assert!(matches!(tell(&mut correlator, &format!("m{n}"), n), Decision::Create { .. }));
        }
        let tenth = tell(&mut correlator, "m9", 9);
        assert_eq!(tenth, Decision::Create { message: "(combined from similar events): m9".into() });
        let eleventh = tell(&mut correlator, "m10", 10);
        assert!(matches!(eleventh, Decision::Repeat { count: 2, .. }), "{eleventh:?}");
    }

    #[test]
    fn a_flood_on_one_object_is_throttled_and_recovers() {
        let mut correlator = Correlator::default();
        let told = (0..40).filter(|_| tell(&mut correlator, "m", 1) != Decision::Drop).count();
        assert_eq!(told, 25);
        assert_ne!(tell(&mut correlator, "m", 1 + 301), Decision::Drop);
        assert_eq!(tell(&mut correlator, "m", 1 + 302), Decision::Drop);
    }
}
