//! Deterministic simulation of the replicated store: real members, log and tables included, on a
//! network, disks and clocks that fail as a seed says; an oracle judges what clients saw.
//!
//! `SIM_SEEDS=3000` runs so many seeds, `SIM_FROM=n` from `n` on; `SIM_SEED=n` replays one, aloud
//! with `SIM_TRACE=1`. Each seed runs on one thread of a process of its own (libraries count things
//! per process) and always the same way, however it was compiled: `--config .ci/simulation.toml`
//! makes seeds ten times as fast, and compiling slower.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a simulation that is wrong itself fails loudly"
)]

mod clients;
mod committed;
mod counts;
mod desk;
mod disk;
mod ending;
mod hermetic;
mod history;
mod linear;
mod member;
mod nemesis;
mod net;
mod oracle;
mod report;
mod script;
mod sim;
mod trace;

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use report::Report;

/// How many seeds run if nobody says how many.
const SEEDS: u64 = 60;
/// From so many seeds on, everything that can happen must have happened.
const MANY: u64 = 300;
/// How long one seed may take; the slowest take a few seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Begins the line in which a seed's process reports.
const REPORT: &str = "report: ";
/// How many failing seeds are told of before the rest is left.
const ENOUGH: usize = 3;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What a task on this thread panicked with, if one did.
pub(crate) fn panicked() -> Option<String> {
    PANIC.take()
}

/// Tasks that panic take nobody with them: the hook remembers that they did.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if hermetic::is_simulated() {
                PANIC.set(Some(format!("{info}\n{}", std::backtrace::Backtrace::capture())));
            } else {
                before(info);
            }
        }));
    });
}

/// A place in memory, where there is one.
fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("sampan-sim-").tempdir_in(parent).unwrap()
}

/// Runs a seed on a thread of its own, where randomness and clocks are the simulation's.
fn run(seed: u64, aloud: bool) -> Result<Report, (String, String)> {
    watch_panics();
    let dir = scratch();
    let path = dir.path().to_owned();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20);
    let running = thread.spawn(move || {
        hermetic::enter(seed);
        sim::run(seed, &path, aloud)
    });
    let ended = running.unwrap().join();
    ended.unwrap_or_else(|_| Err(("the simulation itself panicked".to_owned(), String::new())))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted")))
}

/// This process is one seed's.
fn be_one(seed: u64) {
    match run(seed, number("SIM_TRACE").is_some()) {
        Ok(report) => println!("\n{REPORT}{}", report.to_line()),
        Err((why, tail)) => {
            println!("\n---- the end of what happened\n{tail}----");
            println!("seed {seed} fails: {why}");
            println!(
                "replay it: SIM_SEED={seed} SIM_TRACE=1 cargo test -p sampan-raft --test sim seeds -- --nocapture"
            );
            std::process::exit(1);
        }
    }
}

/// Runs a seed in a process of its own; an error is what it said.
fn in_a_process(seed: u64) -> Result<Report, String> {
    let said = tempfile::tempfile().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["seeds_are_survived", "--exact", "--nocapture"])
        .env("SIM_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said.try_clone().unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut text = String::new();
    let mut said = said;
    std::io::Seek::rewind(&mut said).unwrap();
    std::io::Read::read_to_string(&mut said, &mut text).unwrap();
    let report = text.lines().find_map(|line| line.strip_prefix(REPORT)).and_then(Report::from_line);
    match (status, report) {
        (Some(status), Some(report)) if status.success() => Ok(report),
        (Some(_), _) => Err(text),
        (None, _) => Err(format!("{text}seed {seed} fails: it takes more than {PATIENCE:?}")),
    }
}

#[test]
fn seeds_are_survived() {
    if let Some(seed) = number("SIM_SEED") {
        return be_one(seed);
    }
    let begin = Instant::now();
    let (first, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let totals: Mutex<Report> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().len() >= ENOUGH {
                        return;
                    }
                    match in_a_process(seed) {
                        Ok(report) => totals.lock().add(&report),
                        Err(said) => {
                            failed.lock().push(seed);
                            println!("{said}");
                        }
                    }
                }
            });
        }
    });
    let totals = totals.into_inner();
    println!("{count} seeds in {:.1} s: {}", begin.elapsed().as_secs_f64(), totals.describe());
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "seeds fail: {failed:?}");
    let summary = &totals.summary;
    assert!(summary.undecided * 50 <= summary.histories, "too many histories were too hard to judge");
    assert!(summary.acknowledged > count * 20, "too little happened to show anything");
    let missing = totals.missing();
    assert!(count < MANY || missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in [3, 17, 54] {
        let runs = [in_a_process(seed), in_a_process(seed)];
        let [Ok(first), Ok(second)] = &runs else { panic!("seed {seed}: {runs:?}") };
        assert_eq!(first, second, "seed {seed}");
    }
    let (one, other) = (in_a_process(1).unwrap(), in_a_process(2).unwrap());
    assert_ne!(one.fingerprint, other.fingerprint);
}
