//! Keys that are kept in memory only: a member that lacks some gets them from the others.
//!
//! What a member does not know of them it lacks up to an entry of the log, see
//! [`sampan_store::Machine::lacks`]. As long as that is so it asks the others for a copy that is as
//! new as that entry, and answers for none of these keys. Where the leader itself lacks some, and
//! everybody says so, or does not answer for long enough, it has the group give them up: from that
//! command on all members have the same again, which is nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sampan_store::{Command, CopyOf, Level, StorageError};
use tokio::time::{Instant, sleep, timeout};

use crate::forward;
use crate::peers::{Link, PeerError};
use crate::store::Core;
use crate::types::Member;
use crate::wire::{Kind, Message};

/// How long either side may stand still.
const STALL: Duration = Duration::from_secs(3);
/// How much later than the leader the others are asked.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long a member waits before it asks again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a leader waits for members that do not answer before the group gives up what they may
/// have.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long whoever asks for such keys is kept waiting; longer than a leader's patience.
const WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a member that was asked gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// A copy, which was taken, of so many frames.
    Copy { frames: usize },
    /// It lacks something itself.
    Nothing,
}

/// What asking all others came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// There is a copy here now.
    Got,
    /// Everybody answered, and nobody has one.
    NobodyHas,
    /// Some did not answer, or not with what is wanted.
    Unclear,
}

/// Waits a while until this member has the keys. Where it has not by then, the store refuses
/// whatever concerns them.
pub(crate) async fn known(core: &Core) {
    let mut lacks = core.machine.lacks();
    if lacks.borrow().is_none() {
        return;
    }
    tokio::select! {
        biased;
        () = core.ended.cancelled() => {}
        // The machine outlives the wait; and what came of it is asked elsewhere.
        _ = timeout(WITHIN, lacks.wait_for(Option::is_none)) => {}
    }
}

/// Sees to it that this member has the keys, as long as it runs.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut lacks = core.machine.lacks();
    let mut leadership = core.leadership.subscribe();
    // The term for which this member leads without them, and since when.
    let mut reign: Option<(u64, Instant)> = None;
    loop {
        if lacks.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let asked = ask_others(&core).await;
        let now = *leadership.borrow_and_update();
        reign = match reign {
            _ if !now.mine || asked == Asked::Got => None,
            Some((term, since)) if term == now.term => Some((term, since)),
            _ => Some((now.term, Instant::now())),
        };
        let patient = reign.is_some_and(|(_, since)| since.elapsed() < PATIENCE);
        match asked {
            Asked::Got => continue,
            Asked::Unclear if patient => {}
            Asked::NobodyHas | Asked::Unclear if now.mine => give_up(&core, asked).await,
            Asked::NobodyHas | Asked::Unclear => {}
        }
        tokio::select! {
            biased;
            _ = lacks.wait_for(Option::is_none) => {}
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep(AGAIN) => {}
        }
    }
}

/// Has the group give up what nobody has, or nobody who answers.
async fn give_up(core: &Core, asked: Asked) {
    if asked == Asked::Unclear {
        tracing::warn!("nobody who answers has the keys that are in memory only: what they held is lost");
    }
    if core.level() < Level::LOSSES {
        // Members that are older than the command go on with what their leader has.
        core.machine.settle_volatile();
        return;
    }
    if let Err(error) = core.write(Command::Lost).await {
        // It is tried again, here or by whoever leads then.
        tracing::debug!(?error, "the keys that are in memory only were not given up");
    }
}

/// Asks each of the others, the leader first, until one gives its copy.
async fn ask_others(core: &Core) -> Asked {
    let leader = forward::leader(core);
    let others = core.directory.others();
    let led = others.iter().any(|member| Some(member.id) == leader);
    let asking = others.iter().map(|member| async move {
        if led && Some(member.id) != leader {
            sleep(HEAD_START).await;
        }
        (member, fetch(core, member).await)
    });
    let mut asking: FuturesUnordered<_> = asking.collect();
    let mut nobody_has = true;
    while let Some((member, given)) = asking.next().await {
        match given {
            Ok(Given::Copy { frames }) => {
                tracing::debug!(from = %member, frames, "got the keys that are in memory only");
                return Asked::Got;
            }
            Ok(Given::Nothing) => {}
            Err(error) => {
                nobody_has = false;
                if let SyncError::Peer(error) = &error {
                    core.directory.heard(error);
                }
                tracing::debug!(from = %member, %error, "did not get the keys that are in memory only");
            }
        }
    }
    if nobody_has { Asked::NobodyHas } else { Asked::Unclear }
}

/// Gets one member's copy and takes it.
async fn fetch(core: &Core, from: &Member) -> Result<Given, SyncError> {
    let open = core.directory.open(from.id, Kind::Volatile);
    let opened = timeout(STALL, async {
        let mut link = core.forward.peers().stream(from, open, STALL).await?;
        link.outgoing.send(Message::VolatileAsk).await?;
        link.admitted().await?;
        Ok(link)
    });
    let mut link = opened.await.unwrap_or(Err(PeerError::Timeout { member: from.id, within: STALL }))?;
    let copy = match link.expect(STALL).await? {
        Message::VolatileBegin { applied } => CopyOf { applied, revision: None },
        Message::VolatileCopy { applied, revision } => CopyOf { applied, revision: Some(revision) },
        Message::VolatileNone => return Ok(Given::Nothing),
        _ => return Err(odd(&link).into()),
    };
    let lacks = *core.machine.lacks().borrow();
    if lacks.is_some_and(|lacks| copy.applied < lacks) {
        return Err(PeerError::broken(from.id, "its copy is older than what is lacking here").into());
    }
    let mut frames = Vec::new();
    loop {
        match link.expect(STALL).await? {
            Message::VolatileFrame { frame } => frames.push(frame),
            Message::VolatileEnd => break,
            _ => return Err(odd(&link).into()),
        }
    }
    let given = Given::Copy { frames: frames.len() };
    if let Some(last) = copy.applied.checked_sub(1) {
        core.applied_index(last, Instant::now() + STALL).await?;
    }
    adopt(core, frames.into(), copy).await?;
    Ok(given)
}

/// Takes a copy. Whoever gave it went on applying meanwhile: this member has to come as far first.
async fn adopt(core: &Core, frames: Arc<[Bytes]>, copy: CopyOf) -> Result<(), StorageError> {
    let attempt = || {
        let (machine, frames) = (Arc::clone(&core.machine), Arc::clone(&frames));
        core.background.run(move || machine.adopt_volatile(&frames, copy))
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
    let tells = core.level() >= Level::LOSSES;
    let Some(copy) = core.machine.begin_copy() else {
        if tells {
            link.send(Message::VolatileNone, STALL).await?;
            link.outgoing.finish().await;
            return Ok(());
        }
        return Err(PeerError::broken(link.member, "this member has not got its own copy yet"));
    };
    let begin = match copy {
        CopyOf { applied, revision: Some(revision) } if tells => Message::VolatileCopy { applied, revision },
        CopyOf { applied, .. } => Message::VolatileBegin { applied },
    };
    link.send(begin, STALL).await?;
    let (mut cursor, max) = (Bytes::new(), core.machine.config().snapshot_frame_bytes);
    loop {
        let (machine, after) = (Arc::clone(&core.machine), cursor.clone());
        let frame = core.background.run(move || machine.volatile_frame(&after, max)).await;
        let frame = frame.map_err(|error| PeerError::broken(link.member, error.to_string()))?;
        let Some((frame, after)) = frame else { break };
        link.send(Message::VolatileFrame { frame }, STALL).await?;
        cursor = after;
    }
    if !core.machine.is_still(copy) {
        return Err(PeerError::broken(link.member, "this member lost its own copy meanwhile"));
    }
    link.send(Message::VolatileEnd, STALL).await?;
    link.outgoing.finish().await;
    Ok(())
}

fn odd(link: &Link) -> PeerError {
    PeerError::nonsense(link.member, "a message that is out of place")
}
