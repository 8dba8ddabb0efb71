//! What every cluster has from its first moment: the namespaces of the system.

use jiff::Timestamp;
use sampan_api::status::Status;
use sampan_api::{defaults, scheme};
use serde_json::json;

use crate::core::Core;
use crate::registry::strategy::{Context, Part};
use crate::registry::{Warnings, Write};

/// Between two tries while the store does not take writes.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes the namespaces that are missing.
pub(super) async fn namespaces(core: &Core) -> Result<(), Status> {
    let resource = scheme::by_gvr("", "v1", "namespaces").ok_or_else(Status::no_such_resource)?;
    let registry = core.registries.of(resource).ok_or_else(Status::no_such_resource)?;
    let warnings = Warnings::default();
    let write = Write {
        cx: Context { requested: resource, part: Part::Main, now: Timestamp::now() },
        subresource: "",
        namespace: "",
        dry_run: false,
        admission: &core.admission,
        warnings: &warnings,
    };
    for name in NAMESPACES {
        if registry.cacher().get(name).is_some() {
            continue;
        }
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        defaults::apply(resource, &mut object);
        loop {
            match registry.create(&write, object.clone()).await {
                // Of several servers another one may be at it, or none leads for the moment.
                Err(status) if status.code == 503 => tokio::time::sleep(PAUSE).await,
                Err(status) if status.reason != "AlreadyExists" => return Err(status),
                _ => break,
            }
        }
    }
    Ok(())
}
