//! CPU time of containers: metering, `limits.cpu`, and fair shares without a limit.
//!
//! A guest yields every [`crate::engine::FUEL_YIELD_INTERVAL`] units of fuel; fuel says nothing
//! about time, so the thread's CPU clock is read around each poll of the guest's future
//! ([`Metered`]) and charged to the container's [`CpuAccount`]:
//!
//! - with a limit, the account is a token bucket in nanoseconds of CPU: once it is in debt,
//!   the guest sleeps until the debt is repaid;
//! - in any case turns are dealt by weight (deficit round robin, see [`Turns`]), so that a
//!   hundred busy guests share the threads by their requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use sampan_cri::ContainerResources;

/// How much CPU time a limited container may save up, as wall time at its rate.
const BURST: Duration = Duration::from_millis(20);
/// The longest sleep at once, so that a raised limit is felt soon.
const MAX_SLEEP: Duration = Duration::from_millis(200);
/// The CPU time of one full turn.
const TURN: i64 = 1_000_000;
/// A poll that took more CPU time than this was cut short by a yield.
const BUSY: u64 = 20_000;
/// How long a container counts as running after its last turn.
const WINDOW: Duration = Duration::from_millis(50);
/// The weight of a container that requests nothing, in thousandths of a core.
const LEAST_WEIGHT: u64 = 2;

/// CPU time that the calling thread has used.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A token bucket of CPU nanoseconds. Pure: time comes in as nanoseconds since some start.
#[derive(Debug)]
struct Bucket {
    tokens: i64,
    last: u64,
}

impl Bucket {
    /// Charges `used` at time `now` under a limit of `millis` thousandths of a core; gives the
    /// time until the debt, if there is one, is repaid.
    fn charge(&mut self, used: u64, now: u64, millis: u64) -> Option<Duration> {
        let millis = i64::try_from(millis.max(1)).unwrap_or(i64::MAX);
        let elapsed = i64::try_from(now.saturating_sub(self.last)).unwrap_or(i64::MAX);
        self.last = self.last.max(now);
        let burst = i64::try_from(BURST.as_nanos()).unwrap_or(i64::MAX).saturating_mul(millis) / 1000;
        let earned = elapsed.saturating_mul(millis) / 1000;
        self.tokens = self.tokens.saturating_add(earned).min(burst);
        self.tokens = self.tokens.saturating_sub(i64::try_from(used).unwrap_or(i64::MAX));
        let debt = u64::try_from(self.tokens.checked_neg()?).ok().filter(|debt| *debt > 0)?;
        Some(Duration::from_nanos(debt.saturating_mul(1000) / u64::try_from(millis).unwrap_or(1)))
    }
}

/// The CPU account of a container: what it used and what it may use.
#[derive(Debug)]
pub(crate) struct CpuAccount {
    used: AtomicU64,
    /// Thousandths of a core; 0 is no limit.
    limit_millis: AtomicU64,
    weight: AtomicU64,
    bucket: Mutex<Bucket>,
    turns: Arc<Turns>,
}

impl CpuAccount {
    /// An account under `resources`, dealt its turns by `turns`.
    #[must_use]
    pub(crate) fn new(resources: &ContainerResources, turns: Arc<Turns>) -> Self {
        let account = Self {
            used: AtomicU64::new(0),
            limit_millis: AtomicU64::new(0),
            weight: AtomicU64::new(LEAST_WEIGHT),
            bucket: Mutex::new(Bucket { tokens: 0, last: turns.now() }),
            turns,
        };
        account.set(resources);
        account
    }

    /// Changes limit and weight; running guests follow within a fifth of a second.
    pub(crate) fn set(&self, resources: &ContainerResources) {
        self.limit_millis.store(resources.cpu_limit_millis.unwrap_or(0), Relaxed);
        let weight = resources.cpu_request_millis.or(resources.cpu_limit_millis).unwrap_or(0);
        self.weight.store(weight.max(LEAST_WEIGHT), Relaxed);
    }

    /// CPU time used so far, in nanoseconds.
    #[must_use]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn charge(&self, used: u64) -> Option<Duration> {
        self.used.fetch_add(used, Relaxed);
        let limit = self.limit_millis.load(Relaxed);
        if limit == 0 {
            return None;
        }
        self.bucket.lock().charge(used, self.turns.now(), limit)
    }
}

/// Deals turns by weight among the guests that run on the same threads (deficit round robin).
///
/// The threads' run queue is the round; at each visit a guest is credited a turn in the
/// proportion of its weight to the greatest weight that ran lately, and runs when it is not in
/// debt. A guest alone has the greatest weight: it runs at each visit.
#[derive(Debug)]
pub(crate) struct Turns {
    start: Instant,
    /// The greatest weights of this window and of the one before: window, weight, weight before.
    greatest: Mutex<(u64, u64, u64)>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { start: Instant::now(), greatest: Mutex::new((0, 0, 0)) }
    }
}

impl Turns {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that a guest of `weight` wants to run; gives the greatest weight around.
    fn visit(&self, weight: u64) -> u64 {
        let window = self.now() / u64::try_from(WINDOW.as_nanos()).unwrap_or(1);
        let mut greatest = self.greatest.lock();
        let (current, weights, previous) = *greatest;
        if window != current {
            let previous = if window == current + 1 { weights } else { 0 };
            *greatest = (window, weight, previous);
            return weight.max(previous);
        }
        let weights = weights.max(weight);
        *greatest = (current, weights, previous);
        weights.max(previous)
    }
}

/// A guest's own place in the round: its credit in nanoseconds.
#[derive(Debug, Default)]
struct Deficit(i64);

impl Deficit {
    /// Whether the guest runs at this visit.
    fn visit(&mut self, weight: u64, greatest: u64) -> bool {
        let share = i64::try_from(weight).unwrap_or(i64::MAX).saturating_mul(TURN)
            / i64::try_from(greatest.max(1)).unwrap_or(i64::MAX);
        self.0 = self.0.saturating_add(share.max(1)).min(TURN);
        self.0 >= 0
    }

    fn charge(&mut self, used: u64) {
        self.0 = self.0.saturating_sub(i64::try_from(used).unwrap_or(i64::MAX)).max(-16 * TURN);
    }
}

/// A guest's future, metered and held to its container's account.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    account: Arc<CpuAccount>,
    deficit: Deficit,
    /// Whether the guest yielded with more to do (and not to wait for something).
    busy: bool,
}

impl<F: Future> Metered<F> {
    /// Meters `inner` on `account`.
    pub(crate) fn new(inner: F, account: Arc<CpuAccount>) -> Self {
        Self { inner: Box::pin(inner), sleep: None, account, deficit: Deficit::default(), busy: false }
    }

    fn has_turn(&mut self) -> bool {
        if !self.busy {
            return true;
        }
        let weight = self.account.weight.load(Relaxed);
        self.deficit.visit(weight, self.account.turns.visit(weight))
    }

    /// Sleeps off a debt; the timer is registered here, so that the guest's own wake-ups
    /// find it asleep.
    fn sleep_off(&mut self, debt: Duration, cx: &mut Context<'_>) {
        let mut sleep = Box::pin(tokio::time::sleep(debt.min(MAX_SLEEP)));
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        } else {
            self.sleep = Some(sleep);
        }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let me = self.get_mut();
        if let Some(sleep) = me.sleep.as_mut() {
            ready!(sleep.as_mut().poll(cx));
            me.sleep = None;
        }
        if !me.has_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = thread_cpu();
        let polled = me.inner.as_mut().poll(cx);
        let used = thread_cpu().saturating_sub(before);
        let debt = me.account.charge(used);
        if polled.is_pending() {
            // A poll this long ended at a yield point, or as good as: the guest is busy.
            me.busy = used > BUSY;
            me.deficit.charge(used);
            if let Some(debt) = debt {
                me.sleep_off(debt, cx);
            }
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a busy loop of `slice` ns turns for `wall` ns under the bucket; gives CPU used.
    fn busy(millis: u64, slice: u64, wall: u64) -> u64 {
        let mut bucket = Bucket { tokens: 0, last: 0 };
        let (mut now, mut used) = (0, 0);
        while now < wall {
            now += slice;
            used += slice;
            if let Some(sleep) = bucket.charge(slice, now, millis) {
                // Timers are late, never early.
                now += u64::try_from(sleep.as_nanos()).unwrap() + 900_000;
            }
        }
        used
    }

    #[test]
    fn a_busy_loop_gets_its_limit_and_no_more() {
        for (millis, slice) in [(10, 50_000), (100, 50_000), (100, 2_000_000), (500, 300_000), (900, 50_000)]
        {
            let wall = 10_000_000_000;
            let used = busy(millis, slice, wall);
            let allowed = wall * millis / 1000;
            assert!(used <= allowed + 20_000_000 + 2 * slice, "{millis}m used {used} of {allowed}");
            assert!(used >= allowed * 95 / 100, "{millis}m used only {used} of {allowed}");
        }
    }

    #[test]
    fn idle_time_is_saved_up_only_as_far_as_the_burst() {
        let mut bucket = Bucket { tokens: 0, last: 0 };
        assert_eq!(bucket.charge(0, 3_600_000_000_000, 500), None);
        assert_eq!(bucket.tokens, 10_000_000);
    }

    #[test]
    fn turns_follow_weights() {
        let (mut light, mut heavy) = (Deficit::default(), Deficit::default());
        let mut ran = [0_u64; 2];
        for _ in 0..10_000 {
            for (index, (deficit, weight)) in [(&mut light, 100), (&mut heavy, 400)].into_iter().enumerate() {
                if deficit.visit(weight, 400) {
                    deficit.charge(500_000 + 500_000);
                    ran[index] += 1;
                }
            }
        }
        let ratio = ran[1] as f64 / ran[0] as f64;
        assert!((3.9..4.1).contains(&ratio), "{ran:?}");
    }

    #[test]
    fn a_guest_alone_runs_at_each_visit() {
        let turns = Turns::default();
        let mut deficit = Deficit::default();
        for _ in 0..100 {
            assert!(deficit.visit(2, turns.visit(2)));
            deficit.charge(100_000);
        }
    }
}
