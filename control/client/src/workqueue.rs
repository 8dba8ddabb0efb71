//! The work queue of a controller: each key at most once in the queue and never worked on by
//! two workers at a time; failures come back after a growing delay.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First delay after a failure.
const BASE_DELAY: Duration = Duration::from_millis(5);
/// Longest delay after repeated failures.
const MAX_DELAY: Duration = Duration::from_secs(60);

struct State<T> {
    /// Ready keys, oldest first.
    ready: VecDeque<T>,
    /// Keys that are ready or must become so when their worker is done.
    dirty: HashSet<T>,
    /// Keys that a worker holds.
    processing: HashSet<T>,
    /// Keys that become ready later.
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, T>,
    next_delayed: u64,
    failures: HashMap<T, u32>,
}

/// A queue of keys. Cheap to clone; all clones share the queue.
pub struct WorkQueue<T> {
    state: Arc<Mutex<State<T>>>,
    wake: Arc<Notify>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), wake: self.wake.clone() }
    }
}

impl<T> Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").field("ready", &self.state.lock().ready.len()).finish_non_exhaustive()
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BinaryHeap::new(),
            delayed_keys: HashMap::new(),
            next_delayed: 0,
            failures: HashMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), wake: Arc::new(Notify::new()) }
    }

    /// Adds a key now. A key that is being worked on is worked on once more afterwards.
    pub fn add(&self, key: T) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// Adds a key after a delay.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        let id = state.next_delayed;
        state.next_delayed += 1;
        state.delayed.push(Reverse((Instant::now() + delay, id)));
        state.delayed_keys.insert(id, key);
        drop(state);
        self.wake.notify_one();
    }

    /// Adds a key after a delay that doubles with each failure since the last [`Self::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.state.lock();
            let count = state.failures.entry(key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        self.add_after(key, delay_after(failures));
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &T) {
        self.state.lock().failures.remove(key);
    }

    /// The next key; its worker calls [`Self::done`] afterwards.
    pub async fn next(&self) -> T {
        loop {
            let until = {
                let mut state = self.state.lock();
                let until = state.promote(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return key;
                }
                until
            };
            match until {
                Some(until) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                },
                None => self.wake.notified().await,
            }
        }
    }

    /// Gives a key back.
    pub fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.wake.notify_one();
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if self.dirty.insert(key.clone()) && !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    /// Moves the keys whose time has come to the queue; returns when the next one's comes.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.delayed.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.delayed.pop();
            if let Some(key) = self.delayed_keys.remove(&id) {
                self.add(key);
            }
        }
        None
    }
}

/// The delay after so many earlier failures.
fn delay_after(failures: u32) -> Duration {
    BASE_DELAY.saturating_mul(1 << failures.min(20)).min(MAX_DELAY)
}

/// What a reconciliation wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Wait,
    /// Look again after this time.
    After(Duration),
}

/// The loop of every controller: takes keys from `queue` with `workers` tasks and reconciles
/// them; a failure is logged and the key comes back later. Ends with `shutdown`.
pub async fn run_workers<T, F, Fut, E>(
    name: &'static str,
    queue: WorkQueue<T>,
    workers: usize,
    shutdown: CancellationToken,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Debug + Send + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Next, E>> + Send,
    E: std::error::Error + Send,
{
    let reconcile = Arc::new(reconcile);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers.max(1) {
        let (queue, shutdown, reconcile) = (queue.clone(), shutdown.clone(), reconcile.clone());
        tasks.spawn(async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = queue.next() => key,
                };
                match reconcile(key.clone()).await {
                    Ok(next) => {
                        queue.forget(&key);
                        if let Next::After(delay) = next {
                            queue.add_after(key.clone(), delay);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(controller = name, ?key, error = %crate::informer::chain(&error), "retrying");
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_twice_is_worked_on_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_key_added_while_worked_on_comes_again_when_done() {
        let queue = WorkQueue::new();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        assert!(queue.is_empty(), "no second worker may get it");
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[test]
    fn delays_grow_with_failures_up_to_a_limit() {
        let delays: Vec<_> = [0, 1, 2, 30].into_iter().map(delay_after).collect();
        assert_eq!(delays[0], BASE_DELAY);
        assert_eq!(delays[1], BASE_DELAY * 2);
        assert_eq!(delays[2], BASE_DELAY * 4);
        assert_eq!(delays[3], MAX_DELAY);
    }

    #[tokio::test]
    async fn forgetting_a_key_resets_its_failures() {
        let queue = WorkQueue::new();
        queue.add_rate_limited("a");
        queue.add_rate_limited("a");
        assert_eq!(queue.state.lock().failures.get("a"), Some(&2));
        queue.forget(&"a");
        assert_eq!(queue.state.lock().failures.get("a"), None);
    }

    #[tokio::test]
    async fn delayed_keys_become_ready_in_the_order_of_their_times() {
        let queue = WorkQueue::new();
        queue.add_after("late", Duration::from_secs(60));
        queue.add_after("soon", Duration::from_secs(1));
        let mut state = queue.state.lock();
        let now = Instant::now();
        assert!(state.promote(now).is_some_and(|at| at <= now + Duration::from_secs(1)));
        state.promote(now + Duration::from_secs(2));
        assert_eq!(state.take(), Some("soon"));
        assert_eq!(state.take(), None);
        state.promote(now + Duration::from_secs(61));
        assert_eq!(state.take(), Some("late"));
    }

    #[tokio::test]
    async fn every_ready_key_reaches_a_worker() {
        let queue = WorkQueue::new();
        for n in 0..100 {
            queue.add(n);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let queue = queue.clone();
            tasks.spawn(async move {
                for _ in 0..25 {
                    let key = queue.next().await;
                    queue.done(&key);
                }
            });
        }
        tasks.join_all().await;
        assert!(queue.is_empty());
    }
}
