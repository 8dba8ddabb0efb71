//! Updates: read, change, check, compare and swap; again where somebody else was quicker.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::status::Status;
use serde_json::Value;

use super::strategy::Part;
use super::{Registry, Stored, Write};
use crate::admission::{Operation, Review};

/// How often an update that does not name a resourceVersion is tried against newer states.
const ATTEMPTS: usize = 32;

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// What an update did.
#[derive(Debug)]
pub(crate) struct Updated {
    /// The object as it is stored now.
    pub(crate) object: Value,
    /// Whether the update created it.
    pub(crate) created: bool,
}

/// Makes the wanted object (in the stored shape) from the current one, if there is one. Called
/// again when the current one has changed meanwhile.
pub(crate) type Change<'a> = &'a (dyn Fn(Option<&Value>) -> Result<Value, Status> + Send + Sync);

/// Makes the wanted object from the current one.
pub(crate) type Modification<'a> = &'a (dyn Fn(&Value) -> Result<Value, Status> + Send + Sync);

impl Registry {
    /// Replaces an object by what `change` makes of it.
    pub(crate) async fn update(
        &self,
        write: &Write<'_>,
        name: &str,
        change: Change<'_>,
    ) -> Result<Updated, Status> {
        for _ in 0..ATTEMPTS {
            let Some(current) = self.read(write.namespace, name).await? else {
                return self.create_by_update(write, name, change).await;
            };
            let object = change(Some(&current.value))?;
            if let Some(object) = self.try_update(write, name, &current, object).await? {
                return Ok(Updated { object, created: false });
            }
            tokio::task::yield_now().await;
        }
        Err(Status::conflict(write.cx.requested, name, MODIFIED))
    }

    /// Changes an object by rules of its own (bindings): no strategy is asked, no metadata checked.
    pub(crate) async fn modify(
        &self,
        write: &Write<'_>,
        name: &str,
        change: Modification<'_>,
    ) -> Result<Value, Status> {
        for _ in 0..ATTEMPTS {
            let current = self.get(write.cx.requested, write.namespace, name).await?;
            let mut object = change(&current.value)?;
            if object == current.value || write.dry_run {
                return Ok(object);
            }
            if let Some(revision) = self.put(write.namespace, name, current.revision, &object).await? {
                meta::set_resource_version(&mut object, revision);
                return Ok(object);
            }
            tokio::task::yield_now().await;
        }
        Err(Status::conflict(write.cx.requested, name, MODIFIED))
    }

    async fn create_by_update(
        &self,
        write: &Write<'_>,
        name: &str,
        change: Change<'_>,
    ) -> Result<Updated, Status> {
        let missing = || Status::not_found(write.cx.requested, name);
        if !self.strategy.allow_create_on_update() || write.cx.part != Part::Main {
            return Err(missing());
        }
        let object = change(None)?;
        let before = ObjectMeta::of(&object);
        // Who names a version or an identity means an object that is gone.
        if !before.uid().is_empty() || !matches!(before.resource_version(), "" | "0") {
            return Err(missing());
        }
        Ok(Updated { object: self.create(write, object).await?, created: true })
    }

    /// One attempt: `None` where the object changed meanwhile.
    async fn try_update(
        &self,
        write: &Write<'_>,
        name: &str,
        current: &Stored,
        mut object: Value,
    ) -> Result<Option<Value>, Status> {
        self.check_preconditions(write, name, current, &object)?;
        meta::set_resource_version(&mut object, current.revision);
        meta::remove(&mut object, "managedFields");
        meta::remove(&mut object, "selfLink");
        meta::inherit_system_fields(&mut object, &current.value);
        inherit_generation(&mut object, &current.value);

        let review = Review::new(write, Operation::Update, name);
        write.admission.admit(&review, &mut object).await?;
        self.strategy.prepare_for_update(&write.cx, &mut object, &current.value);
        self.set_type(&mut object);
        if self.counts(write, &object, &current.value) {
            meta::set_generation(&mut object, ObjectMeta::of(&current.value).generation() + 1);
        }
        self.check_changed(write, &object, &current.value)?;
        write.admission.validate(&review, Some(&object)).await?;
        for warning in self.strategy.warnings_on_update(&write.cx, &object, &current.value) {
            write.warnings.add(warning);
        }
        if object == current.value || write.dry_run {
            return Ok(Some(object));
        }
        self.commit(write, name, current, object).await
    }

    /// Writes the change, or removes an object that nothing holds any more.
    async fn commit(
        &self,
        write: &Write<'_>,
        name: &str,
        current: &Stored,
        mut object: Value,
    ) -> Result<Option<Value>, Status> {
        let revision = if self.is_finished(&object) {
            self.remove(write.namespace, name, current.revision).await?
        } else {
            self.put(write.namespace, name, current.revision, &object).await?
        };
        Ok(revision.map(|revision| {
            meta::set_resource_version(&mut object, revision);
            object
        }))
    }

    /// Whether an object waited only for what has now happened.
    fn is_finished(&self, object: &Value) -> bool {
        let meta = ObjectMeta::of(object);
        meta.is_deleting()
            && meta.finalizers().is_empty()
            && meta.deletion_grace_period_seconds().unwrap_or_default() == 0
            && self.strategy.may_be_removed(object)
    }

    fn counts(&self, write: &Write<'_>, object: &Value, current: &Value) -> bool {
        write.cx.part == Part::Main
            && self.strategy.has_generation()
            && self.strategy.generation_changed(object, current)
    }

    fn check_preconditions(
        &self,
        write: &Write<'_>,
        name: &str,
        current: &Stored,
        object: &Value,
    ) -> Result<(), Status> {
        let (wanted, is) = (ObjectMeta::of(object), ObjectMeta::of(&current.value));
        if !wanted.uid().is_empty() && wanted.uid() != is.uid() {
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {}{}, ResourceVersion: 0, AdditionalErrorMsg: \
                 Precondition failed: UID in precondition: {}, UID in object meta: {}",
                self.prefix,
                Self::relative_key(write.namespace, name),
                wanted.uid(),
                is.uid()
            );
            return Err(Status::conflict(write.cx.requested, name, &why));
        }
        match wanted.resource_version() {
            "" | "0" if self.strategy.allow_unconditional_update() => Ok(()),
            "" | "0" => {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, "", "must be specified for an update");
                Err(Status::invalid(write.cx.requested, name, &[error]))
            }
            version if version == current.revision.to_string() => Ok(()),
            version if version.parse::<u64>().is_ok() => {
                Err(Status::conflict(write.cx.requested, name, MODIFIED))
            }
            version => {
                let path = FieldPath::new("metadata").child("resourceVersion");
                let error = FieldError::invalid(&path, version, "must be the version that the server gave");
                Err(Status::invalid(write.cx.requested, name, &[error]))
            }
        }
    }

    fn check_changed(&self, write: &Write<'_>, object: &Value, current: &Value) -> Result<(), Status> {
        let mut errors = meta::validate_object_meta_update(object, current);
        errors.extend(self.strategy.validate_update(&write.cx, object, current));
        self.refuse_invalid(write, object, &errors)
    }
}

/// The generation is the server's to count.
fn inherit_generation(object: &mut Value, current: &Value) {
    match ObjectMeta::of(current).generation() {
        0 => {
            meta::remove(object, "generation");
        }
        generation => meta::set_generation(object, generation),
    }
}
