//! Events on their way to the wire: filtered, converted, cut into fragments.

use prost::Message;
use sampan_store::WatchEvent;

use crate::context::number;
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use crate::proto::mvccpb::{Event, KeyValue, event::EventType};
use crate::{keys, range};

/// What a watch wants of the events of its range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    puts: bool,
    deletes: bool,
    previous: bool,
}

impl Wants {
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let filtered = |filter: FilterType| request.filters().any(|other| other == filter);
        Self {
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            previous: request.prev_kv,
        }
    }

    /// The event as the wire has it, if it is wanted and not the cluster's own.
    pub(super) fn message(self, event: WatchEvent) -> Option<Event> {
        let previous =
            |previous: Option<sampan_store::KeyValue>| previous.filter(|_| self.previous).map(range::message);
        match event {
            WatchEvent::Put { kv, previous: before } if self.puts && !keys::is_hidden(&kv.key) => {
                Some(Event {
                    r#type: EventType::Put.into(),
                    kv: Some(range::message(kv)),
                    prev_kv: previous(before),
                })
            }
            WatchEvent::Delete { key, revision, previous: before }
                if self.deletes && !keys::is_hidden(&key) =>
            {
                let kv = KeyValue { key, mod_revision: number(revision.0), ..KeyValue::default() };
                Some(Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: previous(before) })
            }
            _ => None,
        }
    }
}

/// Cuts an answer into several of less than `limit` bytes each, as far as its events allow.
pub(super) fn fragments(response: WatchResponse, limit: usize) -> Vec<WatchResponse> {
    if response.events.len() < 2 || response.encoded_len() < limit {
        return vec![response];
    }
    let frame = WatchResponse { events: Vec::new(), fragment: true, ..response.clone() };
    let base = frame.encoded_len();
    let mut all = vec![frame.clone()];
    let mut size = base;
    for event in response.events {
        // Its tag and length, at most.
        let more = event.encoded_len() + 12;
        if size + more >= limit && all.last().is_some_and(|last| !last.events.is_empty()) {
            all.push(frame.clone());
            size = base;
        }
        size += more;
        if let Some(last) = all.last_mut() {
            last.events.push(event);
        }
    }
    if let Some(last) = all.last_mut() {
        last.fragment = false;
    }
    all
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn large_answers_are_cut_between_events() {
        let event = |size: usize| Event {
            kv: Some(KeyValue { value: Bytes::from(vec![1; size]), ..KeyValue::default() }),
            ..Event::default()
        };
        let response = |sizes: &[usize]| WatchResponse {
            events: sizes.iter().map(|size| event(*size)).collect(),
            ..WatchResponse::default()
        };
        // sizes, events of each fragment
        let table: [(&[usize], &[usize]); 4] =
            [(&[10, 10], &[2]), (&[2000], &[1]), (&[400, 400, 400], &[2, 1]), (&[10, 2000, 10], &[1, 1, 1])];
        for (sizes, expected) in table {
            let all = fragments(response(sizes), 1000);
            assert_eq!(all.iter().map(|part| part.events.len()).collect::<Vec<_>>(), expected, "{sizes:?}");
            let open: Vec<bool> = all.iter().map(|part| part.fragment).collect();
            let (last, others) = open.split_last().unwrap();
            assert!(!last && others.iter().all(|open| *open), "{sizes:?}: only the last one is not cut off");
        }
    }
}
