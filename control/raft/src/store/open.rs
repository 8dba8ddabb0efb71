//! Opening a member: its directory, its place in the group, consensus, and its tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use parking_lot::Mutex;
use sampan_store::wal::{self, LogId};
use sampan_store::{Command, Level, Machine, Opened};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Core, Leadership, RaftStore, keeper, reign};
use crate::config::{self, OpenError, RaftConfig, Start};
use crate::directory::Directory;
use crate::forward::Forwarder;
use crate::level;
use crate::log::Log;
use crate::log::codec::membership_from;
use crate::machine::StateMachine;
use crate::membership::{self, Changes};
use crate::network::Network;
use crate::peers::Peers;
use crate::reads::Reads;
use crate::snapshot_stream::Inbox;
use crate::tick;
use crate::types::{Entry, Member, MemberId, from_wal, to_wal};
use crate::volatile_batch::VolatileTurns;
use crate::volatile_sync;

/// How long a member that is alone may take to begin its reign before the store is open without it.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

type Members = Membership<MemberId, Member>;

impl RaftStore {
    /// Opens a member's data directory, making it if there is none.
    ///
    /// A member that is alone serves when this returns; one of several follows, or has begun to
    /// look for a leader.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed in the directory, but for a group that
    /// [`Start::ForceNew`] has formed anew.
    pub async fn open(
        config: RaftConfig,
        start: Start,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<Self>, OpenError> {
        let opened = Machine::open(config.store.clone()).await?;
        Self::open_over(config, opened, start, peers).await
    }

    /// Opens a member with the state of a snapshot in the place of what its directory holds,
    /// damaged or not, as a cluster of its own; see [`Machine::rebuild`].
    ///
    /// # Errors
    /// As [`RaftStore::open`]; or the snapshot cannot be used, then nothing was changed.
    pub async fn rebuild(
        config: RaftConfig,
        snapshot: &Path,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<Self>, OpenError> {
        let opened = Machine::rebuild(config.store.clone(), snapshot).await?;
        Self::open_over(config, opened, Start::Bootstrap, peers).await
    }

    /// Opens a member over a directory that is open already, say one rebuilt from a stream.
    ///
    /// # Errors
    /// As [`RaftStore::open`].
    pub async fn open_over(
        config: RaftConfig,
        opened: Opened,
        start: Start,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<Self>, OpenError> {
        let options = config::openraft(config.timing)?;
        let unusable = |error: std::io::Error| OpenError::Log {
            dir: config.store.dir.display().to_string(),
            why: error.to_string(),
        };
        let Opened { machine, wal, entries } = opened;
        let machine = Arc::new(machine);
        let newest = config.store.level;
        check_level(&entries, newest).map_err(unusable)?;
        let log = Log::open(wal, entries, &machine).map_err(unusable)?;
        // Whatever happens from here on, the writer ends before the directory is let go.
        let guard = Guard { log: Some(log.clone()), machine: Arc::clone(&machine) };
        let members = take_place(&config, start, &log, &machine).await?;
        log.set_membership(config.member.id, &members);
        let id = config.member.id;
        let standing = machine.standing();
        let directory = Directory::new(id, standing.cluster.0, newest);
        directory.set_level(standing.level);
        let state_machine = StateMachine::new(id, Arc::clone(&machine), log.clone(), Arc::clone(&directory));
        let progress = state_machine.progress();
        let network = Network::new(Arc::clone(&directory), Arc::clone(&peers), &config.store);
        let raft = openraft::Raft::new(id, options, network, log.clone(), state_machine)
            .await
            .map_err(|error| OpenError::Start { why: error.to_string() })?;
        let core = Arc::new_cyclic(|me| Core {
            id,
            raft,
            machine,
            log,
            timing: config.timing,
            background: config.store.background,
            forward: Forwarder::new(Arc::clone(&directory), peers),
            directory,
            inbox: Inbox::default(),
            reads: Reads::default(),
            changes: Changes::default(),
            addresses: watch::channel(config.member.addresses).0,
            leadership: watch::channel(Leadership::default()).0,
            progress,
            volatile_turns: VolatileTurns::default(),
            me: Weak::clone(me),
            closing: AtomicBool::new(false),
            ended: CancellationToken::new(),
        });
        guard.pass_on();
        let store = Arc::new(Self { core: Arc::clone(&core), tasks: Mutex::default() });
        store.begin(&core).await?;
        Ok(store)
    }

    async fn begin(&self, core: &Arc<Core>) -> Result<(), OpenError> {
        let follow = Arc::clone(&core.directory).follow(core.raft.server_metrics());
        self.tasks.lock().extend([
            tokio::spawn(follow),
            tokio::spawn(reign::follow(Arc::clone(core))),
            tokio::spawn(tick::follow(Arc::clone(core))),
            tokio::spawn(keeper::purge(Arc::clone(core))),
            tokio::spawn(keeper::forget(Arc::clone(core))),
            tokio::spawn(level::keep(Arc::clone(core))),
            tokio::spawn(volatile_sync::keep(Arc::clone(core))),
            tokio::spawn(membership::announce(Arc::clone(core))),
        ]);
        if !core.log.is_alone() {
            return Ok(());
        }
        // Nobody else can lead: no need to wait whether somebody does.
        let failed = |why: String| OpenError::Start { why };
        core.raft.trigger().elect(false).await.map_err(|error| failed(error.to_string()))?;
        let mut leadership = core.leadership.subscribe();
        let begun = leadership.wait_for(|now| now.mine || now.full);
        let progress = core.machine.progress();
        let ended = async {
            let mut progress = progress;
            while core.machine.check().is_ok() && progress.changed().await.is_ok() {}
        };
        tokio::select! {
            biased;
            _ = begun => {}
            () = ended => {}
            () = tokio::time::sleep(BEGIN_WITHIN) => {}
        }
        core.machine.check().map_err(|error| failed(error.to_string()))?;
        Ok(())
    }
}

/// A member that behaves as an older one does not go on from a log that is beyond it; the build's
/// own level is what the log's reader knows.
fn check_level(entries: &[(LogId, Bytes)], newest: Level) -> std::io::Result<()> {
    if newest == Level::NEWEST {
        return Ok(());
    }
    for (id, payload) in entries {
        let level = Command::from_bytes(payload).map_or(Level::OLDEST, |command| command.level());
        if level > newest {
            let why = format!("entry {id} is of level {level}, and this member behaves as one of {newest}");
            return Err(std::io::Error::other(why));
        }
    }
    Ok(())
}

/// Ends log and machine in this order where opening fails.
struct Guard {
    log: Option<Log>,
    machine: Arc<Machine>,
}

impl Guard {
    fn pass_on(mut self) {
        self.log = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            log.close(false);
            self.machine.halt();
        }
    }
}

/// What a member's directory calls for, given how it is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// It goes on as it is.
    Stays,
    /// A group of this member alone begins.
    Founds,
    /// The directory belongs to a group that this member is not of.
    Foreign { found: MemberId },
}

/// Decides it; `joining`: this member waits here to be taken into a group, and what its log has so
/// far may be from before it was.
fn place(id: MemberId, members: &Members, start: Start, joining: bool) -> Place {
    let known: Vec<MemberId> = members.nodes().map(|(id, _)| *id).collect();
    match start {
        Start::ForceNew => Place::Founds,
        Start::Join if known.is_empty() => Place::Stays,
        Start::Bootstrap if known.is_empty() => Place::Founds,
        Start::Bootstrap | Start::Join if known.contains(&id) => Place::Stays,
        Start::Join if joining => Place::Stays,
        // One that was alone and has another key now: nobody can mistake it.
        Start::Bootstrap if known.len() == 1 => Place::Founds,
        Start::Bootstrap | Start::Join => {
            Place::Foreign { found: known.first().copied().unwrap_or_default() }
        }
    }
}

/// Sees to it that the directory's group is one that this member can be of; returns it.
async fn take_place(
    config: &RaftConfig,
    start: Start,
    log: &Log,
    machine: &Machine,
) -> Result<Members, OpenError> {
    let dir = || config.store.dir.display().to_string();
    let unusable = |error: std::io::Error| OpenError::Log { dir: dir(), why: error.to_string() };
    let standing = machine.standing();
    let members = match log.membership() {
        Some((_, members)) => members,
        None => membership_from(&standing.membership).map_err(unusable)?,
    };
    let id = config.member.id;
    let joining = machine.joining().map_err(unusable)? == Some(id);
    match place(id, &members, start, joining) {
        Place::Stays => {
            let waits = !members.nodes().any(|(member, _)| *member == id);
            if waits != joining {
                machine.set_joining(waits.then_some(id)).map_err(unusable)?;
            }
            Ok(members)
        }
        Place::Foreign { found } => {
            Err(OpenError::Foreign { dir: dir(), found, cluster: standing.cluster, id })
        }
        Place::Founds => {
            let alone = alone(&config.member).map_err(unusable)?;
            let (vote, entry) = founding(id, &alone, log, standing.applied).map_err(unusable)?;
            log.set_membership(id, &alone);
            log.append_own(vote, vec![entry]).await.map_err(unusable)?;
            tracing::info!(member = %config.member, "this member is a group of its own");
            Ok(alone)
        }
    }
}

fn alone(member: &Member) -> std::io::Result<Members> {
    Membership::new(vec![BTreeSet::from([member.id])], BTreeMap::from([(member.id, member.clone())]))
        .map_err(std::io::Error::other)
}

/// The vote and the entry that a group of one member begins with, behind everything that its log
/// has.
fn founding(id: MemberId, alone: &Members, log: &Log, applied: LogId) -> std::io::Result<(wal::Vote, Entry)> {
    let last = to_wal(log.last()).max(applied);
    let voted = log.vote().map_or(0, |vote| vote.leader_id.term);
    let term = last.term.max(voted) + 1;
    let log_id = from_wal(LogId { term, index: last.index + 1 })
        .ok_or_else(|| std::io::Error::other("the log has no end"))?;
    let vote = wal::Vote { term, node: id, committed: false };
    Ok((vote, Entry { log_id, payload: EntryPayload::Membership(alone.clone()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[MemberId]) -> Members {
        let nodes: BTreeMap<_, _> =
            ids.iter().map(|id| (*id, Member { id: *id, ..Member::default() })).collect();
        Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
    }

    #[test]
    fn a_directory_says_where_its_member_belongs() {
        // members, start, place
        let table = [
            (&[][..], Start::Bootstrap, Place::Founds),
            (&[], Start::Join, Place::Stays),
            (&[], Start::ForceNew, Place::Founds),
            (&[1], Start::Bootstrap, Place::Stays),
            (&[2], Start::Bootstrap, Place::Founds),
            (&[2], Start::Join, Place::Foreign { found: 2 }),
            (&[1, 2, 3], Start::Bootstrap, Place::Stays),
            (&[1, 2, 3], Start::Join, Place::Stays),
            (&[2, 3], Start::Bootstrap, Place::Foreign { found: 2 }),
            (&[1, 2, 3], Start::ForceNew, Place::Founds),
        ];
        for (known, start, expected) in table {
            let members = if known.is_empty() { Members::default() } else { members(known) };
            assert_eq!(place(1, &members, start, false), expected, "{known:?} {start:?}");
        }
        let others = members(&[2, 3]);
        assert_eq!(place(1, &others, Start::Join, true), Place::Stays, "the log is from before it came");
        let founding = place(1, &others, Start::Bootstrap, true);
        assert_eq!(founding, Place::Foreign { found: 2 });
    }
}
