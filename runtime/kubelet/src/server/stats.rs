//! What the node and its containers use, collected when somebody asks.

use std::sync::Arc;

use jiff::Timestamp;
use sampan_cri::ContainerStats;

use crate::manager::{Manager, Slot};
use crate::pod::memory::Record;
use crate::pod::spec;

/// One container's use.
#[derive(Clone, Debug)]
pub struct ContainerUse {
    /// Its name.
    pub name: String,
    /// Its record.
    pub record: Record,
    /// What it used.
    pub stats: ContainerStats,
}

/// One pod's use.
#[derive(Clone, Debug)]
pub struct PodUse {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// When the node took it on.
    pub started_at: Option<Timestamp>,
    /// Its running containers.
    pub containers: Vec<ContainerUse>,
    /// Its slot.
    pub slot: Arc<Slot>,
}

/// All pods that run something.
pub async fn collect(manager: &Manager) -> Vec<PodUse> {
    let runtime = &manager.context().config.runtime;
    let mut pods = Vec::new();
    for slot in manager.all() {
        let mut containers = Vec::new();
        for (name, record) in slot.running() {
            // One that ended meanwhile is left out.
            if let Ok(stats) = runtime.container_stats(&record.id).await {
                containers.push(ContainerUse { name, record, stats });
            }
        }
        if containers.is_empty() {
            continue;
        }
        let pod = slot.pod();
        pods.push(PodUse {
            namespace: spec::namespace(&pod).into(),
            name: spec::name(&pod).into(),
            uid: spec::uid(&pod).into(),
            started_at: slot.status().and_then(|status| status.start_time).map(|time| time.0),
            containers,
            slot,
        });
    }
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    pods
}
