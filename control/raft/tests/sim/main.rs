//! Deterministic simulation of the replicated store: real members, log and tables included, on a
//! network, disks and clocks that fail as a seed says; an oracle judges what clients saw.
//!
//! `SIM_SEEDS=3000` runs so many seeds, `SIM_FROM=n` from `n` on; `SIM_SEED=n` replays one, aloud
//! with `SIM_TRACE=1`. Each seed runs on one thread of its own and always the same way.

mod clients;
mod disk;
mod hermetic;
mod history;
mod linear;
mod member;
mod nemesis;
mod net;
mod oracle;
mod script;
mod sim;
mod trace;

use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use sim::Report;

/// How many seeds run if nobody says how many.
const SEEDS: u64 = 200;
const THREADS: usize = 2;
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

/// Runs a seed on a thread of its own, so that nothing of another run is left in it.
fn run(seed: u64, aloud: bool) -> Result<Report, (String, String)> {
    watch_panics();
    let dir = scratch();
    let path = dir.path().to_owned();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20);
    let running = thread.spawn(move || {
        hermetic::enter(seed);
        sim::run(seed, &path, aloud)
    });
    running
        .unwrap()
        .join()
        .unwrap_or_else(|_| Err((format!("seed {seed}: the simulation itself panicked"), String::new())))
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is wanted")))
}

fn tell(seed: u64, why: &str, tail: &str) {
    println!("---- the end of what happened\n{tail}----");
    println!("seed {seed} fails: {why}");
    println!(
        "replay it: SIM_SEED={seed} SIM_TRACE=1 cargo test -p sampan-raft --test sim seeds -- --nocapture"
    );
}

#[test]
fn seeds_are_survived() {
    if let Some(seed) = number("SIM_SEED") {
        match run(seed, number("SIM_TRACE").is_some()) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err((why, tail)) => {
                tell(seed, &why, &tail);
                panic!("seed {seed} fails");
            }
        }
        return;
    }
    let begin = Instant::now();
    let (first, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(first);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let totals: Mutex<(u64, usize, usize, usize, usize, usize)> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().len() >= ENOUGH {
                        return;
                    }
                    match run(seed, false) {
                        Ok(report) => {
                            let mut totals = totals.lock();
                            totals.0 += report.simulated;
                            totals.1 += report.summary.acknowledged;
                            totals.2 += report.summary.unknown;
                            totals.3 += report.summary.revisions;
                            totals.4 += report.summary.undecided;
                            totals.5 += report.summary.listings_checked;
                        }
                        Err((why, tail)) => {
                            failed.lock().push(seed);
                            tell(seed, &why, &tail);
                        }
                    }
                }
            });
        }
    });
    let (simulated, acknowledged, unknown, revisions, undecided, listings) = totals.into_inner();
    println!(
        "{count} seeds in {:.1} s: {} s simulated, {acknowledged} operations acknowledged, {unknown} unknown, {revisions} revisions, {listings} lists checked, {undecided} histories undecided",
        begin.elapsed().as_secs_f64(),
        simulated / 1000
    );
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "seeds fail: {failed:?}");
    assert!(undecided as u64 * 20 <= count, "too many histories were too hard to judge");
    assert!(acknowledged as u64 > count * 20, "too little happened to show anything");
}

#[test]
fn a_seed_runs_the_same_way_each_time() {
    for seed in [3, 17, 101] {
        let runs = [run(seed, false), run(seed, false)];
        let [Ok(first), Ok(second)] = &runs else { panic!("seed {seed}: {runs:?}") };
        assert_eq!(first, second, "seed {seed}");
    }
    let (one, other) = (run(1, false).unwrap(), run(2, false).unwrap());
    assert_ne!(one.fingerprint, other.fingerprint);
}
