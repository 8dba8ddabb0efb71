//! Both stores against a model so simple that it is obviously right: every state there ever was.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use sampan_raft::RaftStore;
use sampan_store::{
    Compare, DurableConfig, KeyValue, LeaseId, MemoryStore, Op, OpResult, Operand, RangeRequest,
    RangeResponse, Refusal, Relation, Revision, Storage, StorageError, Txn, TxnResponse, WatchEvent,
    WatchRequest,
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
        let revision = self.revision() + 1;
        let state = self.states.last().unwrap().clone();
        let mut run = Run { model: self, before: state.clone(), state, revision, changed: false };
        let (succeeded, results, state) = match run.txn(txn) {
            Ok((succeeded, results)) => (succeeded, results, run.changed.then_some(run.state)),
            Err(why) => (false, vec![OpResult::Refused(why)], None),
        };
        self.states.extend(state);
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
            more: !request.count_only && found.len() > limit,
            kvs: found.into_iter().take(if request.count_only { 0 } else { limit }).collect(),
        })
    }
}

/// A transaction halfway.
struct Run<'a> {
    model: &'a Model,
    before: Keys,
    state: Keys,
    revision: u64,
    changed: bool,
}

impl Run<'_> {
    fn txn(&mut self, txn: &Txn) -> Result<(bool, Vec<OpResult>), Refusal> {
        self.check(txn)?;
        self.branch(txn)
    }

    fn path<'t>(&self, txn: &'t Txn) -> (bool, &'t [Op]) {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check(&self, txn: &Txn) -> Result<(), Refusal> {
        for op in self.path(txn).1 {
            match op {
                Op::Write { key, value, lease } => {
                    if (value.is_none() || lease.is_none()) && !self.before.contains_key(key) {
                        return Err(Refusal::KeyNotFound { key: key.clone() });
                    }
                    let lease = lease.unwrap_or_default();
                    if lease != LeaseId::NONE && !self.before.contains_key(&lease.key()) {
                        return Err(Refusal::LeaseNotFound { lease });
                    }
                }
                Op::Txn(inner) => self.check(inner)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn branch(&mut self, txn: &Txn) -> Result<(bool, Vec<OpResult>), Refusal> {
        let (succeeded, ops) = self.path(txn);
        let results = ops.iter().map(|op| self.step(op)).collect::<Result<_, _>>()?;
        Ok((succeeded, results))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.before.get(compare.key());
        match compare {
            Compare::ModRevision { revision, .. } => {
                kv.map_or(Revision(0), |kv| kv.mod_revision) == *revision
            }
            Compare::CreateRevision { revision, .. } => {
                kv.map_or(Revision(0), |kv| kv.create_revision) == *revision
            }
            Compare::Version { version, .. } => kv.map_or(0, |kv| kv.version) == *version,
            Compare::Value { value, .. } => kv.is_some_and(|kv| kv.value == value),
            Compare::Each { key, end, relation, operand } => {
                let of = |kv: Option<&KeyValue>| match operand {
                    Operand::Version(than) => Some(kv.map_or(0, |kv| kv.version as i64).cmp(than)),
                    Operand::CreateRevision(than) => {
                        Some(kv.map_or(0, |kv| kv.create_revision.0 as i64).cmp(than))
                    }
                    Operand::ModRevision(than) => Some(kv.map_or(0, |kv| kv.mod_revision.0 as i64).cmp(than)),
                    Operand::Value(than) => kv.map(|kv| kv.value.cmp(than)),
                    Operand::Lease(than) => Some(kv.map_or(0, |kv| kv.lease.0).cmp(than)),
                };
                let holds = |kv| of(kv).is_some_and(|ordering| relation.holds(ordering));
                let keys = self.before.values().filter(|kv| within(&kv.key, key, end.as_ref()));
                let all: Vec<_> = keys.collect();
                if all.is_empty() { holds(None) } else { all.into_iter().all(|kv| holds(Some(kv))) }
            }
        }
    }

    fn step(&mut self, op: &Op) -> Result<OpResult, Refusal> {
        Ok(match op {
            Op::Get { key } => OpResult::Got { kv: self.state.get(key).cloned() },
            Op::Put { key, value } => self.write(key, Some(value), Some(LeaseId::NONE)),
            Op::Write { key, value, lease } => self.write(key, value.as_ref(), *lease),
            Op::Delete { key, end } => self.delete(|kv| within(&kv.key, key, end.as_ref())),
            Op::Revoke { lease } => {
                let OpResult::Deleted { mut previous } = self.delete(|kv| kv.lease == *lease) else {
                    panic!()
                };
                let OpResult::Deleted { previous: own } = self.delete(|kv| kv.key == lease.key()) else {
                    panic!()
                };
                previous.extend(own);
                OpResult::Deleted { previous }
            }
            Op::Attached { lease } => {
                let attached = self.state.values().filter(|kv| kv.lease == *lease);
                OpResult::Attached { keys: attached.map(|kv| kv.key.clone()).collect() }
            }
            Op::Txn(inner) => {
                // Its conditions look at what was before everything.
                let (succeeded, results) = self.branch(inner)?;
                OpResult::Txn { succeeded, results }
            }
            Op::Range(request) if request.revision.is_some() => {
                let requested = request.revision.unwrap();
                match self.model.range(request) {
                    Ok(found) => OpResult::Range(found),
                    Err("future") => {
                        return Err(Refusal::Future { requested, current: Revision(self.revision - 1) });
                    }
                    Err(_) => {
                        return Err(Refusal::Compacted { requested, oldest: Revision(self.model.compacted) });
                    }
                }
            }
            Op::Range(request) => {
                // As of this step: a model that has only this state.
                let now = self.revision - u64::from(!self.changed);
                let model = Model { states: vec![self.state.clone()], compacted: 0 };
                OpResult::Range(RangeResponse { revision: Revision(now), ..model.range(request).unwrap() })
            }
        })
    }

    fn write(&mut self, key: &Bytes, value: Option<&Bytes>, lease: Option<LeaseId>) -> OpResult {
        self.changed = true;
        let previous = self.state.get(key).cloned();
        let kept = previous.clone().unwrap_or_else(|| KeyValue {
            key: key.clone(),
            value: Bytes::new(),
            create_revision: Revision(self.revision),
            mod_revision: Revision(0),
            version: 0,
            lease: LeaseId::NONE,
        });
        let kv = KeyValue {
            value: value.cloned().unwrap_or(kept.value),
            lease: lease.unwrap_or(kept.lease),
            mod_revision: Revision(self.revision),
            version: kept.version + 1,
            ..kept
        };
        self.state.insert(key.clone(), kv);
        OpResult::Put { previous }
    }

    fn delete(&mut self, doomed: impl Fn(&KeyValue) -> bool) -> OpResult {
        let previous: Vec<_> = self.state.extract_if(.., |_, kv| doomed(kv)).map(|(_, kv)| kv).collect();
        self.changed |= !previous.is_empty();
        OpResult::Deleted { previous }
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
        2 => (key(), prop::option::of(value()), prop::option::of(lease()))
            .prop_map(|(key, value, lease)| Op::Write { key, value, lease }),
        1 => (range(), prop::option::of(0_u64..12))
            .prop_map(|(range, at)| Op::Range(RangeRequest { revision: at.map(Revision), ..range })),
        1 => some_lease().prop_map(|lease| Op::Put { key: lease.key(), value: "60".into() }),
        1 => some_lease().prop_map(|lease| Op::Revoke { lease }),
        1 => some_lease().prop_map(|lease| Op::Attached { lease }),
    ]
}

fn lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![Just(LeaseId::NONE), some_lease()]
}

fn some_lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![Just(LeaseId(1)), Just(LeaseId(-1))]
}

fn compare() -> impl Strategy<Value = Compare> {
    let small = 0_u64..6;
    prop_oneof![
        (key(), small.clone()).prop_map(|(key, at)| Compare::ModRevision { key, revision: Revision(at) }),
        (key(), small.clone()).prop_map(|(key, at)| Compare::CreateRevision { key, revision: Revision(at) }),
        (key(), small).prop_map(|(key, version)| Compare::Version { key, version }),
        (key(), value()).prop_map(|(key, value)| Compare::Value { key, value }),
        (key(), end(), relation(), operand()).prop_map(|(key, end, relation, operand)| Compare::Each {
            key,
            end,
            relation,
            operand
        }),
    ]
}

fn relation() -> impl Strategy<Value = Relation> {
    prop::sample::select(vec![Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual])
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        (-1_i64..4).prop_map(Operand::Version),
        (-1_i64..12).prop_map(Operand::CreateRevision),
        (-1_i64..12).prop_map(Operand::ModRevision),
        (-1_i64..3).prop_map(Operand::Lease),
        value().prop_map(Operand::Value),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let of = |op: BoxedStrategy<Op>| {
        let ops = prop::collection::vec(op, 0..4);
        (prop::collection::vec(compare(), 0..3), ops.clone(), ops)
            .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
    };
    let inner = of(op().boxed()).prop_map(|txn| Op::Txn(Box::new(txn)));
    prop_oneof![2 => of(op().boxed()), 1 => of(prop_oneof![op(), inner].boxed())]
}

fn range() -> impl Strategy<Value = RangeRequest> {
    (key(), end(), 0_usize..4, prop::bool::weighted(0.2)).prop_map(|(start, end, limit, count_only)| {
        RangeRequest { start, end, revision: None, limit, keys_only: false, count_only }
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
                let own = previous.as_ref().is_some_and(|kv| kv.mod_revision.0 == revision);
                if !own && (known.is_some() || previous.is_some()) {
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
