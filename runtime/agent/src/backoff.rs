//! Pauses between tries: doubling, bounded, and never the same on two machines.

use std::time::Duration;

/// The pauses after failures in a row.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The pause after another failure: half of it is certain, the rest is chance.
    pub(crate) fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.most);
        pause / 2 + jitter(pause / 2)
    }

    /// It worked: the next failure is a first one.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random part of `span`.
pub(crate) fn jitter(span: Duration) -> Duration {
    // Without a source of chance the whole span is as good as any part.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    span.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 4 * second);
        for whole in [1, 2, 4, 4] {
            let pause = backoff.failed();
            assert!(pause >= second * whole / 2 && pause <= second * whole, "{pause:?} of {whole} s");
        }
        backoff.reset();
        assert!(backoff.failed() <= second);
    }
}
