//! The pods that wait for a node: ready ones by priority and age, ones that back off after a
//! failure, and unschedulable ones that wait until something changes that may help them.
//! No I/O and no clock: time comes in with every call.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::framework::{ClusterEvent, Framework};

/// First wait after a failed attempt; it doubles with each one.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// An unschedulable pod is tried again after this long even if nothing seems to have changed.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// A pod that waits.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it came.
    since: Instant,
    /// How many helpful events the queue had seen when the pod was last taken out.
    events_seen: u64,
    /// Who refused it last.
    refused_by: Vec<&'static str>,
}

impl QueuedPod {
    /// The pod's UID.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn priority(&self) -> i32 {
        self.pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0)
    }

    fn backoff(&self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(10);
        INITIAL_BACKOFF.saturating_mul(1 << doublings).min(MAX_BACKOFF)
    }
}

/// The order in which ready pods are taken: priority, then age, then UID.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReadyKey {
    priority: i32,
    since: Instant,
    uid: String,
}

impl Ord for ReadyKey {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .priority
            .cmp(&self.priority)
            .then(self.since.cmp(&other.since))
            .then_with(|| self.uid.cmp(&other.uid))
    }
}

impl PartialOrd for ReadyKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Debug)]
enum Place {
    Ready(ReadyKey),
    BackingOff(Instant),
    Unschedulable { retry_at: Instant },
}

/// See the module.
#[derive(Debug, Default)]
pub struct SchedulingQueue {
    pods: HashMap<String, (QueuedPod, Place)>,
    ready: BTreeSet<ReadyKey>,
    /// Times at which a pod that waits becomes ready.
    timers: BTreeSet<(Instant, String)>,
    events: u64,
}

impl SchedulingQueue {
    /// A pod came that has no node yet, or one that waits here was changed.
    pub fn set(&mut self, pod: Arc<Pod>, framework: &Framework, now: Instant) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        match self.take_out(&uid) {
            None => {
                let queued = QueuedPod {
                    pod,
                    attempts: 0,
                    since: now,
                    events_seen: self.events,
                    refused_by: Vec::new(),
                };
                self.make_ready(queued);
            }
            Some((mut queued, place)) => {
                let changed =
                    queued.pod.spec != pod.spec || queued.pod.metadata.labels != pod.metadata.labels;
                queued.pod = pod;
                match place {
                    Place::Ready(_) => self.make_ready(queued),
                    Place::Unschedulable { .. }
                        if changed && framework.may_help(&queued.refused_by, ClusterEvent::PodUpdated) =>
                    {
                        self.back_off(queued, now);
                    }
                    place => self.put_back(queued, place),
                }
            }
        }
    }

    /// A pod is gone, or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.take_out(uid);
    }

    /// The next pod to try, if one is ready.
    pub fn pop(&mut self, now: Instant) -> Option<QueuedPod> {
        self.run_timers(now);
        let key = self.ready.first()?.clone();
        let (mut queued, _) = self.take_out(&key.uid)?;
        queued.attempts += 1;
        queued.events_seen = self.events;
        Some(queued)
    }

    /// No node took the pod. It waits for an event that may help; if one came while it was
    /// being tried, it only backs off.
    pub fn set_unschedulable(&mut self, mut queued: QueuedPod, refused_by: Vec<&'static str>, now: Instant) {
        let missed_event = queued.events_seen != self.events;
        queued.refused_by = refused_by;
        if missed_event {
            self.back_off(queued, now);
        } else {
            self.put_back(queued, Place::Unschedulable { retry_at: now + STUCK_AFTER });
        }
    }

    /// Trying or binding the pod failed for a reason that may pass.
    pub fn set_failed(&mut self, queued: QueuedPod, now: Instant) {
        self.back_off(queued, now);
    }

    /// Something happened: pods that it may help are tried again, after their back-off.
    pub fn on_event(&mut self, event: ClusterEvent, framework: &Framework, now: Instant) {
        self.events += 1;
        let helped: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, (queued, place))| {
                matches!(place, Place::Unschedulable { .. }) && framework.may_help(&queued.refused_by, event)
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in helped {
            if let Some((queued, Place::Unschedulable { retry_at })) = self.take_out(&uid) {
                // The wait so far counts against the back-off.
                let refused_at = retry_at.checked_sub(STUCK_AFTER).unwrap_or(now);
                self.put_back_at(queued, refused_at, now);
            }
        }
    }

    /// When the next waiting pod becomes ready by time alone.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many pods wait, ready or not.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            match self.take_out(&uid) {
                Some((queued, _)) => self.make_ready(queued),
                None => {
                    self.timers.remove(&(at, uid));
                }
            }
        }
    }

    fn back_off(&mut self, queued: QueuedPod, now: Instant) {
        self.put_back_at(queued, now, now);
    }

    fn put_back_at(&mut self, queued: QueuedPod, failed_at: Instant, now: Instant) {
        let until = failed_at + queued.backoff();
        if until <= now { self.make_ready(queued) } else { self.put_back(queued, Place::BackingOff(until)) }
    }

    fn make_ready(&mut self, queued: QueuedPod) {
        let key = ReadyKey { priority: queued.priority(), since: queued.since, uid: queued.uid().to_owned() };
        self.put_back(queued, Place::Ready(key));
    }

    fn put_back(&mut self, queued: QueuedPod, place: Place) {
        let uid = queued.uid().to_owned();
        match &place {
            Place::Ready(key) => {
                self.ready.insert(key.clone());
            }
            Place::BackingOff(at) | Place::Unschedulable { retry_at: at } => {
                self.timers.insert((*at, uid.clone()));
            }
        }
        self.pods.insert(uid, (queued, place));
    }

    fn take_out(&mut self, uid: &str) -> Option<(QueuedPod, Place)> {
        let (queued, place) = self.pods.remove(uid)?;
        match &place {
            Place::Ready(key) => {
                self.ready.remove(key);
            }
            Place::BackingOff(at) | Place::Unschedulable { retry_at: at } => {
                self.timers.remove(&(*at, uid.to_owned()));
            }
        }
        Some((queued, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::default_framework;
    use serde_json::json;

    fn pod(uid: &str, priority: i32) -> Arc<Pod> {
        let pod =
            json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [], "priority": priority}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn popped(queue: &mut SchedulingQueue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|q| q.uid().to_owned()).collect()
    }

    #[test]
    fn pods_come_out_by_priority_then_age() {
        let (framework, now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        for (n, (uid, priority)) in [("old", 0), ("high", 10), ("young", 0)].into_iter().enumerate() {
            queue.set(pod(uid, priority), &framework, now + Duration::from_millis(n as u64));
        }
        assert_eq!(popped(&mut queue, now), ["high", "old", "young"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_an_event_that_helps_it() {
        let (framework, now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        queue.set(pod("a", 0), &framework, now);
        let queued = queue.pop(now).unwrap();
        queue.set_unschedulable(queued, vec!["NodeResourcesFit"], now);
        let later = now + Duration::from_secs(2);
        queue.on_event(ClusterEvent::NodeLabelsChanged, &framework, later);
        assert!(queue.pop(later).is_none(), "labels do not free resources");
        queue.on_event(ClusterEvent::PodRemoved, &framework, later);
        assert_eq!(queue.pop(later).unwrap().attempts, 2);
    }

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        let (framework, mut now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        queue.set(pod("a", 0), &framework, now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            let queued = queue.pop(now).unwrap();
            queue.set_failed(queued, now);
            assert_eq!(queue.next_timer(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn an_event_during_an_attempt_is_not_missed() {
        let (framework, now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        queue.set(pod("a", 0), &framework, now);
        let queued = queue.pop(now).unwrap();
        queue.on_event(ClusterEvent::NodeAdded, &framework, now);
        queue.set_unschedulable(queued, vec!["NodeResourcesFit"], now);
        assert!(queue.pop(now + Duration::from_secs(1)).is_some());
    }

    #[test]
    fn a_stuck_pod_is_tried_again_after_five_minutes() {
        let (framework, now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        queue.set(pod("a", 0), &framework, now);
        let queued = queue.pop(now).unwrap();
        queue.set_unschedulable(queued, Vec::new(), now);
        assert!(queue.pop(now + STUCK_AFTER - Duration::from_secs(1)).is_none());
        assert!(queue.pop(now + STUCK_AFTER).is_some());
    }

    #[test]
    fn a_removed_pod_is_gone_wherever_it_waited() {
        let (framework, now) = (default_framework(), Instant::now());
        let mut queue = SchedulingQueue::default();
        queue.set(pod("ready", 0), &framework, now);
        queue.set(pod("failed", 1), &framework, now);
        let failed = queue.pop(now).unwrap();
        queue.set_failed(failed, now);
        queue.remove("ready");
        queue.remove("failed");
        assert!(queue.is_empty() && queue.next_timer().is_none());
    }
}
