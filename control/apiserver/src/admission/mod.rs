//! Admission: plugins that complete or refuse writes, after authorization and before the store.
//!
//! A file a plugin. All of them may change the object first (`admit`), then all of them may refuse
//! it (`validate`); the registry calls both, with the stored shape of the object.

mod default_tolerations;
mod namespace_lifecycle;
mod priority;
mod service_account;

use std::sync::Arc;

use async_trait::async_trait;
use sampan_api::scheme::{self, Resource};
use sampan_api::status::Status;
use sampan_store::{RangeRequest, Storage};
use serde_json::Value;

use crate::cacher::{Caches, ROOT};
use crate::registry::{Write, storage_status};

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It comes to be.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
}

/// A write under review.
#[derive(Clone, Copy)]
pub(crate) struct Review<'a> {
    /// What is done.
    pub(crate) operation: Operation,
    /// To what, as it was requested.
    pub(crate) resource: &'static Resource,
    /// Through which subresource, or empty.
    pub(crate) subresource: &'a str,
    /// In which namespace, or empty.
    pub(crate) namespace: &'a str,
    /// The object's name; empty while it is not yet generated.
    pub(crate) name: &'a str,
}

impl<'a> Review<'a> {
    /// A review of one of the registry's writes.
    pub(crate) fn new(write: &Write<'a>, operation: Operation, name: &'a str) -> Self {
        Self {
            operation,
            resource: write.cx.requested,
            subresource: write.subresource,
            namespace: write.namespace,
            name,
        }
    }

    /// Whether a core resource itself (no subresource) is reviewed.
    fn is_core(&self, plural: &str) -> bool {
        self.resource.group.is_empty() && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// 403 with a reason.
    fn forbid(&self, why: &str) -> Status {
        Status::forbidden(self.resource, self.name, why)
    }
}

/// One admission plugin.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// Completes the object, or refuses it.
    async fn admit(&self, _review: &Review<'_>, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object as it will be stored; a deletion has none.
    async fn validate(&self, _review: &Review<'_>, _object: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins, in their order.
pub(crate) struct Admission {
    plugins: Vec<Box<dyn Plugin>>,
}

impl Admission {
    /// The plugins of this server.
    pub(crate) fn new(finder: &Finder) -> Self {
        Self {
            plugins: vec![
                Box::new(namespace_lifecycle::NamespaceLifecycle::new(finder.clone())),
                Box::new(service_account::ServiceAccount::new(finder.clone())),
                Box::new(priority::Priority),
                Box::new(default_tolerations::DefaultTolerationSeconds),
            ],
        }
    }

    /// Lets every plugin complete the object.
    pub(crate) async fn admit(&self, review: &Review<'_>, object: &mut Value) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.admit(review, object).await?;
        }
        Ok(())
    }

    /// Lets every plugin refuse the object.
    pub(crate) async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<(), Status> {
        for plugin in &self.plugins {
            plugin.validate(review, object).await?;
        }
        Ok(())
    }
}

/// Looks up objects that decisions depend on: in the cache, and in the store where the cache knows
/// none (it may be a moment behind).
#[derive(Clone)]
pub(crate) struct Finder {
    caches: Arc<Caches>,
    storage: Arc<dyn Storage>,
}

impl Finder {
    pub(crate) fn new(caches: Arc<Caches>, storage: Arc<dyn Storage>) -> Self {
        Self { caches, storage }
    }

    /// A core object, if it exists.
    pub(crate) async fn core(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Status> {
        let place = scheme::by_gvr("", "v1", plural).and_then(|r| r.storage).unwrap_or(("core", ""));
        let key = crate::registry::Registry::relative_key(namespace, name);
        if let Some(object) = self.caches.cacher(place).and_then(|c| c.get(&key)) {
            return Ok(Some(object.to_value(None, object.revision())));
        }
        let request = RangeRequest::key(format!("{ROOT}{}/{}/{key}", place.0, place.1));
        let found = self.storage.range(request).await.map_err(|e| storage_status(&e))?;
        let Some(kv) = found.kvs.first() else { return Ok(None) };
        serde_json::from_slice(&kv.value)
            .map(Some)
            .map_err(|_| Status::internal(format!("the stored {plural} {name:?} cannot be read")))
    }
}
