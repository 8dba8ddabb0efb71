//! Checking a snapshot as it passes by: without a store, and without the keys that its values
//! are sealed with. For whoever carries snapshots about and must not carry a damaged one.

use bytes::{Buf, Bytes, BytesMut};

use super::{FORMAT, MAGIC, MAX_FRAME, Part, Row, checksum};
use crate::types::Revision;

/// Length of magic and format.
const BEGIN: usize = MAGIC.len() + 2;
/// Length of a frame's length and checksum.
const FRAME_HEAD: usize = 8;

/// What is wrong with a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// It does not begin as one.
    #[error("it is not a snapshot of a sampan store")]
    Foreign,
    /// It is of a later program.
    #[error("its snapshot has format {format}; this program knows up to {known}")]
    Newer {
        /// Its format.
        format: u16,
        /// The newest format that this program knows.
        known: u16,
    },
    /// It ends too early.
    #[error("it is cut off")]
    CutOff,
    /// Something in it is not as it was written.
    #[error("it is damaged")]
    Damaged,
    /// Something comes after its end.
    #[error("something follows its end")]
    Longer,
}

/// What a whole and sound snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The revision that it is of.
    pub revision: Revision,
    /// How many keys it has.
    pub keys: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Takes a snapshot's bytes piece by piece and says whether they are one. Holds at most one frame.
#[derive(Debug, Default)]
pub struct SnapshotCheck {
    waiting: BytesMut,
    begun: bool,
    revision: Option<u64>,
    whole: bool,
    chain: u32,
    last_key: Option<Bytes>,
    keys: u64,
    bytes: u64,
}

impl SnapshotCheck {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The snapshot's next bytes; refuses as soon as they cannot be a snapshot's.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SnapshotFault> {
        self.bytes += piece.len() as u64;
        self.waiting.extend_from_slice(piece);
        if !self.begun {
            self.begin()?;
        }
        while self.begun
            && let Some(payload) = self.frame()?
        {
            self.part(&payload)?;
        }
        if self.whole && !self.waiting.is_empty() { Err(SnapshotFault::Longer) } else { Ok(()) }
    }

    /// The revision, once enough was seen to know it.
    pub fn revision(&self) -> Option<Revision> {
        self.revision.map(Revision)
    }

    /// There are no more bytes.
    pub fn finish(self) -> Result<SnapshotInfo, SnapshotFault> {
        match self.revision {
            Some(revision) if self.whole => {
                Ok(SnapshotInfo { revision: Revision(revision), keys: self.keys, bytes: self.bytes })
            }
            _ if !self.begun
                && !MAGIC.starts_with(self.waiting.get(..MAGIC.len()).unwrap_or(&self.waiting)) =>
            {
                Err(SnapshotFault::Foreign)
            }
            _ => Err(SnapshotFault::CutOff),
        }
    }

    fn begin(&mut self) -> Result<(), SnapshotFault> {
        if self.waiting.len() < BEGIN {
            return Ok(());
        }
        let begin = self.waiting.split_to(BEGIN);
        let (magic, mut format) = begin.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(SnapshotFault::Foreign);
        }
        let format = format.get_u16_le();
        if format > FORMAT {
            return Err(SnapshotFault::Newer { format, known: FORMAT });
        }
        // There never was a format 0.
        if format == 0 {
            return Err(SnapshotFault::Damaged);
        }
        self.begun = true;
        Ok(())
    }

    /// The payload of the next frame, where all of it is there and its checksum is right.
    fn frame(&mut self) -> Result<Option<Bytes>, SnapshotFault> {
        let Some(&head) = self.waiting.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let [a, b, c, d, crc @ ..] = head;
        let len = [a, b, c, d];
        let size = u32::from_le_bytes(len);
        if size > MAX_FRAME {
            return Err(SnapshotFault::Damaged);
        }
        if self.waiting.len() < FRAME_HEAD + size as usize {
            return Ok(None);
        }
        self.waiting.advance(FRAME_HEAD);
        let payload = self.waiting.split_to(size as usize).freeze();
        self.chain = checksum(self.chain, len, &payload);
        if self.chain != u32::from_le_bytes(crc) {
            return Err(SnapshotFault::Damaged);
        }
        Ok(Some(payload))
    }

    fn part(&mut self, payload: &[u8]) -> Result<(), SnapshotFault> {
        let part = postcard::from_bytes(payload).map_err(|_| SnapshotFault::Damaged)?;
        match (part, self.revision) {
            _ if self.whole => Err(SnapshotFault::Longer),
            (Part::Header(header), None) => {
                self.revision = Some(header.revision);
                Ok(())
            }
            (Part::Rows(rows), Some(revision)) => {
                rows.into_iter().try_for_each(|row| self.row(row, revision))
            }
            (Part::End { rows }, Some(_)) if rows == self.keys => {
                self.whole = true;
                Ok(())
            }
            _ => Err(SnapshotFault::Damaged),
        }
    }

    fn row(&mut self, row: Row, revision: u64) -> Result<(), SnapshotFault> {
        if self.last_key.as_ref().is_some_and(|last| *last >= row.key) || row.pos.rev > revision {
            return Err(SnapshotFault::Damaged);
        }
        self.last_key = Some(row.key);
        self.keys += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, Op, Storage, Txn};

    async fn snapshot() -> (Vec<u8>, Revision) {
        let store = MemoryStore::new();
        for at in 0..300 {
            let put = Op::Put { key: format!("/k/{at}").into(), value: vec![7; 3_000].into() };
            store.txn(Txn { success: vec![put], ..Txn::default() }).await.unwrap();
        }
        let mut out = Vec::new();
        let revision = store.snapshot(&mut out).await.unwrap();
        (out, revision)
    }

    fn check(bytes: &[u8], step: usize) -> Result<SnapshotInfo, SnapshotFault> {
        let mut check = SnapshotCheck::new();
        for piece in bytes.chunks(step) {
            check.push(piece)?;
        }
        check.finish()
    }

    #[tokio::test]
    async fn a_sound_snapshot_is_counted_however_it_is_cut_into_pieces() {
        let (bytes, revision) = snapshot().await;
        let info = SnapshotInfo { revision, keys: 300, bytes: bytes.len() as u64 };
        for step in [1, 7, 4_096, bytes.len()] {
            assert_eq!(check(&bytes, step), Ok(info), "pieces of {step}");
        }
    }

    #[tokio::test]
    async fn whatever_is_not_a_whole_snapshot_is_refused() {
        let (bytes, _) = snapshot().await;
        for at in (0..bytes.len()).step_by(997).chain(0..64) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(check(&flipped, 10_000).is_err(), "byte {at} flipped");
        }
        for keep in [17, 18, 30, bytes.len() / 2, bytes.len() - 1] {
            assert_eq!(check(&bytes[..keep], 10_000), Err(SnapshotFault::CutOff), "{keep} bytes of it");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(check(&longer, 10_000), Err(SnapshotFault::Longer));
        assert_eq!(check(&longer, longer.len()), Err(SnapshotFault::Longer));
        assert_eq!(check(b"PK\x03\x04 a zip archive", 4), Err(SnapshotFault::Foreign));
        let mut newer = bytes.clone();
        newer[16..18].copy_from_slice(&900_u16.to_le_bytes());
        assert_eq!(check(&newer, 100), Err(SnapshotFault::Newer { format: 900, known: FORMAT }));
    }
}
