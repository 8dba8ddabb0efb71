//! Requests to nodes that are connected to another server: a stream to that server begins with the
//! node's name, the answer says whether it is there, and from then on the stream is the node's.
//!
//! Which server that is nobody keeps a list of: all are asked at once, and the answer is remembered
//! for a while. It may be wrong a moment later; then all are asked again.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use sampan_transport::{KeyId, Purpose, Stream, frame};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::Way;
use crate::http1;
use crate::servers::{ServerInfo, Servers};

/// A name is short.
const LIMIT: usize = 4 << 10;
/// A server that does not say within this time whether a node is there is left aside.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long a node is thought to be where it was found.
const REMEMBERED: Duration = Duration::from_secs(30);
/// More than a cluster has nodes in use at once; beyond it the memory begins anew.
const MOST: usize = 4096;

/// The first message on a stream. Variants are only ever appended.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// What follows is for this node.
    Node(String),
}

/// The answer to it. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// The node is here: HTTP/1.1 follows.
    Here,
    /// It is not.
    NotHere,
}

/// Where nodes were found.
#[derive(Default)]
pub(super) struct Whereabouts {
    found: Mutex<HashMap<String, (KeyId, Instant)>>,
}

impl Whereabouts {
    /// A stream to the node's kubelet, if the node is connected to one of `others`.
    pub(super) async fn open(
        &self,
        servers: &dyn Servers,
        others: &[ServerInfo],
        node: &str,
    ) -> Option<Stream> {
        let remembered =
            self.found.lock().get(node).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(key, _)| *key);
        if let Some(server) = others.iter().find(|server| Some(server.key) == remembered)
            && let Some(stream) = ask(servers, server, node).await
        {
            return Some(stream);
        }
        let mut asked: FuturesUnordered<_> = others
            .iter()
            .map(|server| async move { (server.key, ask(servers, server, node).await) })
            .collect();
        while let Some((key, stream)) = asked.next().await {
            if let Some(stream) = stream {
                self.remember(node, key);
                return Some(stream);
            }
        }
        self.found.lock().remove(node);
        None
    }

    fn remember(&self, node: &str, server: KeyId) {
        let mut found = self.found.lock();
        if found.len() >= MOST {
            found.clear();
        }
        found.insert(node.to_owned(), (server, Instant::now()));
    }
}

/// Asks one server for a node.
async fn ask(servers: &dyn Servers, server: &ServerInfo, node: &str) -> Option<Stream> {
    let asking = async {
        let mut stream = servers.open(server, Purpose::Relay).await.ok()?;
        frame::write(&mut stream, &Ask::Node(node.to_owned()), LIMIT).await.ok()?;
        let answer: Option<Answer> = frame::read(&mut stream, LIMIT).await.ok()?;
        (answer == Some(Answer::Here)).then_some(stream)
    };
    timeout(PATIENCE, asking).await.ok().flatten()
}

/// Serves such a stream.
pub(super) async fn serve(mut stream: Stream, way: impl FnOnce(&str) -> Option<Way>) {
    let Ok(Ok(Some(Ask::Node(node)))) = timeout(PATIENCE, frame::read(&mut stream, LIMIT)).await else {
        return;
    };
    // A way may turn out to be closed when it is tried.
    let onward = match way(&node) {
        None => None,
        Some(Way::Local(router)) => Some(Onward::Local(router)),
        Some(Way::Direct(connection)) => connection.open(Purpose::Node).await.ok().map(Onward::Node),
    };
    let answer = if onward.is_some() { Answer::Here } else { Answer::NotHere };
    if frame::write(&mut stream, &answer, LIMIT).await.is_err() {
        return;
    }
    match onward {
        None => {}
        Some(Onward::Local(router)) => http1::serve(stream, router.service()).await,
        Some(Onward::Node(mut node)) => {
            // Either end may break; both then do.
            drop(tokio::io::copy_bidirectional(&mut stream, &mut node).await);
        }
    }
}

/// Where a relayed stream goes on.
enum Onward {
    Local(crate::router::NodeRouter),
    Node(Stream),
}
