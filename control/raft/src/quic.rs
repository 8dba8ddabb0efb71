//! Members over the real network: one connection to each, a stream for each [`Link`].
//!
//! A connection is made when it is needed, to the addresses that the member's record has at that
//! moment, and only the machine with the member's key is taken for it. All who need it wait for the
//! same one; it is made although they may not wait so long, but not to addresses that the member has
//! no more. One on which nothing was heard for a while, when an answer was due, is dropped: a peer
//! that was killed and started again must not be waited for until the connection times out.
//!
//! A connection over TCP gives way to one over QUIC once that can be made. What has begun on it stays.

mod connections;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sampan_transport::frame::{FrameError, Reader, encode};
use sampan_transport::{Endpoint, KeyId, Purpose, Stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::peers::{self, Incoming, Link, Outgoing, PeerError, Peers};
use crate::types::{Member, MemberId};
use crate::wire::{Admit, Kind, MAX_MESSAGE, Message, Open, version_for_protocol};
use connections::{Heard, Slot, unreachable};

/// How long an answer is listened for that nobody waits for any more.
const LATE: Duration = Duration::from_secs(2);
/// How long the first message of a stream may take to arrive.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// The member whose key this is.
pub(crate) fn member_id(key: &KeyId) -> MemberId {
    key.member_id()
}

/// What the transport calls a stream of this kind: a snapshot has a purpose of its own.
pub(crate) fn purpose(kind: Kind) -> Purpose {
    match kind {
        Kind::Call | Kind::Append => Purpose::Raft,
        Kind::Snapshot | Kind::Volatile => Purpose::RaftSnapshot,
        Kind::Forward => Purpose::Forward,
    }
}

/// The members over QUIC, or TCP where UDP does not get through.
#[derive(Clone)]
pub struct QuicPeers {
    endpoint: Endpoint,
    slots: Arc<Mutex<BTreeMap<MemberId, Arc<Slot>>>>,
}

impl std::fmt::Debug for QuicPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicPeers").finish_non_exhaustive()
    }
}

impl QuicPeers {
    /// Connects from `endpoint`, whose identity must be that of a server.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, slots: Arc::default() }
    }

    fn slot(&self, member: MemberId) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(member).or_default())
    }

    async fn open(&self, to: &Member, mut open: Open) -> Result<Link, PeerError> {
        let member = to.id;
        let held = self.slot(to.id).connection(&self.endpoint, to).await?;
        let protocol = held.connection.protocol();
        let version = version_for_protocol(protocol).ok_or_else(|| PeerError::Unreachable {
            member,
            why: format!("protocol {protocol} has no messages between members"),
        })?;
        open.version = open.version.min(version);
        let stream = held.connection.open(purpose(open.kind)).await;
        let stream = stream.map_err(|error| unreachable(member, &error))?;
        let (read, write) = stream.split();
        let mut outgoing = Framed { member, stream: write };
        outgoing.put(encode(&open, MAX_MESSAGE)).await?;
        let incoming = Deframed { member, reader: Reader::new(read, MAX_MESSAGE), heard: Some(held.heard) };
        Ok(Link { member, outgoing: Box::new(outgoing), incoming: Box::new(incoming) })
    }
}

#[async_trait]
impl Peers for QuicPeers {
    async fn stream(&self, to: &Member, open: Open, within: Duration) -> Result<Link, PeerError> {
        let opened = timeout(within, self.open(to, open)).await;
        opened.unwrap_or(Err(PeerError::Timeout { member: to.id, within }))
    }

    async fn call(
        &self,
        to: &Member,
        open: Open,
        message: Message,
        within: Duration,
    ) -> Result<Message, PeerError> {
        let (own, to) = (self.clone(), to.clone());
        let member = to.id;
        // Nobody waits for an answer that comes too late, but it shows that the member is there: on a
        // long way answers may be late again and again, and their connection is sound.
        let exchange = tokio::spawn(async move {
            timeout(within.max(LATE), peers::exchange(&own, &to, open, message, within)).await
        });
        match timeout(within, exchange).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Err(_)) => Err(PeerError::broken(member, "the call was given up")),
            Ok(Ok(Err(_))) | Err(_) => Err(PeerError::Timeout { member, within }),
        }
    }

    fn suspect(&self, member: MemberId) {
        let slot = self.slots.lock().get(&member).cloned();
        if let Some(slot) = slot {
            slot.drop_silent();
        }
    }
}

/// A stream that another member opened: its opening, and the rest. `None` where none came.
pub(crate) async fn accept(from: MemberId, stream: Stream) -> Option<(Open, Link)> {
    let (read, write) = stream.split();
    let mut reader = Reader::new(read, MAX_MESSAGE);
    let open = match timeout(OPEN_WITHIN, reader.read::<Open>()).await {
        Ok(Ok(Some(open))) => open,
        Ok(Ok(None)) | Err(_) => return None,
        Ok(Err(error)) => {
            tracing::warn!(from = format_args!("{from:016x}"), %error, "a stream did not begin as it must");
            return None;
        }
    };
    let outgoing = Framed { member: from, stream: write };
    let incoming = Deframed { member: from, reader, heard: None };
    Some((open, Link { member: from, outgoing: Box::new(outgoing), incoming: Box::new(incoming) }))
}

/// Writes messages in frames.
struct Framed<W> {
    member: MemberId,
    stream: W,
}

impl<W: AsyncWrite + Unpin + Send> Framed<W> {
    async fn put(&mut self, bytes: Result<Vec<u8>, FrameError>) -> Result<(), PeerError> {
        let bytes = bytes.map_err(|error| PeerError::nonsense(self.member, error.to_string()))?;
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        written.await.map_err(|error| PeerError::broken(self.member, error.to_string()))
    }
}

#[async_trait]
impl<W: AsyncWrite + Unpin + Send> Outgoing for Framed<W> {
    async fn admit(&mut self, admit: Admit) -> Result<(), PeerError> {
        self.put(encode(&admit, MAX_MESSAGE)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), PeerError> {
        self.put(encode(&message, MAX_MESSAGE)).await
    }

    async fn send_all(&mut self, messages: Vec<Message>) -> Result<(), PeerError> {
        let mut all = Vec::new();
        for message in messages {
            match encode(&message, MAX_MESSAGE) {
                Ok(bytes) if all.is_empty() => all = bytes,
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(error) => return Err(PeerError::nonsense(self.member, error.to_string())),
            }
        }
        self.put(Ok(all)).await
    }

    async fn finish(&mut self) {
        // Where it fails the stream is over anyhow.
        let _ = self.stream.shutdown().await;
    }
}

/// Reads messages from frames.
struct Deframed<R> {
    member: MemberId,
    reader: Reader<R>,
    heard: Option<Heard>,
}

impl<R: AsyncRead + Unpin + Send> Deframed<R> {
    async fn get<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, PeerError> {
        let read = self.reader.read().await;
        if let (Ok(_), Some(heard)) = (&read, &self.heard) {
            heard.touch();
        }
        read.map_err(|error| match error {
            FrameError::Io(error) => PeerError::broken(self.member, error.to_string()),
            FrameError::Truncated => PeerError::broken(self.member, error.to_string()),
            FrameError::TooLarge { .. } | FrameError::Malformed(_) => {
                PeerError::nonsense(self.member, error.to_string())
            }
        })
    }
}

#[async_trait]
impl<R: AsyncRead + Unpin + Send> Incoming for Deframed<R> {
    async fn admit(&mut self) -> Result<Admit, PeerError> {
        self.get().await?.ok_or_else(|| PeerError::broken(self.member, "it was closed unanswered"))
    }

    async fn next(&mut self) -> Result<Option<Message>, PeerError> {
        self.get().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_go_through_frames_one_by_one_and_in_a_row() {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut outgoing = Framed { member: 1, stream: ours };
        let mut incoming = Deframed { member: 1, reader: Reader::new(theirs, MAX_MESSAGE), heard: None };
        let sent = vec![Message::SnapshotEnd, Message::VolatileBegin { applied: 300 }, Message::VolatileEnd];
        let writer = tokio::spawn(async move {
            outgoing.admit(Admit::Accepted { version: 1 }).await.unwrap();
            outgoing.send_all(sent).await.unwrap();
            outgoing.send(Message::VolatileAsk).await.unwrap();
            outgoing.finish().await;
        });
        assert_eq!(incoming.admit().await, Ok(Admit::Accepted { version: 1 }));
        assert_eq!(incoming.next().await, Ok(Some(Message::SnapshotEnd)));
        assert_eq!(incoming.next().await, Ok(Some(Message::VolatileBegin { applied: 300 })));
        assert_eq!(incoming.next().await, Ok(Some(Message::VolatileEnd)));
        assert_eq!(incoming.next().await, Ok(Some(Message::VolatileAsk)));
        assert_eq!(incoming.next().await, Ok(None));
        writer.await.unwrap();
    }
}
