//! The cache of one resource. Written by the feed alone; read by everybody.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use sampan_api::status::Status;
use tokio::sync::watch;

use super::object::Object;
use super::selection::Selection;
use super::watcher::{Delivery, Slot, Start, Subscription};
use crate::registry::strategy::Strategy;

/// At most so many past events are kept,
const HISTORY_EVENTS: usize = 1024;
/// and at most so many bytes of them.
const HISTORY_BYTES: usize = 4 << 20;

/// One change of one object.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    /// The state after the change; `None` once deleted.
    pub(super) now: Option<Arc<Object>>,
    /// The state before, if there was one.
    pub(super) before: Option<Arc<Object>>,
}

impl Event {
    fn size(&self) -> usize {
        self.before.as_ref().map_or(0, |o| o.size()) + size_of::<Self>()
    }
}

/// The cache of one resource.
pub(crate) struct Cacher {
    strategy: Arc<dyn Strategy>,
    state: Mutex<State>,
    progress: watch::Receiver<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Box<str>, Arc<Object>>,
    history: VecDeque<Event>,
    history_bytes: usize,
    /// Every event after this revision is in `history`.
    oldest: u64,
    /// The newest event applied.
    newest: u64,
    watchers: Vec<Slot>,
    next_watcher: u64,
}

/// Part of a list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page<'a> {
    /// At most so many; 0 is all.
    pub(crate) limit: usize,
    /// Only keys from this one on.
    pub(crate) from: Option<&'a str>,
}

/// The answer to a list.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The revision that the list is of.
    pub(crate) revision: u64,
    /// The objects, by key.
    pub(crate) objects: Vec<Arc<Object>>,
    /// The first key that was left out, if the limit cut the list.
    pub(crate) next: Option<String>,
    /// How many more there are, if that is known.
    pub(crate) remaining: Option<u64>,
}

impl Cacher {
    pub(super) fn new(strategy: Arc<dyn Strategy>, progress: watch::Receiver<u64>) -> Self {
        Self { strategy, state: Mutex::default(), progress }
    }

    /// The strategy of the kind.
    pub(crate) fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// How far the caches are.
    pub(crate) fn progress(&self) -> u64 {
        *self.progress.borrow()
    }

    /// One object as the cache has it.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.lock().objects.get(key).cloned()
    }

    /// How many objects and watchers there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.objects.len(), state.watchers.len())
    }

    /// The wanted objects as of now.
    pub(crate) fn list(&self, selection: &Selection, page: Page<'_>) -> Listing {
        let state = self.state.lock();
        let revision = state.newest.max(self.progress());
        let prefix = selection.key_prefix();
        let from = page.from.unwrap_or(&prefix);
        let range = state.objects.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        let mut within = range.map(|(_, object)| object).take_while(|o| o.key().starts_with(&prefix));
        let mut listing = Listing { revision, ..Listing::default() };
        for object in within.by_ref() {
            if !selection.matches(&*self.strategy, object) {
                continue;
            }
            if page.limit > 0 && listing.objects.len() == page.limit {
                listing.next = Some(object.key().to_owned());
                break;
            }
            listing.objects.push(Arc::clone(object));
        }
        if listing.next.is_some() && !selection.is_filtered() {
            listing.remaining = u64::try_from(within.count()).ok().map(|rest| rest + 1);
        }
        listing
    }

    /// Follows the wanted objects. What is delivered first and what is delivered later fit together
    /// without gap or repeat.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        selection: Selection,
        start: Start,
    ) -> Result<Subscription, Status> {
        let mut state = self.state.lock();
        let now = state.newest.max(self.progress());
        let (initial, revision) = match start {
            Start::Now => {
                let prefix = selection.key_prefix();
                let range =
                    state.objects.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
                let wanted = range
                    .map(|(_, object)| object)
                    .take_while(|o| o.key().starts_with(&prefix))
                    .filter(|o| selection.matches(&*self.strategy, o));
                (wanted.map(|o| Delivery::added(Arc::clone(o))).collect(), now)
            }
            Start::After(revision) => {
                if revision < state.oldest {
                    return Err(too_old(revision, state.oldest));
                }
                let past = state.history.iter().skip_while(|e| e.revision <= revision);
                let initial = past.filter_map(|e| Delivery::of(&selection, &*self.strategy, e)).collect();
                // A revision from the future: nothing up to it is delivered.
                (initial, now.max(revision))
            }
        };
        let id = state.next_watcher;
        state.next_watcher += 1;
        let (slot, receiver) = Slot::new(id, selection, revision);
        state.watchers.push(slot);
        Ok(Subscription::new(Arc::clone(self), id, initial, revision, receiver))
    }

    /// Ends a subscription.
    pub(super) fn unsubscribe(&self, id: u64) {
        self.state.lock().watchers.retain(|slot| slot.id() != id);
    }

    /// Takes a whole new state; watchers end and history is gone.
    pub(super) fn reset(&self, objects: Vec<Object>, revision: u64) {
        let mut state = self.state.lock();
        state.objects = objects.into_iter().map(|o| (o.key().into(), Arc::new(o))).collect();
        state.history.clear();
        state.history_bytes = 0;
        state.oldest = revision;
        state.newest = revision;
        state.watchers.clear();
    }

    /// Applies changes in order, and hands them to the watchers who want them.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut state = self.state.lock();
        for change in changes {
            state.apply(&*self.strategy, change);
        }
    }
}

/// A change as the store reports it.
pub(super) enum Change {
    /// The object is now this.
    Put(Object),
    /// The object with this key is gone, at this revision.
    Delete(String, u64),
}

impl State {
    fn apply(&mut self, strategy: &dyn Strategy, change: Change) {
        let event = match change {
            Change::Put(object) => {
                let (revision, now) = (object.revision(), Arc::new(object));
                let before = self.objects.insert(now.key().into(), Arc::clone(&now));
                Event { revision, now: Some(now), before }
            }
            Change::Delete(key, revision) => {
                let Some(before) = self.objects.remove(key.as_str()) else { return };
                Event { revision, now: None, before: Some(before) }
            }
        };
        self.newest = self.newest.max(event.revision);
        // Those who cannot keep up or have gone away leave.
        self.watchers.retain(|slot| slot.offer(strategy, &event));
        self.remember(event);
    }

    fn remember(&mut self, event: Event) {
        self.history_bytes += event.size();
        self.history.push_back(event);
        while self.history.len() > HISTORY_EVENTS || self.history_bytes > HISTORY_BYTES {
            let Some(gone) = self.history.pop_front() else { break };
            self.history_bytes -= gone.size();
            self.oldest = gone.revision;
        }
    }
}

/// 410: what happened since is no longer known.
fn too_old(requested: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {requested} ({oldest})"))
}
