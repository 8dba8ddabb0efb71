//! What answers the streams that other members open.
//!
//! Who is let in is decided once per stream, by [`crate::directory::Directory::admit`]; what a
//! stream may carry is decided by its kind. Nothing that a peer sends can do more than end its
//! stream.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use sampan_transport::{Connection, PeerIdentity, Purpose, Stream};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::forward;
use crate::level;
use crate::log::codec;
use crate::peers::{Incoming, Link, Outgoing, PeerError};
use crate::quic;
use crate::snapshot_stream;
use crate::store::{Core, RaftStore};
use crate::types::{MemberId, TypeConfig};
use crate::volatile_sync;
use crate::wire::{
    Admit, Append, Appended, Kind, LogPosition, Message, Open, Refusal, Transferred, VoteAnswer, WireError,
    convert,
};

/// How long the messages of a call may take to arrive.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// How many forwarded requests of one stream are answered at once.
const AT_ONCE: usize = 1_024;
/// How many answers may wait to be written.
const ANSWERS: usize = 256;

impl RaftStore {
    /// Serves all streams of a connection that are for members, until it ends. Streams for
    /// something else are closed: where a connection carries those, too, accept the streams
    /// elsewhere and call [`RaftStore::serve_stream`].
    pub async fn serve_connection(&self, connection: Connection) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.core.ended.cancelled() => return,
                accepted = connection.accept() => accepted,
            };
            let Ok((purpose, stream)) = accepted else { return };
            let (core, peer) = (Arc::clone(&self.core), connection.peer().clone());
            tokio::spawn(async move { serve_stream(&core, purpose, stream, &peer).await });
        }
    }

    /// Serves one stream from another server, until it ends. What is not for members is closed.
    pub async fn serve_stream(&self, purpose: Purpose, stream: Stream, peer: &PeerIdentity) {
        serve_stream(&self.core, purpose, stream, peer).await;
    }

    /// Serves one stream that began with `open` and is known to come from `from`.
    pub async fn serve_link(&self, from: MemberId, open: Open, link: Link) {
        serve_link(&self.core, from, &open, link).await;
    }

    /// Tells when this member learns that it was removed: it should say so, and stop.
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.core.directory.removed()
    }

    /// Answers one message of a stream of [`Kind::Call`].
    ///
    /// # Errors
    /// [`Refusal`] where the sender is not let in, or the message is out of place.
    pub async fn serve_call(
        &self,
        from: MemberId,
        open: &Open,
        message: Message,
    ) -> Result<Message, Refusal> {
        admit(&self.core, from, open)?;
        call(&self.core, from, message).await.ok_or(Refusal::Malformed)
    }
}

async fn serve_stream(core: &Arc<Core>, purpose: Purpose, stream: Stream, peer: &PeerIdentity) {
    let from = quic::member_id(&peer.key);
    let Some((open, mut link)) = quic::accept(from, stream).await else { return };
    if quic::purpose(open.kind) != purpose {
        // It is a fault of the peer, and it may be gone already.
        let _ = link.outgoing.admit(Admit::Refused(Refusal::Malformed)).await;
        return;
    }
    serve_link(core, from, &open, link).await;
}

fn admit(core: &Core, from: MemberId, open: &Open) -> Result<(), Refusal> {
    if core.ended.is_cancelled() {
        return Err(Refusal::NotServing);
    }
    core.directory.admit(open, from)
}

async fn serve_link(core: &Arc<Core>, from: MemberId, open: &Open, mut link: Link) {
    if let Err(refusal) = admit(core, from, open) {
        // Whoever is refused asks again and again.
        tracing::debug!(from = format_args!("{from:016x}"), %refusal, "a stream is refused");
        if link.outgoing.admit(Admit::Refused(refusal)).await.is_ok() {
            link.outgoing.finish().await;
        }
        return;
    }
    let served = async {
        link.outgoing.admit(Admit::Accepted { version: core.directory.newest().number() }).await?;
        match open.kind {
            Kind::Call => one_call(core, link).await,
            Kind::Append => appends(core, link).await,
            Kind::Snapshot => snapshot_stream::receive(core, link).await,
            Kind::Forward => requests(core, link).await,
            Kind::Volatile => volatile_sync::serve(core, link).await,
        }
    };
    let served = tokio::select! {
        biased;
        () = core.ended.cancelled() => return,
        served = served => served,
    };
    if let Err(error) = served {
        tracing::debug!(from = format_args!("{from:016x}"), kind = ?open.kind, %error, "a stream ended");
    }
}

async fn one_call(core: &Arc<Core>, mut link: Link) -> Result<(), PeerError> {
    let message = link.expect(CALL_WITHIN).await?;
    let answer = call(core, link.member, message).await;
    let answer = answer.ok_or_else(|| PeerError::nonsense(link.member, "a call that is none"))?;
    link.send(answer, CALL_WITHIN).await?;
    link.outgoing.finish().await;
    Ok(())
}

/// Answers one message; `None` where it is not one that is answered so.
async fn call(core: &Core, from: MemberId, message: Message) -> Option<Message> {
    Some(match message {
        Message::Append(append) => {
            core.forward.heard.note(from);
            Message::Appended(append_once(core, append).await)
        }
        Message::Vote(request) => {
            let answer = core.raft.vote(convert::raft_vote_request(&request)).await;
            Message::Voted(answer.map_or_else(
                |error| VoteAnswer::Failed { why: error.to_string() },
                |answer| convert::vote_answer(&answer),
            ))
        }
        Message::PreVote(request) => {
            let answer = core.raft.pre_vote(convert::raft_vote_request(&request)).await;
            Message::Voted(answer.map_or_else(
                |error| VoteAnswer::Failed { why: error.to_string() },
                |answer| convert::vote_answer(&answer),
            ))
        }
        Message::Transfer(request) => {
            let answer = core.raft.handle_transfer_leader(convert::raft_transfer(&request)).await;
            Message::Transferred(answer.map_or_else(
                |error| Transferred::Failed { why: error.to_string() },
                |answer| convert::transferred(&answer),
            ))
        }
        _ => return None,
    })
}

/// Entries as openraft has them. Some that this member has no part in, as they are of a newer
/// level, are refused: it is started with a build, or as one, that is too old.
fn received(core: &Core, append: Append) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let request = convert::raft_append(append)?;
    let own = core.directory.newest();
    match request.entries.iter().map(codec::level).max() {
        Some(level) if level > own => {
            Err(WireError::Malformed { what: level::too_old("this member", own, level) })
        }
        _ => Ok(request),
    }
}

async fn append_once(core: &Core, append: Append) -> Appended {
    let previous = append.previous;
    let last = append.entries.last().map(|entry| entry.position).or(previous);
    let request = match received(core, append) {
        Ok(request) => request,
        Err(error) => return Appended::Failed { why: error.to_string() },
    };
    match core.raft.append_entries(request).await {
        Ok(AppendEntriesResponse::Success) => Appended::Matching(last),
        Ok(AppendEntriesResponse::PartialSuccess(upto)) => Appended::Matching(upto.map(convert::position)),
        Ok(AppendEntriesResponse::Conflict) => {
            Appended::Conflict(previous.unwrap_or(LogPosition { term: 0, index: 0 }))
        }
        Ok(AppendEntriesResponse::HigherVote(vote)) => Appended::HigherVote(convert::vote(&vote)),
        Err(error) => Appended::Failed { why: error.to_string() },
    }
}

/// Entries in a stream: taken in as they come, answered in order.
async fn appends(core: &Arc<Core>, link: Link) -> Result<(), PeerError> {
    let Link { member, mut outgoing, incoming } = link;
    let input = stream::unfold((incoming, Arc::clone(core)), move |(mut incoming, core)| async move {
        let append = next_append(&core, member, &mut incoming).await?;
        core.forward.heard.note(member);
        Some((append, (incoming, core)))
    });
    let mut results = std::pin::pin!(core.raft.stream_append(input));
    while let Some(result) = results.next().await {
        let appended = match result {
            Ok(result) => appended(result),
            Err(fatal) => Appended::Failed { why: fatal.to_string() },
        };
        let more = matches!(appended, Appended::Matching(_));
        outgoing.send(Message::Appended(appended)).await?;
        if !more {
            break;
        }
    }
    outgoing.finish().await;
    Ok(())
}

fn appended(result: StreamAppendResult<TypeConfig>) -> Appended {
    convert::appended(result)
}

/// The next append of a stream; `None` ends it, also where what came makes no sense.
async fn next_append(
    core: &Core,
    member: MemberId,
    incoming: &mut Box<dyn Incoming>,
) -> Option<AppendEntriesRequest<TypeConfig>> {
    let what = match incoming.next().await {
        Ok(None) | Err(_) => return None,
        Ok(Some(Message::Append(append))) => match received(core, append) {
            Ok(append) => return Some(append),
            Err(error) => error.to_string(),
        },
        Ok(Some(_)) => "a message that is out of place".into(),
    };
    tracing::warn!(from = format_args!("{member:016x}"), what, "an append stream is closed");
    None
}

/// Requests for the leader: each is answered when it is done.
async fn requests(core: &Arc<Core>, link: Link) -> Result<(), PeerError> {
    let Link { member, outgoing, mut incoming } = link;
    let (answers, queue) = mpsc::channel(ANSWERS);
    let writer = tokio::spawn(write_answers(outgoing, queue));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let ended = loop {
        let (id, ask) = match incoming.next().await {
            Ok(Some(Message::Ask { id, ask })) => (id, ask),
            Ok(Some(_)) => break Err(PeerError::nonsense(member, "a message that is out of place")),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { break Ok(()) };
        let (core, answers) = (Arc::clone(core), answers.clone());
        tokio::spawn(async move {
            let _turn = turn;
            let answer = tokio::select! {
                biased;
                () = core.ended.cancelled() => return,
                answer = forward::answer(&core, ask) => answer,
            };
            // Whoever asked may have gone.
            let _ = answers.send(Message::Answer { id, answer }).await;
        });
    };
    drop(answers);
    // The writer ends with the last answer, or with the stream.
    let _ = writer.await;
    ended
}

async fn write_answers(mut outgoing: Box<dyn Outgoing>, mut queue: mpsc::Receiver<Message>) {
    let mut messages = Vec::new();
    while queue.recv_many(&mut messages, ANSWERS).await > 0 {
        if outgoing.send_all(std::mem::take(&mut messages)).await.is_err() {
            return;
        }
    }
    outgoing.finish().await;
}
