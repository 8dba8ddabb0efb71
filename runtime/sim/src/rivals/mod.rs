//! The store beside etcd: one client program, the same disk, the same durability, rounds of one and
//! the other in turn. Both are driven over etcd's own protocol.

mod client;
mod cluster;
mod failover;
mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::node::BenchError;
use crate::report::{self, megabytes};
use cluster::{Cluster, System};
use load::Load;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The `sampan` binary.
    pub(crate) sampan: PathBuf,
    /// The `etcd` binary.
    pub(crate) etcd: PathBuf,
    /// How many members, one table each.
    pub(crate) members: Vec<usize>,
    /// How many clients at once.
    pub(crate) clients: Vec<usize>,
    /// How often each is measured; the median counts.
    pub(crate) rounds: usize,
    /// For how long.
    pub(crate) seconds: u64,
    /// How many leaders are killed.
    pub(crate) kills: usize,
    /// For how long idleness is measured.
    pub(crate) idle_seconds: u64,
}

/// One figure of both systems.
struct Pair<T>(T, T);

pub(crate) async fn run(options: &Options) -> Result<(), BenchError> {
    println!("\netcd: {}", version(&options.etcd)?);
    println!("values of {} bytes, {} keys, each member on an ext4 of its own", load::VALUE, load::KEYS);
    for members in &options.members {
        println!("\n### {members} member{}\n", if *members == 1 { "" } else { "s" });
        report::versus_header();
        compare(options, *members).await?;
    }
    Ok(())
}

fn version(etcd: &Path) -> Result<String, BenchError> {
    let output = std::process::Command::new(etcd).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

async fn compare(options: &Options, members: usize) -> Result<(), BenchError> {
    let mut both = Pair(
        Cluster::start(System::Etcd, &options.etcd, members).await?,
        Cluster::start(System::Sampan, &options.sampan, members).await?,
    );
    for clients in &options.clients {
        throughput(options, &mut both, *clients).await?;
    }
    let resident = Pair(both.0.resident()?, both.1.resident()?);
    let ratio = resident.1 as f64 / resident.0 as f64;
    report::versus(
        "resident, all members, after that",
        megabytes(resident.0),
        megabytes(resident.1),
        ratio,
        "—",
    );
    if options.idle_seconds > 0 {
        idle(options, &both).await?;
    }
    if members > 1 && options.kills > 0 {
        failovers(options, &mut both).await?;
    }
    both.0.stop()?;
    both.1.stop()
}

async fn throughput(options: &Options, both: &mut Pair<Cluster>, clients: usize) -> Result<(), BenchError> {
    let mut loads = Pair(Vec::new(), Vec::new());
    for round in 0..options.rounds {
        // Who is first changes, so that neither always meets the other's leftovers.
        for turn in 0..2 {
            let etcd = (round + turn) % 2 == 0;
            let (cluster, loads) =
                if etcd { (&mut both.0, &mut loads.0) } else { (&mut both.1, &mut loads.1) };
            let time = Duration::from_secs(options.seconds);
            loads.push(load::run(cluster, clients, time).await?);
        }
    }
    let pick = |figure: fn(&Load) -> f64| {
        Pair(report::median(loads.0.iter().map(figure)), report::median(loads.1.iter().map(figure)))
    };
    let row = |what: &str, figure: &Pair<f64>, unit: &str, budget: &str| {
        let show = |value: f64| format!("{value:.prec$}{unit}", prec = if value < 100.0 { 2 } else { 0 });
        let what = format!("{what}, {clients} client{}", if clients == 1 { "" } else { "s" });
        report::versus(&what, show(figure.0), show(figure.1), figure.1 / figure.0, budget);
    };
    row("puts/s", &pick(|load| load.per_second), "", "≥ 1.5 ×");
    row("p50", &pick(|load| load.p50.as_secs_f64() * 1e3), " ms", "—");
    row("p99", &pick(|load| load.p99.as_secs_f64() * 1e3), " ms", "—");
    row("CPU per put, all members", &pick(|load| load.cpu_per_put.as_secs_f64() * 1e6), " µs", "—");
    let budget = if clients >= 10 { "≤ 2 kB a member" } else { "≤ 6 kB a member" };
    row("bytes to disk per put, per member", &pick(|load| load.bytes_per_put), " B", budget);
    let failed: u64 = loads.0.iter().chain(&loads.1).map(|load| load.failed).sum();
    if failed > 0 {
        println!("| {failed} puts failed | | | | |");
    }
    Ok(())
}

async fn idle(options: &Options, both: &Pair<Cluster>) -> Result<(), BenchError> {
    // What was written lately reaches the disk within half a minute.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let before = Pair(both.0.written()?, both.1.written()?);
    tokio::time::sleep(Duration::from_secs(options.idle_seconds)).await;
    let members = both.0.len() as f64;
    let rate = |now: u64, before: u64| (now - before) as f64 / options.idle_seconds as f64 / members;
    let rates = Pair(rate(both.0.written()?, before.0), rate(both.1.written()?, before.1));
    let show = |rate: f64| format!("{rate:.0} B/s");
    report::versus(
        "idle bytes to disk, per member",
        show(rates.0),
        show(rates.1),
        rates.1 / rates.0.max(1.0),
        "≤ 1 kB/s",
    );
    Ok(())
}

async fn failovers(options: &Options, both: &mut Pair<Cluster>) -> Result<(), BenchError> {
    let mut times = Pair(Vec::new(), Vec::new());
    for _ in 0..options.kills {
        times.0.push(failover::measure(&mut both.0).await?);
        times.1.push(failover::measure(&mut both.1).await?);
    }
    for (what, share) in [("p50", 0.5), ("p99", 0.99)] {
        let pair = Pair(report::percentile(&mut times.0, share), report::percentile(&mut times.1, share));
        let ratio = pair.1.as_secs_f64() / pair.0.as_secs_f64();
        let what = format!("leader killed to next put, {what} of {}", options.kills);
        let budget = if share > 0.9 { "≤ 1 s" } else { "—" };
        report::versus(&what, report::millis(pair.0), report::millis(pair.1), ratio, budget);
    }
    Ok(())
}
