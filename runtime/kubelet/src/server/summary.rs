//! `GET /stats/summary`: what the node and its pods use, as Kubernetes words it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::stats::{self, ContainerUse, PodUse};
use crate::manager::Manager;
use crate::node::machine;
use crate::pod::memory::Stage;
use crate::volumes::usage;

pub(super) async fn get(State(manager): State<Arc<Manager>>) -> Response {
    let pods = stats::collect(&manager).await;
    let context = manager.context();
    let (node, disk) = (machine::usage(), machine::disk(&context.config.data_dir));
    let now = Timestamp::now().to_string();
    let mut list = Vec::with_capacity(pods.len());
    for pod in &pods {
        list.push(pod_stats(pod, &now).await);
    }
    super::json(&json!({
        "node": {
            "nodeName": context.config.node_name,
            "startTime": node.booted_at.to_string(),
            "cpu": { "time": now, "usageCoreNanoSeconds": node.cpu_nanos },
            "memory": {
                "time": now,
                "availableBytes": node.memory_available_bytes,
                "usageBytes": node.memory_bytes,
                "workingSetBytes": node.memory_bytes,
            },
            "fs": {
                "time": now,
                "availableBytes": disk.available_bytes,
                "capacityBytes": disk.capacity_bytes,
                "usedBytes": disk.capacity_bytes.saturating_sub(disk.available_bytes),
                "inodesFree": disk.inodes_free,
                "inodes": disk.inodes,
            },
        },
        "pods": list,
    }))
}

async fn pod_stats(pod: &PodUse, now: &str) -> Value {
    let containers: Vec<Value> =
        pod.containers.iter().map(|container| container_stats(container, now)).collect();
    let cpu: u64 = pod.containers.iter().map(|container| container.stats.cpu_nanos).sum();
    let memory: u64 = pod.containers.iter().map(|container| container.stats.memory_bytes).sum();
    let logs: u64 = pod.containers.iter().map(|container| container.stats.log_bytes).sum();
    let volumes = volume_stats(pod, now).await;
    let held: u64 = volumes.iter().filter_map(|volume| volume.get("usedBytes").and_then(Value::as_u64)).sum();
    json!({
        "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "startTime": pod.started_at.map(|time| time.to_string()),
        "containers": containers,
        "cpu": { "time": now, "usageCoreNanoSeconds": cpu },
        "memory": { "time": now, "usageBytes": memory, "workingSetBytes": memory },
        "volume": volumes,
        "ephemeral-storage": { "time": now, "usedBytes": logs.saturating_add(held) },
    })
}

fn container_stats(container: &ContainerUse, now: &str) -> Value {
    let started = match &container.record.stage {
        Stage::Running { started_at } => Some(started_at.to_string()),
        _ => None,
    };
    json!({
        "name": container.name,
        "startTime": started,
        "cpu": { "time": now, "usageCoreNanoSeconds": container.stats.cpu_nanos },
        "memory": {
            "time": now,
            "usageBytes": container.stats.memory_bytes,
            "workingSetBytes": container.stats.memory_bytes,
        },
        "logs": { "time": now, "usedBytes": container.stats.log_bytes },
    })
}

/// The volumes that belong to the pod: not those of the node itself.
async fn volume_stats(pod: &PodUse, now: &str) -> Vec<Value> {
    let volumes = pod.slot.volumes();
    let own: Vec<_> = {
        let object = pod.slot.pod();
        let listed = object.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
        listed
            .into_iter()
            .filter(|volume| volume.host_path.is_none())
            .filter_map(|volume| Some((volume.name.clone(), volumes.get(&volume.name)?.path.clone())))
            .collect()
    };
    if own.is_empty() {
        return Vec::new();
    }
    let measured = tokio::task::spawn_blocking(move || {
        own.into_iter().map(|(name, path)| (name, usage::bytes(&path))).collect::<Vec<_>>()
    })
    .await
    .unwrap_or_default();
    measured.into_iter().map(|(name, used)| json!({ "name": name, "time": now, "usedBytes": used })).collect()
}
