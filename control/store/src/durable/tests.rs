//! The machine under somebody who orders commands.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::types::Op;
use crate::volatile::CopyOf;
use crate::wal::Record;

fn config(dir: &std::path::Path) -> DurableConfig {
    let mut config = DurableConfig::new(dir);
    config.segment_bytes = 64 << 10;
    config.checkpoint_bytes = 16 << 10;
    config.volatile_prefixes = vec![Bytes::from_static(b"/v/")];
    config
}

fn id(index: u64) -> LogId {
    LogId { term: 2, index }
}

fn put(machine: &Machine, key: &str, value: &[u8]) -> Command {
    let op = Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: Bytes::copy_from_slice(value) };
    let prepared = machine.prepare(Txn { success: vec![op], ..Txn::default() }).unwrap();
    if prepared.volatile {
        return Command::Volatile { effects: machine.evaluate_volatile(&prepared.txn).unwrap().1 };
    }
    Command::Txn { floor: 0, txn: prepared.txn }
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Some of everything; returns the last entry.
fn fill(machine: &Machine) -> LogId {
    let cluster = ClusterId(9);
    machine.apply(id(1), &Command::Membership { membership: Bytes::from_static(b"members") }).unwrap();
    machine.apply(id(2), &Command::Reign { cluster, skip: true }).unwrap();
    for at in 3..103 {
        let key = match at % 5 {
            0 => format!("/v/{}", at % 15),
            _ => format!("/k/{}", at % 30),
        };
        machine.apply(id(at), &put(machine, &key, &noise(at, 600))).unwrap();
    }
    machine.apply(id(103), &Command::Reserve { upto: 5_000 }).unwrap();
    id(103)
}

async fn all(machine: &Machine) -> RangeResponse {
    machine.range(RangeRequest::prefix(Bytes::new())).await.unwrap()
}

/// A copy of the volatile rows, as it goes to another member.
fn copy_of(machine: &Machine) -> (Vec<Bytes>, CopyOf) {
    let copy = machine.begin_copy().unwrap();
    let (mut frames, mut cursor) = (Vec::new(), Bytes::new());
    while let Some((frame, after)) = machine.volatile_frame(&cursor, 1).unwrap() {
        frames.push(frame);
        cursor = after;
    }
    assert!(machine.is_still(copy));
    (frames, copy)
}

fn adopt(machine: &Machine, (frames, copy): &(Vec<Bytes>, CopyOf)) -> Result<(), StorageError> {
    machine.adopt_volatile(frames, *copy)
}

#[tokio::test]
async fn a_cut_becomes_the_same_state_elsewhere_also_after_a_break() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let last = fill(&from);
    let cut = from.cut().unwrap();
    let expected = all(&from).await;
    // What comes later is not in the cut.
    from.apply(id(104), &put(&from, "/k/late", b"late")).unwrap();

    let to = Machine::open(config(there.path())).await.unwrap().machine;
    to.apply(id(1), &put(&to, "/k/old", b"of another past")).unwrap();
    let mut build = to.begin_build(cut.id()).unwrap();
    let mut frames = 0;
    // A frame that got lost on the way is asked for again.
    let lost = cut.frame(&build.cursor(), 1).unwrap();
    assert!(lost.is_some());
    while let Some((frame, cursor)) = cut.frame(&build.cursor(), 1_000).unwrap() {
        build.push(&frame, cursor).unwrap();
        frames += 1;
    }
    assert!(frames > 5, "{frames}");
    let copy = copy_of(&from);
    to.install(build, last).unwrap();
    let refused = to.range(RangeRequest::prefix("/v/")).await;
    assert!(matches!(refused, Err(StorageError::Unavailable { .. })), "it need not be all: {refused:?}");
    let durable = to.range(RangeRequest::prefix("/k/")).await.unwrap().kvs;
    let (volatile, rest): (Vec<_>, Vec<_>) =
        expected.kvs.into_iter().partition(|kv| kv.key.starts_with(b"/v/"));
    assert_eq!(durable, rest);
    let (mut mine, theirs) = (to.standing(), from.standing());
    mine.compacted = theirs.compacted;
    assert_eq!(mine, Standing { applied: last, revision: mine.revision, ..theirs.clone() });
    assert_eq!(mine.revision + 1, theirs.revision);
    // Both go on alike.
    assert!(matches!(adopt(&to, &copy), Err(StorageError::Future { .. })));
    to.apply(id(104), &put(&to, "/k/late", b"late")).unwrap();
    adopt(&to, &copy).unwrap();
    assert_eq!(all(&to).await, all(&from).await);
    assert_eq!(to.range(RangeRequest::prefix("/v/")).await.unwrap().kvs, volatile);
}

#[tokio::test]
async fn a_build_that_is_not_whole_or_of_another_entry_is_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::open(config(dir.path())).await.unwrap().machine;
    let last = fill(&machine);
    let cut = machine.cut().unwrap();
    let before = all(&machine).await;
    let build = machine.begin_build([1; 16]).unwrap();
    assert!(machine.install(build, last).is_err(), "it has no head");
    let mut build = machine.begin_build([2; 16]).unwrap();
    let (frame, cursor) = cut.frame(&[], 1_000).unwrap().unwrap();
    build.push(&frame, cursor.clone()).unwrap();
    assert!(build.push(&frame, cursor.clone()).is_err(), "two heads");
    assert!(build.push(b"\xff\xff", cursor).is_err());
    assert!(machine.install(build, id(7)).is_err(), "it is of another entry");
    assert_eq!(all(&machine).await, before);
}

#[tokio::test]
async fn a_crash_between_the_installation_and_the_log_being_told_is_no_damage() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let last = fill(&from);
    let cut = from.cut().unwrap();
    let Opened { machine: to, mut wal, .. } = Machine::open(config(there.path())).await.unwrap();
    let entry =
        |index, command: &Command| Record::Entry { id: id(index), payload: command.to_bytes().unwrap() };
    wal.append(&[entry(1, &Command::Blank)]).unwrap();
    to.apply(id(1), &Command::Blank).unwrap();
    let mut build = to.begin_build(cut.id()).unwrap();
    while let Some((frame, cursor)) = cut.frame(&build.cursor(), 4_000).unwrap() {
        build.push(&frame, cursor).unwrap();
    }
    to.install(build, last).unwrap();
    drop((to, wal));

    let Opened { machine, mut wal, entries } = Machine::open(config(there.path())).await.unwrap();
    assert_eq!((machine.applied(), wal.state().last, wal.state().purged), (last, last, last));
    assert!(entries.is_empty());
    wal.append(&[entry(104, &Command::Forgotten)]).unwrap();
    drop((machine, wal));
    let Opened { entries, .. } = Machine::open(config(there.path())).await.unwrap();
    assert_eq!(entries, [(id(104), Command::Forgotten.to_bytes().unwrap())]);
}

#[derive(Default)]
struct Lazy {
    durable: AtomicBool,
    asked: AtomicBool,
}

impl DurableLog for Lazy {
    fn make_durable(&self, _upto: LogId) -> Result<(), StorageError> {
        self.asked.store(true, Ordering::SeqCst);
        if self.durable.load(Ordering::SeqCst) { Ok(()) } else { Err(StorageError::NoSpace) }
    }
}

#[tokio::test]
async fn the_tables_get_nothing_that_the_log_could_still_lose() {
    for background in [Background::Threads, Background::Inline] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.background = background;
        let machine = Machine::open(config).await.unwrap().machine;
        let log = Arc::new(Lazy::default());
        machine.set_log(Arc::<Lazy>::clone(&log));
        fill(&machine);
        assert!(matches!(machine.checkpoint().await, Err(StorageError::NoSpace)));
        assert!(log.asked.load(Ordering::SeqCst));
        assert_eq!(machine.checkpointed().applied, LogId::default());
        log.durable.store(true, Ordering::SeqCst);
        while machine.checkpoint().await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(machine.checkpointed().applied, machine.applied());
    }
}

mod volatile;
