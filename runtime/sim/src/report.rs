//! The printed table.

use std::time::Duration;

/// Prints the machine and the table's head.
pub(crate) fn header() {
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} cores, Linux {}, {}\n",
        cores,
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy()
    );
    println!("| what | measured | budget |");
    println!("|---|---|---|");
}

/// Prints a row.
pub(crate) fn row(what: &str, measured: impl std::fmt::Display, budget: &str) {
    println!("| {what} | {measured} | {budget} |");
}

/// A duration in milliseconds.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Bytes in MB.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The value below which `share` (0 to 1) of the samples lie. Sorts them.
pub(crate) fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    let last = samples.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    samples.get(at).copied().unwrap_or_default()
}

/// Prints the head of a table of two systems.
pub(crate) fn versus_header() {
    println!("| what | etcd | sampan | ratio | budget |");
    println!("|---|---|---|---|---|");
}

/// Prints a row of it.
pub(crate) fn versus(
    what: &str,
    etcd: impl std::fmt::Display,
    sampan: impl std::fmt::Display,
    ratio: f64,
    budget: &str,
) {
    println!("| {what} | {etcd} | {sampan} | {ratio:.2} | {budget} |");
}

/// The middle one of some figures; 0 where there are none.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}
