//! One timer for all pods: each pod has at most one time at which it wants to be looked at.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    wanted: HashMap<String, Timestamp>,
    heap: BinaryHeap<Reverse<(Timestamp, String)>>,
}

/// The times at which pods want to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    state: Mutex<State>,
    changed: Notify,
}

impl Timers {
    /// Sets, moves or (with `None`) clears a pod's time.
    pub(crate) fn set(&self, uid: &str, at: Option<Timestamp>) {
        let mut state = self.state.lock();
        let Some(at) = at else {
            state.wanted.remove(uid);
            return;
        };
        if state.wanted.get(uid) == Some(&at) {
            return;
        }
        state.wanted.insert(uid.to_owned(), at);
        let first = state.heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        state.heap.push(Reverse((at, uid.to_owned())));
        drop(state);
        if first {
            self.changed.notify_one();
        }
    }

    /// The pods whose time has come, and when the next one's comes.
    pub(crate) fn due(&self, now: Timestamp) -> (Vec<String>, Option<Timestamp>) {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while let Some(Reverse((at, uid))) = state.heap.peek() {
            let current = state.wanted.get(uid) == Some(at);
            if current && *at > now {
                return (due, Some(*at));
            }
            let Some(Reverse((_, uid))) = state.heap.pop() else { break };
            if current {
                state.wanted.remove(&uid);
                due.push(uid);
            }
        }
        (due, None)
    }

    /// Waits until something is due; returns what.
    pub(crate) async fn next(&self) -> Vec<String> {
        loop {
            let now = Timestamp::now();
            let (due, next) = self.due(now);
            if !due.is_empty() {
                return due;
            }
            match next {
                None => self.changed.notified().await,
                Some(at) => {
                    let pause = std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    tokio::select! {
                        () = self.changed.notified() => {}
                        // Whole milliseconds of slack: waking a moment too early would spin.
                        () = tokio::time::sleep(pause + std::time::Duration::from_millis(1)) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn each_pod_is_due_once_at_its_latest_wish() {
        let timers = Timers::default();
        timers.set("a", Some(at(10)));
        timers.set("b", Some(at(5)));
        timers.set("a", Some(at(20)));
        timers.set("c", Some(at(7)));
        timers.set("c", None);
        assert_eq!(timers.due(at(4)), (vec![], Some(at(5))));
        assert_eq!(timers.due(at(15)), (vec!["b".to_owned()], Some(at(20))));
        assert_eq!(timers.due(at(20)), (vec!["a".to_owned()], None));
        assert_eq!(timers.due(at(99)), (vec![], None));
    }

    #[tokio::test]
    async fn a_nearer_time_wakes_who_waits_for_a_farther_one() {
        let timers = std::sync::Arc::new(Timers::default());
        timers.set("far", Timestamp::now().checked_add(jiff::SignedDuration::from_hours(1)).ok());
        let waiter = tokio::spawn({
            let timers = timers.clone();
            async move { timers.next().await }
        });
        tokio::task::yield_now().await;
        timers.set("near", Some(Timestamp::now()));
        assert_eq!(waiter.await.unwrap(), ["near"]);
    }
}
