//! The machine under somebody who orders commands.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;

use super::*;
use crate::types::{Op, WatchEvent};
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
    to.install(build, last).unwrap();
    assert_eq!(all(&to).await, expected);
    assert!(expected.kvs.iter().any(|kv| kv.key.starts_with(b"/v/")), "volatile rows are in it");
    let (mut mine, theirs) = (to.standing(), from.standing());
    mine.compacted = theirs.compacted;
    assert_eq!(mine, Standing { applied: last, revision: mine.revision, ..theirs.clone() });
    assert_eq!(mine.revision + 1, theirs.revision);
    // Both go on alike.
    to.apply(id(104), &put(&to, "/k/late", b"late")).unwrap();
    assert_eq!(all(&to).await, all(&from).await);
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

#[tokio::test]
async fn of_two_copies_of_volatile_rows_the_newest_of_each_key_stands() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let to = Machine::open(config(there.path())).await.unwrap().machine;
    for (at, key) in [(1, "/v/a"), (2, "/v/b"), (3, "/v/c")] {
        let command = put(&from, key, b"both");
        from.apply(id(at), &command).unwrap();
        to.apply(id(at), if key == "/v/c" { &Command::Forgotten } else { &command }).unwrap();
    }
    let newer = put(&from, "/v/a", b"newer here");
    from.apply(id(4), &newer).unwrap();
    to.apply(id(4), &Command::Forgotten).unwrap();
    let newer = put(&to, "/v/b", b"newer there");
    from.apply(id(5), &Command::Forgotten).unwrap();
    to.apply(id(5), &newer).unwrap();
    assert_eq!(from.revision(), to.revision(), "each used up one revision");
    let mut cursor = Bytes::new();
    while let Some((frame, after)) = from.volatile_frame(&cursor, 1).unwrap() {
        to.merge_volatile(&frame, from.applied().index).unwrap();
        cursor = after;
    }
    let found: Vec<_> = all(&to).await.kvs.into_iter().map(|kv| (kv.value, kv.version)).collect();
    assert_eq!(
        found,
        [
            (Bytes::from_static(b"newer here"), 2),
            (Bytes::from_static(b"newer there"), 2),
            (Bytes::from_static(b"both"), 1)
        ]
    );
}

#[tokio::test]
async fn a_copy_of_volatile_rows_that_is_older_than_an_installed_state_brings_nothing_back() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let to = Machine::open(config(there.path())).await.unwrap().machine;
    from.apply(id(1), &put(&from, "/v/a", b"soon gone")).unwrap();
    let (frame, _) = from.volatile_frame(&[], 1_000).unwrap().unwrap();
    let gone = Effect::Delete { key: Bytes::from_static(b"/v/a") };
    from.apply(id(2), &Command::Volatile { effects: vec![gone] }).unwrap();
    let cut = from.cut().unwrap();
    let mut build = to.begin_build(cut.id()).unwrap();
    while let Some((frame, cursor)) = cut.frame(&build.cursor(), 1_000).unwrap() {
        build.push(&frame, cursor).unwrap();
    }
    to.install(build, id(2)).unwrap();
    assert!(to.merge_volatile(&frame, 1).is_err());
    assert!(all(&to).await.kvs.is_empty(), "the state does not tell that the key was deleted");
    to.merge_volatile(&frame, 2).unwrap();
}

fn lost(machine: &Machine, entries: std::ops::RangeInclusive<u64>) {
    entries.for_each(|at| assert!(machine.apply(id(at), &Command::Forgotten).is_ok()));
}

async fn events(machine: &Machine, from: u64) -> Vec<(bool, Bytes, Revision)> {
    let request = WatchRequest { start: Bytes::new(), end: Some(Bytes::new()), from: Revision(from) };
    let mut watch = machine.watch(&request).unwrap();
    let events = watch.next().await.unwrap().unwrap().events.into_iter().map(|event| match event {
        WatchEvent::Put { kv, .. } => (true, kv.key, kv.mod_revision),
        WatchEvent::Delete { key, revision, .. } => (false, key, revision),
    });
    events.collect()
}

#[tokio::test]
async fn the_deletion_of_keys_that_a_restart_lost_is_the_same_for_those_who_watch_there() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let to = Machine::open(config(there.path())).await.unwrap().machine;
    for (at, key) in [(1, "/v/a"), (2, "/v/b"), (3, "/v/c")] {
        from.apply(id(at), &put(&from, key, b"soon gone")).unwrap();
    }
    lost(&to, 1..=3);
    let (older, _) = from.volatile_frame(&[], 1_000).unwrap().unwrap();
    let delete = |key: &'static str| Effect::Delete { key: key.into() };
    let stays =
        Effect::Put { key: "/v/stays".into(), value: Bytes::from_static(&[0]), create: 0, version: 1 };
    let effects = vec![delete("/v/a"), delete("/v/b"), stays, delete("/v/c")];
    let command = Command::Volatile { effects };
    let mut live = Vec::new();
    for machine in [&from, &to] {
        let request = WatchRequest { start: Bytes::new(), end: Some(Bytes::new()), from: Revision(4) };
        let mut watch = machine.watch(&request).unwrap();
        machine.apply(id(4), &command).unwrap();
        // The first batch is of what there was before.
        let batch = watch
            .by_ref()
            .filter_map(|batch| std::future::ready(batch.ok().filter(|batch| !batch.events.is_empty())))
            .next()
            .await;
        let events = batch.unwrap().events;
        live.push(events.iter().filter(|event| matches!(event, WatchEvent::Delete { .. })).count());
    }
    assert_eq!(live, [3, 3]);
    let expected = events(&from, 4).await;
    assert_eq!(expected.len(), 4);
    assert_eq!(events(&to, 4).await, expected, "as history has it, too");
    // None of them comes back with an older copy.
    to.merge_volatile(&older, 3).unwrap();
    let kept: Vec<_> = all(&to).await.kvs.into_iter().map(|kv| kv.key).collect();
    assert_eq!(kept, ["/v/stays"]);
}

/// A key is deleted and that history forgotten, under a leader that has it, while a copy that still
/// has the key is on its way to a member that lost it.
#[tokio::test]
async fn what_is_deleted_stays_so_however_late_a_copy_comes() {
    for installs in [false, true] {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = Machine::open(config(here.path())).await.unwrap().machine;
        let to = Machine::open(config(there.path())).await.unwrap().machine;
        for (at, key) in [(1, "/v/a"), (2, "/v/b")] {
            from.apply(id(at), &put(&from, key, b"of before")).unwrap();
        }
        let (older, _) = from.volatile_frame(&[], 1_000).unwrap().unwrap();
        if installs {
            let cut = from.cut().unwrap();
            let mut build = to.begin_build(cut.id()).unwrap();
            while let Some((frame, cursor)) = cut.frame(&build.cursor(), 1_000).unwrap() {
                build.push(&frame, cursor).unwrap();
            }
            to.install(build, id(2)).unwrap();
        } else {
            lost(&to, 1..=2);
        }
        to.apply(id(3), &Command::Reign { cluster: ClusterId(9), skip: true }).unwrap();
        let gone = Effect::Delete { key: "/v/a".into() };
        to.apply(id(4), &Command::Volatile { effects: vec![gone] }).unwrap();
        to.apply(id(5), &put(&to, "/v/c", b"newer")).unwrap();
        to.forget_volatile(4);
        to.apply(id(6), &Command::Compact { revision: 5 }).unwrap();
        to.merge_volatile(&older, 2).unwrap();
        to.volatile_merged(2).unwrap();
        let kept: Vec<_> = all(&to).await.kvs.into_iter().map(|kv| kv.key).collect();
        assert_eq!(kept, ["/v/b", "/v/c"], "{installs}");
        let records = || to.shared.core.state.read().volatile.len();
        assert_eq!(records(), 2, "the deletion is not kept for ever");
        to.apply(id(7), &put(&to, "/v/c", b"newest")).unwrap();
        to.apply(id(8), &Command::Compact { revision: 6 }).unwrap();
        assert_eq!(records(), 2, "history is forgotten as ever from here on");
    }
}

#[tokio::test]
async fn a_copy_without_rows_tells_nothing_of_the_revisions_before() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::open(config(dir.path())).await.unwrap().machine;
    lost(&machine, 1..=2);
    let gone = Effect::Delete { key: "/v/a".into() };
    machine.apply(id(3), &Command::Volatile { effects: vec![gone.clone()] }).unwrap();
    machine.apply(id(4), &Command::Volatile { effects: vec![gone] }).unwrap();
    let at = |revision| RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::prefix("/v/") };
    assert!(machine.range(at(3)).await.is_ok());
    machine.volatile_merged(4).unwrap();
    assert!(matches!(machine.range(at(3)).await, Err(StorageError::Compacted { .. })));
    assert!(machine.range(at(4)).await.is_ok());
}

#[tokio::test]
async fn rows_of_revisions_that_are_still_to_come_have_to_wait() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let to = Machine::open(config(there.path())).await.unwrap().machine;
    from.apply(id(1), &put(&from, "/v/a", b"1")).unwrap();
    lost(&to, 1..=1);
    let second = put(&from, "/v/a", b"2");
    from.apply(id(2), &second).unwrap();
    let (frame, _) = from.volatile_frame(&[], 1_000).unwrap().unwrap();
    let refused = to.merge_volatile(&frame, 1);
    assert!(matches!(refused, Err(StorageError::Future { requested: Revision(2), .. })), "{refused:?}");
    to.apply(id(2), &second).unwrap();
    to.merge_volatile(&frame, 1).unwrap();
    assert_eq!(all(&to).await, all(&from).await);
}

#[tokio::test]
async fn whoever_watches_already_is_sent_back_to_a_list_when_rows_are_merged() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let from = Machine::open(config(here.path())).await.unwrap().machine;
    let to = Machine::open(config(there.path())).await.unwrap().machine;
    from.apply(id(1), &put(&from, "/v/a", b"1")).unwrap();
    lost(&to, 1..=1);
    let request = WatchRequest { start: "/v/".into(), end: Some("/v0".into()), from: Revision(2) };
    let mut watch = to.watch(&request).unwrap();
    let (frame, _) = from.volatile_frame(&[], 1_000).unwrap().unwrap();
    to.merge_volatile(&frame, 1).unwrap();
    let ended = watch.by_ref().filter_map(|batch| std::future::ready(batch.err())).next().await;
    assert!(matches!(ended, Some(StorageError::Compacted { .. })), "{ended:?}");
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
