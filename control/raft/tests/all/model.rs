//! Both stores against a model so simple that it is obviously right: every state there ever was.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use sampan_raft::RaftStore;
use sampan_store::{
    Compare, DurableConfig, KeyValue, MemoryStore, Op, OpResult, RangeRequest, RangeResponse, Revision,
    Storage, StorageError, Txn, TxnResponse, WatchEvent, WatchRequest,
};

use crate::support::{noise, small};

type Keys = BTreeMap<Bytes, KeyValue>;

/// Every state, by revision.
struct Model {
    states: Vec<Keys>,
    compacted: u64,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![Keys::new()], compacted: 0 }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn txn(&mut self, txn: &Txn) -> TxnResponse {
        let mut state = self.states.last().unwrap().clone();
        let revision = self.revision() + 1;
        let holds = |compare: &Compare| {
            let kv = state.get(compare.key());
            match compare {
                Compare::ModRevision { revision, .. } => {
                    kv.map_or(Revision(0), |kv| kv.mod_revision) == *revision
                }
                Compare::CreateRevision { revision, .. } => {
                    kv.map_or(Revision(0), |kv| kv.create_revision) == *revision
                }
                Compare::Version { version, .. } => kv.map_or(0, |kv| kv.version) == *version,
                Compare::Value { value, .. } => kv.is_some_and(|kv| kv.value == value),
            }
        };
        let succeeded = txn.compares.iter().all(holds);
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut changed = false;
        let mut results = Vec::new();
        for op in ops {
            results.push(match op {
                Op::Get { key } => OpResult::Got { kv: state.get(key).cloned() },
                Op::Put { key, value } => {
                    changed = true;
                    let previous = state.get(key).cloned();
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: previous
                            .as_ref()
                            .map_or(Revision(revision), |kv| kv.create_revision),
                        mod_revision: Revision(revision),
                        version: previous.as_ref().map_or(1, |kv| kv.version + 1),
                    };
                    state.insert(key.clone(), kv);
                    OpResult::Put { previous }
                }
                Op::Delete { key, end } => {
                    let doomed: Vec<Bytes> =
                        state.keys().filter(|at| within(at, key, end.as_ref())).cloned().collect();
                    let previous: Vec<_> = doomed.iter().filter_map(|key| state.remove(key)).collect();
                    changed |= !previous.is_empty();
                    OpResult::Deleted { previous }
                }
            });
        }
        if changed {
            self.states.push(state);
        }
        TxnResponse { revision: Revision(self.revision()), succeeded, results }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, &'static str> {
        let at = request.revision.map_or(self.revision(), |revision| revision.0);
        if at > self.revision() {
            return Err("future");
        }
        if at < self.compacted {
            return Err("compacted");
        }
        let found: Vec<_> = self.states[at as usize]
            .values()
            .filter(|kv| within(&kv.key, &request.start, request.end.as_ref()))
            .cloned()
            .collect();
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        Ok(RangeResponse {
            revision: Revision(at),
            count: found.len() as u64,
            more: found.len() > limit,
            kvs: found.into_iter().take(limit).collect(),
        })
    }
}

fn within(key: &Bytes, start: &Bytes, end: Option<&Bytes>) -> bool {
    match end {
        None => key == start,
        Some(end) => key >= start && (end.is_empty() || key < end),
    }
}

/// One thing to do to all stores.
#[derive(Clone, Debug)]
enum Action {
    Txn(Txn),
    /// Read at so many revisions ago.
    Range(RangeRequest, Option<u64>),
    /// Compact up to so many revisions ago.
    Compact(u64),
    /// Follow all events from so many revisions ago.
    Watch(u64),
    Checkpoint,
    Restart(bool),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0_u8..6).prop_map(|number| Bytes::from(format!("/r/g/a/{number}"))),
        (0_u8..4).prop_map(|number| Bytes::from(format!("/r/g/b/{number}"))),
        Just(Bytes::from_static(b"/short")),
    ]
}

fn end() -> impl Strategy<Value = Option<Bytes>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Bytes::new())), 2 => key().prop_map(Some)]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0_u8..3).prop_map(|value| Bytes::from(vec![value; 3])),
        (any::<u64>(), 0_usize..3_000).prop_map(|(seed, len)| Bytes::from(noise(seed, len))),
        (any::<u8>(), 0_usize..3_000).prop_map(|(byte, len)| Bytes::from(vec![byte; len])),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Op::Put { key, value }),
        2 => (key(), end()).prop_map(|(key, end)| Op::Delete { key, end }),
        1 => key().prop_map(|key| Op::Get { key }),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let small = 0_u64..6;
    prop_oneof![
        (key(), small.clone()).prop_map(|(key, at)| Compare::ModRevision { key, revision: Revision(at) }),
        (key(), small.clone()).prop_map(|(key, at)| Compare::CreateRevision { key, revision: Revision(at) }),
        (key(), small).prop_map(|(key, version)| Compare::Version { key, version }),
        (key(), value()).prop_map(|(key, value)| Compare::Value { key, value }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let ops = || prop::collection::vec(op(), 0..4);
    (prop::collection::vec(compare(), 0..3), ops(), ops()).prop_map(|(compares, success, failure)| Txn {
        compares,
        success,
        failure,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    (key(), end(), 0_usize..4).prop_map(|(start, end, limit)| RangeRequest {
        start,
        end,
        revision: None,
        limit,
        keys_only: false,
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => txn().prop_map(Action::Txn),
        6 => op().prop_map(|op| Action::Txn(Txn { success: vec![op], ..Txn::default() })),
        6 => (range(), prop::option::of(0_u64..12)).prop_map(|(range, back)| Action::Range(range, back)),
        1 => (0_u64..8).prop_map(Action::Compact),
        2 => (0_u64..12).prop_map(Action::Watch),
        1 => Just(Action::Checkpoint),
        1 => any::<bool>().prop_map(Action::Restart),
    ]
}

struct Stores {
    model: Model,
    memory: MemoryStore,
    durable: Option<RaftStore>,
    config: DurableConfig,
}

impl Stores {
    fn durable(&self) -> &RaftStore {
        self.durable.as_ref().unwrap()
    }

    fn both(&self) -> [&dyn Storage; 2] {
        [&self.memory, self.durable()]
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Txn(txn) => self.txn(txn).await,
            Action::Range(mut request, back) => {
                request.revision =
                    back.map(|back| Revision((self.model.revision() + 1).saturating_sub(back)));
                self.range(&request).await;
            }
            Action::Compact(back) => {
                let revision = self.model.revision().saturating_sub(back);
                self.model.compacted = self.model.compacted.max(revision);
                for store in self.both() {
                    store.compact(Revision(revision)).await.unwrap();
                }
            }
            Action::Watch(back) => self.watch(self.model.revision().saturating_sub(back)).await,
            Action::Checkpoint => self.durable().checkpoint().await.unwrap(),
            Action::Restart(clean) => {
                if clean {
                    self.durable().close().await.unwrap();
                }
                self.durable = None;
                self.durable = Some(crate::support::try_open(&self.config).await.unwrap());
            }
        }
        for store in self.both() {
            assert_eq!(store.revision().0, self.model.revision());
        }
    }

    async fn txn(&mut self, txn: Txn) {
        let answers = [self.memory.txn(txn.clone()).await, self.durable().txn(txn.clone()).await];
        if answers.iter().all(|answer| matches!(answer, Err(StorageError::Invalid { .. }))) {
            return;
        }
        let expected = self.model.txn(&txn);
        for answer in answers {
            assert_eq!(answer.unwrap(), expected, "{txn:?}");
        }
    }

    async fn range(&self, request: &RangeRequest) {
        let expected = self.model.range(request);
        for store in self.both() {
            match (store.range(request.clone()).await, &expected) {
                (Ok(found), Ok(expected)) => assert_eq!(&found, expected, "{request:?}"),
                (Err(StorageError::Future { .. }), Err("future")) => {}
                (Err(StorageError::Compacted { .. }), Err("compacted")) => {}
                (found, expected) => panic!("{request:?}: {found:?}, not {expected:?}"),
            }
        }
    }

    /// Events from a revision on lead from the state before it to the newest, state by state.
    async fn watch(&self, from: u64) {
        for store in self.both() {
            let everything =
                WatchRequest { start: Bytes::new(), end: Some(Bytes::new()), from: Revision(from) };
            let stream = store.watch(everything).await;
            if from < self.model.compacted {
                assert!(matches!(stream.err(), Some(StorageError::Compacted { .. })));
                continue;
            }
            let mut stream = stream.unwrap();
            let mut delivered = 0;
            let mut events = Vec::new();
            while delivered < self.model.revision() {
                let batch = stream.next().await.unwrap().unwrap();
                delivered = batch.revision.0;
                events.extend(batch.events);
            }
            self.check_events(from, events);
        }
    }

    fn check_events(&self, from: u64, events: Vec<WatchEvent>) {
        let known = from.checked_sub(1).filter(|before| *before >= self.model.compacted);
        let mut state = known.map_or_else(Keys::new, |before| self.model.states[before as usize].clone());
        let mut events = events.into_iter().peekable();
        for revision in from.max(1)..=self.model.revision() {
            let of = |event: &WatchEvent| match event {
                WatchEvent::Put { kv, .. } => kv.mod_revision.0,
                WatchEvent::Delete { revision, .. } => revision.0,
            };
            while let Some(event) = events.next_if(|event| of(event) == revision) {
                let (key, now, previous) = match event {
                    WatchEvent::Put { kv, previous } => (kv.key.clone(), Some(kv), previous),
                    WatchEvent::Delete { key, previous, .. } => (key, None, previous),
                };
                let before = match now {
                    Some(kv) => state.insert(key, kv),
                    None => state.remove(&key),
                };
                // What was before the oldest kept revision need not be known, but never is wrong.
                if known.is_some() || previous.is_some() {
                    let truth = &self.model.states[revision as usize - 1];
                    let key = previous.as_ref().or(before.as_ref()).map(|kv| kv.key.clone());
                    assert_eq!(
                        previous,
                        key.and_then(|key| truth.get(&key).cloned()),
                        "previous at {revision}"
                    );
                }
            }
            if known.is_some() {
                assert_eq!(state, self.model.states[revision as usize], "events up to {revision}");
            }
        }
        assert!(events.next().is_none(), "an event too many");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_do_what_the_model_does(actions in prop::collection::vec(action(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut config = small(dir.path());
            config.checkpoint_bytes = 16 << 10;
            config.sealed_prefixes = vec!["/r/g/b/".into()];
            let durable = Some(crate::support::try_open(&config).await.unwrap());
            let mut stores = Stores { model: Model::new(), memory: MemoryStore::new(), durable, config };
            for action in actions {
                stores.act(action).await;
            }
        });
    }
}
