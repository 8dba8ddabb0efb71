//! Deletion of one object or many.
//!
//! There is no garbage collector in this server yet, so that nothing would ever take the
//! `foregroundDeletion` and `orphan` finalizers away again: a deletion with either policy acts as
//! one in the background.

use futures::StreamExt;
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::status::Status;
use serde_json::Value;

use super::deletion::{Plan, plan};
use super::{Registry, Stored, Write};
use crate::admission::{Operation, Review};
use crate::cacher::{Page, Selection};

/// How often a deletion is tried against newer states of the object.
const ATTEMPTS: usize = 32;

/// How many objects of a collection are deleted at a time.
const WORKERS: usize = 8;

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    /// The grace period asked for.
    pub(crate) grace_period_seconds: Option<i64>,
    /// Only the object with this identity.
    pub(crate) uid: Option<String>,
    /// Only the object in this version.
    pub(crate) resource_version: Option<String>,
}

/// What a deletion did.
#[derive(Debug)]
pub(crate) struct Deleted {
    /// The object's last or current state.
    pub(crate) object: Value,
    /// Whether it is gone.
    pub(crate) gone: bool,
}

impl Registry {
    /// Deletes one object, or marks it as being deleted.
    pub(crate) async fn delete(
        &self,
        write: &Write<'_>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        for _ in 0..ATTEMPTS {
            let current = self.get(write.cx.requested, write.namespace, name).await?;
            check_preconditions(write, name, &current.value, options)?;
            let review = Review::new(write, Operation::Delete, name);
            write.admission.validate(&review, None).await?;
            if let Some(deleted) = self.try_delete(write, name, current, options).await? {
                return Ok(deleted);
            }
            tokio::task::yield_now().await;
        }
        Err(Status::conflict(write.cx.requested, name, "the object keeps changing; please try again"))
    }

    async fn try_delete(
        &self,
        write: &Write<'_>,
        name: &str,
        current: Stored,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let (mut object, gone) =
            match plan(&*self.strategy, &current.value, options.grace_period_seconds, write.cx.now) {
                Plan::Wait => return Ok(Some(Deleted { object: current.value, gone: false })),
                Plan::Mark(object) => (object, false),
                Plan::Remove => (current.value, true),
            };
        if write.dry_run {
            return Ok(Some(Deleted { object, gone }));
        }
        let revision = if gone {
            self.remove(write.namespace, name, current.revision).await?
        } else {
            self.put(write.namespace, name, current.revision, &object).await?
        };
        Ok(revision.map(|revision| {
            meta::set_resource_version(&mut object, revision);
            Deleted { object, gone }
        }))
    }

    /// Deletes all selected objects; the answer is what they were.
    pub(crate) async fn delete_collection(
        &self,
        write: &Write<'_>,
        selection: &Selection,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, Status> {
        self.caches.wait_current().await?;
        let listing = self.cacher.list(selection, Page::default());
        let deletions = listing.objects.into_iter().map(|object| async move {
            let one = Write { namespace: object.namespace(), ..*write };
            match self.delete(&one, object.name(), options).await {
                Ok(deleted) => Ok(Some(deleted.object)),
                // Somebody else deleted it meanwhile.
                Err(status) if status.code == 404 => Ok(None),
                Err(status) => Err(status),
            }
        });
        let done: Vec<Result<Option<Value>, Status>> =
            futures::stream::iter(deletions).buffered(WORKERS).collect().await;
        done.into_iter().filter_map(Result::transpose).collect()
    }
}

fn check_preconditions(
    write: &Write<'_>,
    name: &str,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let meta = ObjectMeta::of(object);
    if let Some(uid) = options.uid.as_deref()
        && uid != meta.uid()
    {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            meta.uid()
        );
        return Err(Status::conflict(write.cx.requested, name, &why));
    }
    if let Some(version) = options.resource_version.as_deref()
        && version != meta.resource_version()
    {
        let why = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). \
             The object might have been modified",
            meta.resource_version()
        );
        return Err(Status::conflict(write.cx.requested, name, &why));
    }
    Ok(())
}
