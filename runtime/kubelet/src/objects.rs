//! ConfigMaps and Secrets that the node's pods refer to, and nothing else of theirs.
//!
//! A pod [`Objects::pin`]s what it refers to while it is on the node. Pinned objects are watched
//! one by one (a node may be allowed to read no others), up to a number; beyond it, and in case
//! a watch missed something, they are read again once a minute. Whoever pinned is told of
//! changes. An immutable object is read once.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::env::{Refs, Wanted};

/// At most this many objects of a kind are watched.
const MAX_WATCHES: usize = 512;
/// What was read this recently is not read again.
const FRESH: Duration = Duration::from_secs(1);

/// Called with the UIDs of pods whose references changed.
pub type OnChange = Arc<dyn Fn(&HashSet<String>) + Send + Sync>;

/// An error of the API in its own words.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => sampan_client::informer::chain(other),
    }
}

/// What pods refer to.
pub struct Objects {
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
}

impl Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// Nothing pinned yet.
    pub fn new(client: &kube::Client, on_change: OnChange) -> Self {
        Self {
            config_maps: Cache::new(client.clone(), on_change.clone()),
            secrets: Cache::new(client.clone(), on_change),
        }
    }

    /// Fetches what is wanted. Missing objects are in the answer as such; the error is for users.
    pub async fn fetch(&self, namespace: &str, wanted: &Wanted) -> Result<Refs, String> {
        let mut refs = Refs::default();
        for name in &wanted.config_maps {
            refs.config_maps.insert(name.clone(), self.config_maps.get(namespace, name).await?);
        }
        for name in &wanted.secrets {
            refs.secrets.insert(name.clone(), self.secrets.get(namespace, name).await?);
        }
        Ok(refs)
    }

    /// Notes that a pod refers to these.
    pub fn pin(&self, namespace: &str, wanted: &Wanted, pod: &str) {
        for name in &wanted.config_maps {
            self.config_maps.pin(namespace, name, pod);
        }
        for name in &wanted.secrets {
            self.secrets.pin(namespace, name, pod);
        }
    }

    /// Notes that a pod refers to these no longer.
    pub fn unpin(&self, namespace: &str, wanted: &Wanted, pod: &str) {
        for name in &wanted.config_maps {
            self.config_maps.unpin(namespace, name, pod);
        }
        for name in &wanted.secrets {
            self.secrets.unpin(namespace, name, pod);
        }
    }

    /// Reads what is not watched again every `period`, until `shutdown`.
    pub async fn run(&self, period: Duration, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(period);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = interval.tick() => {}
            }
            self.config_maps.refresh().await;
            self.secrets.refresh().await;
        }
    }
}

type Key = (String, String);

struct Entry<K> {
    value: Option<Arc<K>>,
    read_at: Option<Instant>,
    users: HashSet<String>,
    watch: Option<CancellationToken>,
    /// Whether the watch has said what there is.
    live: bool,
}

impl<K> Default for Entry<K> {
    fn default() -> Self {
        Self { value: None, read_at: None, users: HashSet::new(), watch: None, live: false }
    }
}

struct Inner<K> {
    client: kube::Client,
    entries: Mutex<HashMap<Key, Entry<K>>>,
    on_change: OnChange,
}

struct Cache<K> {
    inner: Arc<Inner<K>>,
}

/// Objects that may say of themselves that they never change.
trait MaybeImmutable {
    fn is_immutable(&self) -> bool;
}

impl MaybeImmutable for ConfigMap {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl MaybeImmutable for Secret {
    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

trait Object:
    kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + MaybeImmutable
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl Object for ConfigMap {}
impl Object for Secret {}

impl<K: Object> Cache<K> {
    fn new(client: kube::Client, on_change: OnChange) -> Self {
        Self { inner: Arc::new(Inner { client, entries: Mutex::default(), on_change }) }
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        {
            let entries = self.inner.entries.lock();
            if let Some(entry) = entries.get(&key) {
                let fresh = entry.read_at.is_some_and(|at| at.elapsed() < FRESH);
                let settled = entry.value.as_ref().is_some_and(|value| value.is_immutable());
                if entry.live || fresh || settled {
                    return Ok(entry.value.clone());
                }
            }
        }
        let api: Api<K> = Api::namespaced(self.inner.client.clone(), namespace);
        let value = api.get_opt(name).await.map_err(|error| explain(&error))?.map(Arc::new);
        let mut entries = self.inner.entries.lock();
        // Only what is pinned is kept.
        if let Some(entry) = entries.get_mut(&key)
            && !entry.live
        {
            entry.value = value.clone();
            entry.read_at = Some(Instant::now());
        }
        Ok(value)
    }

    fn pin(&self, namespace: &str, name: &str, pod: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.inner.entries.lock();
        let watches = entries.values().filter(|entry| entry.watch.is_some()).count();
        let entry = entries.entry(key.clone()).or_default();
        entry.users.insert(pod.to_owned());
        if entry.watch.is_none() && watches < MAX_WATCHES {
            let stop = CancellationToken::new();
            entry.watch = Some(stop.clone());
            tokio::spawn(watch(self.inner.clone(), key, stop));
        }
    }

    fn unpin(&self, namespace: &str, name: &str, pod: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(&key) else { return };
        entry.users.remove(pod);
        if entry.users.is_empty() {
            if let Some(stop) = &entry.watch {
                stop.cancel();
            }
            entries.remove(&key);
        }
    }

    async fn refresh(&self) {
        let unwatched: Vec<Key> = {
            let entries = self.inner.entries.lock();
            entries.iter().filter(|(_, entry)| !entry.live).map(|(key, _)| key.clone()).collect()
        };
        for key in unwatched {
            let api: Api<K> = Api::namespaced(self.inner.client.clone(), &key.0);
            match api.get_opt(&key.1).await {
                Ok(value) => self.inner.put(&key, value.map(Arc::new), None),
                Err(error) => tracing::debug!(name = key.1, error = explain(&error), "not read again"),
            }
        }
    }
}

impl<K: Object> Inner<K> {
    /// Notes what there is now; tells those who refer to it if that is news. What a watch that
    /// was ended says does not count.
    fn put(&self, key: &Key, value: Option<Arc<K>>, from: Option<&CancellationToken>) {
        let told = {
            let mut entries = self.entries.lock();
            let Some(entry) = entries.get_mut(key) else { return };
            if from.is_some_and(CancellationToken::is_cancelled) {
                return;
            }
            let version = |value: &Option<Arc<K>>| {
                value.as_ref().map(|value| (value.meta().uid.clone(), value.meta().resource_version.clone()))
            };
            let known = entry.read_at.is_some();
            let changed = version(&entry.value) != version(&value);
            entry.live = from.is_some();
            entry.read_at = Some(Instant::now());
            entry.value = value;
            (known && changed).then(|| entry.users.clone())
        };
        if let Some(users) = told {
            (self.on_change)(&users);
        }
    }

    /// An object's watch is broken: until it works again, the object is read as one without.
    fn not_live(&self, key: &Key) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.live = false;
        }
    }

    /// Whether the watch of an object can end: nothing will change any more.
    fn is_settled(&self, key: &Key) -> bool {
        let entries = self.entries.lock();
        entries.get(key).and_then(|entry| entry.value.as_ref()).is_some_and(|value| value.is_immutable())
    }
}

/// Follows one object.
async fn watch<K: Object>(inner: Arc<Inner<K>>, key: Key, stop: CancellationToken) {
    let api: Api<K> = Api::namespaced(inner.client.clone(), &key.0);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.1));
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut listed = None;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => listed = None,
            Some(Ok(watcher::Event::InitApply(object))) => listed = Some(Arc::new(object)),
            Some(Ok(watcher::Event::InitDone)) => inner.put(&key, listed.take(), Some(&stop)),
            Some(Ok(watcher::Event::Apply(object))) => inner.put(&key, Some(Arc::new(object)), Some(&stop)),
            Some(Ok(watcher::Event::Delete(_))) => inner.put(&key, None, Some(&stop)),
            Some(Err(error)) => {
                tracing::debug!(name = key.1, %error, "watch failed; it is retried");
                inner.not_live(&key);
            }
            None => return,
        }
        if inner.is_settled(&key) {
            return;
        }
    }
}
