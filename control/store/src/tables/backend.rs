//! The file beneath redb, made to survive a full device.
//!
//! redb gives up on its file for good at the first write that fails, reads included. On a full
//! device this backend therefore parks writes in memory, tells redb that all is well, and says
//! so to the checkpointer ([`Backend::is_parked`]), which must not count the commit as durable
//! before [`Backend::unpark`] has brought the parked blocks to the device. Until then the file
//! is what a crash at the first failed write would have left, which redb recovers from.
//!
//! The same parking, from the beginning and never brought to the device, lets a file be opened
//! and checked without changing it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use redb::StorageBackend;

use crate::disk::{DiskFile, is_no_space};

const BLOCK: u64 = 4096;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Backend {
    file: DiskFile,
    parked: RwLock<Option<Parked>>,
}

/// What the file should hold but does not.
struct Parked {
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("len", &self.len).field("blocks", &self.blocks.len()).finish()
    }
}

/// The handle that redb owns.
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<Backend>);

impl Backend {
    pub(super) fn new(file: DiskFile) -> Self {
        Self { file, parked: RwLock::new(None) }
    }

    /// A backend that never writes to the file.
    pub(super) fn isolated(file: DiskFile) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, parked: RwLock::new(Some(Parked { len, blocks: BTreeMap::new() })) })
    }

    /// Whether something that redb takes for durable is only in memory.
    pub(super) fn is_parked(&self) -> bool {
        self.parked.read().is_some()
    }

    /// Brings parked blocks to the device: all but the first durably, then the first, which
    /// holds redb's header and makes the rest count.
    pub(super) fn unpark(&self) -> io::Result<()> {
        let mut slot = self.parked.write();
        let Some(parked) = &*slot else { return Ok(()) };
        if parked.len > self.file.len()? {
            self.file.set_len(parked.len)?;
        }
        for (number, block) in parked.blocks.iter().filter(|(number, _)| **number > 0) {
            self.file.write_all_at(block, number * BLOCK)?;
        }
        self.file.sync_data()?;
        if let Some(header) = parked.blocks.get(&0) {
            self.file.write_all_at(header, 0)?;
        }
        self.file.sync_data()?;
        if parked.len < self.file.len()? {
            self.file.set_len(parked.len)?;
        }
        *slot = None;
        Ok(())
    }

    pub(super) fn file_len(&self) -> io::Result<u64> {
        match &*self.parked.read() {
            Some(parked) => Ok(parked.len),
            None => self.file.len(),
        }
    }

    /// Runs `write` on the file; on a full device, and ever after until unparked, `park` instead.
    fn write_or_park(
        &self,
        write: impl FnOnce(&DiskFile) -> io::Result<()>,
        park: impl FnOnce(&mut Parked, &DiskFile) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.parked.read().is_none() {
            match write(&self.file) {
                Err(error) if is_no_space(&error) => {
                    let len = self.file.len()?;
                    self.parked.write().get_or_insert(Parked { len, blocks: BTreeMap::new() });
                }
                result => return result,
            }
        }
        let mut slot = self.parked.write();
        match &mut *slot {
            Some(parked) => park(parked, &self.file),
            // Unparked this very moment: the caller's data is gone from nowhere, but not written.
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Parked {
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
                    read_padded(file, number * BLOCK, &mut block)?;
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
        read_padded(file, offset, out)?;
        let end = offset + out.len() as u64;
        for (number, block) in self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
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

/// Reads what the file has of a range; the rest is zeros.
fn read_padded(file: &DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = file.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
    let (read, pad) = out.split_at_mut(there);
    pad.fill(0);
    file.read_exact_at(read, offset)
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.0.file_len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.0.parked.read() {
            Some(parked) => parked.read(&self.0.file, offset, out),
            None => self.0.file.read_exact_at(out, offset),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.write_or_park(
            |file| file.set_len(len),
            |parked, _| {
                parked.set_len(len);
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.is_parked() { Ok(()) } else { self.0.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_or_park(
            |file| file.write_all_at(data, offset),
            |parked, file| parked.write(file, offset, data),
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
        assert!(backend.unpark().is_err());

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
        backend.unpark().unwrap();
        assert!(!backend.is_parked());
        assert_eq!(std::fs::read(&path).unwrap(), expected);
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
