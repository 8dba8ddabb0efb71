//! From the runtime's words to ours, with a container's last words read from its file or log.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_cri::{ContainerState, ContainerStatus};

use crate::context::Context;
use crate::pod::memory::{Exit, Record, Stage};
use crate::pod::spec;
use crate::server::cri_log;

/// A termination message has this many bytes at most.
const MESSAGE_BYTES: usize = 4096;
/// Of the log, this many bytes and lines at most stand in for the message.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

/// A time of the system as we reckon.
pub fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A container of the runtime as a record.
pub async fn record(context: &Context, pod: &Pod, status: ContainerStatus) -> Record {
    let stage = match status.state {
        ContainerState::Created => Stage::Created,
        ContainerState::Running { started_at } => Stage::Running { started_at: timestamp(started_at) },
        ContainerState::Exited(exit) => {
            let own =
                last_words(context, pod, &status.name, status.attempt, &status.log_path, exit.code).await;
            Stage::Exited(Exit {
                code: exit.code,
                reason: exit.reason,
                message: if own.is_empty() { exit.message } else { own },
                started_at: exit.started_at.map(timestamp),
                finished_at: timestamp(exit.finished_at),
            })
        }
    };
    Record {
        interrupted: context.interrupted.contains(&status.id),
        id: status.id,
        sandbox: status.sandbox,
        attempt: status.attempt,
        image: status.image,
        image_id: status.image_id,
        log_path: status.log_path,
        stage,
    }
}

/// What an ended container left as its message.
async fn last_words(context: &Context, pod: &Pod, name: &str, attempt: u32, log: &Path, code: i32) -> String {
    let Some((_, container)) = spec::container(pod, name) else { return String::new() };
    let file = context.paths.termination_message(spec::uid(pod), name, attempt);
    let (log, from_log) = (log.to_owned(), from_log(container) && code != 0);
    let read = move || {
        let said = std::fs::read(&file).unwrap_or_default();
        let said = String::from_utf8_lossy(said.get(..MESSAGE_BYTES).unwrap_or(&said)).into_owned();
        if said.is_empty() && from_log { cri_log::last_lines(&log, LOG_LINES, LOG_BYTES) } else { said }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn from_log(container: &Container) -> bool {
    container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
}
