//! The servers of a cluster: who they are, where they are, who leads, and in which order a node
//! tries them. The list that a server told is kept in a file, for the next start.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use sampan_transport::{KeyId, Purpose, Role, Stream, Target, TransportError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::AgentError;
use crate::mirror::file;

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// Its machine key.
    pub key: KeyId,
    /// Where it is reached: `host:port`, in the order in which to try.
    pub addresses: Vec<String>,
}

/// The servers as of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServersView {
    /// All of them.
    pub servers: Vec<ServerInfo>,
    /// The key of the one that leads, if one does.
    pub leader: Option<KeyId>,
}

/// What a server's [`crate::Gateway`] knows of the other servers. Implemented by whoever knows the
/// members of the cluster.
#[async_trait]
pub trait Servers: Send + Sync + 'static {
    /// All servers, this one included, and who leads; changes are told.
    fn view(&self) -> watch::Receiver<ServersView>;

    /// Opens a stream to another server.
    async fn open(&self, server: &ServerInfo, purpose: Purpose) -> Result<Stream, TransportError>;
}

/// Why another connection would be better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// It leads to the leader.
    Leader,
    /// It is QUIC.
    Quic,
}

/// A server as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Saved {
    name: String,
    key: String,
    addresses: Vec<String>,
}

/// The servers that a node knows, with the file in which it keeps them.
#[derive(Debug)]
pub(crate) struct Known {
    /// `host:port`s that were given at the start; used when the others do not answer.
    seeds: Vec<String>,
    view: ServersView,
    path: PathBuf,
}

impl Known {
    /// What an earlier run left in `directory`, and the addresses given at the start.
    pub(crate) fn load(directory: &Path, seeds: Vec<String>) -> Self {
        let path = directory.join("servers.json");
        let servers = match std::fs::read(&path) {
            Ok(text) => match read(&text) {
                Some(servers) => servers,
                None => {
                    tracing::warn!(path = %path.display(), "the list of servers is damaged; it is left aside");
                    Vec::new()
                }
            },
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "the list of servers cannot be read");
                }
                Vec::new()
            }
        };
        Self { seeds, view: ServersView { servers, leader: None }, path }
    }

    /// The servers as last told.
    pub(crate) fn view(&self) -> &ServersView {
        &self.view
    }

    /// Takes what a server told. The file is written where servers or addresses changed.
    pub(crate) fn tell(&mut self, view: ServersView) -> Result<(), AgentError> {
        // A server that knows of none is still starting.
        if view.servers.is_empty() {
            return Ok(());
        }
        let changed = view.servers != self.view.servers;
        self.view = view;
        if !changed {
            return Ok(());
        }
        let saved: Vec<Saved> = self
            .view
            .servers
            .iter()
            .map(|server| Saved {
                name: server.name.clone(),
                key: server.key.to_string(),
                addresses: server.addresses.clone(),
            })
            .collect();
        let text = serde_json::to_vec_pretty(&saved).unwrap_or_default();
        file::replace(&self.path, &text)
            .map_err(|source| AgentError::File { path: self.path.clone(), source })
    }

    /// Whom to try, in this order: the leader, the others in an order of chance, then the addresses
    /// given at the start. `chance` gives the number by which others are sorted.
    pub(crate) fn order(&self, mut chance: impl FnMut() -> u32) -> Vec<Target> {
        let leads = |server: &&ServerInfo| Some(server.key) == self.view.leader;
        let mut others: Vec<(bool, u32, &ServerInfo)> =
            self.view.servers.iter().map(|server| (!leads(&server), chance(), server)).collect();
        others.sort_by_key(|(other, chance, _)| (*other, *chance));
        let known = others.into_iter().map(|(_, _, server)| target(server));
        let seeds = self.seeds.iter().map(|address| Target {
            addresses: vec![address.clone()],
            role: Role::Server,
            key: None,
            allow_tcp: true,
        });
        known.chain(seeds).collect()
    }

    /// What would be better than a connection to the server with this key: one to the leader, or, of
    /// TCP, one over QUIC to the same server.
    pub(crate) fn better_than(&self, key: KeyId, quic: bool) -> Option<(Better, Target)> {
        let find = |key| self.view.servers.iter().find(|server| server.key == key).map(target);
        match self.view.leader.filter(|leader| *leader != key) {
            Some(leader) => find(leader).map(|target| (Better::Leader, target)),
            None if quic => None,
            None => find(key).map(|target| (Better::Quic, Target { allow_tcp: false, ..target })),
        }
    }

    /// What a server is called; its key where that is not known.
    pub(crate) fn name_of(&self, key: KeyId) -> String {
        let known = self.view.servers.iter().find(|server| server.key == key);
        known.map_or_else(|| key.to_string(), |server| server.name.clone())
    }
}

fn target(server: &ServerInfo) -> Target {
    Target { addresses: server.addresses.clone(), role: Role::Server, key: Some(server.key), allow_tcp: true }
}

fn read(text: &[u8]) -> Option<Vec<ServerInfo>> {
    let saved: Vec<Saved> = serde_json::from_slice(text).ok()?;
    let servers = saved.into_iter().map(|server| {
        let key = server.key.parse().ok()?;
        Some(ServerInfo { name: server.name, key, addresses: server.addresses })
    });
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, key: u8) -> ServerInfo {
        ServerInfo { name: name.into(), key: KeyId([key; 32]), addresses: vec![format!("{name}:6443")] }
    }

    fn addresses(known: &Known) -> Vec<String> {
        let mut chance = 0;
        let order = known.order(|| {
            chance += 1;
            chance
        });
        order.into_iter().flat_map(|target| target.addresses).collect()
    }

    #[test]
    fn the_leader_comes_first_and_the_addresses_given_at_the_start_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Known::load(dir.path(), vec!["seed:1".into()]);
        assert_eq!(addresses(&known), ["seed:1"]);
        let servers = vec![server("a", 1), server("b", 2), server("c", 3)];
        known.tell(ServersView { servers, leader: Some(KeyId([2; 32])) }).unwrap();
        assert_eq!(addresses(&known), ["b:6443", "a:6443", "c:6443", "seed:1"]);
        let better = |key, quic| {
            let (why, target) = known.better_than(KeyId([key; 32]), quic)?;
            Some((why, target.addresses.concat(), target.allow_tcp))
        };
        assert_eq!(better(2, true), None);
        assert_eq!(better(2, false), Some((Better::Quic, "b:6443".into(), false)));
        assert_eq!(better(1, false), Some((Better::Leader, "b:6443".into(), true)));
        assert_eq!(known.name_of(KeyId([3; 32])), "c");
    }

    #[test]
    fn servers_are_known_to_the_next_run_and_an_empty_list_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Known::load(dir.path(), Vec::new());
        known.tell(ServersView { servers: vec![server("a", 1)], leader: None }).unwrap();
        known.tell(ServersView::default()).unwrap();
        let again = Known::load(dir.path(), Vec::new());
        assert_eq!(again.view().servers, [server("a", 1)]);
    }

    #[test]
    fn a_damaged_list_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{", "[{\"name\":\"a\",\"key\":\"xyz\",\"addresses\":[]}]"] {
            std::fs::write(dir.path().join("servers.json"), text).unwrap();
            assert_eq!(addresses(&Known::load(dir.path(), vec!["seed:1".into()])), ["seed:1"]);
        }
    }
}
