//! Whose key is not good any more, kept in memory by a watch on the join keyspace: the API server asks
//! for each request of a machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use parking_lot::RwLock;
use sampan_api::status::Status;
use sampan_apiserver::Revocations;
use sampan_store::{KeyValue, RangeRequest, Revision, WatchEvent, WatchRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::identities::{Identity, PREFIX, REMOVED, Removed};
use super::records::{self, Records};
use crate::{KeyId, MachineRole};

/// After a watch that ended.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// What the join keyspace says of machines' keys.
#[derive(Debug, Default)]
struct Known {
    removed: BTreeMap<String, Removed>,
    /// The key that owns a name, by the user name that its certificate carries.
    owners: BTreeMap<String, KeyId>,
}

impl Known {
    /// Takes in that a record is as given, or gone. Whether somebody may be out by that. What does
    /// not parse is nobody's removal, and nobody's name.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let Ok(key) = std::str::from_utf8(key) else { return false };
        if let Some(machine) = key.strip_prefix(REMOVED) {
            return match value.and_then(|value| serde_json::from_slice(value).ok()) {
                Some(removed) => self.removed.insert(machine.to_owned(), removed).is_none(),
                None => {
                    self.removed.remove(machine);
                    false
                }
            };
        }
        let Some(user) = key.strip_prefix(PREFIX).and_then(user) else { return false };
        match value.and_then(|value| serde_json::from_slice::<Identity>(value).ok()) {
            Some(owner) => self.owners.insert(user, owner.key).is_some_and(|before| before != owner.key),
            None => {
                self.owners.remove(&user);
                false
            }
        }
    }

    /// See [`Revocations::refusal`]. A name that nobody owns is no reason: a cluster that was restored
    /// from before does not know who came since.
    fn refusal(&self, user: &str, key: &str) -> Option<String> {
        if let Some(Removed { name, at }) = self.removed.get(key) {
            let at = Timestamp::from_second(*at).unwrap_or_default();
            return Some(format!("this machine's key was removed from the cluster on {at} (as {name:?})"));
        }
        let owner = self.owners.get(user).filter(|owner| owner.to_string() != key)?;
        Some(format!("{user:?} belongs to another machine's key by now ({owner})"))
    }
}

/// The user name of `ROLE/NAME`.
fn user(identity: &str) -> Option<String> {
    let (role, name) = identity.split_once('/')?;
    match role {
        "server" => Some(MachineRole::Server.user(name)),
        "node" => Some(MachineRole::Node.user(name)),
        _ => None,
    }
}

/// See the module's description.
pub(crate) struct Revoked {
    records: Records,
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
}

impl Revoked {
    pub(crate) fn new(records: Records) -> Arc<Self> {
        Arc::new(Self { records, known: RwLock::default(), changes: watch::Sender::new(0) })
    }

    /// Reads everything anew; the revision that it is of.
    pub(crate) async fn load(&self) -> Result<Revision, Status> {
        let mut known = Known::default();
        let mut revision = Revision(u64::MAX);
        for prefix in [PREFIX, REMOVED] {
            let request = RangeRequest::prefix(prefix);
            let found = self.records.storage().range(request).await.map_err(records::unavailable)?;
            revision = revision.min(found.revision);
            for KeyValue { key, value, .. } in found.kvs {
                known.take(&key, Some(&value));
            }
        }
        *self.known.write() = known;
        self.tell();
        Ok(revision)
    }

    /// Follows what any server writes, until `shutdown`.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) {
        let followed = async {
            loop {
                if let Err(status) = self.follow_once().await {
                    tracing::debug!(why = status.message, "removed machines cannot be followed now");
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = followed => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn follow_once(&self) -> Result<(), Status> {
        let from = Revision(self.load().await?.0.saturating_add(1));
        let mut watches = Vec::new();
        for prefix in [PREFIX, REMOVED] {
            let RangeRequest { start, end, .. } = RangeRequest::prefix(prefix);
            let request = WatchRequest { start, end, from };
            watches.push(self.records.storage().watch(request).await.map_err(records::unavailable)?);
        }
        let mut changes = futures::stream::select_all(watches);
        let begun = changes.len();
        while let Some(batch) = changes.next().await {
            let batch = batch.map_err(records::unavailable)?;
            self.take(&batch.events);
            // Where one of the two has ended, both begin anew.
            if changes.len() < begun {
                break;
            }
        }
        Ok(())
    }

    fn take(&self, events: &[WatchEvent]) {
        let mut known = self.known.write();
        let mut out = false;
        for event in events {
            out |= match event {
                WatchEvent::Put { kv, .. } => known.take(&kv.key, Some(&kv.value)),
                WatchEvent::Delete { key, .. } => known.take(key, None),
            };
        }
        drop(known);
        if out {
            self.tell();
        }
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Revocations for Revoked {
    fn refusal(&self, user: &str, key: &str) -> Option<String> {
        self.known.read().refusal(user, key)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_and_a_lost_name_are_out_and_the_unknown_are_not() {
        let (own, other) = (KeyId([1; 32]), KeyId([2; 32]));
        let identity = |key| {
            let identity = Identity { key, addresses: Vec::new(), since: 0, generation: 0 };
            serde_json::to_vec(&identity).unwrap()
        };
        let removed = serde_json::to_vec(&Removed { name: "old".into(), at: 5 }).unwrap();
        let node = |name: &str| format!("{PREFIX}node/{name}").into_bytes();
        let mut known = Known::default();
        let own_text = own.to_string();
        assert_eq!(known.refusal("system:node:n", &own_text), None, "unknown");
        assert!(!known.take(&node("n"), Some(&identity(own))));
        assert!(!known.take(&node("n"), Some(&identity(own))), "nothing new");
        assert_eq!(known.refusal("system:node:n", &own_text), None);
        assert!(known.take(&node("n"), Some(&identity(other))), "the name has another key");
        let why = known.refusal("system:node:n", &own_text).unwrap();
        assert!(why.contains("belongs to another machine's key"), "{why}");
        assert_eq!(known.refusal("sampan:server:n", &own_text), None, "as a server it has its name");
        assert!(!known.take(&node("n"), None));
        assert_eq!(known.refusal("system:node:n", &own_text), None);
        let gone = format!("{REMOVED}{own}").into_bytes();
        assert!(known.take(&gone, Some(&removed)));
        for name in ["system:node:n", "sampan:server:n"] {
            let why = known.refusal(name, &own_text).unwrap();
            assert!(why.contains("removed from the cluster on 1970-01-01T00:00:05Z (as \"old\")"), "{why}");
        }
        assert!(!known.take(b"/sampan/tokens/x", Some(b"{}")) && !known.take(b"\xff", None));
    }
}
