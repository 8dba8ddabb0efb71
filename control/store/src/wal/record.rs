//! What the log's stream is made of, and its form on disk.
//!
//! A frame is `length (u32) | checksum (u32) | payload`. The checksum runs on from the frame
//! before (the first one's from the segment's number), so neither a recycled segment's old
//! frames nor leftovers of a failed write behind the present end can pass for the log's.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The name of a log entry: its index, and the term of the leader that proposed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The term.
    pub term: u64,
    /// Counts entries from 1; 0 is before the first.
    pub index: u64,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// A vote in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The node voted for.
    pub node: u64,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// One record of the log's one ordered stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Begins each segment: with what it says, all segments before can be dropped.
    Head {
        /// The form of what follows.
        format: u16,
        /// The segment's number.
        segment: u64,
        /// The stream's state here; entries after its last one are void.
        state: LogState,
    },
    /// The newest vote.
    Vote(Vote),
    /// One entry; what it means is the state machine's business.
    Entry {
        /// Its name.
        id: LogId,
        /// Its content.
        payload: Bytes,
    },
    /// Entries after this one are void.
    TruncateAfter(LogId),
    /// Entries up to this one are no longer needed. The next entry follows it, if it lies beyond
    /// the last one.
    Purge(LogId),
    /// Entries up to this one are committed; never made durable on its own account.
    Committed(LogId),
    /// The log goes on after a restart or a refused write. The number is random: with it in the
    /// chain, frames that such an event left behind the end cannot become part of the log.
    Resumed {
        /// A random number.
        nonce: u64,
    },
}

impl Record {
    /// At least what it takes, but for a little.
    pub(crate) fn size_hint(&self) -> usize {
        const SMALL: usize = 32;
        match self {
            Self::Entry { payload, .. } => SMALL + payload.len(),
            _ => SMALL,
        }
    }
}

/// What the log's stream says so far, its entries aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The newest vote.
    pub vote: Option<Vote>,
    /// The last entry.
    pub last: LogId,
    /// The last entry that is no longer needed.
    pub purged: LogId,
    /// The last entry known to be committed.
    pub committed: LogId,
}

impl LogState {
    /// The state after `record`.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Head { state, .. } => *self = *state,
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Entry { id, .. } => self.last = *id,
            Record::TruncateAfter(id) => self.last = *id,
            Record::Purge(id) => {
                self.purged = self.purged.max(*id);
                // A state installed as a whole is purged up to beyond the log's end.
                if id.index > self.last.index {
                    self.last = *id;
                }
            }
            Record::Committed(id) => self.committed = *id,
            Record::Resumed { .. } => {}
        }
    }
}

/// The form of the log that this program writes.
pub(crate) const FORMAT: u16 = 1;
/// Length and checksum before each payload.
pub(crate) const FRAME: usize = 8;

/// The running checksum of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(u32);

impl Chain {
    pub(crate) fn of_segment(number: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(b"sampan log segment");
        hasher.update(&number.to_le_bytes());
        Self(hasher.finalize())
    }

    fn next(self, len: [u8; 4], payload: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&len);
        hasher.update(payload);
        Self(hasher.finalize())
    }
}

/// Begins a frame in `out`; its payload follows, then [`end_frame`].
pub(crate) fn begin_frame(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; FRAME]);
}

/// Ends the frame that began at `start` of `out`: it knows its length now.
pub(crate) fn end_frame(out: &mut [u8], start: usize) -> Option<()> {
    let len = u32::try_from(out.len().checked_sub(start + FRAME)?).ok()?;
    out.get_mut(start..)?.first_chunk_mut::<4>().map(|slot| *slot = len.to_le_bytes())
}

/// Writes the checksums of frames that have all else; the chain moves on.
pub(crate) fn seal_frames(frames: &mut [u8], chain: &mut Chain) -> Option<()> {
    let mut rest = frames;
    while !rest.is_empty() {
        let (len, behind) = rest.split_first_chunk_mut::<4>()?;
        let (crc, behind) = behind.split_first_chunk_mut::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (payload, behind) = behind.split_at_mut_checked(size)?;
        *chain = chain.next(*len, payload);
        *crc = chain.0.to_le_bytes();
        rest = behind;
    }
    Some(())
}

/// The frame at the beginning of `bytes`, if one is whole: its payload and what follows.
pub(crate) fn read_frame<'a>(bytes: &'a [u8], chain: &mut Chain) -> Option<(&'a [u8], &'a [u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    if size == 0 {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size)?;
    let next = chain.next(*len, payload);
    if next.0 != u32::from_le_bytes(*crc) {
        return None;
    }
    *chain = next;
    Some((payload, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(number: u64, payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chain = Chain::of_segment(number);
        for payload in payloads {
            let start = out.len();
            begin_frame(&mut out);
            out.extend_from_slice(payload);
            end_frame(&mut out, start).unwrap();
        }
        seal_frames(&mut out, &mut chain).unwrap();
        out
    }

    fn read(number: u64, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut chain = Chain::of_segment(number);
        let mut payloads = Vec::new();
        while let Some((payload, rest)) = read_frame(bytes, &mut chain) {
            payloads.push(payload.to_vec());
            bytes = rest;
        }
        payloads
    }

    #[test]
    fn frames_read_back_until_the_first_that_is_not_whole() {
        let bytes = frames(1, &[b"one", b"two", b"three"]);
        assert_eq!(read(1, &bytes).len(), 3);
        for cut in 0..bytes.len() {
            let whole = [11, 22, 35].iter().filter(|end| cut >= **end).count();
            assert_eq!(read(1, &bytes[..cut]).len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn frames_of_another_segment_are_not_read() {
        assert!(read(2, &frames(1, &[b"one"])).is_empty());
    }

    #[test]
    fn leftovers_behind_a_rewritten_frame_are_not_read() {
        let mut bytes = frames(1, &[b"one", b"two"]);
        let again = frames(1, &[b"new"]);
        bytes[..again.len()].copy_from_slice(&again);
        assert_eq!(read(1, &bytes), [b"new"]);
    }
}
