//! A disk that forgets on a crash what was not made durable, and fails when it is told to.
//!
//! Each 512-byte sector written since its file was last synced ends up, after a crash, as one of
//! the contents it had since then: so writes are lost, kept out of order, and torn.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampan_store::{DiskFaults, DiskOp};

use crate::counts::{Counts, Happened};

const SECTOR: u64 = 512;

/// One member's disk.
#[derive(Debug)]
pub(crate) struct SimDisk {
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    unsynced: BTreeMap<PathBuf, Unsynced>,
    full: bool,
    /// Whether it failed in this life of the process.
    failed: bool,
    /// Operations until one fails for good with an I/O error.
    fails_in: Option<u64>,
    /// Whether the power goes when it fails.
    cut: bool,
    /// How long a sync of the log takes at most, in milliseconds.
    slow: u64,
    rng: StdRng,
}

/// What one file looked like at its last sync, as far as it was changed since.
#[derive(Debug, Default)]
struct Unsynced {
    lengths: Vec<u64>,
    /// The contents that a sector had, oldest first, without the present one.
    sectors: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl SimDisk {
    /// A disk on which nothing was written yet.
    pub(crate) fn new(counts: Counts, seed: u64) -> Self {
        let (unsynced, rng) = (BTreeMap::new(), StdRng::seed_from_u64(seed));
        let state = State { unsynced, full: false, failed: false, fails_in: None, cut: false, slow: 0, rng };
        Self { state: Mutex::new(state), counts }
    }

    /// Another disk, for the same machine.
    pub(crate) fn blank(&self) -> Self {
        let seed = self.state.lock().rng.random();
        Self::new(self.counts.clone(), seed)
    }

    /// From now on a sync of the log takes up to so many milliseconds.
    pub(crate) fn set_slow(&self, most: u64) {
        self.state.lock().slow = most;
    }

    /// From now on there is no space left, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The `count`-th operation from now on fails, and so do all after it until the crash.
    pub(crate) fn fail_in(&self, count: u64) {
        let mut state = self.state.lock();
        (state.fails_in, state.cut) = (Some(count), false);
    }

    /// The power goes with the `count`-th operation from now on.
    pub(crate) fn cut_in(&self, count: u64) {
        let mut state = self.state.lock();
        (state.fails_in, state.cut) = (Some(count), true);
    }

    /// Whether the power went with an operation.
    pub(crate) fn is_cut(&self) -> bool {
        let state = self.state.lock();
        state.failed && state.cut
    }

    /// Whether it fails now.
    pub(crate) fn is_in_trouble(&self) -> bool {
        let state = self.state.lock();
        state.full || state.fails_in.is_some()
    }

    /// The process ended: a failing disk is well again, and what was written stays.
    pub(crate) fn restart(&self) {
        let mut state = self.state.lock();
        state.fails_in = None;
        state.failed = false;
    }

    /// What was to fail later does not.
    pub(crate) fn calm(&self) {
        let mut state = self.state.lock();
        state.full = false;
        state.slow = 0;
        if !state.failed {
            state.fails_in = None;
        }
    }

    /// Whether it failed in this life of the process. A member that may not wait in a thread (and
    /// here there are none) ends with the first write that fails, a full disk included.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// The power goes: returns how many sectors lost their newest content. Whoever has the
    /// files open must be gone.
    pub(crate) fn crash(&self, rng: &mut StdRng) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.fails_in = None;
        let (mut lost, mut all) = (0, 0);
        for (path, unsynced) in std::mem::take(&mut state.unsynced) {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => {
                    all += unsynced.sectors.len();
                    lost += unsynced.crash(&file, rng)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.counts.add(Happened::LostSector, lost as u64);
        self.counts.add(Happened::TornCrash, u64::from(lost > 0 && lost < all));
        Ok(lost)
    }
}

impl Unsynced {
    fn crash(self, file: &File, rng: &mut StdRng) -> io::Result<usize> {
        let now = file.metadata()?.len();
        // Some crashes keep all or nothing: those are the ones that happen most.
        let style = rng.random_range(0..4);
        let mut pick = |older: usize| match style {
            0 => 0,
            1 => older,
            _ => rng.random_range(0..=older),
        };
        let length = pick(self.lengths.len());
        let length = self.lengths.get(length).copied().unwrap_or(now);
        file.set_len(length)?;
        let mut lost = 0;
        for (number, older) in self.sectors {
            let choice = pick(older.len());
            let Some(content) = older.get(choice) else { continue };
            let start = number * SECTOR;
            if start < length {
                let mut content = content.clone();
                content.resize(SECTOR.min(length - start) as usize, 0);
                file.write_all_at(&content, start)?;
                lost += 1;
            }
        }
        Ok(lost)
    }

    /// Remembers the sectors in `from..to` as they are.
    fn remember(&mut self, path: &Path, from: u64, to: u64) -> io::Result<()> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let (first, last) = (from / SECTOR, to.div_ceil(SECTOR));
        let end = length.min(last * SECTOR);
        let mut present = vec![0; end.saturating_sub(first * SECTOR) as usize];
        file.read_exact_at(&mut present, first * SECTOR)?;
        let mut sectors = present.chunks(SECTOR as usize);
        for number in first..last {
            let content = sectors.next().unwrap_or_default();
            let older = self.sectors.entry(number).or_default();
            if older.last().is_none_or(|last| last != content) {
                older.push(content.to_vec());
            }
        }
        Ok(())
    }
}

impl DiskFaults for SimDisk {
    fn before(&self, op: DiskOp<'_>) -> io::Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(left) = &mut state.fails_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.failed = true;
                self.counts.note(Happened::BrokenDisk);
                return Err(io::Error::other("the disk is broken"));
            }
        }
        if state.full && !matches!(op, DiskOp::Sync { .. }) {
            state.failed = true;
            self.counts.note(Happened::FullDisk);
            return Err(io::ErrorKind::StorageFull.into());
        }
        match op {
            DiskOp::Sync { path } => {
                state.unsynced.remove(path);
            }
            DiskOp::Write { path, offset, bytes } => {
                let unsynced = state.unsynced.entry(path.to_owned()).or_default();
                let now = std::fs::metadata(path)?.len();
                let end = offset + bytes as u64;
                if end > now {
                    unsynced.lengths.push(now);
                }
                unsynced.remember(path, offset, end)?;
            }
            DiskOp::SetLen { path, len } => {
                let unsynced = state.unsynced.entry(path.to_owned()).or_default();
                let now = std::fs::metadata(path)?.len();
                unsynced.lengths.push(now);
                if len < now {
                    unsynced.remember(path, len, now)?;
                }
            }
        }
        Ok(())
    }

    fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.state.lock();
        // What had the name is gone; its name is durable at once, as the store syncs directories.
        state.unsynced.remove(to);
        if let Some(unsynced) = state.unsynced.remove(from) {
            state.unsynced.insert(to.to_owned(), unsynced);
        }
    }

    fn delay(&self) -> Duration {
        let mut state = self.state.lock();
        if state.slow == 0 {
            return Duration::ZERO;
        }
        self.counts.note(Happened::SlowSync);
        let most = state.slow;
        Duration::from_millis(state.rng.random_range(0..=most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> SimDisk {
        SimDisk::new(Counts::default(), 1)
    }

    /// Writes as the store does: asks first.
    fn write(disk: &SimDisk, path: &Path, offset: u64, data: &[u8]) {
        disk.before(DiskOp::Write { path, offset, bytes: data.len() }).unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(data, offset).unwrap();
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_go_sector_by_sector() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            std::fs::write(&path, [0; 2048]).unwrap();
            let disk = self::disk();
            write(&disk, &path, 0, &[1; 2048]);
            disk.before(DiskOp::Sync { path: &path }).unwrap();
            write(&disk, &path, 512, &[2; 1024]);
            write(&disk, &path, 1024, &[3; 512]);
            disk.crash(&mut StdRng::seed_from_u64(seed)).unwrap();
            let found = std::fs::read(&path).unwrap();
            let sectors: Vec<u8> = found.chunks(512).map(|sector| sector[0]).collect();
            assert!(found.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            assert_eq!((sectors[0], sectors[3]), (1, 1), "synced");
            outcomes.insert((sectors[1], sectors[2]));
        }
        let all = [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)];
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn lengths_may_be_lost_too_but_not_what_a_sync_covered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..100 {
            std::fs::write(&path, [7; 1000]).unwrap();
            let disk = self::disk();
            disk.before(DiskOp::SetLen { path: &path, len: 600 }).unwrap();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(600).unwrap();
            write(&disk, &path, 600, &[8; 900]);
            disk.crash(&mut StdRng::seed_from_u64(seed)).unwrap();
            let found = std::fs::read(&path).unwrap();
            lengths.insert(found.len());
            if found.len() == 1000 && found[999] == 7 {
                assert!(found[..512].iter().all(|byte| *byte == 7));
            }
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [600, 1000, 1500]);
    }

    #[test]
    fn a_full_disk_still_syncs_and_a_broken_one_does_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 10]).unwrap();
        let disk = self::disk();
        disk.set_full(true);
        let refusal = disk.before(DiskOp::Write { path: &path, offset: 0, bytes: 1 }).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::StorageFull);
        disk.before(DiskOp::Sync { path: &path }).unwrap();
        disk.set_full(false);
        disk.fail_in(2);
        disk.before(DiskOp::Sync { path: &path }).unwrap();
        for _ in 0..3 {
            assert!(disk.before(DiskOp::Sync { path: &path }).is_err());
        }
    }
}
