//! Memory of idle HTTP pods, everything included: store, caches, kubelet, runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};

use crate::node::{BenchError, NodeProcess, create_http_pod};
use crate::report::{megabytes, row};

const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) async fn run(sampan: &Path, counts: &[usize]) -> Result<(), BenchError> {
    let directory = tempfile::tempdir()?;
    let most = counts.iter().copied().max().unwrap_or(0);
    let node = NodeProcess::ready(sampan, &directory.path().join("data"), most + 10).await?;
    let pods: Api<Pod> = Api::default_namespaced(node.client().await?);
    let empty = node.resident()?;
    let mut made = 0;
    for &count in counts {
        let begin = Instant::now();
        let names: Vec<String> = (made..count).map(|number| format!("idle-{number}")).collect();
        let results: Vec<Result<(), BenchError>> = futures::stream::iter(&names)
            .map(|name| create_http_pod(&pods, name))
            .buffer_unordered(16)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), _>>()?;
        made = count;
        wait_running(&pods, count).await?;
        let took = begin.elapsed();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let resident = node.resident()?;
        let each = resident.saturating_sub(empty) / 1024 / count as u64;
        row(&format!("{count} idle HTTP pods, resident each"), format!("{each} KiB"), "200 KiB");
        row(&format!("{count} idle HTTP pods, resident in all"), megabytes(resident), "—");
        row(
            &format!("{count} HTTP pods, created and running after"),
            format!("{:.1} s", took.as_secs_f64()),
            "—",
        );
    }
    node.stop()
}

async fn wait_running(pods: &Api<Pod>, count: usize) -> Result<(), BenchError> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        let waiting = ListParams::default().fields("status.phase!=Running").limit(1);
        let all = pods.list_metadata(&ListParams::default().limit(1)).await?;
        let listed = all.items.len() as i64 + all.metadata.remaining_item_count.unwrap_or(0);
        if listed >= count as i64 && pods.list_metadata(&waiting).await?.items.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(BenchError::Failed(format!("{count} pods did not all run")))
}
