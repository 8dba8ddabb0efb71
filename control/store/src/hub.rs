//! Where watchers hang: changes go in once, in revision order, and come out at those who watch
//! their keys.
//!
//! Keys fall into groups (the first segments of their path, in practice one resource each), so
//! that a change wakes only watchers of its group. Each group keeps a ring of its recent events,
//! for watchers that come a little late; older events are read from the store by
//! [`crate::watch`]. Queues are bounded: a watcher that falls behind is cut off and told so.
//! Whoever applies transactions publishes; the hub does no I/O and never waits for a watcher.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::evaluate::Change;
use crate::event::Event;
use crate::span::Span;

/// A group is named by the key up to and with its fourth slash: `/registry/<group>/<resource>/`.
const GROUP_SLASHES: usize = 4;
/// What a group's ring holds at most.
const RING_EVENTS: usize = 512;
const RING_BYTES: usize = 512 << 10;
/// How many revisions may wait for one watcher.
const QUEUE: usize = 4096;
/// How long after a change the watchers that it did not concern learn of its revision.
const PROGRESS_AFTER: Duration = Duration::from_millis(100);

/// What waits for one watcher.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// All events of one revision that the watcher asked for.
    Events { revision: u64, events: Arc<[Arc<Event>]> },
    /// Nothing for this watcher up to here.
    Progress { revision: u64 },
}

/// Why a watcher's queue ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// It did not: the hub itself is gone.
    #[default]
    Gone,
    /// The watcher fell behind; `revision` is the newest there is.
    Overflow { revision: u64 },
    /// The state was replaced as a whole, at `revision`.
    Replaced { revision: u64 },
    /// The store closed.
    Closed { why: String },
}

/// The receiving end of a registration.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) queue: mpsc::Receiver<Item>,
    pub(crate) end: Arc<Mutex<End>>,
    /// Everything after this revision comes by the queue.
    pub(crate) published: u64,
    /// The events up to then, where the ring still has them all.
    pub(crate) recent: Option<Vec<Arc<Event>>>,
}

#[derive(Debug)]
struct Watcher {
    span: Span,
    from: u64,
    queue: mpsc::Sender<Item>,
    end: Arc<Mutex<End>>,
    /// The newest revision that the watcher was told of.
    told: u64,
}

#[derive(Debug, Default)]
struct Group {
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// The ring holds every event of the group from this revision on.
    complete_from: u64,
    watchers: Vec<Watcher>,
}

#[derive(Debug, Default)]
struct Inner {
    published: u64,
    groups: HashMap<Bytes, Group>,
    /// Watchers of more than one group.
    wide: Vec<Watcher>,
    closed: Option<String>,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Hub {
    inner: Arc<Mutex<Inner>>,
    advanced: Arc<Notify>,
    progress: Mutex<Option<JoinHandle<()>>>,
}

impl Hub {
    pub(crate) fn new(published: u64) -> Self {
        let inner = Inner { published, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), advanced: Arc::default(), progress: Mutex::default() }
    }

    /// Hands a revision's changes to those who watch them. Revisions must come in order, and
    /// only once readers can see them.
    pub(crate) fn publish(&self, revision: u64, changes: Vec<Change>) {
        let mut inner = self.inner.lock();
        let before = inner.published;
        inner.published = revision;
        let Inner { groups, wide, .. } = &mut *inner;
        let events: Vec<Arc<Event>> =
            changes.into_iter().map(|change| Arc::new(Event::new(change))).collect();
        for (name, events) in by_group(&events) {
            let group = groups.entry(name).or_insert_with(|| Group::starting_after(before));
            group.remember(&events);
            if !group.watchers.is_empty() {
                deliver(&mut group.watchers, revision, &events.into());
            }
        }
        if !wide.is_empty() {
            deliver(wide, revision, &events.into());
        }
        drop(inner);
        self.advanced.notify_one();
    }

    /// Revisions go on after `revision`, without an event up to there.
    pub(crate) fn advance(&self, revision: u64) {
        let mut inner = self.inner.lock();
        inner.published = inner.published.max(revision);
        drop(inner);
        self.advanced.notify_one();
    }

    /// Registers a watcher of `span` from revision `from` on. Call within a tokio runtime.
    pub(crate) fn subscribe(&self, span: &Span, from: u64) -> Result<Subscription, String> {
        self.keep_progress_running();
        let (sender, queue) = mpsc::channel(QUEUE);
        let end = Arc::new(Mutex::new(End::default()));
        let mut inner = self.inner.lock();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        let published = inner.published;
        let watcher =
            Watcher { span: span.clone(), from, queue: sender, end: Arc::clone(&end), told: published };
        let recent = match group_of_span(span) {
            Some(name) => {
                let group = inner.groups.entry(name).or_insert_with(|| Group::starting_after(published));
                group.watchers.retain(|watcher| !watcher.queue.is_closed());
                group.watchers.push(watcher);
                group.recent(span, from)
            }
            None => {
                inner.wide.retain(|watcher| !watcher.queue.is_closed());
                inner.wide.push(watcher);
                (from > published).then(Vec::new)
            }
        };
        Ok(Subscription { queue, end, published, recent })
    }

    /// The state was replaced: every watcher ends, every ring is empty, revisions go on after `revision`.
    pub(crate) fn replace(&self, revision: u64) {
        let mut inner = self.inner.lock();
        inner.published = revision;
        for watcher in inner.take_watchers() {
            *watcher.end.lock() = End::Replaced { revision };
        }
        inner.groups.clear();
    }

    /// The same for those spans alone that `touches` tells of; revisions go on after `revision`.
    pub(crate) fn replace_within(&self, revision: u64, touches: impl Fn(&Span) -> bool) {
        let mut inner = self.inner.lock();
        inner.published = inner.published.max(revision);
        let Inner { groups, wide, .. } = &mut *inner;
        let end = |watchers: &mut Vec<Watcher>| {
            watchers.retain(|watcher| {
                let ends = touches(&watcher.span);
                if ends {
                    *watcher.end.lock() = End::Replaced { revision };
                }
                !ends
            });
        };
        end(wide);
        for (name, group) in groups.iter_mut() {
            if touches(&Span::new(name, Some(&crate::types::prefix_end(name)))) {
                end(&mut group.watchers);
                group.forget(revision);
            }
        }
        drop(inner);
        self.advanced.notify_one();
    }

    /// The store closes: every watcher ends, and no new one is taken.
    pub(crate) fn close(&self, why: &str) {
        let mut inner = self.inner.lock();
        inner.closed.get_or_insert_with(|| why.to_owned());
        for watcher in inner.take_watchers() {
            *watcher.end.lock() = End::Closed { why: why.to_owned() };
        }
    }

    /// How many watchers hang here.
    pub(crate) fn watchers(&self) -> usize {
        let inner = self.inner.lock();
        let grouped = inner.groups.values().flat_map(|group| &group.watchers);
        grouped.chain(&inner.wide).filter(|watcher| !watcher.queue.is_closed()).count()
    }

    /// Progress marks come from a task that sleeps until something changes. It ends with the hub
    /// or with its runtime; then the next subscription starts another.
    fn keep_progress_running(&self) {
        let mut progress = self.progress.lock();
        if progress.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        let advanced = Arc::clone(&self.advanced);
        *progress = Some(tokio::spawn(async move {
            loop {
                advanced.notified().await;
                tokio::time::sleep(PROGRESS_AFTER).await;
                let Some(inner) = inner.upgrade() else { return };
                inner.lock().tell_progress();
            }
        }));
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(task) = self.progress.lock().take() {
            task.abort();
        }
    }
}

impl Inner {
    fn take_watchers(&mut self) -> Vec<Watcher> {
        let mut watchers = std::mem::take(&mut self.wide);
        for group in self.groups.values_mut() {
            watchers.append(&mut group.watchers);
        }
        watchers
    }

    fn tell_progress(&mut self) {
        let revision = self.published;
        let grouped = self.groups.values_mut().map(|group| &mut group.watchers);
        for watchers in grouped.chain(std::iter::once(&mut self.wide)) {
            watchers.retain_mut(|watcher| {
                if watcher.told >= revision || watcher.from > revision {
                    return !watcher.queue.is_closed();
                }
                match watcher.queue.try_send(Item::Progress { revision }) {
                    Ok(()) => watcher.told = revision,
                    // A full queue tells the watcher soon enough.
                    Err(mpsc::error::TrySendError::Full(_)) => {}
                    Err(mpsc::error::TrySendError::Closed(_)) => return false,
                }
                true
            });
        }
    }
}

impl Group {
    fn starting_after(revision: u64) -> Self {
        Self { complete_from: revision + 1, ..Self::default() }
    }

    /// Its events up to `revision` are not known any more.
    fn forget(&mut self, revision: u64) {
        self.ring.clear();
        self.ring_bytes = 0;
        self.complete_from = revision + 1;
    }

    fn remember(&mut self, events: &[Arc<Event>]) {
        for event in events {
            self.ring_bytes += event.weight();
            self.ring.push_back(Arc::clone(event));
        }
        while self.ring.len() > RING_EVENTS || self.ring_bytes > RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes = self.ring_bytes.saturating_sub(oldest.weight());
            self.complete_from = oldest.revision() + 1;
        }
    }

    fn recent(&self, span: &Span, from: u64) -> Option<Vec<Arc<Event>>> {
        (from >= self.complete_from).then(|| {
            let wanted = |event: &&Arc<Event>| event.revision() >= from && span.contains(event.key());
            self.ring.iter().filter(wanted).cloned().collect()
        })
    }
}

/// Sends each watcher what it asked for; those that left or fell behind are let go.
fn deliver(watchers: &mut Vec<Watcher>, revision: u64, events: &Arc<[Arc<Event>]>) {
    watchers.retain_mut(|watcher| {
        if watcher.from > revision {
            return true;
        }
        let matching = events.iter().filter(|event| watcher.span.contains(event.key())).count();
        if matching == 0 {
            return true;
        }
        let events = if matching == events.len() {
            Arc::clone(events)
        } else {
            events.iter().filter(|event| watcher.span.contains(event.key())).cloned().collect()
        };
        match watcher.queue.try_send(Item::Events { revision, events }) {
            Ok(()) => {
                watcher.told = revision;
                true
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                *watcher.end.lock() = End::Overflow { revision };
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    });
}

fn by_group(events: &[Arc<Event>]) -> Vec<(Bytes, Vec<Arc<Event>>)> {
    let mut groups: Vec<(Bytes, Vec<Arc<Event>>)> = Vec::new();
    for event in events {
        let name = group_of_key(event.key());
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, events)) => events.push(Arc::clone(event)),
            None => groups.push((name, vec![Arc::clone(event)])),
        }
    }
    groups
}

/// The group of a key; keys of fewer segments share one without a name.
fn group_of_key(key: &Bytes) -> Bytes {
    let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| key.slice(..=at)).nth(GROUP_SLASHES - 1).unwrap_or_default()
}

/// The group that a span lies in, if it is one.
fn group_of_span(span: &Span) -> Option<Bytes> {
    let group = group_of_key(span.start());
    (!group.is_empty() && span.lies_within(&group)).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, Pos, Record};
    use crate::types::prefix_end;

    fn change(rev: u64, key: &str) -> Change {
        let record = Record {
            pos: Pos::first(rev),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::from_static(&[0]),
            create: rev,
            version: 1,
            prev: Pos::NONE,
            kind: Kind::Put,
        };
        Change { record: Arc::new(record), previous: None }
    }

    fn prefix(text: &'static str) -> Span {
        Span::new(&Bytes::from_static(text.as_bytes()), Some(&prefix_end(text.as_bytes())))
    }

    fn revisions(subscription: &mut Subscription) -> Vec<u64> {
        let mut seen = Vec::new();
        while let Ok(item) = subscription.queue.try_recv() {
            match item {
                Item::Events { revision, .. } | Item::Progress { revision } => seen.push(revision),
            }
        }
        seen
    }

    #[test]
    fn keys_fall_into_groups_by_their_first_segments() {
        let group = |key: &'static str| group_of_key(&Bytes::from_static(key.as_bytes()));
        assert_eq!(group("/registry/core/pods/ns/name"), "/registry/core/pods/");
        assert_eq!(group("/registry/core/pods/"), "/registry/core/pods/");
        assert_eq!(group("/registry/core/pods"), "");
        assert_eq!(group_of_span(&prefix("/registry/core/pods/")).unwrap(), "/registry/core/pods/");
        assert_eq!(group_of_span(&prefix("/registry/core/pods/ns/")).unwrap(), "/registry/core/pods/");
        assert_eq!(group_of_span(&prefix("/registry/core/")), None);
    }

    #[tokio::test]
    async fn events_reach_exactly_those_who_watch_them() {
        let hub = Hub::new(0);
        let mut pods = hub.subscribe(&prefix("/r/c/pods/"), 1).unwrap();
        let mut one = hub.subscribe(&prefix("/r/c/pods/ns/a"), 1).unwrap();
        let mut later = hub.subscribe(&prefix("/r/c/pods/"), 3).unwrap();
        let mut nodes = hub.subscribe(&prefix("/r/c/nodes/"), 1).unwrap();
        let mut all = hub.subscribe(&Span::all(), 1).unwrap();
        hub.publish(1, vec![change(1, "/r/c/pods/ns/a"), change(1, "/r/c/nodes/x")]);
        hub.publish(2, vec![change(2, "/r/c/pods/ns/b")]);
        hub.publish(3, vec![change(3, "/r/c/pods/ns/b")]);
        let seen = [&mut pods, &mut one, &mut later, &mut nodes, &mut all].map(revisions);
        assert_eq!(seen, [vec![1, 2, 3], vec![1], vec![3], vec![1], vec![1, 2, 3]]);
    }

    #[tokio::test]
    async fn the_ring_serves_recent_events_and_knows_what_it_forgot() {
        let hub = Hub::new(10);
        for rev in 11..=1_000 {
            hub.publish(rev, vec![change(rev, "/r/c/pods/ns/a")]);
        }
        let recent = |from| hub.subscribe(&prefix("/r/c/pods/"), from).unwrap().recent;
        assert!(recent(11).is_none(), "forgotten");
        let kept = recent(900).unwrap();
        assert_eq!(kept.iter().map(|e| e.revision()).collect::<Vec<_>>(), (900..=1_000).collect::<Vec<_>>());
        assert_eq!(recent(1_001).unwrap().len(), 0);
        let quiet = hub.subscribe(&prefix("/r/c/nodes/"), 11).unwrap();
        assert!(quiet.recent.is_none(), "the hub cannot know events from before the group");
    }

    #[tokio::test]
    async fn a_watcher_that_falls_behind_is_cut_off_and_told() {
        let hub = Hub::new(0);
        let mut slow = hub.subscribe(&prefix("/r/c/pods/"), 1).unwrap();
        let count = QUEUE as u64 + 5;
        for rev in 1..=count {
            hub.publish(rev, vec![change(rev, "/r/c/pods/ns/a")]);
        }
        assert_eq!(revisions(&mut slow).len(), QUEUE);
        assert!(slow.queue.recv().await.is_none());
        assert_eq!(*slow.end.lock(), End::Overflow { revision: QUEUE as u64 + 1 });
        assert_eq!(hub.watchers(), 0);
    }

    #[tokio::test]
    async fn progress_reaches_those_whom_no_event_did() {
        let hub = Hub::new(0);
        let mut nodes = hub.subscribe(&prefix("/r/c/nodes/"), 1).unwrap();
        hub.publish(1, vec![change(1, "/r/c/pods/ns/a")]);
        let item = nodes.queue.recv().await.unwrap();
        assert!(matches!(item, Item::Progress { revision: 1 }), "{item:?}");
    }

    #[tokio::test]
    async fn a_closed_hub_ends_all_and_takes_none() {
        let hub = Hub::new(0);
        let mut watcher = hub.subscribe(&Span::all(), 1).unwrap();
        hub.close("bye");
        assert!(watcher.queue.recv().await.is_none());
        assert_eq!(*watcher.end.lock(), End::Closed { why: "bye".into() });
        assert_eq!(hub.subscribe(&Span::all(), 1).unwrap_err(), "bye");
    }
}
