//! The log as openraft has it: entries in memory for those who read them, and behind them the
//! store's write-ahead log with one writer.
//!
//! Whatever is written at the same time shares one write and one sync ([`writer`]). Entries stay
//! in memory until they are purged, which happens once they are in the tables and, where there
//! are other members, beyond a tail of a few MiB for those who lag.

pub mod codec;
mod inline;
mod memory;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, Membership, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use sampan_store::wal::{self, LogId, Record, Wal};
use sampan_store::{Background, DurableLog, Machine, StorageError};
use tokio::sync::oneshot;

use crate::types::{Entry, Member, MemberId, RaftLogId, TypeConfig, Vote, from_wal, to_wal};
use inline::Inline;
use memory::Memory;
use writer::{Done, Job, Writer};

/// What one read for another member takes at most: it becomes one message.
const READ_BYTES: usize = 4 << 20;

/// The log; see the module's description. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

impl Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// What the log's handles and its writer share.
struct Shared {
    memory: Mutex<Memory>,
    /// This member is the only one: nobody else has what is not on disk yet.
    alone: AtomicBool,
    /// What keeps the log's device from taking more, if something does.
    full: AtomicBool,
    way: Way,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How jobs reach the writer.
enum Way {
    Thread(Mutex<Option<std::sync::mpsc::Sender<Job>>>),
    Inline(Mutex<Inline>),
}

impl Log {
    /// A log over what a data directory holds.
    pub fn open(wal: Wal, entries: Vec<(LogId, Bytes)>, machine: &Arc<Machine>) -> io::Result<Self> {
        let state = wal.state();
        let memory = Memory::new(&state, entries)?;
        let background = machine.config().background;
        let (way, start) = match background {
            Background::Threads => {
                let (jobs, todo) = std::sync::mpsc::channel();
                (Way::Thread(Mutex::new(Some(jobs))), Some(todo))
            }
            Background::Inline => (Way::Inline(Mutex::default()), None),
        };
        let shared = Arc::new(Shared {
            memory: Mutex::new(memory),
            alone: AtomicBool::new(false),
            full: AtomicBool::new(false),
            way,
            thread: Mutex::default(),
        });
        let writer = Writer::new(wal, &shared, machine);
        match (&shared.way, start) {
            (Way::Thread(_), Some(todo)) => {
                let thread =
                    std::thread::Builder::new().name("store-log".into()).spawn(move || writer.run(&todo))?;
                *shared.thread.lock() = Some(thread);
            }
            (Way::Inline(inline), _) => inline.lock().set(writer, machine.config().faults.clone()),
            (Way::Thread(_), None) => {}
        }
        let log = Self { shared };
        machine.set_log(Arc::new(Durability { log: Arc::downgrade(&log.shared) }));
        Ok(log)
    }

    /// Tells the log who is a member, as far as it was applied: it may put off writing volatile
    /// entries, and take back what a full device does not take, only where nobody else can have
    /// them.
    pub fn set_membership(&self, id: MemberId, applied: &Membership<MemberId, Member>) {
        let newest = self.membership();
        let membership = newest.as_ref().map_or(applied, |(_, membership)| membership);
        let mut members = membership.nodes().map(|(id, _)| *id).chain(membership.voter_ids());
        let alone = membership.voter_ids().next().is_some() && members.all(|member| member == id);
        self.shared.alone.store(alone, Ordering::SeqCst);
    }

    /// Whether this member is the only one.
    pub fn is_alone(&self) -> bool {
        self.shared.alone.load(Ordering::SeqCst)
    }

    /// Whether the log's device is full.
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::SeqCst)
    }

    /// The newest membership in the log, with its entry.
    pub fn membership(&self) -> Option<(RaftLogId, Membership<MemberId, Member>)> {
        self.shared.memory.lock().membership()
    }

    /// The log's last entry, or the last purged one.
    pub fn last(&self) -> Option<RaftLogId> {
        self.shared.memory.lock().last()
    }

    /// The last entry that was let go.
    pub fn purged(&self) -> Option<RaftLogId> {
        self.shared.memory.lock().purged
    }

    /// The newest vote.
    pub fn vote(&self) -> Option<Vote> {
        self.shared.memory.lock().vote
    }

    /// Up to which index entries can be let go, all of them up to `checkpointed` being in the
    /// tables and `tail` bytes being kept for those who lag.
    pub fn purgeable(&self, checkpointed: LogId, tail: usize) -> Option<u64> {
        self.shared.memory.lock().purgeable(checkpointed, tail)
    }

    /// Makes everything appended so far durable.
    pub async fn flush(&self) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.send(Job::Flush { done: Done::Caller(done) });
        written.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Appends entries, made here instead of by openraft, and waits until they are durable.
    pub(crate) async fn append_own(&self, vote: wal::Vote, entries: Vec<Entry>) -> io::Result<()> {
        self.save(Record::Vote(vote), |memory| memory.vote = Some(vote_from(vote))).await?;
        let (done, written) = oneshot::channel();
        self.push(entries, Done::Caller(done));
        written.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Ends the writer. With `flush`, what is not written yet is written first.
    pub fn close(&self, flush: bool) {
        self.send(Job::Stop { flush });
        match &self.shared.way {
            Way::Thread(jobs) => drop(jobs.lock().take()),
            Way::Inline(inline) => inline.lock().end(),
        }
        let thread = self.shared.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's thread panicked");
        }
    }

    fn push(&self, entries: Vec<Entry>, done: Done) {
        self.shared.memory.lock().append(&entries);
        self.send(Job::Append { entries, done });
    }

    async fn save(&self, record: Record, change: impl FnOnce(&mut Memory)) -> io::Result<()> {
        change(&mut self.shared.memory.lock());
        let (done, written) = oneshot::channel();
        self.send(Job::Record { record, done: Done::Caller(done) });
        written.await.unwrap_or_else(|_| Err(ended()))
    }

    fn send(&self, job: Job) {
        self.shared.send(job);
    }
}

impl Shared {
    fn send(self: &Arc<Self>, job: Job) {
        match &self.way {
            Way::Thread(jobs) => {
                if let Some(jobs) = &*jobs.lock()
                    && let Err(error) = jobs.send(job)
                {
                    error.0.refuse();
                }
            }
            Way::Inline(inline) => {
                if let Some(delay) = inline.lock().take(job) {
                    let shared = Arc::downgrade(self);
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        if let Some(shared) = shared.upgrade() {
                            shared.write_waiting();
                        }
                    });
                }
            }
        }
    }

    /// Does what waited for a slow disk.
    fn write_waiting(&self) {
        if let Way::Inline(inline) = &self.way {
            inline.lock().write_waiting();
        }
    }
}

/// The machine's hold on the log.
struct Durability {
    log: std::sync::Weak<Shared>,
}

impl DurableLog for Durability {
    fn make_durable(&self, _upto: LogId) -> Result<(), StorageError> {
        let gone = || StorageError::Unavailable { why: "the log was closed".into() };
        let log = self.log.upgrade().ok_or_else(gone)?;
        let (done, written) = std::sync::mpsc::channel();
        log.send(Job::Flush { done: Done::Thread(done) });
        match written.recv() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if no_space(&error) => Err(StorageError::NoSpace),
            Ok(Err(error)) => Err(StorageError::Io(error)),
            Err(_) => Err(gone()),
        }
    }
}

fn no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn ended() -> io::Error {
    io::Error::other("the log was closed")
}

fn vote_from(vote: wal::Vote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.shared.memory.lock().read(&range, usize::MAX))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.shared.memory.lock().read(&(start..end), READ_BYTES))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.memory.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let memory = self.shared.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let stored = wal::Vote {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        self.save(Record::Vote(stored), |memory| memory.vote = Some(*vote)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        // Not worth a write of its own: the next one says it.
        self.shared.memory.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.shared.memory.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if entries.iter().any(|entry| matches!(entry.payload, EntryPayload::Membership(_))) {
            // Whoever joins may get everything from here on. Applied memberships say when this
            // member is alone again.
            self.shared.alone.store(false, Ordering::SeqCst);
        }
        self.push(entries, Done::Raft(callback));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.save(Record::TruncateAfter(to_wal(last)), |memory| memory.truncate_after(last)).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.shared.memory.lock().purge(upto);
        self.send(Job::Purge { upto: to_wal(Some(upto)) });
        Ok(())
    }
}

/// The newest entry that the stream says is committed, and has: a power cut may have left what was
/// written with that word, but not the entries after it in the same write.
fn committed_of(state: &wal::LogState) -> Option<RaftLogId> {
    from_wal(state.committed.min(state.last).max(state.purged))
}

#[cfg(test)]
mod suite;
