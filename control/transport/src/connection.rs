//! A connection to another machine, over either kind of transport.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::TransportError;
use crate::identity::{PeerIdentity, Role};
use crate::mux;
use crate::purpose::Purpose;
use crate::quic;
use crate::stream::{RawRead, RawWrite, Stream};

/// How long an opener may take to say what a stream is for.
const PURPOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Streams that have not said yet what they are for.
const UNNAMED: usize = 64;

/// A connection; clones are the same one. It closes when the last clone and the last stream are gone.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    peer: PeerIdentity,
    own: Role,
    protocol: u32,
    build: String,
    link: Link,
    unnamed: Mutex<FuturesUnordered<Naming>>,
}

/// A stream that is about to say what it is for.
type Naming = BoxFuture<'static, io::Result<(Purpose, Stream)>>;

/// What carries the streams.
pub(crate) enum Link {
    Quic(quinn::Connection),
    Tcp(mux::Handle),
}

impl Link {
    async fn open(&self) -> Result<(RawRead, RawWrite), TransportError> {
        match self {
            Self::Quic(connection) => match connection.open_bi().await {
                Ok((write, read)) => Ok((RawRead::Quic(read), RawWrite::quic(write))),
                Err(error) => Err(TransportError::Closed(quic::ending(&error))),
            },
            Self::Tcp(handle) => {
                let (read, write) = handle.open().await.map_err(TransportError::Closed)?;
                Ok((RawRead::Tcp(read), RawWrite::Tcp(write)))
            }
        }
    }

    /// Cancellation-safe.
    async fn accept(&self) -> Result<(RawRead, RawWrite), TransportError> {
        match self {
            Self::Quic(connection) => match connection.accept_bi().await {
                Ok((write, read)) => Ok((RawRead::Quic(read), RawWrite::quic(write))),
                Err(error) => Err(TransportError::Closed(quic::ending(&error))),
            },
            Self::Tcp(handle) => {
                let (read, write) = handle.accept().await.map_err(TransportError::Closed)?;
                Ok((RawRead::Tcp(read), RawWrite::Tcp(write)))
            }
        }
    }
}

impl Connection {
    pub(crate) fn new(link: Link, own: Role, peer: PeerIdentity, protocol: u32, build: String) -> Self {
        if let Link::Quic(connection) = &link
            && own == Role::Server
            && peer.role == Role::Server
        {
            quic::widen_between_servers(connection);
        }
        Self(Arc::new(Shared { peer, own, protocol, build, link, unnamed: Mutex::default() }))
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// Opens a stream; waits while the peer allows no more of them. Whether the peer serves such
    /// streams shows with the first read.
    ///
    /// # Errors
    /// [`TransportError::Closed`] when the connection has ended.
    pub async fn open(&self, purpose: Purpose) -> Result<Stream, TransportError> {
        let raw = self.0.link.open().await?;
        Stream::open(raw, purpose)
            .await
            .map_err(|error| TransportError::Closed(self.close_reason().unwrap_or_else(|| error.to_string())))
    }

    /// The next stream that the peer opened, and what for. Streams for purposes that are unknown, or
    /// that the peer's role does not permit, are refused by name and not seen here. May be called by
    /// several tasks and given up at any time.
    ///
    /// # Errors
    /// [`TransportError::Closed`] when the connection has ended.
    pub async fn accept(&self) -> Result<(Purpose, Stream), TransportError> {
        let Shared { link, own, peer, .. } = &*self.0;
        let (opener, acceptor) = (peer.role, *own);
        let mut unnamed = self.0.unnamed.lock().await;
        loop {
            tokio::select! {
                raw = link.accept(), if unnamed.len() < UNNAMED => {
                    let raw = raw?;
                    unnamed.push(Box::pin(async move {
                        timeout(PURPOSE_PATIENCE, Stream::accept(raw, opener, acceptor))
                            .await
                            .unwrap_or_else(|late| Err(late.into()))
                    }));
                }
                Some(named) = unnamed.next(), if !unnamed.is_empty() => match named {
                    Ok(named) => return Ok(named),
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                        tracing::warn!(peer = %peer, %error, "a stream was refused");
                    }
                    Err(error) => tracing::debug!(peer = %peer, %error, "a stream broke at its beginning"),
                },
            }
        }
    }

    /// Where the peer is now; a QUIC peer may move.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        match &self.0.link {
            Link::Quic(connection) => connection.remote_address(),
            Link::Tcp(handle) => handle.remote(),
        }
    }

    /// Whether this is QUIC (or TLS over TCP).
    #[must_use]
    pub fn is_quic(&self) -> bool {
        matches!(self.0.link, Link::Quic(_))
    }

    /// The time to the peer and back, as QUIC has measured it.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        match &self.0.link {
            Link::Quic(connection) => Some(connection.rtt()),
            Link::Tcp(_) => None,
        }
    }

    /// The protocol version that was agreed on.
    #[must_use]
    pub fn protocol(&self) -> u32 {
        self.0.protocol
    }

    /// The version of the peer's build.
    #[must_use]
    pub fn build(&self) -> &str {
        &self.0.build
    }

    /// Ends the connection and all its streams now. The text reaches the other side.
    pub fn close(&self, reason: &str) {
        match &self.0.link {
            Link::Quic(connection) => connection.close(quic::CLOSED, reason.as_bytes()),
            Link::Tcp(handle) => handle.close(reason),
        }
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> String {
        match &self.0.link {
            Link::Quic(connection) => quic::ending(&connection.closed().await),
            Link::Tcp(handle) => handle.closed().await,
        }
    }

    /// Why the connection has ended, if it has.
    #[must_use]
    pub fn close_reason(&self) -> Option<String> {
        match &self.0.link {
            Link::Quic(connection) => connection.close_reason().as_ref().map(quic::ending),
            Link::Tcp(handle) => handle.close_reason(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.peer)
            .field("remote", &self.remote())
            .field("quic", &self.is_quic())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::identity::KeyId;
    use crate::mux::{Settings, Side};

    #[tokio::test]
    async fn a_stream_that_does_not_say_what_it_is_for_holds_nobody_up() {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let patience = (Duration::from_secs(2), Duration::from_secs(6));
        let settings = Settings::new(patience.0, patience.1, 8);
        let begin =
            |io, side| mux::start(io, side, "127.0.0.1:1".parse().unwrap(), settings, &TaskTracker::new());
        let (opener, acceptor) = (begin(a, Side::Dialler), begin(b, Side::Acceptor));
        let peer = PeerIdentity { name: "a".to_owned(), role: Role::Node, key: KeyId([1; 32]) };
        let accepting = Connection::new(Link::Tcp(acceptor), Role::Server, peer, 1, String::new());
        let mut mute = opener.open().await.unwrap();
        mute.1.write_all(&[0]).await.unwrap();
        let given_up = timeout(Duration::from_millis(50), accepting.accept()).await;
        assert!(given_up.is_err());
        let (read, write) = opener.open().await.unwrap();
        let raw = (RawRead::Tcp(read), RawWrite::Tcp(write));
        let _named = Stream::open(raw, Purpose::Api).await.unwrap();
        let (purpose, _stream) = timeout(Duration::from_secs(1), accepting.accept()).await.unwrap().unwrap();
        assert_eq!(purpose, Purpose::Api);
        // It may still say so, though the call that first saw it was given up.
        mute.1.write_all(&Purpose::Control.number().to_be_bytes()[1..]).await.unwrap();
        let (purpose, _stream) = timeout(Duration::from_secs(1), accepting.accept()).await.unwrap().unwrap();
        assert_eq!(purpose, Purpose::Control);
    }
}
