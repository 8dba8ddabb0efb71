//! A histogram by powers of two, of half a kilobyte.
//!
//! openraft counts the sizes of its batches in histograms of the crate `base2histogram`, which fills
//! tables of 26 MiB when the first is made: more than all else that an idle node has in memory. No
//! feature of either crate turns that off. This one has the part of its interface that openraft
//! uses without its feature `runtime-stats`, written anew: counts by power of two and nothing
//! precomputed. It goes when the other builds its tables on demand.

use std::fmt;
use std::marker::PhantomData;

/// One bucket for 0, and one for each power of two.
const BUCKETS: usize = u64::BITS as usize + 1;

/// Counts values by the number of their bits. `T` is what a period would be called; there is one
/// period here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    period: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], period: PhantomData }
    }
}

impl<T> Histogram<T> {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(held) = self.counts.get_mut(bits) {
            *held = held.saturating_add(count);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |total, count| total.saturating_add(*count))
    }

    /// The largest value that may stand at this part (0 to 1) of all values in order; 0 without values.
    pub fn percentile(&self, part: f64) -> u64 {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank, to within a power of two"
        )]
        let rank = (self.total() as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0_u64;
        for (bits, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if *count > 0 && seen >= rank.max(1) {
                return u64::MAX
                    .checked_shr(u64::BITS - u32::try_from(bits).unwrap_or(u64::BITS))
                    .unwrap_or(0);
            }
        }
        0
    }

    /// The usual percentiles.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

/// The usual percentiles, each to within a power of two.
#[allow(missing_docs, reason = "each is named after what it is")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, .. } = self;
        write!(f, "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}")
    }
}

/// Several histograms for people, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(&'static str, PercentileStats)>,
}

impl AsciiChart {
    /// An empty chart.
    pub fn new() -> Self {
        Self::default()
    }

    /// The chart with one more histogram.
    #[must_use]
    pub fn add<T>(mut self, name: &'static str, histogram: Histogram<T>) -> Self {
        self.lines.push((name, histogram.percentile_stats()));
        self
    }

    /// With all there is to tell, which is what a line has anyway.
    pub fn detailed(&self) -> &Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_within_a_power_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile(0.5), 0);
        for value in 1..=100 {
            histogram.record(value);
        }
        histogram.record_n(u64::MAX, 1);
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 101);
        for (part, exact) in [(stats.p50, 51), (stats.p90, 91), (stats.p99, 100)] {
            assert!(part >= exact && part <= 2 * exact, "{part} for {exact}");
        }
        assert_eq!(histogram.percentile(1.0), u64::MAX);
    }
}
