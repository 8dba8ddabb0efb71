//! Creation: names, system fields, checks, and the first write.

use sampan_api::field::{FieldError, FieldPath};
use sampan_api::meta::{self, ObjectMeta};
use sampan_api::status::Status;
use sampan_api::time;
use serde_json::Value;

use super::{Registry, Write};
use crate::admission::{Operation, Review};

/// How often a generated name is tried anew when it is taken.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Creates an object; the answer is the object as it is stored.
    pub(crate) async fn create(&self, write: &Write<'_>, mut object: Value) -> Result<Value, Status> {
        if !matches!(ObjectMeta::of(&object).resource_version(), "" | "0") {
            return Err(Status::failure(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let name = ObjectMeta::of(&object).name().to_owned();
        let review = Review::new(write, Operation::Create, &name);
        write.admission.admit(&review, &mut object).await?;

        let base = ObjectMeta::of(&object).generate_name().to_owned();
        let generated = name.is_empty() && !base.is_empty();
        let mut attempt = 1;
        let object = loop {
            let mut object = object.clone();
            if generated {
                // Before anything is derived from the name.
                meta::set(&mut object, "name", meta::generate_name(&base));
            }
            self.prepare(write, &mut object);
            self.check_new(write, &object)?;
            if attempt == 1 {
                let name = ObjectMeta::of(&object).name().to_owned();
                let review = Review::new(write, Operation::Create, &name);
                write.admission.validate(&review, Some(&object)).await?;
            }
            match self.insert(write, &mut object).await {
                Err(status) if generated && attempt < NAME_ATTEMPTS && status.reason == "AlreadyExists" => {}
                Err(status) => return Err(status),
                Ok(_) => break object,
            }
            attempt += 1;
        };
        for warning in self.strategy.warnings(&write.cx, &object) {
            write.warnings.add(warning);
        }
        Ok(object)
    }

    /// Sets what the server sets.
    fn prepare(&self, write: &Write<'_>, object: &mut Value) {
        for field in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
            "selfLink",
            "generation",
        ] {
            meta::remove(object, field);
        }
        meta::set(object, "creationTimestamp", time::format_seconds(write.cx.now));
        meta::set(object, "uid", uuid::Uuid::new_v4().to_string());
        if self.strategy.has_generation() {
            meta::set_generation(object, 1);
        }
        self.strategy.prepare_for_create(&write.cx, object);
        self.set_type(object);
    }

    fn check_new(&self, write: &Write<'_>, object: &Value) -> Result<(), Status> {
        let path = FieldPath::new("metadata");
        let rule = |name: &str| self.strategy.validate_name(name);
        let mut errors = meta::validate_object_meta(object, &path, rule, self.resource().namespaced);
        errors.extend(self.strategy.validate(&write.cx, object));
        self.refuse_invalid(write, object, &errors)
    }

    /// 422 where there are complaints.
    pub(super) fn refuse_invalid(
        &self,
        write: &Write<'_>,
        object: &Value,
        errors: &[FieldError],
    ) -> Result<(), Status> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(write.cx.requested, ObjectMeta::of(object).name(), errors))
    }

    async fn insert(&self, write: &Write<'_>, object: &mut Value) -> Result<(), Status> {
        let name = ObjectMeta::of(object).name().to_owned();
        let taken = || Status::already_exists(write.cx.requested, &name);
        if write.dry_run {
            let exists = self.read(write.namespace, &name).await?.is_some();
            return if exists { Err(taken()) } else { Ok(()) };
        }
        let revision = self.put(write.namespace, &name, 0, object).await?.ok_or_else(taken)?;
        meta::set_resource_version(object, revision);
        Ok(())
    }
}
