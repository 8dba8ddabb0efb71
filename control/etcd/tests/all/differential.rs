//! The same random requests to our server and to a real etcd: every answer, every refusal and
//! every event must be the same, revisions being counted by each in its own way.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use sampan_etcd::proto::etcdserverpb::request_op::Request;
use sampan_etcd::proto::etcdserverpb::response_op::Response;
use sampan_etcd::proto::mvccpb;
use sampan_etcd::{Options, Standalone};
use sampan_store::{MemoryStore, Storage};
use tonic::Status;

use crate::support::{Clients, Watching, clients, on_disk, ours_with, theirs};

/// Requests one case makes, and cases; `SAMPAN_FUZZ_CASES` for longer runs, `SAMPAN_FUZZ_SEED` for others.
const STEPS: usize = 40;
const CASES: u32 = 60;

#[derive(Clone, Debug)]
enum Step {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    TimeToLive(i64),
    Leases,
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        20 => prop::sample::select(vec!["a", "ab", "b", "c", "d", "e"]),
        1 => Just(""),
    ]
    .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

fn any_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(""),
        5 => prop::sample::select(vec!["a", "b", "bb", "d", "f"]),
        1 => Just("\0"),
    ]
    .prop_map(|key| Bytes::from_static(key.as_bytes()))
}

/// Stands for a revision until it is sent: 0 and less are themselves, up to 1000 counts back in
/// history, the rest lies ahead.
fn any_revision() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0_i64), 8 => 1..12_i64, 1 => Just(1001_i64), 1 => Just(-3_i64), 1 => 12..60_i64]
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "zz"]).prop_map(|value| Bytes::from_static(value.as_bytes()))
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let bounds = prop_oneof![4 => Just(None), 1 => prop::array::uniform4(any_revision()).prop_map(Some)];
    let flags = (any::<bool>(), prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (any_key(), any_end(), -1..4_i64, any_revision(), (0..4_i32, 0..6_i32), flags, bounds).prop_map(
        |(
            key,
            range_end,
            limit,
            revision,
            (order, target),
            (serializable, keys_only, count_only),
            bounds,
        )| {
            let [min_mod, max_mod, min_create, max_create] = bounds.unwrap_or_default();
            pb::RangeRequest {
                key,
                range_end,
                limit,
                revision,
                // Mostly as they come; 3.4 does not check them, so only what exists.
                sort_order: order % 3,
                sort_target: target % 5,
                serializable,
                keys_only,
                count_only,
                min_mod_revision: min_mod,
                max_mod_revision: max_mod,
                min_create_revision: min_create,
                max_create_revision: max_create,
            }
        },
    )
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    let lease = prop_oneof![3 => Just(0_i64), 2 => 1..5_i64];
    let odd = || prop::bool::weighted(0.15);
    (any_key(), any_value(), lease, any::<bool>(), odd(), odd()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| {
            // Mostly requests that make sense.
            let value = if ignore_value && value != "zz" { Bytes::new() } else { value };
            let lease = if ignore_lease && lease != 4 { 0 } else { lease };
            pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
        },
    )
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (any_key(), any_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let results = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
    ]);
    let number = || prop_oneof![Just(0_i64), 1..6_i64, Just(-3_i64)];
    let operand = prop_oneof![
        number().prop_map(|it| (CompareTarget::Version, Some(TargetUnion::Version(it)))),
        any_revision().prop_map(|it| (CompareTarget::Create, Some(TargetUnion::CreateRevision(it)))),
        any_revision().prop_map(|it| (CompareTarget::Mod, Some(TargetUnion::ModRevision(it)))),
        any_value().prop_map(|it| (CompareTarget::Value, Some(TargetUnion::Value(it)))),
        number().prop_map(|it| (CompareTarget::Lease, Some(TargetUnion::Lease(it)))),
        Just((CompareTarget::Version, None)),
        Just((CompareTarget::Value, Some(TargetUnion::Version(1)))),
    ];
    let end = prop_oneof![3 => Just(Bytes::new()), 1 => any_end()];
    (results, operand, any_key(), end).prop_map(|(result, (target, target_union), key, range_end)| {
        pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union }
    })
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let op = prop_oneof![
        4 => range().prop_map(Request::RequestRange),
        4 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
    ]
    .prop_map(Some);
    let empty = (Vec::new(), Vec::new(), Vec::new());
    let leaf = prop_oneof![19 => op, 1 => Just(None)];
    let request = |(compare, success, failure)| pb::TxnRequest { compare, success, failure };
    let ops = prop::collection::vec(leaf.prop_map(|request| pb::RequestOp { request }), 0..4);
    let flat = (prop::collection::vec(compare(), 0..3), ops.clone(), ops).prop_map(request);
    prop_oneof![1 => Just(request(empty)), 30 => flat].prop_recursive(3, 12, 3, move |inner| {
        let plain = prop_oneof![
            range().prop_map(Request::RequestRange),
            put().prop_map(Request::RequestPut),
            delete().prop_map(Request::RequestDeleteRange),
            inner.prop_map(Request::RequestTxn),
        ];
        let op = plain.prop_map(|request| pb::RequestOp { request: Some(request) });
        let ops = prop::collection::vec(op, 0..4);
        (prop::collection::vec(compare(), 0..2), ops.clone(), ops).prop_map(request)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => range().prop_map(Step::Range),
        6 => put().prop_map(Step::Put),
        2 => delete().prop_map(Step::Delete),
        10 => txn().prop_map(Step::Txn),
        // etcd takes 0 once, as what was never compacted is before it.
        1 => any_revision().prop_filter("not 0", |at| *at != 0).prop_map(Step::Compact),
        2 => (1..5_i64).prop_map(Step::Grant),
        1 => (1..5_i64).prop_map(Step::Revoke),
        1 => (1..5_i64).prop_map(Step::TimeToLive),
        1 => Just(Step::Leases),
    ]
}

/// The revisions of both that were the newest at the same time, oldest first.
struct History(Vec<(i64, i64)>);

#[derive(Clone, Copy)]
enum Side {
    Ours,
    Theirs,
}

impl History {
    fn sent(&self, side: Side, symbol: i64) -> i64 {
        if symbol <= 0 {
            return symbol;
        }
        if symbol > 1000 {
            return 1_000_000_000;
        }
        let back = usize::try_from(symbol - 1).unwrap().min(self.0.len() - 1);
        let (ours, theirs) = self.0[self.0.len() - 1 - back];
        match side {
            Side::Ours => ours,
            Side::Theirs => theirs,
        }
    }

    /// Our revision in their counting: leases take revisions with us and none with them.
    fn theirs(&self, ours: i64) -> i64 {
        let after = self.0.partition_point(|(known, _)| *known <= ours);
        if ours == 0 || after == 0 { 0 } else { self.0[after - 1].1 }
    }

    fn both(&mut self, ours: i64, theirs: i64) {
        let (last_ours, last_theirs) = *self.0.last().unwrap();
        if theirs > last_theirs {
            assert!(ours > last_ours, "a change took no revision");
            self.0.push((ours, theirs));
        }
    }

    fn range(&self, side: Side, request: &pb::RangeRequest) -> pb::RangeRequest {
        pb::RangeRequest {
            revision: self.sent(side, request.revision),
            min_mod_revision: self.sent(side, request.min_mod_revision),
            max_mod_revision: self.sent(side, request.max_mod_revision),
            min_create_revision: self.sent(side, request.min_create_revision),
            max_create_revision: self.sent(side, request.max_create_revision),
            ..request.clone()
        }
    }

    fn txn(&self, side: Side, request: &pb::TxnRequest) -> pb::TxnRequest {
        let mut request = request.clone();
        for compare in &mut request.compare {
            if let Some(TargetUnion::ModRevision(at) | TargetUnion::CreateRevision(at)) =
                &mut compare.target_union
            {
                *at = self.sent(side, *at);
            }
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                // A revision below 0 is the newest; within transactions etcd says that it is gone.
                Some(Request::RequestRange(range)) => {
                    range.revision = range.revision.max(0);
                    *range = self.range(side, range);
                }
                // etcd overlooks that a deletion to the end meets a put of the same transaction.
                Some(Request::RequestDeleteRange(delete)) if delete.range_end == "\0" => {
                    delete.range_end = Bytes::from_static(b"zz");
                }
                Some(Request::RequestTxn(txn)) => *txn = self.txn(side, txn),
                _ => {}
            }
        }
        request
    }
}

/// Our answers in their terms; of the headers only the revision is comparable.
trait InTheirTerms {
    fn translate(&mut self, history: &History);
    /// Leaves out what no two clusters share.
    fn strip(&mut self);
    fn header_revision(&self) -> i64;
}

fn translate_header(header: &mut Option<pb::ResponseHeader>, history: &History) {
    if let Some(header) = header {
        header.revision = history.theirs(header.revision);
    }
}

fn strip_header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    }
}

fn translate_kv(kv: &mut mvccpb::KeyValue, history: &History) {
    kv.create_revision = history.theirs(kv.create_revision);
    kv.mod_revision = history.theirs(kv.mod_revision);
}

macro_rules! in_their_terms {
    ($($message:ty: |$it:ident, $history:ident| $translate:block, $strip:block;)*) => {$(
        impl InTheirTerms for $message {
            fn translate(&mut self, $history: &History) {
                translate_header(&mut self.header, $history);
                let $it = self;
                $translate
            }
            fn strip(&mut self) {
                strip_header(&mut self.header);
                let $it = self;
                $strip
            }
            fn header_revision(&self) -> i64 {
                self.header.as_ref().map_or(0, |header| header.revision)
            }
        }
    )*};
}

in_their_terms! {
    pb::RangeResponse: |it, history| { it.kvs.iter_mut().for_each(|kv| translate_kv(kv, history)); },
        { let _ = it; };
    pb::PutResponse: |it, history| { it.prev_kv.iter_mut().for_each(|kv| translate_kv(kv, history)); },
        { let _ = it; };
    pb::DeleteRangeResponse: |it, history| { it.prev_kvs.iter_mut().for_each(|kv| translate_kv(kv, history)); },
        { let _ = it; };
    pb::TxnResponse: |it, history| { it.responses.iter_mut().for_each(|op| translate_op(op, history)); },
        { it.responses.iter_mut().for_each(strip_op); };
    pb::CompactionResponse: |it, history| { let _ = (it, history); }, { let _ = it; };
    pb::LeaseGrantResponse: |it, history| { let _ = (it, history); }, { let _ = it; };
    pb::LeaseRevokeResponse: |it, history| { let _ = (it, history); }, { let _ = it; };
    pb::LeaseTimeToLiveResponse: |it, history| { let _ = (it, history); },
        { it.header = None; it.ttl = it.ttl.signum(); it.keys.sort(); };
}

fn translate_op(op: &mut pb::ResponseOp, history: &History) {
    match &mut op.response {
        Some(Response::ResponseRange(it)) => it.translate(history),
        Some(Response::ResponsePut(it)) => it.translate(history),
        Some(Response::ResponseDeleteRange(it)) => it.translate(history),
        Some(Response::ResponseTxn(it)) => it.translate(history),
        None => {}
    }
}

fn strip_op(op: &mut pb::ResponseOp) {
    match &mut op.response {
        Some(Response::ResponseRange(it)) => it.strip(),
        Some(Response::ResponsePut(it)) => it.strip(),
        Some(Response::ResponseDeleteRange(it)) => it.strip(),
        Some(Response::ResponseTxn(it)) => it.strip(),
        None => {}
    }
}

/// Both servers, and what is known of their revisions.
pub(crate) struct Both {
    pub(crate) ours: Clients,
    pub(crate) theirs: Clients,
    history: History,
}

impl Both {
    pub(crate) async fn new(ours: Clients, theirs: Clients) -> Self {
        let at = |response: pb::RangeResponse| response.header.unwrap().revision;
        let probe = pb::RangeRequest { key: Bytes::from_static(b"probe"), ..Default::default() };
        let first = (at(ours.range(probe.clone()).await.unwrap()), at(theirs.range(probe).await.unwrap()));
        Self { ours, theirs, history: History(vec![first]) }
    }

    /// The name, for requests, of a revision in their terms.
    pub(crate) fn symbol(&self, theirs: i64) -> i64 {
        let at = self.history.0.iter().rposition(|(_, known)| *known == theirs).expect("a known revision");
        i64::try_from(self.history.0.len() - at).unwrap()
    }

    /// What a revision of that name is for ours and for theirs.
    pub(crate) fn sent(&self, symbol: i64) -> (i64, i64) {
        (self.history.sent(Side::Ours, symbol), self.history.sent(Side::Theirs, symbol))
    }

    /// An event of ours in their terms.
    pub(crate) fn in_their_terms(&self, mut event: mvccpb::Event) -> mvccpb::Event {
        event.kv.iter_mut().chain(&mut event.prev_kv).for_each(|kv| translate_kv(kv, &self.history));
        event
    }

    /// Judges a pair of answers; `Err` says how they differ.
    fn judge<M: InTheirTerms + PartialEq + std::fmt::Debug>(
        &mut self,
        ours: Result<M, Status>,
        theirs: Result<M, Status>,
    ) -> Result<Option<M>, String> {
        match (ours, theirs) {
            (Ok(mut ours), Ok(mut theirs)) => {
                self.history.both(ours.header_revision(), theirs.header_revision());
                ours.translate(&self.history);
                ours.strip();
                theirs.strip();
                if ours == theirs {
                    Ok(Some(theirs))
                } else {
                    Err(format!("ours:   {ours:?}\ntheirs: {theirs:?}"))
                }
            }
            (Err(ours), Err(theirs)) => {
                let said = |status: &Status| (status.code(), status.message().to_owned());
                if said(&ours) == said(&theirs) {
                    Ok(None)
                } else {
                    Err(format!("ours:   {ours:?}\ntheirs: {theirs:?}"))
                }
            }
            (ours, theirs) => Err(format!("ours:   {ours:?}\ntheirs: {theirs:?}")),
        }
    }

    pub(crate) async fn range(
        &mut self,
        request: &pb::RangeRequest,
    ) -> Result<Option<pb::RangeResponse>, String> {
        let ours = self.ours.range(self.history.range(Side::Ours, request)).await;
        let theirs = self.theirs.range(self.history.range(Side::Theirs, request)).await;
        self.judge(ours, theirs)
    }

    pub(crate) async fn put(&mut self, request: &pb::PutRequest) -> Result<Option<pb::PutResponse>, String> {
        let (ours, theirs) = (self.ours.put(request.clone()).await, self.theirs.put(request.clone()).await);
        self.judge(ours, theirs)
    }

    pub(crate) async fn txn(&mut self, request: &pb::TxnRequest) -> Result<Option<pb::TxnResponse>, String> {
        let ours = self.ours.txn(self.history.txn(Side::Ours, request)).await;
        let theirs = self.theirs.txn(self.history.txn(Side::Theirs, request)).await;
        self.judge(ours, theirs)
    }

    pub(crate) async fn compact(&mut self, revision: i64) -> Result<Option<pb::CompactionResponse>, String> {
        let ours = self.ours.compact(self.history.sent(Side::Ours, revision)).await;
        let theirs = self.theirs.compact(self.history.sent(Side::Theirs, revision)).await;
        self.judge(ours, theirs)
    }

    pub(crate) async fn grant(&mut self, id: i64, ttl: i64) -> Result<(), String> {
        let (ours, theirs) = (self.ours.grant(id, ttl).await, self.theirs.grant(id, ttl).await);
        self.judge(ours, theirs).map(drop)
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Range(request) => self.range(request).await.map(drop),
            Step::Put(request) => self.put(request).await.map(drop),
            Step::Delete(request) => {
                let ours = self.ours.delete(request.clone()).await;
                let theirs = self.theirs.delete(request.clone()).await;
                self.judge(ours, theirs).map(drop)
            }
            Step::Txn(request) => self.txn(request).await.map(drop),
            Step::Compact(revision) => self.compact(*revision).await.map(drop),
            Step::Grant(id) => self.grant(*id, 10_000).await,
            Step::Revoke(id) => {
                let (ours, theirs) = (self.ours.revoke(*id).await, self.theirs.revoke(*id).await);
                self.judge(ours, theirs).map(drop)
            }
            Step::TimeToLive(id) => {
                let (ours, theirs) = (self.ours.time_to_live(*id).await, self.theirs.time_to_live(*id).await);
                self.judge(Ok(ours), Ok(theirs)).map(drop)
            }
            Step::Leases => {
                let (mut ours, mut theirs) = (self.ours.leases().await, self.theirs.leases().await);
                ours.sort_unstable();
                theirs.sort_unstable();
                if ours == theirs { Ok(()) } else { Err(format!("leases: ours {ours:?}, theirs {theirs:?}")) }
            }
        }
    }
}

/// Every event since the watch began must be the same on both.
async fn same_events(both: &Both, ours: Events, theirs: Events) {
    let end = pb::PutRequest { key: Bytes::from_static(b"zzz"), ..Default::default() };
    both.ours.put(end.clone()).await.unwrap();
    both.theirs.put(end).await.unwrap();
    let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
    assert!(ours.len() > 100, "there was something to see");
    for (ours, theirs) in ours.iter().cloned().zip(theirs.iter().cloned()) {
        let mut ours = both.in_their_terms(ours);
        if theirs.prev_kv.is_none() {
            // Theirs is read when the event is sent, and may be compacted away by then.
            ours.prev_kv = None;
        }
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

type Events = tokio::task::JoinHandle<Vec<mvccpb::Event>>;

/// Events until the key that says so; it is not among them.
async fn until_end(mut watching: Watching) -> Vec<mvccpb::Event> {
    let mut events = Vec::new();
    loop {
        for event in watching.answer().await.events {
            if event.kv.as_ref().is_some_and(|kv| kv.key == "zzz") {
                return events;
            }
            events.push(event);
        }
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Seeded: the same requests every time. The first difference is printed; both go on from where
/// they are, so nothing is shrunk.
fn compare_with_etcd(storage: impl FnOnce(&std::path::Path) -> BoxFuture<'_, Arc<dyn Storage>>) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ours, theirs) = runtime.block_on(async {
        let storage = storage(dir.path()).await;
        (ours_with(storage, Arc::new(Standalone), Options::default()).await, theirs().await)
    });
    let (mut both, our_events, their_events) = runtime.block_on(async {
        let both = Both::new(clients(ours.address).await, clients(theirs.address).await).await;
        let watch = || pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: true,
            ..Default::default()
        };
        let (mut ours, mut theirs) = (both.ours.watching(), both.theirs.watching());
        ours.create(watch()).await;
        theirs.create(watch()).await;
        (both, tokio::spawn(until_end(ours)), tokio::spawn(until_end(theirs)))
    });
    let cases = u32::try_from(number_from("SAMPAN_FUZZ_CASES", CASES.into())).unwrap();
    let seed = number_from("SAMPAN_FUZZ_SEED", 1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..Default::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let steps = prop::collection::vec(step(), 1..STEPS);
    let cell = std::cell::RefCell::new(&mut both);
    let result = runner.run(&steps, |steps| {
        let mut both = cell.borrow_mut();
        for (at, step) in steps.iter().enumerate() {
            let judged = runtime.block_on(both.step(step));
            prop_assert!(judged.is_ok(), "step {at}, {step:?}\n{}", judged.unwrap_err());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("SAMPAN_FUZZ_SEED={seed}: {error}");
    }
    runtime.block_on(same_events(&both, our_events, their_events));
}

#[test]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
fn random_requests_are_answered_as_etcd_answers_them() {
    compare_with_etcd(|_| Box::pin(async { Arc::new(MemoryStore::new()) as Arc<dyn Storage> }));
}

#[test]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
fn random_requests_over_the_store_on_disk_are_too() {
    compare_with_etcd(|dir| Box::pin(on_disk(dir, &[])));
}
