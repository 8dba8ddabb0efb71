//! From the leader's end to the next write that is acknowledged.

use std::time::{Duration, Instant};

use super::client::Client;
use super::cluster::Cluster;
use crate::node::BenchError;

/// How long a client waits for one answer before it asks another member.
const ATTEMPT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills the leader, measures, and makes the cluster whole again.
pub(crate) async fn measure(cluster: &mut Cluster) -> Result<Duration, BenchError> {
    let leader = cluster.leader().await?;
    // A cluster that has just become whole may still hand things over.
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.kill(leader)?;
    let begin = Instant::now();
    let mut clients = Vec::new();
    for endpoint in cluster.endpoints() {
        clients.push(Client::lazy(&endpoint)?);
    }
    let time = first_put(&mut clients, begin).await?;
    cluster.restart(leader).await?;
    Ok(time)
}

/// Asks one member after the other until one acknowledges a put.
async fn first_put(clients: &mut [Client], begin: Instant) -> Result<Duration, BenchError> {
    while begin.elapsed() < PATIENCE {
        for client in &mut *clients {
            let put = client.put("/bench/failover".to_owned(), vec![1]);
            if let Ok(Ok(())) = tokio::time::timeout(ATTEMPT, put).await {
                return Ok(begin.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(BenchError::Failed("nobody took a write after the leader was killed".into()))
}
