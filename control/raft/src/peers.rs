//! The seam between members: who opens streams of messages to whom. [`crate::QuicPeers`] is the
//! real one; tests and the simulation bring their own.

use std::time::Duration;

use async_trait::async_trait;
use sampan_store::Level;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::types::{Member, MemberId};
use crate::wire::{Admit, Kind, Message, Open, Refusal, WireError};

/// Why a message did not get through, or its answer did not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection could be made, and nothing was sent.
    #[error("the member {member:016x} cannot be reached: {why}")]
    Unreachable {
        /// Who.
        member: MemberId,
        /// Why.
        why: String,
    },
    /// The stream broke. What was sent may have arrived.
    #[error("the stream to the member {member:016x} broke: {why}")]
    Broken {
        /// Who.
        member: MemberId,
        /// How.
        why: String,
    },
    /// No answer came in time. What was sent may have arrived.
    #[error("the member {member:016x} did not answer in {within:?}")]
    Timeout {
        /// Who.
        member: MemberId,
        /// The time it had.
        within: Duration,
    },
    /// The member refused the stream: nothing that was sent took effect.
    #[error("the member {member:016x} refused: {refusal}")]
    Refused {
        /// Who.
        member: MemberId,
        /// Why.
        refusal: Refusal,
    },
    /// The member does not understand what the group uses.
    #[error("the member {member:016x} understands level {understands} only, and the group is at {group}")]
    TooOld {
        /// Who.
        member: MemberId,
        /// What it understands.
        understands: Level,
        /// The group's level.
        group: Level,
    },
    /// The member sent something that makes no sense.
    #[error("the member {member:016x} sent what makes no sense: {what}")]
    Nonsense {
        /// Who.
        member: MemberId,
        /// What.
        what: String,
    },
}

impl PeerError {
    /// The member did not keep to the protocol.
    pub(crate) fn nonsense(member: MemberId, what: impl Into<String>) -> Self {
        Self::Nonsense { member, what: what.into() }
    }

    /// A stream to the member broke.
    pub(crate) fn broken(member: MemberId, why: impl Into<String>) -> Self {
        Self::Broken { member, why: why.into() }
    }
}

/// Makes streams of messages to other members.
///
/// Messages of one stream arrive in order and at most once, or the stream breaks; nothing is
/// promised between streams, and a [`Peers::call`] may be delivered late, twice, or never.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Opens a stream to `to`. `open.version` is filled in by the implementation.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`] or [`PeerError::Timeout`]; that the member refuses is learnt
    /// with the first message back ([`Link::admitted`]).
    async fn stream(&self, to: &Member, open: Open, within: Duration) -> Result<Link, PeerError>;

    /// Sends one message on a stream of [`Kind::Call`] and waits for the one answer. `open.kind`
    /// is [`Kind::Call`].
    ///
    /// # Errors
    /// As the variants of [`PeerError`] say.
    async fn call(
        &self,
        to: &Member,
        open: Open,
        message: Message,
        within: Duration,
    ) -> Result<Message, PeerError> {
        let exchange = exchange(self, to, open, message, within);
        timeout(within, exchange).await.unwrap_or(Err(PeerError::Timeout { member: to.id, within }))
    }

    /// Something that was sent to `member` was not answered in time: a cached connection is worth
    /// nothing if nothing else was heard on it lately.
    fn suspect(&self, member: MemberId) {
        let _ = member;
    }
}

/// One message there and one back, on a stream of [`Kind::Call`] that opens within a time.
pub(crate) async fn exchange<P: Peers + ?Sized>(
    peers: &P,
    to: &Member,
    open: Open,
    message: Message,
    within: Duration,
) -> Result<Message, PeerError> {
    debug_assert_eq!(open.kind, Kind::Call);
    let mut link = peers.stream(to, open, within).await?;
    link.outgoing.send(message).await?;
    link.outgoing.finish().await;
    link.admitted().await?;
    let answer = link.incoming.next().await?;
    answer.ok_or_else(|| PeerError::broken(to.id, "it ended without an answer"))
}

/// A stream of messages to a member, or from one.
pub struct Link {
    /// The other member.
    pub member: MemberId,
    /// Towards it.
    pub outgoing: Box<dyn Outgoing>,
    /// From it.
    pub incoming: Box<dyn Incoming>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Link {
    /// Waits until the other side has let this stream in; the newest version that it understands.
    /// Messages may be sent before.
    ///
    /// # Errors
    /// [`PeerError::Refused`], and whatever ends the stream.
    pub async fn admitted(&mut self) -> Result<u16, PeerError> {
        match self.incoming.admit().await? {
            Admit::Accepted { version } => Ok(version),
            Admit::Refused(refusal) => Err(PeerError::Refused { member: self.member, refusal }),
        }
    }

    /// The next message; an end of the stream is an error.
    ///
    /// # Errors
    /// Whatever ends the stream.
    pub async fn expect(&mut self, within: Duration) -> Result<Message, PeerError> {
        let member = self.member;
        match timeout(within, self.incoming.next()).await {
            Ok(next) => next?.ok_or_else(|| PeerError::broken(member, "it ended early")),
            Err(_) => Err(PeerError::Timeout { member, within }),
        }
    }

    /// Sends a message, unless the stream stands still for so long.
    ///
    /// # Errors
    /// Whatever ends the stream.
    pub async fn send(&mut self, message: Message, within: Duration) -> Result<(), PeerError> {
        let member = self.member;
        timeout(within, self.outgoing.send(message))
            .await
            .unwrap_or(Err(PeerError::Timeout { member, within }))
    }
}

/// Suspects a member when it is dropped, unless its answer came: whoever waited may have given up.
pub(crate) struct Unanswered<'a> {
    peers: &'a dyn Peers,
    member: MemberId,
    /// It means something from then on.
    from: Instant,
    answered: bool,
}

impl<'a> Unanswered<'a> {
    /// Begins to wait; to give up before `patience` is over means nothing.
    pub(crate) fn new(peers: &'a dyn Peers, member: MemberId, patience: Duration) -> Self {
        Self { peers, member, from: Instant::now() + patience, answered: false }
    }

    /// There was an answer, whatever it was.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered && Instant::now() >= self.from {
            self.peers.suspect(self.member);
        }
    }
}

/// The sending half of a [`Link`].
#[async_trait]
pub trait Outgoing: Send {
    /// The first message back, from the side that answers. Sent once, before all others.
    async fn admit(&mut self, admit: Admit) -> Result<(), PeerError>;
    /// Sends a message; waits while the other side does not read.
    async fn send(&mut self, message: Message) -> Result<(), PeerError>;
    /// Sends some messages in one go.
    async fn send_all(&mut self, messages: Vec<Message>) -> Result<(), PeerError> {
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }
    /// No more messages follow; what was sent still arrives.
    async fn finish(&mut self);
}

/// The receiving half of a [`Link`]. A reader that is dropped halfway loses nothing.
#[async_trait]
pub trait Incoming: Send {
    /// The first message, on the side that opened the stream.
    async fn admit(&mut self) -> Result<Admit, PeerError>;
    /// The next message; `None` where the other side has finished.
    async fn next(&mut self) -> Result<Option<Message>, PeerError>;
}

/// A stream within one process: both ends, with room for `room` messages each way. Messages are
/// encoded and decoded as on a real one.
pub fn pair(opener: MemberId, answerer: MemberId, room: usize) -> (Link, Link) {
    let (there, from_opener) = mpsc::channel(room);
    let (back, from_answerer) = mpsc::channel(room);
    let end = |member, sender, receiver| Link {
        member,
        outgoing: Box::new(Sending { member, sender: Some(sender) }),
        incoming: Box::new(Receiving { member, receiver }),
    };
    (end(answerer, there, from_answerer), end(opener, back, from_opener))
}

struct Sending {
    member: MemberId,
    sender: Option<mpsc::Sender<Vec<u8>>>,
}

impl Sending {
    async fn put(&mut self, bytes: Result<Vec<u8>, WireError>) -> Result<(), PeerError> {
        let bytes = bytes.map_err(|error| PeerError::nonsense(self.member, error.to_string()))?;
        let gone = || PeerError::broken(self.member, "nobody reads it");
        self.sender.as_ref().ok_or_else(gone)?.send(bytes).await.map_err(|_| gone())
    }
}

#[async_trait]
impl Outgoing for Sending {
    async fn admit(&mut self, admit: Admit) -> Result<(), PeerError> {
        self.put(crate::wire::encode(&admit)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), PeerError> {
        self.put(crate::wire::encode(&message)).await
    }

    async fn finish(&mut self) {
        self.sender = None;
    }
}

struct Receiving {
    member: MemberId,
    receiver: mpsc::Receiver<Vec<u8>>,
}

impl Receiving {
    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, PeerError> {
        crate::wire::decode(bytes).map_err(|error| PeerError::nonsense(self.member, error.to_string()))
    }
}

#[async_trait]
impl Incoming for Receiving {
    async fn admit(&mut self) -> Result<Admit, PeerError> {
        let bytes = self.receiver.recv().await;
        let bytes = bytes.ok_or_else(|| PeerError::broken(self.member, "it was closed unanswered"))?;
        self.decode(&bytes)
    }

    async fn next(&mut self) -> Result<Option<Message>, PeerError> {
        match self.receiver.recv().await {
            Some(bytes) => self.decode(&bytes).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_carries_messages_both_ways_and_ends_where_it_is_finished() {
        let (mut opener, mut answerer) = pair(1, 2, 4);
        assert_eq!((opener.member, answerer.member), (2, 1));
        opener.outgoing.send(Message::VolatileAsk).await.unwrap();
        opener.outgoing.finish().await;
        assert!(opener.outgoing.send(Message::VolatileAsk).await.is_err());
        assert_eq!(answerer.incoming.next().await, Ok(Some(Message::VolatileAsk)));
        assert_eq!(answerer.incoming.next().await, Ok(None));
        answerer.outgoing.admit(Admit::Refused(Refusal::Removed)).await.unwrap();
        let refused = opener.admitted().await.unwrap_err();
        assert_eq!(refused, PeerError::Refused { member: 2, refusal: Refusal::Removed });
        drop(answerer);
        let within = Duration::from_secs(1);
        assert!(matches!(opener.expect(within).await, Err(PeerError::Broken { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_still_is_given_up() {
        let (mut opener, _answerer) = pair(1, 2, 1);
        let within = Duration::from_secs(3);
        opener.send(Message::VolatileAsk, within).await.unwrap();
        let late = PeerError::Timeout { member: 2, within };
        assert_eq!(opener.send(Message::VolatileAsk, within).await, Err(late.clone()));
        assert_eq!(opener.expect(within).await, Err(late));
    }
}
