//! The node's copy of what it needs to run its pods without a server: its Node, its pods, and what
//! they refer to.
//!
//! It is filled from the answers that pass through the kubelet's client ([`crate::offline`]), kept
//! in memory for local reads, and written to a sealed file when something changed that a start
//! would need. A file that cannot be opened is left aside with a warning: the node then starts when
//! a server answers.

mod contents;
pub(crate) mod file;
mod refs;
mod seal;
mod store;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sampan_api::meta::ObjectMeta;
use sampan_api::scheme::{self, Resource};
use sampan_apiserver::stored;
use sampan_store::Storage;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::AgentError;
use contents::{Contents, Row, TokenRow};
use seal::Seal;
use store::CopyStore;

/// Between two writes of the file passes at least this time.
const GAP: Duration = Duration::from_secs(5);
/// Of so many absent objects is known that they are; then the memory begins anew.
const MOST_ABSENT: usize = 4096;
/// After a failed write, so long.
const RETRY: Duration = Duration::from_secs(60);

/// How a mirror is set up.
#[derive(Clone, Debug)]
pub struct MirrorConfig {
    /// The directory for the file and its key; made (0700) where it is missing.
    pub directory: PathBuf,
    /// The node's name.
    pub node: String,
    /// About how large the file may become, in bytes. Config maps and secrets that do not fit are
    /// left out, the largest first.
    pub limit: usize,
}

/// The node's copy. Shared behind an `Arc`.
pub struct Mirror {
    node: String,
    limit: usize,
    path: PathBuf,
    seal: Seal,
    held: Mutex<Contents>,
    store: Arc<CopyStore>,
    /// Config maps and secrets of which a server said that they do not exist.
    absent: Mutex<BTreeSet<Bytes>>,
    saving: Mutex<Saving>,
    wake: Notify,
    /// Grows when pods come or go.
    pods: watch::Sender<u64>,
}

/// When the file is written next.
#[derive(Debug, Default)]
struct Saving {
    due: Option<Instant>,
    last: Option<Instant>,
    /// What was written last.
    written: Option<Contents>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("objects", &self.held.lock().rows.len()).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Reads what an earlier run kept.
    ///
    /// # Errors
    /// When the directory or the key cannot be used. A damaged file is no error.
    pub fn open(config: MirrorConfig) -> Result<Arc<Self>, AgentError> {
        let directory = &config.directory;
        file::directory(directory).map_err(|source| AgentError::File { path: directory.clone(), source })?;
        let seal = Seal::load_or_create(&directory.join("mirror.key"), &config.node)?;
        let path = directory.join("mirror");
        let held = read(&path, &seal);
        let store = Arc::new(CopyStore::new());
        store.reset(held.rows.iter().map(|(key, row)| (key.clone(), row.value.clone(), row.revision)));
        let saving = Saving { written: Some(held.clone()), ..Saving::default() };
        Ok(Arc::new(Self {
            node: config.node,
            limit: config.limit,
            path,
            seal,
            held: Mutex::new(held),
            store,
            absent: Mutex::default(),
            saving: Mutex::new(saving),
            wake: Notify::new(),
            pods: watch::Sender::new(0),
        }))
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether the node can start from it: it holds the node itself, so that what it says of pods
    /// is what a server said.
    pub fn is_usable(&self) -> bool {
        scheme::by_gvr("", "v1", "nodes").is_some_and(|nodes| self.get(nodes, "", &self.node).is_some())
    }

    /// The copies as a store, for an API server to read.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.store.clone()
    }

    /// One object; `namespace` is empty for cluster-scoped ones.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        let key = stored::key(resource, namespace, name)?;
        let row = self.held.lock().rows.get(&key).cloned()?;
        stored::decode(&row.value, row.revision)
    }

    /// All objects of a kind.
    pub fn list(&self, resource: &Resource) -> Vec<Value> {
        let Some(prefix) = stored::prefix(resource, "") else { return Vec::new() };
        let held = self.held.lock();
        let rows = held.rows.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
        rows.filter_map(|(_, row)| stored::decode(&row.value, row.revision)).collect()
    }

    /// Whether an object was too large to be kept over a restart: that it is not here then says
    /// nothing.
    pub fn was_left_out(&self, resource: &Resource, namespace: &str, name: &str) -> bool {
        stored::key(resource, namespace, name).is_some_and(|key| self.held.lock().left_out.contains(&key))
    }

    /// Whether a server of this run said that an object does not exist.
    pub fn is_absent(&self, resource: &Resource, namespace: &str, name: &str) -> bool {
        stored::key(resource, namespace, name).is_some_and(|key| self.absent.lock().contains(&key))
    }

    /// Takes an object as a server told it. One that is older than what is held is left aside, as
    /// is another node's.
    pub fn put(&self, resource: &Resource, mut object: Value) {
        if !self.is_ours(resource, &object) {
            // A pod that went to another node never was ours; one that lost its node is gone.
            return;
        }
        sampan_api::meta::remove(&mut object, "managedFields");
        let Some(new) = stored::encode(resource, object) else { return };
        let mut held = self.held.lock();
        let old = held.rows.get(&new.key);
        // Answers may overtake each other. Another object under the same name is no older one.
        if old.is_some_and(|old| old.revision > new.revision && uid(&old.value) == uid(&new.value)) {
            return;
        }
        let due = contents::urgency(old.map(|old| old.value.as_ref()), Some(&new.value));
        let fresh = old.is_none();
        held.left_out.remove(&new.key);
        self.absent.lock().remove(&new.key);
        held.rows.insert(new.key.clone(), Row { value: new.value.clone(), revision: new.revision });
        drop(held);
        self.store.put(new.key, new.value, Some(new.revision));
        self.changed(resource, fresh, due);
    }

    /// An object is gone.
    pub fn remove(&self, resource: &Resource, namespace: &str, name: &str) {
        let Some(key) = stored::key(resource, namespace, name) else { return };
        let mut held = self.held.lock();
        held.left_out.remove(&key);
        self.note_absent(resource, &key);
        let Some(old) = held.rows.remove(&key) else { return };
        drop(held);
        self.store.remove(&key);
        self.changed(resource, true, contents::urgency(Some(&old.value), None));
    }

    fn note_absent(&self, resource: &Resource, key: &Bytes) {
        if !matches!(resource.plural, "configmaps" | "secrets") {
            return;
        }
        let mut absent = self.absent.lock();
        if absent.len() >= MOST_ABSENT {
            absent.clear();
        }
        absent.insert(key.clone());
    }

    /// Takes a complete list: what is held of the kind and not in it is gone.
    pub fn replace(&self, resource: &Resource, objects: Vec<Value>) {
        let listed: BTreeSet<(String, String)> = objects.iter().map(place).collect();
        for held in self.list(resource) {
            let (namespace, name) = place(&held);
            if !listed.contains(&(namespace.clone(), name.clone())) {
                self.remove(resource, &namespace, &name);
            }
        }
        for object in objects {
            self.put(resource, object);
        }
    }

    /// Changes an object by what the node itself knows and could not send: its resourceVersion
    /// stays the server's. The object as it is now.
    pub fn amend(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        let key = stored::key(resource, namespace, name)?;
        let mut held = self.held.lock();
        let row = held.rows.get_mut(&key)?;
        let mut object = stored::decode(&row.value, row.revision)?;
        let revision = row.revision;
        change(&mut object);
        sampan_api::meta::set_resource_version(&mut object, revision);
        let new = stored::encode(resource, object.clone()).filter(|new| new.key == key)?;
        let due = contents::urgency(Some(&row.value), Some(&new.value));
        if row.value != new.value {
            row.value = new.value.clone();
            drop(held);
            self.store.put(key, new.value, None);
            self.changed(resource, false, due);
        }
        Some(object)
    }

    /// Ends what local readers saw of changes that only this node knew: they read anew. Called when
    /// a server can be reached again.
    pub fn refresh_readers(&self) {
        let held = self.held.lock();
        self.store.reset(held.rows.iter().map(|(key, row)| (key.clone(), row.value.clone(), row.revision)));
    }

    /// The answer to a request for a token, if there is one; the newest, even if it has expired.
    pub fn token(&self, asked: &str) -> Option<Bytes> {
        self.held.lock().tokens.get(asked).map(|token| token.answer.clone())
    }

    /// Keeps the answer to a request for a token that is bound to the pod with this UID.
    pub fn put_token(&self, asked: String, pod: &str, answer: Bytes) {
        let token = TokenRow { pod: pod.to_owned(), answer };
        let known = self.held.lock().tokens.insert(asked, token).is_some();
        self.hurry(contents::token_urgency(known));
    }

    /// Namespaces and service accounts that pods have and that are not here, as `(resource,
    /// namespace, name)`.
    pub fn missing_companions(&self) -> Vec<(&'static Resource, String, String)> {
        let wanted = self.held.lock().references();
        let missing = wanted.into_iter().filter_map(|(plural, namespace, name)| {
            let resource = scheme::by_gvr("", "v1", plural)?;
            let companion = matches!(plural, "namespaces" | "serviceaccounts");
            let missing = companion && self.get(resource, &namespace, &name).is_none();
            missing.then_some((resource, namespace, name))
        });
        missing.collect()
    }

    /// Changes when pods come or go.
    pub fn pods_changed(&self) -> watch::Receiver<u64> {
        self.pods.subscribe()
    }

    /// Whether an object belongs to this node. Of the other kinds only what the node asks for comes
    /// this way.
    fn is_ours(&self, resource: &Resource, object: &Value) -> bool {
        match resource.plural {
            "pods" => object.pointer("/spec/nodeName").and_then(Value::as_str) == Some(&self.node),
            "nodes" => ObjectMeta::of(object).name() == self.node,
            _ => true,
        }
    }

    fn changed(&self, resource: &Resource, came_or_went: bool, due: Option<Duration>) {
        if came_or_went && resource.plural == "pods" {
            self.pods.send_modify(|count| *count += 1);
        }
        // A lease says something only while it is fresh.
        if let Some(due) = due.filter(|_| resource.plural != "leases") {
            self.hurry(due);
        }
    }

    fn hurry(&self, within: Duration) {
        let mut saving = self.saving.lock();
        let earliest = saving.last.map_or_else(Instant::now, |last| last + GAP);
        let due = (Instant::now() + within).max(earliest);
        if saving.due.is_none_or(|held| held > due) {
            saving.due = Some(due);
            self.wake.notify_one();
        }
    }

    /// Writes the file when that is due, until `shutdown`; then a last time.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let due = self.saving.lock().due;
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                () = wait => self.save_or_warn().await,
            }
        }
        self.save_or_warn().await;
    }

    async fn save_or_warn(self: &Arc<Self>) {
        if let Err(error) = self.save().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the node's cache was not written: a start without servers would miss what is new"
            );
            let mut saving = self.saving.lock();
            saving.due = Some(Instant::now() + RETRY);
        }
    }

    /// Writes the file, if what is in it would change.
    ///
    /// # Errors
    /// When it cannot be written; the old one is then still there.
    pub async fn save(self: &Arc<Self>) -> Result<(), AgentError> {
        let contents = {
            let mut saving = self.saving.lock();
            (saving.due, saving.last) = (None, Some(Instant::now()));
            let mut held = self.held.lock();
            let gone = held.forget_unused();
            gone.iter().for_each(|key| self.store.remove(key));
            let contents = held.within(self.limit).without_leases();
            if saving.written.as_ref() == Some(&contents) {
                return Ok(());
            }
            contents
        };
        let own = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            own.write(&contents)?;
            Ok(contents)
        });
        let written = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let contents = written.map_err(|source| AgentError::File { path: self.path.clone(), source })?;
        if let Some(first) = contents.left_out.first() {
            tracing::warn!(
                objects = contents.left_out.len(),
                first = %String::from_utf8_lossy(first),
                limit = self.limit,
                "the node's cache is full: some config maps or secrets are left out"
            );
        }
        self.saving.lock().written = Some(contents);
        Ok(())
    }

    fn write(&self, contents: &Contents) -> std::io::Result<()> {
        let plain = postcard::to_stdvec(contents).map_err(std::io::Error::other)?;
        let sealed = self.seal.seal(&plain).map_err(std::io::Error::other)?;
        file::replace(&self.path, &sealed)
    }
}

/// What the file holds; nothing, with a warning, where it cannot be used.
fn read(path: &std::path::Path, seal: &Seal) -> Contents {
    let why = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Contents::default(),
        Err(error) => error.to_string(),
        Ok(sealed) => match seal.open(&sealed) {
            Err(error) => error.to_string(),
            Ok(plain) => match postcard::from_bytes(&plain) {
                Ok(contents) => return contents,
                Err(error) => error.to_string(),
            },
        },
    };
    tracing::warn!(
        path = %path.display(),
        why,
        "the node's cache is left aside: pods start when a server answers"
    );
    Contents::default()
}

fn uid(value: &[u8]) -> Option<String> {
    let object: Value = serde_json::from_slice(value).ok()?;
    Some(ObjectMeta::of(&object).uid().to_owned())
}

fn place(object: &Value) -> (String, String) {
    let about = ObjectMeta::of(object);
    (about.namespace().to_owned(), about.name().to_owned())
}

#[cfg(test)]
mod tests;
