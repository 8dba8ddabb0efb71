//! The servers' side: nodes' connections, their requests to the API, and requests to their kubelets.
//!
//! A node's streams are served as the user that its certificate names: the connection was judged
//! before it came here, and nothing in a request can claim another name. A request to a node goes to
//! this process's own node, over the node's connection, or over the server that the node is
//! connected to ([`relay`]); a relayed request is never relayed again.

mod relay;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use jiff::Timestamp;
use parking_lot::Mutex;
use sampan_apiserver::{ApiServer, Body, LocalService, NodeConnector, NodeError, Revocations, UserInfo};
use sampan_transport::{Connection, KeyId, PeerIdentity, Purpose, Role, Stream};

use crate::control;
use crate::http1;
use crate::router::NodeRouter;
use crate::servers::Servers;
use relay::Whereabouts;

/// A connection that a newer one of the same node has replaced is closed after this time, so that
/// what is under way on it can end.
const REPLACED: Duration = Duration::from_secs(30);

/// A node that is connected to this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConnection {
    /// The node's name.
    pub node: String,
    /// Its key.
    pub key: KeyId,
    /// From where.
    pub remote: SocketAddr,
    /// Whether over QUIC; else over TCP.
    pub quic: bool,
    /// Since when.
    pub since: Timestamp,
}

/// The servers' side of nodes' connections. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    /// This server's key.
    own: KeyId,
    servers: Arc<dyn Servers>,
    api: OnceLock<ApiServer>,
    local: OnceLock<NodeRouter>,
    revocations: OnceLock<Arc<dyn Revocations>>,
    nodes: Mutex<Nodes>,
    whereabouts: Whereabouts,
}

#[derive(Default)]
struct Nodes {
    /// The connections of each, the one in use last: a node tries several ways at once, and one that
    /// it gives up may come in after the one that it keeps.
    by_name: HashMap<String, Vec<Entry>>,
    next_id: u64,
}

impl Nodes {
    /// The connection in use.
    fn current(&self, node: &str) -> Option<&Entry> {
        self.by_name.get(node)?.last()
    }
}

struct Entry {
    id: u64,
    connection: Connection,
    since: Timestamp,
}

/// How a node is reached from here.
enum Way {
    Local(NodeRouter),
    Direct(Connection),
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("nodes", &self.shared.nodes.lock().by_name.len())
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway of the server with this key. It serves nobody until [`Gateway::attach`].
    pub fn new(own: KeyId, servers: Arc<dyn Servers>) -> Self {
        let shared = Shared {
            own,
            servers,
            api: OnceLock::new(),
            local: OnceLock::new(),
            revocations: OnceLock::new(),
            nodes: Mutex::default(),
            whereabouts: Whereabouts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Nodes' requests go to this API server from now on. (The API server is made with the gateway
    /// as its connector, so it comes later; a second one is ignored.)
    pub fn attach(&self, api: ApiServer) {
        drop(self.shared.api.set(api));
    }

    /// This process runs a node itself, which is reached without a connection. A second one is
    /// ignored.
    pub fn connect_local(&self, node: NodeRouter) {
        drop(self.shared.local.set(node));
    }

    /// Machines whose keys are not good any more are turned away from now on, and their connections
    /// are closed. A second one is ignored.
    pub fn obey(&self, revocations: Arc<dyn Revocations>) {
        drop(self.shared.revocations.set(revocations));
    }

    /// Why a machine's key is not good any more, if it is not.
    pub fn refusal(&self, peer: &PeerIdentity) -> Option<String> {
        let user = format!("{}{}", peer.role.prefix(), peer.name);
        self.shared.revocations.get()?.refusal(&user, &peer.key.to_string())
    }

    /// Waits until it is not.
    async fn revoked(&self, peer: &PeerIdentity) -> String {
        match self.shared.revocations.get() {
            Some(revocations) => {
                let user = format!("{}{}", peer.role.prefix(), peer.name);
                sampan_apiserver::revoked(&**revocations, &user, &peer.key.to_string()).await
            }
            None => std::future::pending().await,
        }
    }

    /// The nodes that are connected to this server, by name.
    pub fn connected(&self) -> Vec<NodeConnection> {
        let nodes = self.shared.nodes.lock();
        let mut all: Vec<NodeConnection> = nodes
            .by_name
            .iter()
            .filter_map(|(name, entries)| Some((name, entries.last()?)))
            .map(|(name, entry)| NodeConnection {
                node: name.clone(),
                key: entry.connection.peer().key,
                remote: entry.connection.remote(),
                quic: entry.connection.is_quic(),
                since: entry.since,
            })
            .collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }

    /// Ends the connection of a node whose key is not wanted any more. Whether there was one.
    pub fn disconnect(&self, key: KeyId, why: &str) -> bool {
        let nodes = self.shared.nodes.lock();
        let mut ended = false;
        let all = nodes.by_name.values().flatten();
        for entry in all.filter(|entry| entry.connection.peer().key == key) {
            entry.connection.close(why);
            ended = true;
        }
        ended
    }

    /// Serves a node's connection until it ends. One of another role is closed.
    pub async fn serve(&self, connection: Connection) {
        let peer = connection.peer().clone();
        let (Role::Node, Some(api)) = (peer.role, self.shared.api.get()) else {
            connection.close("this server serves no such connections now");
            return;
        };
        if let Some(why) = self.refusal(&peer) {
            tracing::warn!(node = peer.name, why, "a node is turned away");
            return connection.close(&why);
        }
        let service = api.service(UserInfo::node(&peer.name));
        let id = self.enter(&connection);
        tracing::info!(node = peer.name, remote = %connection.remote(), quic = connection.is_quic(), "a node has connected");
        let serving = async {
            loop {
                match connection.accept().await {
                    Ok((purpose, stream)) => self.take(purpose, stream, &service),
                    Err(error) => return error.to_string(),
                }
            }
        };
        let why = tokio::select! {
            why = serving => why,
            why = self.revoked(&peer) => {
                connection.close(&why);
                why
            }
        };
        tracing::info!(node = peer.name, why, "a node's connection has ended");
        self.leave(&peer.name, id);
    }

    /// Serves a stream of a node.
    fn take(&self, purpose: Purpose, stream: Stream, service: &LocalService) {
        match purpose {
            Purpose::Api => {
                tokio::spawn(http1::serve(stream, service.clone()));
            }
            Purpose::Control => {
                tokio::spawn(control::tell(stream, self.shared.servers.view()));
            }
            purpose => tracing::debug!(%purpose, "a node opened a stream that is not for servers"),
        }
    }

    /// Serves a stream of [`Purpose::Relay`] that another server opened: to a node of this process,
    /// or one that is connected here.
    pub async fn serve_relay(&self, stream: Stream) {
        relay::serve(stream, |node| self.way(node)).await;
    }

    /// Enters a connection, in the place of an older one of the same node.
    fn enter(&self, connection: &Connection) -> u64 {
        let peer = connection.peer();
        let mut nodes = self.shared.nodes.lock();
        nodes.next_id += 1;
        let id = nodes.next_id;
        let entry = Entry { id, connection: connection.clone(), since: Timestamp::now() };
        let entries = nodes.by_name.entry(peer.name.clone()).or_default();
        let older = entries.last().map(|old| (old.id, old.connection.clone()));
        entries.push(entry);
        drop(nodes);
        let Some((old, older)) = older else { return id };
        if older.peer().key == peer.key {
            let (gateway, name) = (self.clone(), peer.name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(REPLACED).await;
                // The newer one may have been given up at once.
                if gateway.shared.nodes.lock().current(&name).is_none_or(|current| current.id != old) {
                    older.close("replaced by a newer connection of the same node");
                }
            });
        } else {
            // The name has another key by now; the old one proves nothing.
            older.close("the node has another key now");
        }
        id
    }

    fn leave(&self, name: &str, id: u64) {
        let mut nodes = self.shared.nodes.lock();
        if let Some(entries) = nodes.by_name.get_mut(name) {
            entries.retain(|entry| entry.id != id);
            if entries.is_empty() {
                nodes.by_name.remove(name);
            }
        }
    }

    /// How to reach a node from here, without another server.
    fn way(&self, node: &str) -> Option<Way> {
        if let Some(local) = self.shared.local.get().filter(|local| local.node() == node) {
            return Some(Way::Local(local.clone()));
        }
        self.shared.nodes.lock().current(node).map(|entry| Way::Direct(entry.connection.clone()))
    }

    /// A stream to a node's kubelet by way of another server.
    async fn elsewhere(&self, node: &str) -> Option<Stream> {
        let view = self.shared.servers.view().borrow().clone();
        let others: Vec<_> =
            view.servers.into_iter().filter(|server| server.key != self.shared.own).collect();
        self.shared.whereabouts.open(&*self.shared.servers, &others, node).await
    }
}

#[async_trait]
impl NodeConnector for Gateway {
    async fn request(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, NodeError> {
        let direct = match self.way(node) {
            Some(Way::Local(router)) => return Ok(router.answer(request).await),
            Some(Way::Direct(connection)) => connection.open(Purpose::Node).await.ok(),
            None => None,
        };
        let stream = match direct {
            Some(stream) => stream,
            // A connection that ends may have been left for another server.
            None => {
                let found = self.elsewhere(node).await;
                found.ok_or_else(|| NodeError::NotConnected(node.to_owned()))?
            }
        };
        let sent = http1::send(stream, request).await;
        sent.map_err(|error| NodeError::Failed { node: node.to_owned(), source: error.into() })
    }
}
