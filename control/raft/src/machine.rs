//! The state machine as openraft has it: entries go into [`sampan_store::Machine`], answers to
//! whoever proposed them here.
//!
//! A snapshot is a checkpoint: the tables are always one, so nothing is written for it. What is
//! sent to another member is a cut of the newest state.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use sampan_store::wal::LogId;
use sampan_store::{Applied, Build, Command, Cut, Level, Machine, StorageError};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::directory::Directory;
use crate::log::Log;
use crate::log::codec::{membership_bytes, membership_from};
use crate::types::{
    Member, MemberId, Proposal, RaftLogId, Reply, SnapshotMeta, StoredMembership, TypeConfig, from_wal,
    to_wal,
};

/// How long a cut is kept for a transfer that broke.
const KEPT: Duration = Duration::from_secs(60);

/// A snapshot on its way.
#[derive(Debug)]
pub enum SnapshotData {
    /// What this member sends.
    Cut(Arc<Cut>),
    /// What this member received, whole.
    Built(Box<Build>),
}

type StateSnapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// See the module's description. Clones are the same state machine.
#[derive(Clone)]
pub struct StateMachine {
    id: MemberId,
    machine: Arc<Machine>,
    log: Log,
    directory: Arc<Directory>,
    progress: Arc<Progress>,
}

/// What others learn of the state machine.
pub(crate) struct Progress {
    /// How many entries are applied; see [`LogId`].
    pub(crate) applied: watch::Sender<u64>,
    /// The next snapshot that is asked for is the last checkpoint.
    pub(crate) checkpoint: AtomicBool,
    cut: Mutex<Option<(Instant, Arc<Cut>)>>,
}

impl Progress {
    /// Lets a cut go that nobody asked for in a while: it holds on to pages of the tables.
    pub(crate) fn drop_old_cut(&self) {
        let mut cut = self.cut.lock();
        if cut.as_ref().is_some_and(|(used, _)| used.elapsed() > KEPT) {
            *cut = None;
        }
    }
}

impl StateMachine {
    /// The state machine of member `id`.
    pub(crate) fn new(id: MemberId, machine: Arc<Machine>, log: Log, directory: Arc<Directory>) -> Self {
        let progress = Progress {
            applied: watch::channel(machine.applied().index).0,
            checkpoint: AtomicBool::new(false),
            cut: Mutex::default(),
        };
        Self { id, machine, log, directory, progress: Arc::new(progress) }
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    async fn apply_one(
        &self,
        id: LogId,
        payload: EntryPayload<Proposal, MemberId, Member>,
    ) -> io::Result<Reply> {
        // Where the tables' device is full the entry must be applied all the same; new ones are
        // refused before they come here.
        match self.machine.room().await {
            Ok(()) | Err(StorageError::NoSpace) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        let command = match payload {
            EntryPayload::Blank => Proposal::new(Command::Blank).0,
            EntryPayload::Membership(members) => {
                let membership = membership_bytes(&members)?;
                let applied = self.apply_command(id, &Command::Membership { membership })?;
                self.log.set_membership(self.id, &members);
                return Ok(applied);
            }
            // Only what a full device did not take is blank.
            EntryPayload::Normal(Proposal(command)) if *command == Command::Blank => {
                self.apply_command(id, &command)?;
                return Ok(Reply::Refused(StorageError::NoSpace));
            }
            EntryPayload::Normal(Proposal(command)) => command,
        };
        let reply = self.apply_command(id, &command)?;
        match *command {
            Command::Reign { .. } => self.directory.set_cluster(self.machine.standing().cluster.0),
            Command::Level { level } => self.directory.set_level(Level::of_number(level)),
            _ => {}
        }
        Ok(reply)
    }

    fn apply_command(&self, id: LogId, command: &Command) -> io::Result<Reply> {
        match self.machine.apply(id, command) {
            Ok(Applied::Nothing) => Ok(Reply::Done),
            Ok(Applied::Txn(answer)) => Ok(Reply::Txn(answer)),
            Ok(Applied::Revision(revision)) => Ok(Reply::Revision(revision)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn tell_applied(&self) {
        self.progress.applied.send_replace(self.machine.applied().index);
    }

    /// The newest state, or a cut that another member may still be receiving.
    fn cut(&self) -> io::Result<StateSnapshot> {
        let mut kept = self.progress.cut.lock();
        let purged = self.log.purged();
        let cut = match kept.as_ref() {
            Some((used, cut)) if used.elapsed() < KEPT && from_wal(cut.applied()) >= purged => {
                Arc::clone(cut)
            }
            _ => Arc::new(self.machine.cut().map_err(io::Error::other)?),
        };
        // It holds on to pages of the tables: not where nobody can ask for it again.
        *kept = (!self.log.is_alone()).then(|| (Instant::now(), Arc::clone(&cut)));
        drop(kept);
        snapshot_of(cut)
    }
}

fn snapshot_of(cut: Arc<Cut>) -> io::Result<StateSnapshot> {
    let (membership_at, membership) = cut.membership();
    let meta = meta(cut.applied(), membership_at, &membership)?;
    Ok(Snapshot { meta, snapshot: SnapshotData::Cut(cut) })
}

/// A build from a cut in this process.
fn built_from(machine: &Machine, cut: &Cut) -> Result<Build, StorageError> {
    const FRAME: usize = 1 << 20;
    let mut build = machine.begin_build(cut.id())?;
    while let Some((frame, cursor)) = cut.frame(&build.cursor(), FRAME)? {
        build.push(&frame, cursor)?;
    }
    Ok(build)
}

fn meta(applied: LogId, membership_at: LogId, membership: &[u8]) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: from_wal(applied),
        last_membership: StoredMembership::new(from_wal(membership_at), membership_from(membership)?),
    })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let standing = self.machine.standing();
        let meta = meta(standing.applied, standing.membership_at, &standing.membership)?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_one(to_wal(Some(entry.log_id)), entry.payload).await;
            match (reply, responder) {
                (Ok(reply), Some(responder)) => responder.send(reply),
                (Ok(_), None) => {}
                (Err(error), responder) => {
                    if let Some(responder) = responder {
                        responder.send(Reply::Failed(error.to_string()));
                    }
                    return Err(error);
                }
            }
        }
        self.tell_applied();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let machine = Arc::clone(&self.machine);
        let applied = to_wal(meta.last_log_id);
        let install = move || {
            let build = match snapshot {
                SnapshotData::Built(build) => *build,
                SnapshotData::Cut(cut) => built_from(&machine, &cut)?,
            };
            machine.install(build, applied)
        };
        self.machine.config().background.run(install).await.map_err(io::Error::other)?;
        self.log.set_membership(self.id, meta.last_membership.membership());
        let standing = self.machine.standing();
        self.directory.set_cluster(standing.cluster.0);
        self.directory.set_level(standing.level);
        self.tell_applied();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StateSnapshot>, io::Error> {
        if self.machine.applied() == LogId::default() {
            return Ok(None);
        }
        self.cut().map(Some)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<StateSnapshot, io::Error> {
        let is_there = self.progress.checkpoint.swap(false, Ordering::SeqCst);
        if !is_there {
            self.machine.checkpoint().await.map_err(io::Error::other)?;
        }
        let mut snapshot = snapshot_of(Arc::new(self.machine.cut().map_err(io::Error::other)?))?;
        if is_there {
            // What is said here lets the log go. The cut, which nobody takes, is newer.
            let at = self.machine.checkpointed();
            snapshot.meta = meta(at.applied, at.membership_at, &at.membership)?;
        }
        Ok(snapshot)
    }
}
