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
