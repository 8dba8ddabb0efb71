//! The store: one member of the group, as the API server sees it.
//!
//! A transaction is prepared where it is proposed, on the leader. What changes nothing is answered
//! without the log; what changes volatile keys is evaluated by the leader, one at a time, and its
//! effects go through the log; everything else goes through the log as it is.

mod keeper;
mod open;
mod reign;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use parking_lot::Mutex;
use sampan_store::wal::LogId;
use sampan_store::{
    Answer, Background, ClusterId, Command, Machine, RangeRequest, RangeResponse, Revision, Stats, Storage,
    StorageError, Txn, TxnResponse, WatchRequest, WatchStream,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::Timing;
use crate::directory::Directory;
use crate::forward::{self, Forwarder};
use crate::log::Log;
use crate::machine::{Progress, StateMachine};
use crate::membership::{self, Changes};

use crate::reads::{self, Reads};
use crate::snapshot_stream::Inbox;
use crate::types::{MemberId, Proposal, Reply, TypeConfig};
use crate::volatile_batch::{self, VolatileTurns};
use crate::volatile_sync;
pub use reign::Leadership;

/// What is kept of the log for members that lag, in bytes.
pub(crate) const TAIL_BYTES: usize = 4 << 20;
/// How many revisions volatile keys may use up before they cost the log an entry,
const RESERVE: u64 = 10_000;
/// and how many of them are left when the next block is reserved: others use revisions, too.
const MARGIN: u64 = 1_000;

/// openraft over our types.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

type Written = Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
>;

/// One member of a replicated store; see [`sampan_store::Storage`] for what it promises.
///
/// Close it with [`RaftStore::close`]; one that is merely dropped ends as in a crash, which loses
/// nothing but makes the next start replay the log.
pub struct RaftStore {
    pub(crate) core: Arc<Core>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for RaftStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftStore").field("id", &self.core.id).finish_non_exhaustive()
    }
}

/// What the store's handle and its tasks share.
pub(crate) struct Core {
    pub(crate) id: MemberId,
    pub(crate) raft: Raft,
    pub(crate) machine: Arc<Machine>,
    pub(crate) log: Log,
    pub(crate) timing: Timing,
    pub(crate) background: Background,
    pub(crate) directory: Arc<Directory>,
    pub(crate) forward: Forwarder,
    pub(crate) inbox: Inbox,
    pub(crate) reads: Reads,
    pub(crate) changes: Changes,
    /// Where this member is, which nobody knows better.
    pub(crate) addresses: watch::Sender<Vec<String>>,
    pub(crate) leadership: watch::Sender<Leadership>,
    progress: Arc<Progress>,
    pub(crate) volatile_turns: VolatileTurns,
    /// Itself, for tasks that go on without their callers.
    pub(crate) me: Weak<Core>,
    closing: AtomicBool,
    /// Cancelled when this member serves nobody any more, other members included.
    pub(crate) ended: CancellationToken,
}

/// Why a proposal of this member did not come to an answer.
#[derive(Debug)]
pub(crate) enum LocalError {
    /// This member does not lead: nothing was proposed.
    NotLeader {
        /// Who does, where that is known.
        leader: Option<MemberId>,
    },
    /// It was proposed, and may take place or not.
    Unknown {
        /// What happened.
        why: String,
    },
    /// It was refused and does not take place; or, where the store is unavailable, may have.
    Storage(StorageError),
}

impl From<StorageError> for LocalError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl Core {
    /// The cluster's id; none until a leader reigned.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.machine.standing().cluster
    }

    /// Whether the store is closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    fn check_open(&self) -> Result<(), StorageError> {
        if self.is_closing() {
            return Err(StorageError::Unavailable { why: "it was closed".into() });
        }
        Ok(())
    }

    /// Whether this member leads, is alone, and has applied everything: what it has is the truth.
    pub(crate) fn is_sovereign(&self) -> bool {
        self.log.is_alone() && self.leadership.borrow().mine
    }

    /// Runs a transaction here, on the leader.
    pub(crate) async fn propose(&self, txn: Txn) -> Result<TxnResponse, LocalError> {
        self.check_open()?;
        let prepared = self.machine.prepare(txn)?;
        self.reigning().await?;
        if prepared.volatile {
            volatile_sync::known(self).await;
            return volatile_batch::run(self, prepared.txn).await;
        }
        if let Some(answer) = self.unchanged(&prepared.txn).await? {
            return Ok(self.machine.response(answer)?);
        }
        self.room().await?;
        match self.write(Command::Txn { floor: 0, txn: prepared.txn }).await? {
            Reply::Txn(answer) => Ok(self.machine.response(answer)?),
            other => Err(unexpected(&other)),
        }
    }

    /// Answers a transaction that changes nothing, from a state that no newer leader has left
    /// behind.
    async fn unchanged(&self, txn: &Txn) -> Result<Option<Answer>, LocalError> {
        let answer = self.machine.answer_unchanged(txn)?;
        if answer.is_none() || self.is_sovereign() {
            return Ok(answer);
        }
        self.confirm().await?;
        Ok(self.machine.answer_unchanged(txn)?)
    }

    /// Makes sure that no newer leader has left this member's state behind.
    pub(crate) async fn confirm(&self) -> Result<(), LocalError> {
        let index = reads::local_index(self).await?;
        Ok(self.applied_index(index, Instant::now() + forward::REQUEST_WITHIN).await?)
    }

    /// Refuses where there is no room for more.
    async fn room(&self) -> Result<(), LocalError> {
        if self.log.is_full() && !self.log.is_alone() {
            return Err(StorageError::NoSpace.into());
        }
        Ok(self.machine.room().await?)
    }

    /// Sees to it that a crash cannot bring back revisions of entries that are not synced.
    pub(crate) async fn reserve(&self) -> Result<(), LocalError> {
        let standing = self.machine.standing();
        if !self.log.is_alone() || standing.reserved > standing.revision + MARGIN {
            return Ok(());
        }
        self.write(Command::Reserve { upto: standing.revision + RESERVE }).await.map(drop)
    }

    /// Forgets history before a revision, here, on the leader.
    pub(crate) async fn propose_compact(&self, revision: Revision) -> Result<(), LocalError> {
        self.check_open()?;
        self.machine.check_compaction(revision.0)?;
        self.reigning().await?;
        self.room().await?;
        self.write(Command::Compact { revision: revision.0 }).await.map(drop)
    }

    /// Puts a command through the log, and waits until it is applied here. One that the group may
    /// not use yet is not proposed, but for the one that takes the group there.
    pub(crate) async fn write(&self, command: Command) -> Result<Reply, LocalError> {
        if command.level() > self.level() && !matches!(command, Command::Level { .. }) {
            let why = format!("the group does not know a {} yet", command.name());
            return Err(StorageError::Unavailable { why }.into());
        }
        self.outcome(self.raft.client_write(Proposal::new(command)).await)
    }

    fn outcome(&self, written: Written) -> Result<Reply, LocalError> {
        match written {
            Ok(response) => match response.data {
                Reply::Refused(error) => Err(LocalError::Storage(error)),
                Reply::Failed(why) => Err(LocalError::Unknown { why }),
                reply => Ok(reply),
            },
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(LocalError::NotLeader { leader: to.leader_id })
            }
            Err(RaftError::APIError(error)) => Err(LocalError::Unknown { why: error.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(LocalError::Storage(self.ended(&fatal.to_string()))),
        }
    }

    /// Why nothing works any more.
    fn ended(&self, fatal: &str) -> StorageError {
        if self.is_closing() {
            return StorageError::Unavailable { why: "it was closed".into() };
        }
        self.machine.check().err().unwrap_or_else(|| StorageError::Unavailable { why: fatal.to_owned() })
    }

    /// Waits until the entry of an index, as openraft counts, is applied here.
    pub(crate) async fn applied_index(&self, index: u64, deadline: Instant) -> Result<(), StorageError> {
        self.applied(deadline, |machine| machine.applied() > LogId { term: machine.applied().term, index })
            .await
    }

    /// Waits until a revision is there.
    pub(crate) async fn applied_revision(
        &self,
        revision: Revision,
        deadline: Instant,
    ) -> Result<(), StorageError> {
        self.applied(deadline, |machine| machine.revision() >= revision).await
    }

    async fn applied(&self, deadline: Instant, done: impl Fn(&Machine) -> bool) -> Result<(), StorageError> {
        if done(&self.machine) {
            return Ok(());
        }
        let mut applied = self.progress.applied.subscribe();
        let waiting = async {
            while !done(&self.machine) {
                self.check_open()?;
                self.machine.check()?;
                if applied.changed().await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let late = |_| StorageError::Unavailable { why: "this member lags behind".into() };
        timeout_at(deadline, waiting).await.map_err(late)?
    }
}

fn unexpected(reply: &Reply) -> LocalError {
    LocalError::Unknown { why: format!("an answer of another kind: {reply:?}") }
}

impl RaftStore {
    /// Where a request concerns keys that are in memory only, waits a while until they are known
    /// here.
    async fn know(&self, start: &Bytes, end: Option<&Bytes>) {
        if self.core.machine.touches_volatile(start, end) {
            volatile_sync::known(&self.core).await;
        }
    }

    /// The cluster's id; none until a leader was seen for the first time.
    pub fn cluster_id(&self) -> ClusterId {
        self.core.cluster()
    }

    /// This member's id.
    pub fn id(&self) -> MemberId {
        self.core.id
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.subscribe()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        self.core.machine.stats()
    }

    /// How far this member's log has come: the indexes of the last entry that is known to be
    /// committed, and of the last one applied; 0 without any.
    pub fn log_position(&self) -> (u64, u64) {
        let metrics = self.core.raft.data_metrics();
        let now = metrics.borrow_watched();
        let applied = self.core.machine.applied().index;
        (now.local_committed.map_or(applied, |id| (id.index + 1).max(applied)), applied)
    }

    /// Brings everything acknowledged so far into the tables. Nobody needs to call this.
    pub async fn checkpoint(&self) -> Result<(), StorageError> {
        self.core.check_open()?;
        self.core.machine.checkpoint().await
    }

    /// Adds a key to this member's key file, which it seals new values with from now on; returns
    /// its number.
    pub async fn rotate_key(&self) -> Result<u32, StorageError> {
        self.core.machine.rotate_key().await
    }

    /// Writes every value that is not sealed with the newest key again, so that it is; returns how
    /// many.
    pub async fn reseal(&self) -> Result<u64, StorageError> {
        self.core.machine.reseal(self).await
    }

    /// Ends the store in good order: leadership handed over, everything into the tables, files
    /// closed, directory free. Whatever is asked of it afterwards is refused.
    pub async fn close(&self) -> Result<(), StorageError> {
        if self.core.closing.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        membership::hand_over(&self.core).await;
        self.end_tasks();
        let checked = self.core.machine.check();
        self.core.machine.finish().await;
        // A core that ended by itself is no news.
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::debug!(%error, "consensus had ended");
        }
        let core = Arc::clone(&self.core);
        self.core
            .background
            .run(move || {
                core.log.close(true);
                core.machine.halt();
                Ok(())
            })
            .await?;
        self.core.progress.applied.send_modify(|_| {});
        checked
    }

    fn end_tasks(&self) {
        self.core.ended.cancel();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.core.closing.store(true, Ordering::SeqCst);
        self.end_tasks();
        // No checkpoint and no snapshot: this may be a panic, and callers in a hurry drop.
        self.core.log.close(false);
        self.core.machine.halt();
    }
}

#[async_trait]
impl Storage for RaftStore {
    fn revision(&self) -> Revision {
        self.core.machine.revision()
    }

    async fn current_revision(&self) -> Result<Revision, StorageError> {
        self.core.check_open()?;
        if self.core.is_sovereign() {
            return Ok(self.core.machine.revision());
        }
        reads::current_revision(&self.core).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.know(&request.start, request.end.as_ref()).await;
        if request.revision.is_none_or(|revision| revision > self.core.machine.revision()) {
            self.current_revision().await?;
        }
        self.core.check_open()?;
        self.core.machine.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        forward::txn(&self.core, txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        self.know(&request.start, request.end.as_ref()).await;
        self.core.check_open()?;
        self.core.machine.watch(&request)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        forward::compact(&self.core, revision).await
    }

    async fn snapshot(&self, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<Revision, StorageError> {
        self.current_revision().await?;
        self.core.machine.snapshot(to).await
    }

    async fn restore(&self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Revision, StorageError> {
        self.core.check_open()?;
        if !self.core.is_sovereign() {
            return Err(StorageError::Invalid { why: "restore needs a stopped cluster".into() });
        }
        self.core.machine.restore(from).await
    }
}
