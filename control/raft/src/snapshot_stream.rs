//! Snapshots between members: streamed from the leader's cut, resumed after a broken connection.
//!
//! The sender names the cut; a receiver that has part of the same cut says after which cursor it
//! wants to go on. Frames are the store's own; at no time are more than a few in memory. The
//! receiver builds beside its tables, and openraft installs the build.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::alias::SnapshotOf;
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use sampan_store::{Build, Cut, StorageError};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::machine::SnapshotData;
use crate::network::Ends;
use crate::peers::{Link, PeerError};
use crate::store::Core;
use crate::types::{self, TypeConfig};
use crate::wire::{Kind, Message, SnapshotBegin, convert};

/// How long either side may stand still.
const STALL: Duration = Duration::from_secs(15);
/// How often a receiver that is installing says that it is still there.
const INSTALLING_EVERY: Duration = Duration::from_secs(2);

type Streaming = StreamingError<TypeConfig>;

/// Sends a snapshot and waits until the receiver has it in place.
pub(crate) async fn send(
    ends: &Ends,
    vote: types::Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
) -> Result<SnapshotResponse<TypeConfig>, Streaming> {
    let SnapshotData::Cut(cut) = snapshot.snapshot else {
        let odd = PeerError::nonsense(ends.target, "a snapshot to be sent is one to be installed");
        return Err(StreamingError::Network(NetworkError::new(&odd)));
    };
    let begin = convert::snapshot_begin(&vote, &snapshot.meta, cut.id());
    let vote = transmit(ends, begin, &cut).await.map_err(|error| {
        ends.note(&error);
        match error {
            PeerError::Unreachable { .. } | PeerError::Refused { .. } | PeerError::TooOld { .. } => {
                StreamingError::Unreachable(Unreachable::new(&error))
            }
            _ => StreamingError::Network(NetworkError::new(&error)),
        }
    })?;
    Ok(SnapshotResponse::new(vote))
}

async fn transmit(ends: &Ends, begin: SnapshotBegin, cut: &Arc<Cut>) -> Result<types::Vote, PeerError> {
    let member = ends.target;
    let mut link = ends.stream(Kind::Snapshot, STALL).await?;
    link.send(Message::SnapshotBegin(begin), STALL).await?;
    let admitted = timeout(STALL, link.admitted()).await;
    ends.understands(admitted.unwrap_or(Err(PeerError::Timeout { member, within: STALL }))?)?;
    let mut cursor = match link.expect(STALL).await? {
        Message::SnapshotAt { cursor } => cursor,
        Message::SnapshotDone { vote } => return Ok(convert::raft_vote(vote)),
        other => return Err(odd(&link, &other)),
    };
    if !cursor.is_empty() {
        tracing::info!(to = format_args!("{member:016x}"), "a snapshot goes on where it broke off");
    }
    loop {
        let frame =
            read(ends, cut, &cursor).await.map_err(|error| PeerError::broken(member, error.to_string()))?;
        let Some((frame, after)) = frame else { break };
        link.send(Message::SnapshotFrame { cursor: after.clone(), frame }, STALL).await?;
        cursor = after;
    }
    link.send(Message::SnapshotEnd, STALL).await?;
    loop {
        match link.expect(STALL).await? {
            Message::SnapshotInstalling => {}
            Message::SnapshotDone { vote } => return Ok(convert::raft_vote(vote)),
            other => return Err(odd(&link, &other)),
        }
    }
}

async fn read(ends: &Ends, cut: &Arc<Cut>, cursor: &Bytes) -> Result<Option<(Bytes, Bytes)>, StorageError> {
    let (cut, cursor) = (Arc::clone(cut), cursor.clone());
    let max = ends.frame_bytes;
    ends.background.run(move || cut.frame(&cursor, max)).await
}

fn odd(link: &Link, message: &Message) -> PeerError {
    match message {
        // It cannot in a moment either: as with one that cannot be reached, it is not tried again at once.
        Message::SnapshotFailed { why } => {
            PeerError::Unreachable { member: link.member, why: format!("it cannot take the snapshot: {why}") }
        }
        _ => PeerError::nonsense(link.member, "a message that is out of place"),
    }
}

/// Snapshots on their way in: at most one is received at a time, and the part of one that broke
/// off is kept until another one begins.
pub(crate) struct Inbox {
    partial: Mutex<Option<Build>>,
    /// Counts the snapshots that began: a newer one ends the one before.
    newest: watch::Sender<u64>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { partial: Mutex::new(None), newest: watch::Sender::new(0) }
    }
}

impl Inbox {
    /// A snapshot begins: the receiver tells when a newer one does.
    fn begin(&self) -> watch::Receiver<u64> {
        self.newest.send_modify(|newest| *newest += 1);
        self.newest.subscribe()
    }
}

/// Receives a snapshot and has it installed.
pub(crate) async fn receive(core: &Arc<Core>, mut link: Link) -> Result<(), PeerError> {
    let begin = match link.expect(STALL).await? {
        Message::SnapshotBegin(begin) => begin,
        other => return Err(odd(&link, &other)),
    };
    let result = accept(core, &mut link, begin).await;
    if let Err(Trouble::Storage(error)) = &result {
        tracing::warn!(%error, "a snapshot cannot be taken");
        link.send(Message::SnapshotFailed { why: error.to_string() }, STALL).await?;
        link.outgoing.finish().await;
    }
    match result {
        Ok(()) | Err(Trouble::Storage(_)) => Ok(()),
        Err(Trouble::Peer(error)) => Err(error),
    }
}

enum Trouble {
    Peer(PeerError),
    Storage(StorageError),
}

impl From<PeerError> for Trouble {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

async fn accept(core: &Arc<Core>, link: &mut Link, begin: SnapshotBegin) -> Result<(), Trouble> {
    let id = begin.id;
    let (vote, meta) = convert::raft_snapshot_meta(begin)
        .map_err(|error| PeerError::nonsense(link.member, error.to_string()))?;
    let mut superseded = core.inbox.begin();
    let mut partial = core.inbox.partial.lock().await;
    let build = match partial.take() {
        Some(build) if build.id() == id => build,
        other => {
            drop(other);
            let machine = Arc::clone(&core.machine);
            core.background.run(move || machine.begin_build(id)).await?
        }
    };
    let (build, received) = frames(core, link, build, &mut superseded).await;
    match received {
        Ok(()) => {}
        Err(Trouble::Peer(error)) => {
            *partial = build;
            return Err(error.into());
        }
        Err(trouble) => return Err(trouble),
    }
    let build = build.ok_or_else(|| PeerError::broken(link.member, "the build is gone"))?;
    let snapshot = Snapshot { meta, snapshot: SnapshotData::Built(Box::new(build)) };
    install(core, link, vote, snapshot).await
}

/// Takes frames until the last. The build comes back, unless writing to it failed.
async fn frames(
    core: &Arc<Core>,
    link: &mut Link,
    build: Build,
    superseded: &mut watch::Receiver<u64>,
) -> (Option<Build>, Result<(), Trouble>) {
    if let Err(error) = link.send(Message::SnapshotAt { cursor: build.cursor() }, STALL).await {
        return (Some(build), Err(error.into()));
    }
    let mut build = build;
    loop {
        // Never given up while a frame is being written: what was built so far would be lost.
        let message = tokio::select! {
            biased;
            _ = superseded.changed() => Err(PeerError::broken(link.member, "another snapshot began")),
            message = link.expect(STALL) => message,
        };
        match message {
            Ok(Message::SnapshotFrame { cursor, frame }) => match push(core, build, frame, cursor).await {
                Ok(more) => build = more,
                Err(error) => return (None, Err(error.into())),
            },
            Ok(Message::SnapshotEnd) => return (Some(build), Ok(())),
            Ok(other) => {
                let error = odd(link, &other);
                return (Some(build), Err(error.into()));
            }
            Err(error) => return (Some(build), Err(error.into())),
        }
    }
}

async fn push(
    core: &Arc<Core>,
    mut build: Build,
    frame: Bytes,
    cursor: Bytes,
) -> Result<Build, StorageError> {
    let write = move || build.push(&frame, cursor).map(|()| build);
    core.background.run(write).await
}

async fn install(
    core: &Arc<Core>,
    link: &mut Link,
    vote: types::Vote,
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
) -> Result<(), Trouble> {
    let installing = core.raft.install_full_snapshot(vote, snapshot);
    tokio::pin!(installing);
    let done = loop {
        match timeout(INSTALLING_EVERY, &mut installing).await {
            Ok(done) => break done,
            Err(_) => link.send(Message::SnapshotInstalling, STALL).await?,
        }
    };
    let done = done.map_err(|error| StorageError::Unavailable { why: error.to_string() })?;
    link.send(Message::SnapshotDone { vote: convert::vote(&done.vote) }, STALL).await?;
    link.outgoing.finish().await;
    Ok(())
}
