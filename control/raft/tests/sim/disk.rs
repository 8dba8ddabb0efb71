//! A disk that forgets on a crash what was not made durable, and fails when it is told to.
//!
//! Each 512-byte sector written since its file was last synced ends up, after a crash, as one of
//! the contents it had since then: so writes are lost, kept out of order, and torn.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use sampan_store::{DiskFaults, DiskOp};

const SECTOR: u64 = 512;

/// One member's disk.
#[derive(Debug, Default)]
pub(crate) struct SimDisk {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unsynced: BTreeMap<PathBuf, Unsynced>,
    full: bool,
    /// Whether it failed in this life of the process.
    failed: bool,
    /// Operations until one fails for good with an I/O error.
    fails_in: Option<u64>,
}

/// What one file looked like at its last sync, as far as it was changed since.
#[derive(Debug, Default)]
struct Unsynced {
    lengths: Vec<u64>,
    /// The contents that a sector had, oldest first, without the present one.
    sectors: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl SimDisk {
    /// From now on there is no space left, or there is again.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The `count`-th operation from now on fails, and so do all after it until the crash.
    pub(crate) fn fail_in(&self, count: u64) {
        self.state.lock().fails_in = Some(count);
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
        let mut lost = 0;
        for (path, unsynced) in std::mem::take(&mut state.unsynced) {
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => lost += unsynced.crash(&file, rng)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
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
        for number in from / SECTOR..to.div_ceil(SECTOR) {
            let start = number * SECTOR;
            let mut content = vec![0; SECTOR.min(length.saturating_sub(start)) as usize];
            file.read_exact_at(&mut content, start)?;
            let older = self.sectors.entry(number).or_default();
            if older.last() != Some(&content) {
                older.push(content);
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
                return Err(io::Error::other("the disk is broken"));
            }
        }
        if state.full && !matches!(op, DiskOp::Sync { .. }) {
            state.failed = true;
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
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

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
            let disk = SimDisk::default();
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
            let disk = SimDisk::default();
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
        let disk = SimDisk::default();
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
