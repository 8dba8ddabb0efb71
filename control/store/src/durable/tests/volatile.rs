//! Keys in memory on two machines that apply one log, of which one lost something.

use futures::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::types::WatchEvent;

/// Two machines: the first has everything, the other is to lose some.
async fn two() -> (Machine, Machine, [TempDir; 2]) {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let open = async |dir: &TempDir| Machine::open(config(dir.path())).await.unwrap().machine;
    (open(&dirs[0]).await, open(&dirs[1]).await, dirs)
}

/// Both apply it.
fn both(machines: [&Machine; 2], at: u64, command: &Command) {
    for machine in machines {
        machine.apply(id(at), command).unwrap();
    }
}

/// One applies it, and the other has only the placeholder.
fn kept_and_lost(kept: &Machine, lost: &Machine, at: u64, command: &Command) {
    kept.apply(id(at), command).unwrap();
    lost.apply(id(at), &command.placeholder().unwrap()).unwrap();
    assert_eq!(kept.revision(), lost.revision(), "each used up as many revisions");
}

fn delete(key: &'static str) -> Effect {
    Effect::Delete { key: key.into() }
}

fn keys(response: RangeResponse) -> Vec<Bytes> {
    response.kvs.into_iter().map(|kv| kv.key).collect()
}

fn watch(machine: &Machine, prefix: &'static str, from: u64) -> Result<WatchStream, StorageError> {
    let (start, end) = (Bytes::from_static(prefix.as_bytes()), crate::types::prefix_end(prefix.as_bytes()));
    machine.watch(&WatchRequest { start, end: Some(end), from: Revision(from) })
}

async fn end_of(watch: WatchStream) -> Option<StorageError> {
    watch.filter_map(|batch| std::future::ready(batch.err())).boxed().next().await
}

async fn refuses(machine: &Machine) -> bool {
    let unavailable = |error| matches!(error, StorageError::Unavailable { .. });
    let one = machine.range(RangeRequest::key("/v/a")).await.is_err_and(unavailable);
    let every = machine.range(RangeRequest::prefix("/")).await.is_err_and(unavailable);
    let watched = watch(machine, "/v/", 1_000).err().is_some_and(unavailable);
    let txn = Txn { success: vec![Op::Get { key: "/v/a".into() }], ..Txn::default() };
    let evaluated = machine.evaluate_volatile(&txn).err().is_some_and(unavailable);
    assert!(machine.range(RangeRequest::prefix("/k/")).await.is_ok(), "other keys are as ever");
    let all = [one, every, watched, evaluated, machine.begin_copy().is_none()];
    assert!(all == [all[0]; 5], "{all:?}");
    one
}

#[tokio::test]
async fn a_member_that_lost_keys_answers_for_none_until_it_has_a_copy_that_is_new_enough() {
    let (from, to, _dirs) = two().await;
    kept_and_lost(&from, &to, 1, &put(&from, "/v/a", b"1"));
    let older = copy_of(&from);
    both([&from, &to], 2, &put(&from, "/v/b", b"1"));
    kept_and_lost(&from, &to, 3, &put(&from, "/v/c", b"1"));
    both([&from, &to], 4, &put(&from, "/v/a", b"2"));
    assert_eq!(*to.lacks().borrow(), Some(3));
    assert!(refuses(&to).await);
    assert!(matches!(adopt(&to, &older), Err(StorageError::Unavailable { .. })), "of before entry 3");
    assert!(refuses(&to).await);
    adopt(&to, &copy_of(&from)).unwrap();
    assert_eq!(*to.lacks().borrow(), None);
    assert!(!refuses(&to).await);
    assert_eq!(all(&to).await, all(&from).await);
    // Nothing tells of the revisions before.
    let at = |revision| RangeRequest { revision: Some(Revision(revision)), ..RangeRequest::prefix("/v/") };
    assert!(matches!(to.range(at(3)).await, Err(StorageError::Compacted { .. })));
    assert!(to.range(at(4)).await.is_ok());
    assert!(matches!(watch(&to, "/v/", 4), Err(StorageError::Compacted { .. })));
    assert!(watch(&to, "/v/", 5).is_ok());
}

#[tokio::test]
async fn what_is_applied_while_a_copy_is_on_its_way_stands() {
    for says_revision in [true, false] {
        let (from, to, _dirs) = two().await;
        for (at, key) in [(1, "/v/a"), (2, "/v/b"), (3, "/v/c"), (4, "/v/d")] {
            kept_and_lost(&from, &to, at, &put(&from, key, b"of before"));
        }
        let mut copy = copy_of(&from);
        if !says_revision {
            // As members at level 2 send it.
            copy.1.revision = None;
        }
        both([&from, &to], 5, &Command::Reign { cluster: ClusterId(9), skip: true });
        both([&from, &to], 6, &Command::Volatile { effects: vec![delete("/v/a"), delete("/v/c")] });
        both([&from, &to], 7, &put(&from, "/v/b", b"newer"));
        both([&from, &to], 8, &put(&from, "/v/c", b"new again"));
        // History is forgotten under a leader that has the keys.
        for machine in [&from, &to] {
            machine.forget_volatile(9);
        }
        both([&from, &to], 9, &Command::Compact { revision: 9 });
        adopt(&to, &copy).unwrap();
        assert_eq!(keys(all(&to).await), ["/v/b", "/v/c", "/v/d"], "{says_revision}");
        assert_eq!(all(&to).await.kvs, all(&from).await.kvs);
        let records = || to.shared.core.state.read().volatile.len();
        assert_eq!(records(), 3, "no deletion is kept for ever");
        both([&from, &to], 10, &put(&from, "/v/c", b"newest"));
        both([&from, &to], 11, &Command::Compact { revision: 10 });
        assert_eq!(records(), 3, "history is forgotten as ever from here on");
    }
}

#[tokio::test]
async fn a_key_whose_deletion_was_lost_goes_with_the_next_copy() {
    let (from, to, _dirs) = two().await;
    kept_and_lost(&from, &to, 1, &put(&from, "/v/a", b"soon gone"));
    // The key is there, and its deletion is not heard of.
    adopt(&to, &copy_of(&from)).unwrap();
    let gone = Command::Volatile { effects: vec![delete("/v/a")] };
    kept_and_lost(&from, &to, 2, &gone);
    both([&from, &to], 3, &put(&from, "/v/b", b"1"));
    from.forget_volatile(4);
    adopt(&to, &copy_of(&from)).unwrap();
    assert_eq!(keys(all(&to).await), ["/v/b"]);
}

#[tokio::test]
async fn rows_of_revisions_that_are_still_to_come_have_to_wait() {
    let (from, to, _dirs) = two().await;
    kept_and_lost(&from, &to, 1, &put(&from, "/v/a", b"1"));
    let second = put(&from, "/v/a", b"2");
    let begun = from.begin_copy().unwrap();
    from.apply(id(2), &second).unwrap();
    let copy = (copy_of(&from).0, begun);
    let refused = adopt(&to, &copy);
    assert!(matches!(refused, Err(StorageError::Future { requested: Revision(2), .. })), "{refused:?}");
    to.apply(id(2), &second).unwrap();
    adopt(&to, &copy).unwrap();
    assert_eq!(all(&to).await, all(&from).await);
}

#[tokio::test]
async fn whoever_watches_is_sent_back_to_a_list_where_events_are_lost_and_others_watch_on() {
    let (from, to, _dirs) = two().await;
    both([&from, &to], 1, &put(&from, "/v/a", b"1"));
    let watches = ["/v/", "/"].map(|prefix| watch(&to, prefix, 2).unwrap());
    let mut other = watch(&to, "/k/", 2).unwrap();
    kept_and_lost(&from, &to, 2, &put(&from, "/v/a", b"2"));
    for watch in watches {
        let ended = end_of(watch).await;
        assert!(matches!(ended, Some(StorageError::Compacted { .. })), "{ended:?}");
    }
    both([&from, &to], 3, &put(&from, "/k/a", b"1"));
    let events = loop {
        let batch = other.next().await.unwrap().unwrap();
        if !batch.events.is_empty() {
            break batch.events;
        }
    };
    assert!(
        matches!(&events[..], [WatchEvent::Put { kv, .. }] if kv.mod_revision == Revision(3)),
        "{events:?}"
    );
}

#[tokio::test]
async fn what_nobody_has_any_more_is_given_up_everywhere() {
    let (from, to, _dirs) = two().await;
    both([&from, &to], 1, &put(&from, "/k/a", b"1"));
    kept_and_lost(&from, &to, 2, &put(&from, "/v/a", b"1"));
    both([&from, &to], 3, &put(&from, "/v/b", b"1"));
    let (older, watched, other) = (copy_of(&from), watch(&from, "/v/", 4).unwrap(), watch(&from, "/k/", 4));
    let begun = from.begin_copy().unwrap();
    both([&from, &to], 4, &Command::Lost);
    assert!(!from.is_still(begun), "a copy that was on its way is none");
    for machine in [&from, &to] {
        assert_eq!(*machine.lacks().borrow(), None);
        assert_eq!(keys(all(machine).await), ["/k/a"]);
        assert_eq!((machine.revision(), machine.stats().volatile_lost), (Revision(4), 4));
        assert!(matches!(watch(machine, "/v/", 4), Err(StorageError::Compacted { .. })));
    }
    let ended = end_of(watched).await;
    assert!(matches!(ended, Some(StorageError::Compacted { .. })), "{ended:?}");
    adopt(&to, &older).unwrap();
    assert_eq!(keys(all(&to).await), ["/k/a"], "nothing comes back");
    both([&from, &to], 5, &put(&to, "/v/c", b"1"));
    both([&from, &to], 6, &put(&to, "/k/b", b"1"));
    assert!(other.unwrap().next().await.unwrap().is_ok());
    assert_eq!(all(&to).await, all(&from).await);
}

#[tokio::test]
async fn a_member_that_starts_again_lacks_what_the_tables_do_not_have_and_what_was_forgotten_since() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { machine, mut wal, .. } = Machine::open(config(dir.path())).await.unwrap();
    assert_eq!(*machine.lacks().borrow(), None, "there was nothing yet");
    let commands = [put(&machine, "/v/a", b"1"), put(&machine, "/k/a", b"1"), Command::Lost];
    for (at, command) in (1..).zip(&commands) {
        let stored = command.placeholder().unwrap_or_else(|| command.clone());
        let payload = stored.to_bytes().unwrap();
        wal.append(&[Record::Entry { id: id(at), payload }]).unwrap();
        if at < 3 {
            machine.apply(id(at), command).unwrap();
        }
    }
    machine.checkpoint().await.unwrap();
    drop((machine, wal));
    let Opened { machine, entries, .. } = Machine::open(config(dir.path())).await.unwrap();
    assert_eq!(*machine.lacks().borrow(), Some(2));
    assert!(refuses(&machine).await);
    let (last, payload) = entries.last().unwrap();
    machine.apply(*last, &Command::from_bytes(payload).unwrap()).unwrap();
    assert_eq!(*machine.lacks().borrow(), Some(3), "what was then need not be what was in the end");
    machine.apply(id(4), &Command::Lost).unwrap();
    assert_eq!(*machine.lacks().borrow(), None, "the group has given up what there was");
    assert_eq!(keys(all(&machine).await), ["/k/a"]);
}

/// One that is alone writes them when something else is written; so the log does not tell.
#[tokio::test]
async fn a_member_that_starts_again_does_not_take_silence_for_knowledge() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { machine, mut wal, .. } = Machine::open(config(dir.path())).await.unwrap();
    wal.append(&[Record::Entry { id: id(1), payload: Command::Blank.to_bytes().unwrap() }]).unwrap();
    machine.apply(id(1), &Command::Blank).unwrap();
    machine.apply(id(2), &put(&machine, "/v/a", b"never written")).unwrap();
    drop((machine, wal));
    let machine = Machine::open(config(dir.path())).await.unwrap().machine;
    machine.apply(id(1), &Command::Blank).unwrap();
    assert!(refuses(&machine).await);
}

#[tokio::test]
async fn a_leader_of_an_older_group_takes_what_it_has_for_all_there_is() {
    let (from, to, _dirs) = two().await;
    kept_and_lost(&from, &to, 1, &put(&from, "/v/a", b"1"));
    both([&from, &to], 2, &put(&from, "/v/b", b"1"));
    to.settle_volatile();
    assert_eq!(keys(all(&to).await), ["/v/b"]);
    assert!(!refuses(&to).await);
}
