//! The registry: objects kept in the store by general rules, with a strategy for each kind.
//!
//! A [`Registry`] owns metadata, revisions, names, deletion and dry run of one resource; what is
//! particular to the kind is its [`strategy::Strategy`]. Endpoints call it with objects that are
//! decoded and in the stored shape; it never sees HTTP.

pub mod columns;
mod create;
mod delete;
mod deletion;
pub(crate) mod errors;
mod list;
pub mod strategies;
pub mod strategy;
mod update;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sampan_api::meta;
use sampan_api::scheme::Resource;
use sampan_api::status::Status;
use sampan_store::{Compare, Op, RangeRequest, Revision, Storage, Txn};
use serde_json::Value;

use crate::admission::Admission;
use crate::cacher::{Cacher, Caches, ROOT};
use strategy::{Context, Strategy};

pub(crate) use delete::DeleteOptions;
pub(crate) use errors::storage_status;
pub(crate) use list::{Consistency, ListRequest};

/// Every resource's registry.
pub(crate) struct Registries {
    by_place: HashMap<(&'static str, &'static str), Registry>,
}

impl Registries {
    pub(crate) fn new(
        storage: &Arc<dyn Storage>,
        caches: &Arc<Caches>,
        strategies: &[Arc<dyn Strategy>],
    ) -> Self {
        let registry = |strategy: &Arc<dyn Strategy>| {
            let place = strategy.resource().storage?;
            let cacher = Arc::clone(caches.cacher(place)?);
            Some((
                place,
                Registry {
                    strategy: Arc::clone(strategy),
                    storage: Arc::clone(storage),
                    caches: Arc::clone(caches),
                    cacher,
                    prefix: format!("{ROOT}{}/{}/", place.0, place.1),
                },
            ))
        };
        Self { by_place: strategies.iter().filter_map(registry).collect() }
    }

    /// The registry that keeps a resource's objects.
    pub(crate) fn of(&self, resource: &Resource) -> Option<&Registry> {
        self.by_place.get(&resource.storage?)
    }

    /// All registries.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Registry> {
        self.by_place.values()
    }
}

/// One resource's objects.
pub(crate) struct Registry {
    strategy: Arc<dyn Strategy>,
    storage: Arc<dyn Storage>,
    caches: Arc<Caches>,
    cacher: Arc<Cacher>,
    prefix: String,
}

/// An object as it is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The object, its resourceVersion included.
    pub(crate) value: Value,
    /// The revision of its last change.
    pub(crate) revision: u64,
}

/// Warnings that go to the client beside the answer.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds one; the same one twice is one.
    pub(crate) fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock();
        if !all.contains(&text) {
            all.push(text);
        }
    }

    /// Takes them all out.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A write: by whom, where, and how.
#[derive(Clone, Copy)]
pub(crate) struct Write<'a> {
    /// What strategies may know.
    pub(crate) cx: Context,
    /// The subresource written through, or empty.
    pub(crate) subresource: &'a str,
    /// The namespace, empty for cluster-scoped kinds.
    pub(crate) namespace: &'a str,
    /// Check everything, change nothing.
    pub(crate) dry_run: bool,
    /// Who has a say.
    pub(crate) admission: &'a Admission,
    /// Where warnings go.
    pub(crate) warnings: &'a Warnings,
}

impl Registry {
    /// The strategy of the kind.
    pub(crate) fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// The cache of the kind.
    pub(crate) fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }

    /// The resource in whose shape objects are stored.
    pub(crate) fn resource(&self) -> &'static Resource {
        self.strategy.resource()
    }

    /// Where an object lies among those of its kind.
    pub(crate) fn relative_key(namespace: &str, name: &str) -> String {
        if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
    }

    fn key(&self, namespace: &str, name: &str) -> Bytes {
        format!("{}{}", self.prefix, Self::relative_key(namespace, name)).into()
    }

    /// An object as the store has it now, if it is there.
    pub(crate) async fn read(&self, namespace: &str, name: &str) -> Result<Option<Stored>, Status> {
        let request = RangeRequest::key(self.key(namespace, name));
        let found = self.storage.range(request).await.map_err(|e| storage_status(&e))?;
        let Some(kv) = found.kvs.into_iter().next() else { return Ok(None) };
        let mut value: Value = serde_json::from_slice(&kv.value)
            .map_err(|_| Status::internal(format!("the stored {name:?} cannot be read")))?;
        let revision = kv.mod_revision.0;
        meta::set_resource_version(&mut value, revision);
        Ok(Some(Stored { value, revision }))
    }

    /// An object, or 404.
    pub(crate) async fn get(
        &self,
        requested: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Stored, Status> {
        self.read(namespace, name).await?.ok_or_else(|| Status::not_found(requested, name))
    }

    /// Writes an object if its key was last changed at `expected` (0: does not exist). The new
    /// revision, or `None` where somebody else was quicker.
    async fn put(
        &self,
        namespace: &str,
        name: &str,
        expected: u64,
        value: &Value,
    ) -> Result<Option<u64>, Status> {
        let key = self.key(namespace, name);
        let bytes = self.encode(value)?;
        let txn = Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), revision: Revision(expected) }],
            success: vec![Op::Put { key, value: bytes }],
            failure: Vec::new(),
        };
        let done = self.storage.txn(txn).await.map_err(|e| storage_status(&e))?;
        Ok(done.succeeded.then_some(done.revision.0))
    }

    /// Removes an object if it was last changed at `expected`; whether it was.
    async fn remove(&self, namespace: &str, name: &str, expected: u64) -> Result<Option<u64>, Status> {
        let key = self.key(namespace, name);
        let txn = Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), revision: Revision(expected) }],
            success: vec![Op::Delete { key, end: None }],
            failure: Vec::new(),
        };
        let done = self.storage.txn(txn).await.map_err(|e| storage_status(&e))?;
        Ok(done.succeeded.then_some(done.revision.0))
    }

    /// The bytes that are stored: everything but the resourceVersion, which the store knows.
    fn encode(&self, value: &Value) -> Result<Bytes, Status> {
        let mut value = value.clone();
        meta::remove(&mut value, "resourceVersion");
        self.set_type(&mut value);
        serde_json::to_vec(&value).map(Bytes::from).map_err(|e| Status::internal(e.to_string()))
    }

    fn set_type(&self, value: &mut Value) {
        if let Some(members) = value.as_object_mut() {
            members.insert("apiVersion".into(), self.resource().api_version().into());
            members.insert("kind".into(), self.resource().kind.into());
        }
    }
}
