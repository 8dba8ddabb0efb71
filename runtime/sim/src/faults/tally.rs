//! What the rounds came to, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::Fault;
use super::writer::Acknowledged;
use crate::report::{millis, percentile};

/// What the rounds of one fault came to.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) rounds: usize,
    pub(super) elections: Vec<Duration>,
    pub(super) whole_again: Vec<Duration>,
    pub(super) lost: usize,
}

/// Prints the table.
pub(super) fn summary(
    tallies: &mut BTreeMap<Fault, Tally>,
    acknowledged: &Acknowledged,
    took: Duration,
    lost: &[String],
) {
    println!(
        "\n| fault | rounds | next write after, p50 | p99 | whole again, p50 | p99 | acknowledged writes lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut elections = Vec::new();
    for (fault, tally) in tallies.iter_mut() {
        elections.extend(tally.elections.iter().copied());
        let show = |times: &mut Vec<Duration>, share: f64| {
            if times.is_empty() { "—".to_owned() } else { millis(percentile(times, share)) }
        };
        println!(
            "| {fault:?} | {} | {} | {} | {} | {} | {} |",
            tally.rounds,
            show(&mut tally.elections, 0.5),
            show(&mut tally.elections, 0.99),
            show(&mut tally.whole_again, 0.5),
            show(&mut tally.whole_again, 0.99),
            tally.lost
        );
    }
    println!(
        "\nleader gone to next write: p50 {}, p99 {} over {} rounds (budget 1 s)",
        millis(percentile(&mut elections, 0.5)),
        millis(percentile(&mut elections, 0.99)),
        elections.len()
    );
    println!(
        "{} writes acknowledged in {:.0} s, {} of them missing at the end",
        acknowledged.count(),
        took.as_secs_f64(),
        lost.len()
    );
}
