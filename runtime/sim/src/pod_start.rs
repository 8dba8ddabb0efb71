//! From POST to Running as a watch sees it: one pod after the other, and many at once.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, WatchEvent, WatchParams};
use tokio::sync::mpsc;

use crate::node::{BenchError, NodeProcess, create_http_pod};
use crate::report::{millis, percentile, row};

const LOST: Duration = Duration::from_secs(120);

pub(crate) async fn run(sampan: &Path, in_a_row: usize, at_once: usize) -> Result<(), BenchError> {
    let directory = tempfile::tempdir()?;
    let node = NodeProcess::ready(sampan, &directory.path().join("data"), in_a_row + at_once + 10).await?;
    let pods: Api<Pod> = Api::default_namespaced(node.client().await?);
    let mut running = watch_running(pods.clone());
    // The first pod compiles the module; the figures are of a module already compiled.
    time_one(&pods, &mut running, "warm").await?;

    let mut row_times = Vec::with_capacity(in_a_row);
    for number in 0..in_a_row {
        row_times.push(time_one(&pods, &mut running, &format!("row-{number}")).await?);
    }
    let what = |share| format!("pod POST to Running, {in_a_row} in a row, {share}");
    row(&what("p50"), millis(percentile(&mut row_times, 0.5)), "10 ms");
    row(&what("p99"), millis(percentile(&mut row_times, 0.99)), "50 ms");

    let mut burst = time_many(&pods, &mut running, at_once).await?;
    let what = |share| format!("pod POST to Running, {at_once} at once, {share}");
    row(&what("p50"), millis(percentile(&mut burst, 0.5)), "—");
    row(&what("p99"), millis(percentile(&mut burst, 0.99)), "—");
    node.stop()
}

/// Names of pods as they become Running, with the time.
fn watch_running(pods: Api<Pod>) -> mpsc::UnboundedReceiver<(String, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let Ok(stream) = pods.watch(&WatchParams::default().timeout(290), "0").await else { return };
        let mut stream = std::pin::pin!(stream);
        let mut known = HashMap::new();
        while let Some(Ok(event)) = stream.next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let phase = pod.status.and_then(|s| s.phase).unwrap_or_default();
            let name = pod.metadata.name.unwrap_or_default();
            if phase == "Running"
                && known.insert(name.clone(), ()).is_none()
                && sender.send((name, Instant::now())).is_err()
            {
                return;
            }
        }
    });
    receiver
}

async fn time_one(
    pods: &Api<Pod>,
    running: &mut mpsc::UnboundedReceiver<(String, Instant)>,
    name: &str,
) -> Result<Duration, BenchError> {
    let begin = Instant::now();
    create_http_pod(pods, name).await?;
    loop {
        match tokio::time::timeout(LOST, running.recv()).await {
            Ok(Some((seen, at))) if seen == name => return Ok(at - begin),
            Ok(Some(_)) => {}
            _ => return Err(BenchError::Failed(format!("pod {name} was not seen running"))),
        }
    }
}

async fn time_many(
    pods: &Api<Pod>,
    running: &mut mpsc::UnboundedReceiver<(String, Instant)>,
    count: usize,
) -> Result<Vec<Duration>, BenchError> {
    let mut begun = HashMap::new();
    let mut creating = tokio::task::JoinSet::new();
    for number in 0..count {
        let (pods, name) = (pods.clone(), format!("burst-{number}"));
        begun.insert(name.clone(), Instant::now());
        creating.spawn(async move { create_http_pod(&pods, &name).await });
    }
    while let Some(created) = creating.join_next().await {
        created.map_err(|error| BenchError::Failed(error.to_string()))??;
    }
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        match tokio::time::timeout(LOST, running.recv()).await {
            Ok(Some((name, at))) => times.extend(begun.get(&name).map(|begin| at - *begin)),
            _ => return Err(BenchError::Failed(format!("only {} of {count} pods ran", times.len()))),
        }
    }
    Ok(times)
}
