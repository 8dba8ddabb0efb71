//! What an idle node costs: memory, CPU and bytes to disk.

use std::path::Path;
use std::time::Duration;

use crate::disk::PrivateDisk;
use crate::node::{BenchError, NodeProcess};
use crate::report::{megabytes, row};

pub(crate) async fn run(sampan: &Path, seconds: u64) -> Result<(), BenchError> {
    let disk = PrivateDisk::mount()?;
    let node = NodeProcess::ready(sampan, &disk.path(), 250).await?;
    // The kernel writes what start-up left in its cache within half a minute.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let (cpu, written) = (node.cpu()?, disk.written()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let busy = (node.cpu()? - cpu).as_secs_f64() / seconds as f64;
    let bytes = (disk.written()? - written) as f64 / seconds as f64;
    row("server and agent, idle, resident", megabytes(node.resident()?), "40 MB");
    row("idle CPU", format!("{:.2} % of a core", busy * 100.0), "0.5 %");
    row("idle bytes to disk", format!("{bytes:.0} B/s"), "1 kB/s");
    node.stop()
}
