//! Benchmarks of the built binary. Each section prints the rows of a table beside the budget;
//! nothing here asserts. Build with `cargo build --release` first.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

mod density;
mod disk;
mod faults;
mod http_load;
mod idle;
mod node;
mod pod_start;
mod process;
mod report;
mod rivals;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::node::BenchError;

/// Measures a built `sampan` and prints figures beside their budgets.
#[derive(Debug, Parser)]
struct Args {
    /// The binary to measure
    #[arg(long, default_value = "target/release/sampan")]
    sampan: PathBuf,
    /// What to measure; several may be named
    #[arg(value_enum, default_values_t = [Section::Start, Section::Idle, Section::Pods, Section::Http, Section::Density])]
    sections: Vec<Section>,
    /// Pods created one after the other
    #[arg(long, default_value_t = 1000)]
    in_a_row: usize,
    /// Pods created at once
    #[arg(long, default_value_t = 200)]
    at_once: usize,
    /// Idle HTTP pods whose memory is measured
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10000])]
    density: Vec<usize>,
    /// Seconds of idling and of load
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// The etcd to compare with
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Members of the clusters that are compared
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    members: Vec<usize>,
    /// Clients that put at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1000])]
    clients: Vec<usize>,
    /// How often each load is run; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 5)]
    load_seconds: u64,
    /// How many leaders are killed to measure failover
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How many faults real servers must survive
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// Which faults; all of them where none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<faults::Fault>,
    /// Where the logs of servers under faults stay
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Leave out the agent behind a NAT
    #[arg(long)]
    no_agent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Section {
    Start,
    Idle,
    Pods,
    Http,
    Density,
    /// The store beside etcd; needs root and etcd
    Store,
    /// Servers on machines of their own (network namespaces; needs root) survive what can happen
    Faults,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Fails only where one is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    report::header();
    for section in &args.sections {
        if let Err(error) = run(*section, &args).await {
            println!("{section:?} failed: {error}");
            println!("{error:?}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

impl Args {
    fn rivals(&self) -> rivals::Options {
        rivals::Options {
            sampan: self.sampan.clone(),
            etcd: self.etcd.clone(),
            members: self.members.clone(),
            clients: self.clients.clone(),
            rounds: self.rounds,
            seconds: self.load_seconds,
            kills: self.kills,
            idle_seconds: self.idle_seconds,
        }
    }
}

async fn run(section: Section, args: &Args) -> Result<(), BenchError> {
    match section {
        Section::Start => start::run(&args.sampan).await,
        Section::Idle => idle::run(&args.sampan, args.idle_seconds).await,
        Section::Pods => pod_start::run(&args.sampan, args.in_a_row, args.at_once).await,
        Section::Http => http_load::run(&args.sampan).await,
        Section::Density => density::run(&args.sampan, &args.density).await,
        Section::Faults => {
            let (sampan, rounds, agent) = (args.sampan.clone(), args.faults, !args.no_agent);
            let (only, logs) = (args.only.clone(), args.logs.clone());
            faults::run(&faults::Options { sampan, rounds, only, logs, agent }).await
        }
        Section::Store => rivals::run(&args.rivals()).await,
    }
}
