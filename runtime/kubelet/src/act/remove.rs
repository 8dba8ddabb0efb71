//! Removing what the node holds: single containers with their logs, and whole pods.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::{ContainerId, SandboxId};

use super::sandbox;
use crate::context::Context;
use crate::paths;
use crate::pod::memory::Record;
use crate::pod::spec;

/// Removes an ended container, its log and its last words.
pub async fn container(context: &Context, pod: &Pod, name: &str, record: &Record) {
    remove_record(context, &record.id).await;
    let message = context.paths.termination_message(spec::uid(pod), name, record.attempt);
    let log = record.log_path.clone();
    let removed = tokio::task::spawn_blocking(move || {
        remove_log(&log);
        std::fs::remove_file(message).ok();
    });
    removed.await.ok();
}

async fn remove_record(context: &Context, id: &ContainerId) {
    if let Err(error) = context.config.runtime.remove_container(id).await
        && !matches!(error, sampan_cri::RuntimeError::NotFound { .. })
    {
        tracing::warn!(
            container = id.0,
            error = super::start::explain(&error),
            "a container was not removed"
        );
    }
}

/// Removes a log with its rotated parts: `0.log`, `0.log.1`, `0.log.20260101-000000`, …
fn remove_log(log: &Path) {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let part = other.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if part {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// Removes everything that the node holds of a pod.
pub async fn pod(context: &Context, pod: &Pod, records: &[Record], sandboxes: &[SandboxId]) {
    for record in records {
        remove_record(context, &record.id).await;
    }
    for id in sandboxes {
        sandbox::remove(context, id).await;
    }
    directories(context, spec::uid(pod), Some(context.paths.pod_logs(pod))).await;
}

/// Removes a pod's directories.
pub async fn directories(context: &Context, uid: &str, logs: Option<std::path::PathBuf>) {
    let (paths, owned) = (context.paths.clone(), uid.to_owned());
    let removed = tokio::task::spawn_blocking(move || {
        logs.map_or(Ok(()), |logs| paths::remove_tree(&logs)).and(paths.remove_pod(&owned))
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(uid, %error, "a pod's directories were not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_with_its_rotated_parts_only() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.log", "1.log.1", "1.log.20260101-000000", "11.log", "2.log"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        remove_log(&dir.path().join("1.log"));
        let mut left: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}
