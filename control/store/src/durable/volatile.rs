//! The keys that are kept in memory only, from member to member; see [`crate::volatile`].

use bytes::Bytes;
use tokio::sync::watch;

use super::Machine;
use super::cut::{Gathered, decode};
use crate::span::{Span, successor};
use crate::storage::StorageError;
use crate::volatile::CopyOf;

impl Machine {
    /// The last log entry whose changes of volatile keys are not known here; `None` where all are.
    pub fn lacks(&self) -> watch::Receiver<Option<u64>> {
        self.shared.core.lacks.subscribe()
    }

    /// Whether a request concerns volatile keys; no `end` is the single key, as in requests.
    pub fn touches_volatile(&self, start: &Bytes, end: Option<&Bytes>) -> bool {
        self.shared.core.touches_volatile(&Span::new(start, end))
    }

    /// What a copy of the volatile rows that is begun now holds; `None` where this member lacks
    /// something itself.
    pub fn begin_copy(&self) -> Option<CopyOf> {
        self.shared.core.begin_copy()
    }

    /// The frame of about `max` bytes of volatile rows after a cursor (empty: the first one), and
    /// the cursor after it; `None` where that was all.
    pub fn volatile_frame(&self, cursor: &[u8], max: usize) -> Result<Option<(Bytes, Bytes)>, StorageError> {
        let start = match cursor.split_first() {
            Some((_, after)) => successor(after),
            None => Bytes::new(),
        };
        let span = Span::new(&start, Some(&Bytes::new()));
        let mut gathered = Gathered::new(max);
        let state = self.shared.core.state.read();
        for (_, head) in state.volatile.heads(&span).filter(|(_, head)| head.is_live()) {
            if let Some(record) = state.volatile.record(head.pos)
                && gathered.push(record).is_break()
            {
                break;
            }
        }
        gathered.frame()
    }

    /// Whether the frames that were handed out since a copy began make one.
    pub fn is_still(&self, copy: CopyOf) -> bool {
        self.shared.core.is_still(copy)
    }

    /// Takes another member's copy, all its frames: with it, and what was applied here since, this
    /// member has the volatile keys. Does nothing where it has them.
    ///
    /// # Errors
    /// [`StorageError::Future`] where the copy has rows of revisions that are still to be applied
    /// here; [`StorageError::Unavailable`] where it is older than what is lacking.
    pub fn adopt_volatile(&self, frames: &[Bytes], copy: CopyOf) -> Result<(), StorageError> {
        let mut rows = Vec::new();
        for frame in frames {
            rows.extend(decode(frame)?.records()?);
        }
        let _writer = self.shared.writer.lock();
        self.shared.core.adopt_volatile(rows, copy)
    }

    /// Takes what is here of the volatile rows for all that is left of them: this member leads a
    /// group at level 2 or before, and nobody gives it more.
    pub fn settle_volatile(&self) {
        let _writer = self.shared.writer.lock();
        self.shared.core.settle_volatile();
    }
}
