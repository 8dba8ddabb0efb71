//! Keys that are kept in memory only: a member that restarted gets them back from the others.
//!
//! Its log holds but placeholders for them. So it asks another member for its copy and merges it,
//! the highest revision of a key winning, once it has itself applied what that copy holds. Where
//! nobody answers at first, it asks again in the background; a new leader asks before it evaluates
//! anything on such keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sampan_store::StorageError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::forward;
use crate::peers::{Link, PeerError};
use crate::store::Core;
use crate::types::Member;
use crate::wire::{Kind, Message};

/// About how large a frame is.
const FRAME_BYTES: usize = 256 << 10;
/// How long either side may stand still.
const STALL: Duration = Duration::from_secs(3);
/// How long a member that starts waits for the others before it serves without.
const AT_START: Duration = Duration::from_secs(3);
/// How long a new leader waits for the others.
const ON_REIGN: Duration = Duration::from_millis(500);
/// How long a member waits before it asks again.
const AGAIN: Duration = Duration::from_millis(200);

/// Whether this member has the keys that are in memory only.
pub(crate) struct VolatileSync {
    whole: AtomicBool,
    /// Readers need not wait any more.
    ready: watch::Sender<bool>,
}

impl Default for VolatileSync {
    fn default() -> Self {
        Self { whole: AtomicBool::new(false), ready: watch::Sender::new(false) }
    }
}

impl VolatileSync {
    fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// This member has all there are.
    fn set_whole(&self) {
        self.whole.store(true, Ordering::Release);
        self.set_ready();
    }

    fn set_ready(&self) {
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Waits, just after this member has started, until it has the keys, or has waited long enough.
    pub(crate) async fn ready(&self) {
        // The sender is not dropped while this is borrowed.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// When a member starts: gets the keys from the others, where there are others. Readers wait for
/// it a while ([`VolatileSync::ready`]).
pub(crate) async fn at_start(core: &Arc<Core>) {
    if core.log.is_alone() {
        core.volatile.set_whole();
        return;
    }
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let ended = core.ended.clone();
        let sync = async {
            if timeout(AT_START, until_whole(&core)).await.is_err() {
                core.volatile.set_ready();
                until_whole(&core).await;
            }
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = sync => {}
        }
        // Whoever waits is told that it was closed by what it does next.
        core.volatile.set_ready();
    });
}

/// When this member begins to lead without having the keys: asks the others once more.
pub(crate) async fn on_reign(core: &Core) {
    if !core.volatile.is_whole() && timeout(ON_REIGN, once(core)).await.is_err() {
        tracing::warn!("no member gives its copy of the keys that are in memory only");
    }
    // From here on what this member has is what the cluster has.
    core.machine.volatile_settled();
    core.volatile.set_whole();
}

async fn until_whole(core: &Core) {
    while !core.volatile.is_whole() {
        if once(core).await {
            core.volatile.set_whole();
        } else {
            sleep(AGAIN).await;
        }
    }
}

/// Asks each of the others, the leader first, until one gives its copy.
async fn once(core: &Core) -> bool {
    let leader = forward::leader(core);
    let mut others = core.directory.others();
    others.sort_by_key(|member| Some(member.id) != leader);
    for member in others {
        match fetch(core, &member).await {
            Ok(frames) => {
                tracing::debug!(from = %member, frames, "got the keys that are in memory only");
                return true;
            }
            Err(error) => {
                if let SyncError::Peer(error) = &error {
                    core.directory.heard(error);
                }
                tracing::debug!(from = %member, %error, "did not get the keys that are in memory only");
            }
        }
    }
    false
}

/// Gets one member's copy and merges it; gives the number of frames.
async fn fetch(core: &Core, from: &Member) -> Result<usize, SyncError> {
    let open = core.directory.open(from.id, Kind::Volatile);
    let opened = timeout(STALL, async {
        let mut link = core.forward.peers().stream(from, open, STALL).await?;
        link.outgoing.send(Message::VolatileAsk).await?;
        link.admitted().await?;
        Ok(link)
    });
    let mut link = opened.await.unwrap_or(Err(PeerError::Timeout { member: from.id, within: STALL }))?;
    let Message::VolatileBegin { applied } = link.expect(STALL).await? else { return Err(odd(&link).into()) };
    if applied < core.machine.replayed().index {
        // What only placeholders are left of here is not in that copy either.
        return Err(PeerError::broken(from.id, "its copy is older than what was lost here").into());
    }
    if let Some(last) = applied.checked_sub(1) {
        core.applied_index(last, Instant::now() + STALL).await?;
    }
    let mut frames = 0;
    loop {
        match link.expect(STALL).await? {
            Message::VolatileFrame { frame } => {
                merge(core, frame, applied).await?;
                frames += 1;
            }
            Message::VolatileEnd => {
                core.machine.volatile_merged(applied)?;
                return Ok(frames);
            }
            _ => return Err(odd(&link).into()),
        }
    }
}

/// Merges a frame. Whoever gave it went on applying meanwhile: this member has to come as far first.
async fn merge(core: &Core, frame: Bytes, applied: u64) -> Result<(), StorageError> {
    let attempt = || {
        let (machine, frame) = (Arc::clone(&core.machine), frame.clone());
        core.background.run(move || machine.merge_volatile(&frame, applied))
    };
    match attempt().await {
        Err(StorageError::Future { requested, .. }) => {
            core.applied_revision(requested, Instant::now() + STALL).await?;
            attempt().await
        }
        other => other,
    }
}

/// Gives this member's copy to another one.
pub(crate) async fn serve(core: &Arc<Core>, mut link: Link) -> Result<(), PeerError> {
    let Message::VolatileAsk = link.expect(STALL).await? else { return Err(odd(&link)) };
    if !core.volatile.is_whole() {
        return Err(PeerError::broken(link.member, "this member has not got its own copy yet"));
    }
    link.send(Message::VolatileBegin { applied: core.machine.applied().index }, STALL).await?;
    let mut cursor = Bytes::new();
    loop {
        let (machine, after) = (Arc::clone(&core.machine), cursor.clone());
        let frame = core.background.run(move || machine.volatile_frame(&after, FRAME_BYTES)).await;
        let frame = frame.map_err(|error| PeerError::broken(link.member, error.to_string()))?;
        let Some((frame, after)) = frame else { break };
        link.send(Message::VolatileFrame { frame }, STALL).await?;
        cursor = after;
    }
    link.send(Message::VolatileEnd, STALL).await?;
    link.outgoing.finish().await;
    Ok(())
}

fn odd(link: &Link) -> PeerError {
    PeerError::nonsense(link.member, "a message that is out of place")
}
