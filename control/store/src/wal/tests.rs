//! The log on a real directory: what it gives back after orderly and disorderly ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::disk::{DiskFaults, DiskOp};

const SEGMENT: usize = 4096;

fn entry(index: u64, size: usize) -> Record {
    Record::Entry { id: LogId { term: 1, index }, payload: Bytes::from(vec![index as u8; size]) }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, index }
}

fn open(dir: &Path) -> (Wal, Vec<u64>) {
    open_from(dir, 0).unwrap()
}

fn open_from(dir: &Path, applied: u64) -> Result<(Wal, Vec<u64>), WalError> {
    let (wal, recovered) = Wal::open(dir, SEGMENT, &Disk::default(), id(applied), id(0))?;
    Ok((wal, recovered.entries.iter().map(|(id, _)| id.index).collect()))
}

fn segments(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().unwrap() == extension)
        .collect();
    paths.sort();
    paths
}

#[test]
fn entries_come_back_in_order_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, entries) = open(dir.path());
    assert!(entries.is_empty());
    for index in 1..=20 {
        wal.append(&[entry(index, 700)]).unwrap();
    }
    drop(wal);
    assert!(segments(dir.path(), "wal").len() > 3);
    let (mut wal, entries) = open(dir.path());
    assert_eq!(entries, (1..=20).collect::<Vec<_>>());
    wal.append(&[entry(21, 10)]).unwrap();
    drop(wal);
    let all = open_from(dir.path(), 15).unwrap().1;
    assert_eq!(all, (1..=21).collect::<Vec<_>>(), "others may need what is applied here");
    let (mut wal, _) = open_from(dir.path(), 15).unwrap();
    wal.append(&[Record::Purge(id(12))]).unwrap();
    drop(wal);
    assert_eq!(open_from(dir.path(), 15).unwrap().1, (13..=21).collect::<Vec<_>>());
}

#[test]
fn a_batch_goes_into_one_segment_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append(&[entry(1, 3_000)]).unwrap();
    wal.append(&[entry(2, 1_500), entry(3, 2_000)]).unwrap();
    let batch: Vec<Record> = (4..=8).map(|index| entry(index, 900)).collect();
    let refusal = wal.append(&batch).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::InvalidInput);
    wal.append(&[entry(4, wal.max_batch() - Wal::RECORD_OVERHEAD)]).unwrap();
    drop(wal);
    assert_eq!(open(dir.path()).1, [1, 2, 3, 4]);
}

#[test]
fn what_a_torn_write_left_behind_never_becomes_part_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append(&[entry(1, 100)]).unwrap();
    let end = wal.bytes_in_use() as usize;
    wal.append(&[entry(2, 100), entry(3, 100)]).unwrap();
    drop(wal);
    // The sectors of entry 3 reached the device, those of entry 2 did not.
    let path = segments(dir.path(), "wal").remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[end + 20] ^= 0xff;
    std::fs::write(&path, &torn).unwrap();
    // The client sends entry 2 again, to the byte; entry 3 must stay away.
    let (mut wal, entries) = open(dir.path());
    assert_eq!(entries, [1]);
    wal.append(&[entry(2, 100)]).unwrap();
    drop(wal);
    assert_eq!(open(dir.path()).1, [1, 2]);
}

#[test]
fn segments_are_used_again_and_their_old_content_never_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=200 {
        wal.append(&[entry(index, 700)]).unwrap();
        wal.recycle(id(index.saturating_sub(3)));
    }
    drop(wal);
    assert!(segments(dir.path(), "wal").len() <= 3);
    assert!(segments(dir.path(), "spare").len() <= 3);
    let (wal, entries) = open_from(dir.path(), 197).unwrap();
    let first = wal.state().purged.index + 1;
    assert!(first > 190 && first <= 198, "{first}");
    assert_eq!(entries, (first..=200).collect::<Vec<_>>());
}

#[test]
fn votes_marks_and_truncation_survive_recycling() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    let vote = Vote { term: 3, node: 7, committed: true };
    wal.append(&[Record::Vote(vote), entry(1, 700), entry(2, 700)]).unwrap();
    wal.append(&[Record::TruncateAfter(id(1)), entry(2, 700), Record::Committed(id(2))]).unwrap();
    wal.append(&[Record::Purge(id(1))]).unwrap();
    for index in 3..=20 {
        wal.append(&[entry(index, 700)]).unwrap();
    }
    wal.recycle(id(20));
    drop(wal);
    let (wal, _) = open_from(dir.path(), 20).unwrap();
    let purged = wal.state().purged;
    assert!(purged > id(1), "what was recycled counts as purged: {purged}");
    let expected = LogState { vote: Some(vote), last: id(20), purged, committed: id(2) };
    assert_eq!(wal.state(), expected);
}

#[test]
fn truncated_entries_do_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    wal.append(&[entry(1, 10), entry(2, 10), entry(3, 10), Record::TruncateAfter(id(1))]).unwrap();
    drop(wal);
    assert_eq!(open(dir.path()).1, [1]);
}

#[test]
fn a_torn_or_garbled_tail_loses_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=3 {
        wal.append(&[entry(index, 100)]).unwrap();
    }
    let used = wal.bytes_in_use() as usize;
    drop(wal);
    let path = segments(dir.path(), "wal").remove(0);
    let whole = std::fs::read(&path).unwrap();
    for at in [used - 1, used - 60, used - 108] {
        let mut torn = whole.clone();
        torn[at] ^= 0xff;
        std::fs::write(&path, &torn).unwrap();
        let (mut wal, entries) = open(dir.path());
        assert_eq!(entries, [1, 2], "flipped byte {at}");
        wal.append(&[entry(3, 5)]).unwrap();
        drop(wal);
        assert_eq!(open(dir.path()).1, [1, 2, 3]);
    }
    let mut garbage = whole.clone();
    for (at, byte) in garbage.iter_mut().enumerate().skip(used) {
        *byte = (at * 31 + 7) as u8;
    }
    std::fs::write(&path, &garbage).unwrap();
    assert_eq!(open(dir.path()).1, [1, 2, 3]);
}

#[test]
fn damage_before_the_last_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=20 {
        wal.append(&[entry(index, 700)]).unwrap();
    }
    drop(wal);
    let path = segments(dir.path(), "wal").remove(1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[2_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(open_from(dir.path(), 0), Err(WalError::Corrupt { .. })));
    assert_eq!(bytes, std::fs::read(&path).unwrap(), "nothing changed");
    bytes[4] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(open_from(dir.path(), 0), Err(WalError::Corrupt { .. })), "not even its head is whole");
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = open(dir.path());
    for index in 1..=20 {
        wal.append(&[entry(index, 700)]).unwrap();
    }
    drop(wal);
    let first = segments(dir.path(), "wal").remove(0);
    std::fs::remove_file(first).unwrap();
    let refusal = open_from(dir.path(), 0).unwrap_err().to_string();
    assert!(refusal.contains("begins behind entry"), "{refusal}");
    for path in segments(dir.path(), "wal") {
        std::fs::remove_file(path).unwrap();
    }
    assert!(open_from(dir.path(), 7).is_err(), "a log that lost everything");
}

/// A disk that fails after so many bytes, or when it is told to.
#[derive(Default)]
struct Full {
    left: AtomicU64,
    sync_fails: AtomicBool,
}

impl DiskFaults for Full {
    fn before(&self, op: DiskOp<'_>) -> io::Result<()> {
        match op {
            DiskOp::Write { bytes, .. } => self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(bytes as u64))
                .map(drop)
                .map_err(|_| io::ErrorKind::StorageFull.into()),
            DiskOp::Sync { .. } if self.sync_fails.load(Ordering::SeqCst) => {
                Err(io::ErrorKind::StorageFull.into())
            }
            DiskOp::Sync { .. } | DiskOp::SetLen { .. } => Ok(()),
        }
    }
}

#[test]
fn a_refused_batch_is_not_in_the_log_and_the_next_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Full::default());
    disk.left.store(1 << 20, Ordering::SeqCst);
    let faults: Arc<dyn DiskFaults> = disk.clone();
    let (mut wal, _) = Wal::open(dir.path(), SEGMENT, &Disk::new(Some(faults)), id(0), id(0)).unwrap();
    wal.append(&[entry(1, 100)]).unwrap();
    // The write goes through, making it durable does not; then nothing at all goes.
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(wal.append(&[entry(2, 100)]).is_err());
    disk.left.store(0, Ordering::SeqCst);
    disk.sync_fails.store(false, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(wal.append(&[entry(2, 100)]).is_err());
    }
    assert_eq!(wal.state().last, id(1));
    disk.left.store(1 << 20, Ordering::SeqCst);
    wal.append(&[entry(2, 50)]).unwrap();
    wal.append(&[entry(3, 50)]).unwrap();
    drop(wal);
    let (_, recovered) = Wal::open(dir.path(), SEGMENT, &Disk::default(), id(0), id(0)).unwrap();
    let found: Vec<_> = recovered.entries.iter().map(|(id, payload)| (id.index, payload.len())).collect();
    assert_eq!(found, [(1, 100), (2, 50), (3, 50)]);
}

#[test]
fn a_spare_that_another_takes_the_place_of_is_still_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut spare = super::segment::Segments::open(dir.path(), SEGMENT, &Disk::default()).unwrap();
    drop((spare.acquire(1).unwrap(), spare.acquire(2).unwrap()));
    spare.recycle(1);
    spare.recycle(2);
    // As after a restart, the number 1 is given again, and what it names came from the spare 2.
    drop(spare.acquire(1).unwrap());
    spare.recycle(1);
    for number in 3..6 {
        drop(spare.acquire(number).unwrap());
    }
    assert_eq!(spare.numbers().unwrap(), [3, 4, 5]);
}

/// A disk that knows which files hold what was not synced, and can refuse to sync.
#[derive(Default)]
struct Watched {
    unsynced: Mutex<BTreeSet<PathBuf>>,
    sync_fails: AtomicBool,
}

impl DiskFaults for Watched {
    fn before(&self, op: DiskOp<'_>) -> io::Result<()> {
        match op {
            DiskOp::Sync { .. } if self.sync_fails.load(Ordering::SeqCst) => {
                return Err(io::Error::other("the disk is broken"));
            }
            DiskOp::Sync { path } => drop(self.unsynced.lock().remove(path)),
            DiskOp::Write { path, .. } => drop(self.unsynced.lock().insert(path.to_owned())),
            DiskOp::SetLen { .. } => {}
        }
        Ok(())
    }
}

#[test]
fn what_a_log_gives_back_is_durable_even_if_it_never_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Watched::default());
    let open = || {
        let faults: Arc<dyn DiskFaults> = disk.clone();
        Wal::open(dir.path(), SEGMENT, &Disk::new(Some(faults)), id(0), id(0))
    };
    let (mut wal, _) = open().unwrap();
    wal.append(&[entry(1, 100)]).unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    // As if the process ended between the write and its sync.
    let segment = wal.current.as_mut().unwrap();
    let mut batch = Batch::default();
    batch.push(&entry(2, 100)).unwrap();
    batch.seal(&mut wal.chain).unwrap();
    assert!(segment.append(&batch.bytes).is_err());
    drop(wal);
    assert!(!disk.unsynced.lock().is_empty());
    assert!(open().is_err(), "what cannot be made durable is not given back");
    disk.sync_fails.store(false, Ordering::SeqCst);
    let (_wal, recovered) = open().unwrap();
    assert_eq!(recovered.entries.len(), 2);
    assert_eq!(*disk.unsynced.lock(), BTreeSet::new());
}
