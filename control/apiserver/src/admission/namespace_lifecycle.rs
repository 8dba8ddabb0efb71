//! Namespaces: nothing is made in one that is missing or going away, and some stay for ever.

use async_trait::async_trait;
use sampan_api::meta::ObjectMeta;
use sampan_api::scheme;
use sampan_api::status::{Status, StatusCause, StatusDetails};
use serde_json::Value;

use super::{Finder, Operation, Plugin, Review};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle {
    finder: Finder,
}

impl NamespaceLifecycle {
    pub(super) fn new(finder: Finder) -> Self {
        Self { finder }
    }

    async fn check(&self, review: &Review<'_>) -> Result<(), Status> {
        if review.operation == Operation::Delete || review.namespace.is_empty() || !review.resource.namespaced
        {
            return Ok(());
        }
        let namespace = review.namespace;
        let Some(found) = self.finder.core("namespaces", "", namespace).await? else {
            return Err(match scheme::by_gvr("", "v1", "namespaces") {
                Some(resource) => Status::not_found(resource, namespace),
                None => Status::no_such_resource(),
            });
        };
        let ending = ObjectMeta::of(&found).is_deleting()
            || found.pointer("/status/phase").and_then(Value::as_str) == Some("Terminating");
        if review.operation == Operation::Create && ending {
            return Err(terminating(review));
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    async fn admit(&self, review: &Review<'_>, _object: &mut Value) -> Result<(), Status> {
        self.check(review).await
    }

    async fn validate(&self, review: &Review<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let deletes_namespace = review.operation == Operation::Delete && review.is_core("namespaces");
        if deletes_namespace && IMMORTAL.contains(&review.name) {
            return Err(review.forbid("this namespace may not be deleted"));
        }
        Ok(())
    }
}

fn terminating(review: &Review<'_>) -> Status {
    let namespace = review.namespace;
    let status = review.forbid(&format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    ));
    let details = status.details.clone().unwrap_or_default();
    status.with_details(StatusDetails {
        causes: vec![StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }],
        ..details
    })
}
