//! How often strangers may make the servers agree on something: each question to all of them costs
//! every one a write to its log. Machines whose token or key is known here are not strangers.

use parking_lot::Mutex;
use sampan_api::status::Status;
use std::time::Instant;

/// So many at once.
const BURST: f64 = 20.0;
/// And so many a second from then on.
const RATE: f64 = 2.0;

/// A bucket of permissions that fills slowly.
pub(super) struct Limiter {
    state: Mutex<(f64, Instant)>,
}

impl Limiter {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new((BURST, Instant::now())) }
    }

    /// Takes one permission, or refuses with 429.
    pub(super) fn take(&self) -> Result<(), Status> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (left, granted) = step(state.0, now.duration_since(state.1).as_secs_f64());
        *state = (left, now);
        if granted {
            return Ok(());
        }
        Err(Status::too_many_requests(
            "too many machines that are not known here ask to join; try again in a moment",
            1,
        ))
    }
}

/// What is left in the bucket after `seconds`, and whether one permission was in it.
fn step(left: f64, seconds: f64) -> (f64, bool) {
    let filled = (left + seconds * RATE).min(BURST);
    if filled >= 1.0 { (filled - 1.0, true) } else { (filled, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_a_few_a_second() {
        let limiter = Limiter::new();
        let granted = (0..100).filter(|_| limiter.take().is_ok()).count();
        assert!((20..25).contains(&granted), "{granted}");
        assert_eq!(step(0.0, 0.4), (0.8, false));
        assert_eq!(step(0.8, 0.1), (0.0, true));
        assert_eq!(step(0.0, 3600.0), (BURST - 1.0, true));
    }
}
