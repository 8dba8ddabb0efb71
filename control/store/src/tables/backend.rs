//! The file beneath redb: spares the device bytes, and survives a full one.
//!
//! While a checkpoint runs, writes are *staged* in memory until redb asks for them to be made
//! durable. redb alone would write most pages twice, unless its cache held a whole generation
//! for ever.
//!
//! redb gives up on its file for good at the first write that fails, reads included. On a full
//! device this backend therefore *parks* what cannot be written, tells redb that all is well,
//! and says so to the checkpointer ([`Backend::is_parked`]), which must not count the commit as
//! durable before [`Backend::settle`] has brought the parked blocks to the device. Until then the
//! file is what a crash in mid-commit would have left, which redb recovers from.
//!
//! *Isolated*, with writes that never reach the file, a file can be opened and checked without
//! changing it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use redb::StorageBackend;

use crate::disk::{DiskFile, is_no_space};

const BLOCK: u64 = 4096;
/// Neighbouring blocks are written together up to about this size.
const RUN: usize = 256 << 10;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Backend {
    file: DiskFile,
    held: RwLock<Option<Held>>,
}

/// What the file should hold but does not.
struct Held {
    why: Why,
    len: u64,
    /// How long the file is itself.
    on_disk: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

/// Why writes are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Staged,
    Parked,
    Isolated,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Held");
        debug.field("why", &self.why).field("len", &self.len).field("blocks", &self.blocks.len()).finish()
    }
}

/// The handle that redb owns.
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<Backend>);

impl Backend {
    pub(super) fn new(file: DiskFile) -> Self {
        Self { file, held: RwLock::new(None) }
    }

    /// A backend that never writes to the file.
    pub(super) fn isolated(file: DiskFile) -> io::Result<Self> {
        let held = Held::new(Why::Isolated, file.len()?);
        Ok(Self { file, held: RwLock::new(Some(held)) })
    }

    /// Renames the file, in the place of what has that name.
    pub(super) fn rename(&self, to: &Path) -> io::Result<()> {
        self.file.rename(to)
    }

    /// Holds writes back until the next sync. The transaction that follows must fit into memory.
    pub(super) fn stage(&self) -> io::Result<()> {
        let len = self.file.len()?;
        self.held.write().get_or_insert(Held::new(Why::Staged, len));
        Ok(())
    }

    /// Whether something that redb takes for durable is only in memory.
    #[cfg(test)]
    pub(super) fn is_parked(&self) -> bool {
        self.held.read().as_ref().is_some_and(|held| held.why == Why::Parked)
    }

    /// Brings everything held back to the device, durably: all but the first block, then that
    /// one, which holds redb's header and makes the rest count. Ends staging.
    pub(super) fn settle(&self) -> io::Result<()> {
        // Readers go on while the device works; the one writer waits for it.
        let slot = self.held.upgradable_read();
        let Some(held) = &*slot else { return Ok(()) };
        if !held.blocks.is_empty() || held.len != self.file.len()? {
            held.write_body(&self.file)?;
            self.file.sync_data()?;
            held.write_header(&self.file)?;
            self.file.sync_data()?;
        }
        if held.len < self.file.len()? {
            self.file.set_len(held.len)?;
        }
        *RwLockUpgradableReadGuard::upgrade(slot) = None;
        Ok(())
    }

    pub(super) fn file_len(&self) -> io::Result<u64> {
        match &*self.held.read() {
            Some(held) => Ok(held.len),
            None => self.file.len(),
        }
    }

    /// Brings staged blocks to the device at a sync; a full device parks them.
    fn sync(&self) -> io::Result<()> {
        // Readers go on while the device works; the one writer waits for it.
        let slot = self.held.upgradable_read();
        let Some(held) = &*slot else {
            drop(slot);
            return self.file.sync_data();
        };
        if held.why != Why::Staged {
            return Ok(());
        }
        let written = held
            .write_body(&self.file)
            .and_then(|()| held.write_header(&self.file))
            .and_then(|()| self.file.sync_data());
        let on_disk = self.file.len()?;
        let mut slot = RwLockUpgradableReadGuard::upgrade(slot);
        let Some(held) = &mut *slot else { return Ok(()) };
        held.on_disk = on_disk;
        match written {
            Ok(()) => held.blocks.clear(),
            Err(error) if is_no_space(&error) => held.why = Why::Parked,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Runs `write` on the file, or `hold` where writes are held back; a full device parks.
    fn write_or_hold(
        &self,
        write: impl FnOnce(&DiskFile) -> io::Result<()>,
        hold: impl FnOnce(&mut Held, &DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.held.read().is_none() {
            match write(&self.file) {
                Err(error) if is_no_space(&error) => {
                    let len = self.file.len()?;
                    self.held.write().get_or_insert(Held::new(Why::Parked, len));
                }
                result => return result,
            }
        }
        let mut slot = self.held.write();
        match &mut *slot {
            Some(held) => hold(held, &self.file),
            // Settled this very moment, which only the one writer does, between its transactions.
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Held {
    /// Nothing yet, over a file of that length.
    fn new(why: Why, len: u64) -> Self {
        Self { why, len, on_disk: len, blocks: BTreeMap::new() }
    }

    /// Writes all but the first block, neighbours together.
    fn write_body(&self, file: &DiskFile) -> io::Result<()> {
        if self.len > file.len()? {
            file.set_len(self.len)?;
        }
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (number, block) in self.blocks.range(1..) {
            let offset = number * BLOCK;
            if offset != start + run.len() as u64 || run.len() >= RUN {
                file.write_all_at(&run, start)?;
                run.clear();
                start = offset;
            }
            // The last block of a file need not be whole.
            let whole = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            run.extend_from_slice(block.get(..whole).unwrap_or(block));
        }
        file.write_all_at(&run, start)
    }

    fn write_header(&self, file: &DiskFile) -> io::Result<()> {
        self.blocks.get(&0).map_or(Ok(()), |header| file.write_all_at(header, 0))
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.split_off(&len.div_ceil(BLOCK));
            if let Some(block) = self.blocks.get_mut(&(len / BLOCK)) {
                block.iter_mut().skip((len % BLOCK) as usize).for_each(|byte| *byte = 0);
            }
        }
        self.len = len;
    }

    fn write(&mut self, file: &DiskFile, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut offset = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (number, within) = (offset / BLOCK, (offset % BLOCK) as usize);
            let (now, later) = rest.split_at(rest.len().min(BLOCK as usize - within));
            let block = match self.blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(slot) => {
                    let mut block = vec![0; BLOCK as usize];
                    if now.len() < block.len() {
                        read_padded(file, self.on_disk, number * BLOCK, &mut block)?;
                    }
                    slot.insert(block)
                }
            };
            let slot = block.get_mut(within..within + now.len());
            slot.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(now);
            offset += now.len() as u64;
            rest = later;
        }
        self.len = self.len.max(offset);
        Ok(())
    }

    fn read(&self, file: &DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = offset + out.len() as u64;
        let numbers = offset / BLOCK..end.div_ceil(BLOCK);
        if (self.blocks.range(numbers.clone()).count() as u64) < numbers.end - numbers.start {
            read_padded(file, self.on_disk, offset, out)?;
        }
        for (number, block) in self.blocks.range(numbers) {
            let start = number * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            let source = block.get((from - start) as usize..(to - start) as usize);
            let target = out.get_mut((from - offset) as usize..(to - offset) as usize);
            if let (Some(source), Some(target)) = (source, target) {
                target.copy_from_slice(source);
            }
        }
        Ok(())
    }
}

/// Reads what a file of length `len` has of a range; the rest is zeros.
fn read_padded(file: &DiskFile, len: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = len.saturating_sub(offset).min(out.len() as u64) as usize;
    let (read, pad) = out.split_at_mut(there);
    pad.fill(0);
    file.read_exact_at(read, offset)
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.0.file_len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.held.read() {
            Some(held) => held.read(&self.0.file, offset, out),
            None => self.0.file.read_exact_at(out, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write_or_hold(
            |file| file.set_len(len),
            |held, _| {
                held.set_len(len);
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_or_hold(
            |file| file.write_all_at(data, offset),
            |held, file| held.write(file, offset, data),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::disk::{Create, Disk, DiskFaults, DiskOp};

    #[derive(Default)]
    struct Switch(AtomicBool);

    impl DiskFaults for Switch {
        fn before(&self, op: DiskOp<'_>) -> io::Result<()> {
            let full = self.0.load(Ordering::SeqCst) && !matches!(op, DiskOp::Sync { .. });
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_full_device_parks_writes_and_takes_them_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let switch = Arc::new(Switch::default());
        let disk = Disk::new(Some(switch.clone()));
        let backend = Arc::new(Backend::new(disk.open(&path, Create::Anew).unwrap()));
        let handle = Handle(Arc::clone(&backend));
        handle.set_len(10_000).unwrap();
        handle.write(0, &[1; 10_000]).unwrap();
        let before = std::fs::read(&path).unwrap();

        switch.0.store(true, Ordering::SeqCst);
        handle.write(4_000, &[2; 5_000]).unwrap();
        handle.set_len(20_000).unwrap();
        handle.write(19_000, &[3; 1_000]).unwrap();
        handle.sync_data().unwrap();
        assert!(backend.is_parked());
        assert_eq!(std::fs::read(&path).unwrap(), before, "the file is left as it was");
        assert!(backend.settle().is_err());

        let mut expected = vec![1; 10_000];
        expected[4_000..9_000].fill(2);
        expected.resize(20_000, 0);
        expected[19_000..].fill(3);
        let mut read = vec![9; 20_000];
        handle.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        let mut part = vec![9; 700];
        handle.read(8_700, &mut part).unwrap();
        assert_eq!(part, expected[8_700..9_400]);

        switch.0.store(false, Ordering::SeqCst);
        backend.settle().unwrap();
        assert!(!backend.is_parked());
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn staged_writes_reach_the_file_at_a_sync_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let disk = Disk::default();
        let backend = Arc::new(Backend::new(disk.open(&path, Create::Anew).unwrap()));
        let handle = Handle(Arc::clone(&backend));
        backend.stage().unwrap();
        handle.set_len(40_960).unwrap();
        for round in 0..5 {
            handle.write(4_096, &[round; 20_480]).unwrap();
            handle.write(0, &[round; 320]).unwrap();
        }
        assert_eq!(disk.written(), 0);
        handle.sync_data().unwrap();
        assert_eq!(disk.written(), 4_096 + 20_480);
        backend.settle().unwrap();
        assert_eq!(disk.written(), 4_096 + 20_480);
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found.len(), 40_960);
        assert!(found[..320].iter().chain(&found[4_096..24_576]).all(|byte| *byte == 4));
        assert!(found[24_576..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_device_that_fills_up_at_a_sync_parks_what_was_staged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let switch = Arc::new(Switch::default());
        let disk = Disk::new(Some(switch.clone()));
        let backend = Arc::new(Backend::new(disk.open(&path, Create::Anew).unwrap()));
        let handle = Handle(Arc::clone(&backend));
        backend.stage().unwrap();
        handle.set_len(8_192).unwrap();
        handle.write(0, &[1; 8_192]).unwrap();
        switch.0.store(true, Ordering::SeqCst);
        handle.sync_data().unwrap();
        assert!(backend.is_parked());
        assert!(backend.settle().is_err());
        switch.0.store(false, Ordering::SeqCst);
        backend.settle().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [1; 8_192]);
    }

    #[test]
    fn a_shrunk_and_regrown_file_reads_zeros_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let file = Disk::default().open(&dir.path().join("file"), Create::Anew).unwrap();
        let handle = Handle(Arc::new(Backend::isolated(file).unwrap()));
        handle.write(0, &[7; 9_000]).unwrap();
        handle.set_len(5_000).unwrap();
        handle.set_len(9_000).unwrap();
        let mut read = vec![1; 9_000];
        handle.read(0, &mut read).unwrap();
        assert!(read[..5_000].iter().all(|byte| *byte == 7) && read[5_000..].iter().all(|byte| *byte == 0));
    }
}
