//! Watchers: what is delivered to whom.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::object::Object;
use super::selection::Selection;
use super::state::{Cacher, Event};
use crate::registry::strategy::Strategy;

/// A watcher who is so many events behind is let go; it comes back and lists again.
const QUEUE: usize = 1024;

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the objects that are there, each as added.
    Now,
    /// With the first change after a revision.
    After(u64),
}

/// What happened to an object, as a watcher with its selection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryKind {
    /// It came to be, or came into the selection.
    Added,
    /// It changed.
    Modified,
    /// It was deleted, or left the selection.
    Deleted,
}

impl DeliveryKind {
    /// As watch events spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One event for one watcher.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// What happened.
    pub(crate) kind: DeliveryKind,
    /// The object; for deletions its last state that the watcher could see.
    pub(crate) object: Arc<Object>,
    /// The revision of the event.
    pub(crate) revision: u64,
}

impl Delivery {
    pub(super) fn added(object: Arc<Object>) -> Self {
        Self { kind: DeliveryKind::Added, revision: object.revision(), object }
    }

    /// What an event is to a selection, if it is anything.
    pub(super) fn of(selection: &Selection, strategy: &dyn Strategy, event: &Event) -> Option<Self> {
        let wanted = |object: &Option<Arc<Object>>| {
            object.as_ref().filter(|o| selection.matches(strategy, o)).map(Arc::clone)
        };
        let (kind, object) = match (wanted(&event.before), wanted(&event.now)) {
            (None, Some(now)) => (DeliveryKind::Added, now),
            (Some(_), Some(now)) => (DeliveryKind::Modified, now),
            (Some(before), None) => (DeliveryKind::Deleted, before),
            (None, None) => return None,
        };
        Some(Self { kind, object, revision: event.revision })
    }
}

/// A watcher as the cache sees it.
pub(super) struct Slot {
    id: u64,
    selection: Selection,
    /// Events up to this revision are not for it.
    after: u64,
    queue: mpsc::Sender<Delivery>,
}

impl Slot {
    pub(super) fn new(id: u64, selection: Selection, after: u64) -> (Self, mpsc::Receiver<Delivery>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { id, selection, after, queue }, receiver)
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Delivers an event, if it is wanted. Whether the watcher stays.
    pub(super) fn offer(&self, strategy: &dyn Strategy, event: &Event) -> bool {
        if event.revision <= self.after {
            return true;
        }
        match Delivery::of(&self.selection, strategy, event) {
            Some(delivery) => self.queue.try_send(delivery).is_ok(),
            None => true,
        }
    }
}

/// A watch that is under way; dropping it ends it.
pub(crate) struct Subscription {
    cacher: Arc<Cacher>,
    id: u64,
    /// What comes first.
    pub(crate) initial: Vec<Delivery>,
    /// The revision up to which `initial` tells everything.
    pub(crate) revision: u64,
    /// What comes after; ends when the watcher was too slow or the cache lost its thread.
    pub(crate) queue: mpsc::Receiver<Delivery>,
}

impl Subscription {
    pub(super) fn new(
        cacher: Arc<Cacher>,
        id: u64,
        initial: Vec<Delivery>,
        revision: u64,
        queue: mpsc::Receiver<Delivery>,
    ) -> Self {
        Self { cacher, id, initial, revision, queue }
    }

    /// A revision up to which everything has been queued (though perhaps not yet taken out).
    pub(crate) fn progress(&self) -> u64 {
        self.cacher.progress()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cacher.unsubscribe(self.id);
    }
}
