//! Shared informers: one watch per kind keeps a cache that many read and one writes.
//!
//! Flow: list and watch → cache → handlers. Handlers run in the informer's task, one change at
//! a time and in the API's order, after the cache holds the change; they must not block (they
//! push keys to a [`crate::WorkQueue`]). A change that a broken watch hid is found by comparing
//! on the next list, so handlers see every object's latest state, though not every state between.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of the object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of `object`.
    pub fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It is new to the cache.
    Added(Arc<K>),
    /// It was replaced.
    Updated {
        /// What the cache held before.
        old: Arc<K>,
        /// What it holds now.
        new: Arc<K>,
    },
    /// It is gone; this is the last state known.
    Deleted(Arc<K>),
}

impl<K: kube::Resource> Change<K> {
    /// The object, as new as known.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Updated { new: object, .. } | Self::Deleted(object) => object,
        }
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::of(self.object().as_ref())
    }
}

type Cache<K> = RwLock<HashMap<ObjectKey, Arc<K>>>;

/// Reads an informer's cache. Cheap to clone.
pub struct Reader<K> {
    cache: Arc<Cache<K>>,
    synced: watch::Receiver<bool>,
}

impl<K> Clone for Reader<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), synced: self.synced.clone() }
    }
}

impl<K> Debug for Reader<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<K> Reader<K> {
    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.cache.read().get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.read().values().cloned().collect()
    }

    /// The objects that `wanted` picks.
    pub fn list_where(&self, mut wanted: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        self.cache.read().values().filter(|k| wanted(k)).cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits for the first list. Returns false if the informer ended before.
    pub async fn synced(&self) -> bool {
        self.synced.clone().wait_for(|done| *done).await.is_ok()
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type Trim<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// Watches one kind. Built, given its handlers, then run; only [`Informer::run`] writes the cache.
pub struct Informer<K> {
    api: Api<K>,
    config: watcher::Config,
    cache: Arc<Cache<K>>,
    synced: watch::Sender<bool>,
    handlers: Vec<Handler<K>>,
    trim: Option<Trim<K>>,
}

impl<K> Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("handlers", &self.handlers.len()).finish_non_exhaustive()
    }
}

impl<K> Informer<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// An informer over what `api` and `config` (selectors) pick.
    pub fn new(api: Api<K>, config: watcher::Config) -> Self {
        Self {
            api,
            config,
            cache: Arc::default(),
            synced: watch::Sender::new(false),
            handlers: Vec::new(),
            trim: None,
        }
    }

    /// Drops what no reader needs before an object enters the cache.
    #[must_use]
    pub fn trim(mut self, trim: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.trim = Some(Box::new(trim));
        self
    }

    /// Adds a handler; it also sees every object of the first list, as added.
    pub fn on_change(&mut self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    /// A reader of the cache.
    pub fn reader(&self) -> Reader<K> {
        Reader { cache: self.cache.clone(), synced: self.synced.subscribe() }
    }

    /// Lists and watches until `shutdown`. Failures are logged and retried with back-off.
    pub async fn run(self, shutdown: CancellationToken) {
        let stream = watcher(self.api.clone(), self.config.clone()).default_backoff();
        let mut stream = std::pin::pin!(stream);
        let mut listed = None;
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => self.apply(event, &mut listed),
                Some(Err(error)) => {
                    tracing::debug!(error = %chain(&error), "watch failed; it is retried");
                }
                None => return,
            }
        }
    }

    fn apply(&self, event: watcher::Event<K>, listed: &mut Option<HashMap<ObjectKey, Arc<K>>>) {
        let event = match &self.trim {
            Some(trim) => event.modify(|object| trim(object)),
            None => event,
        };
        match event {
            watcher::Event::Init => *listed = Some(HashMap::new()),
            watcher::Event::InitApply(object) => {
                let object = Arc::new(object);
                listed.get_or_insert_default().insert(ObjectKey::of(object.as_ref()), object);
            }
            watcher::Event::InitDone => {
                self.replace(listed.take().unwrap_or_default());
                self.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => self.store(Arc::new(object)),
            watcher::Event::Delete(object) => self.remove(&ObjectKey::of(&object), Some(Arc::new(object))),
        }
    }

    /// Brings the cache to what a list found.
    fn replace(&self, listed: HashMap<ObjectKey, Arc<K>>) {
        let vanished: Vec<ObjectKey> =
            self.cache.read().keys().filter(|key| !listed.contains_key(key)).cloned().collect();
        for key in vanished {
            self.remove(&key, None);
        }
        for object in listed.into_values() {
            self.store(object);
        }
    }

    fn store(&self, object: Arc<K>) {
        let old = self.cache.write().insert(ObjectKey::of(object.as_ref()), object.clone());
        let change = match old {
            None => Change::Added(object),
            Some(old) if old.meta().resource_version == object.meta().resource_version => return,
            // A name used again between two lists: two changes, not one.
            Some(old) if old.meta().uid != object.meta().uid => {
                self.notify(&Change::Deleted(old));
                Change::Added(object)
            }
            Some(old) => Change::Updated { old, new: object },
        };
        self.notify(&change);
    }

    fn remove(&self, key: &ObjectKey, last: Option<Arc<K>>) {
        let held = self.cache.write().remove(key);
        if let Some(held) = held {
            self.notify(&Change::Deleted(last.unwrap_or(held)));
        }
    }

    fn notify(&self, change: &Change<K>) {
        for handler in &self.handlers {
            handler(change);
        }
    }
}

/// An error with its sources, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::watcher::Event;
    use parking_lot::Mutex;

    fn config_map(name: &str, uid: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: kube::api::ObjectMeta {
                name: Some(name.into()),
                namespace: Some("ns".into()),
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn informer() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let service = tower_stub();
        let mut informer = Informer::new(Api::all(service), watcher::Config::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        informer.on_change(move |change| {
            let verb = match change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            log.lock().push(format!("{verb} {}", change.key()));
        });
        (informer, seen)
    }

    /// A client that is never called: these tests feed events by hand.
    fn tower_stub() -> kube::Client {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        kube::Client::new(service, "default")
    }

    #[tokio::test]
    async fn a_second_list_reports_what_the_watch_missed() {
        let (informer, seen) = informer();
        let mut listed = None;
        for event in [
            Event::Init,
            Event::InitApply(config_map("kept", "1", "1")),
            Event::InitApply(config_map("gone", "2", "1")),
            Event::InitDone,
        ] {
            informer.apply(event, &mut listed);
        }
        assert!(informer.reader().is_synced());
        seen.lock().clear();
        for event in [
            Event::Init,
            Event::InitApply(config_map("kept", "1", "1")),
            Event::InitApply(config_map("new", "3", "5")),
            Event::InitDone,
        ] {
            informer.apply(event, &mut listed);
        }
        assert_eq!(*seen.lock(), ["deleted ns/gone", "added ns/new"]);
        assert_eq!(informer.reader().len(), 2);
    }

    #[tokio::test]
    async fn a_reused_name_is_a_deletion_and_an_addition() {
        let (informer, seen) = informer();
        let mut listed = None;
        informer.apply(Event::Apply(config_map("a", "1", "1")), &mut listed);
        informer.apply(Event::Apply(config_map("a", "1", "2")), &mut listed);
        informer.apply(Event::Apply(config_map("a", "9", "3")), &mut listed);
        informer.apply(Event::Delete(config_map("a", "9", "4")), &mut listed);
        assert_eq!(
            *seen.lock(),
            ["added ns/a", "updated ns/a", "deleted ns/a", "added ns/a", "deleted ns/a"]
        );
    }
}
