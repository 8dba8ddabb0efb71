//! What servers tell nodes on a stream of [`sampan_transport::Purpose::Control`]: which servers there
//! are, and which of them leads. The node opens the stream and listens; the server says it at once,
//! and again whenever it changes.

use sampan_transport::{KeyId, Stream, frame};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::servers::{ServerInfo, ServersView};

/// A list of servers is small.
const LIMIT: usize = 256 << 10;

/// A message of a server. Variants and fields are only ever appended.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// The servers as of now.
    Servers { servers: Vec<Server>, leader: Option<[u8; 32]> },
}

#[derive(Debug, Serialize, Deserialize)]
struct Server {
    name: String,
    key: [u8; 32],
    addresses: Vec<String>,
}

impl Message {
    fn of(view: &ServersView) -> Self {
        let servers = view.servers.iter().map(|server| Server {
            name: server.name.clone(),
            key: server.key.0,
            addresses: server.addresses.clone(),
        });
        Self::Servers { servers: servers.collect(), leader: view.leader.map(|leader| leader.0) }
    }

    fn view(self) -> ServersView {
        let Self::Servers { servers, leader } = self;
        let servers = servers.into_iter().map(|server| ServerInfo {
            name: server.name,
            key: KeyId(server.key),
            addresses: server.addresses,
        });
        ServersView { servers: servers.collect(), leader: leader.map(KeyId) }
    }
}

/// Tells a node about the servers until the stream ends.
pub(crate) async fn tell(stream: Stream, mut view: watch::Receiver<ServersView>) {
    let (mut heard, mut told) = stream.split();
    let telling = async {
        loop {
            let message = Message::of(&view.borrow_and_update());
            if frame::write(&mut told, &message, LIMIT).await.is_err() || view.changed().await.is_err() {
                return;
            }
        }
    };
    // The node has nothing to say: what is read is the end. There may be no news for months, so
    // that nobody would notice it otherwise.
    let listening = async { drop(tokio::io::copy(&mut heard, &mut tokio::io::sink()).await) };
    tokio::select! {
        () = telling => {}
        () = listening => {}
    }
}

/// Listens on a control stream.
pub(crate) struct Listener {
    frames: frame::Reader<Stream>,
}

impl Listener {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { frames: frame::Reader::new(stream, LIMIT) }
    }

    /// What the server says next; `None` once the stream has ended. Cancellation-safe.
    pub(crate) async fn next(&mut self) -> Option<ServersView> {
        match self.frames.read::<Message>().await {
            Ok(message) => message.map(Message::view),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a server's news ended");
                None
            }
        }
    }
}
