//! Process start to node Ready: from nothing, and with state.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::node::{BenchError, NodeProcess};
use crate::report::{megabytes, millis, percentile, row};

const ROUNDS: usize = 5;

pub(crate) async fn run(sampan: &Path) -> Result<(), BenchError> {
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    for _ in 0..ROUNDS {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        fresh.push(time(sampan, &data).await?);
        again.push(time(sampan, &data).await?);
    }
    row("empty directory to node Ready, median of 5", millis(percentile(&mut fresh, 0.5)), "1 s");
    row("restart with state to node Ready, median of 5", millis(percentile(&mut again, 0.5)), "0.5 s");
    row("stripped binary", megabytes(std::fs::metadata(sampan)?.len()), "40 MB");
    Ok(())
}

async fn time(sampan: &Path, data: &Path) -> Result<Duration, BenchError> {
    let begin = Instant::now();
    let mut node = NodeProcess::spawn(sampan, data, 250)?;
    node.wait_ready().await?;
    let took = begin.elapsed();
    node.stop()?;
    Ok(took)
}
