//! One watch: first what history holds, then what the hub sends.
//!
//! History comes from the hub's ring where it suffices, else in chunks from layers and tables;
//! live events wait in the bounded queue meanwhile.

use std::sync::Arc;

use futures::stream;

use crate::codec::Codec;
use crate::durable::Background;
use crate::event::Event;
use crate::hub::{End, Item, Subscription};
use crate::machine::Core;
use crate::span::Span;
use crate::storage::{StorageError, WatchStream};
use crate::types::{Revision, WatchBatch, WatchRequest};

/// How many records one step of reading history looks at.
const CHUNK: usize = 512;
/// How many revisions that wait already are put into one batch.
const COALESCE: usize = 64;

/// Begins a watch.
pub(crate) fn watch(
    core: &Arc<Core>,
    background: Background,
    request: &WatchRequest,
) -> Result<WatchStream, StorageError> {
    let span = Span::new(&request.start, request.end.as_ref());
    let from = request.from.0;
    // First of all, so that it ends with what is found known now.
    let subscription = core.hub.subscribe(&span, from).map_err(|why| StorageError::Unavailable { why })?;
    {
        let state = core.state.read();
        core.check_known(&state, &span)?;
        let oldest = core.oldest_watch(&state, &span);
        // What was compacted at the newest revision has no later event to miss.
        if from < oldest {
            return Err(StorageError::Compacted { requested: request.from, oldest: Revision(oldest) });
        }
    }
    let phase = match &subscription.recent {
        _ if from > subscription.published + 1 => Phase::Live,
        Some(_) => Phase::Recent,
        None => Phase::History { core: Arc::clone(core), next: from },
    };
    let watch = Watch { span, codec: Arc::clone(&core.codec), subscription, phase, next: from, background };
    Ok(Box::pin(stream::unfold(watch, |mut watch| async move {
        let batch = watch.next_batch().await?;
        if batch.is_err() {
            watch.phase = Phase::Over;
        }
        Some((batch, watch))
    })))
}

struct Watch {
    span: Span,
    codec: Arc<Codec>,
    subscription: Subscription,
    phase: Phase,
    /// The first revision not yet delivered.
    next: u64,
    background: Background,
}

enum Phase {
    /// The ring's events come first.
    Recent,
    /// The store's history comes first, from `next` on.
    History {
        core: Arc<Core>,
        next: u64,
    },
    Live,
    Over,
}

impl Watch {
    async fn next_batch(&mut self) -> Option<Result<WatchBatch, StorageError>> {
        match &self.phase {
            Phase::Over => None,
            Phase::Live => Some(self.live().await),
            Phase::Recent => {
                self.phase = Phase::Live;
                let events = self.subscription.recent.take().unwrap_or_default();
                Some(self.batch(self.subscription.published, &events))
            }
            Phase::History { core, next } => {
                let (core, next) = (Arc::clone(core), *next);
                Some(self.history(core, next).await)
            }
        }
    }

    async fn history(&mut self, core: Arc<Core>, next: u64) -> Result<WatchBatch, StorageError> {
        let upto = self.subscription.published;
        let span = self.span.clone();
        let reading = move || {
            let (changes, horizon) = core.history(&span, next, upto, CHUNK)?;
            Ok((core, changes, horizon))
        };
        let (core, changes, horizon) = self.background.run(reading).await?;
        self.phase = if horizon >= upto { Phase::Live } else { Phase::History { core, next: horizon + 1 } };
        let events: Vec<_> = changes.into_iter().map(|change| Arc::new(Event::new(change))).collect();
        self.batch(horizon, &events)
    }

    async fn live(&mut self) -> Result<WatchBatch, StorageError> {
        let Some(first) = self.subscription.queue.recv().await else { return Err(self.end()) };
        let mut events = Vec::new();
        let mut revision = collect(first, &mut events);
        for _ in 1..COALESCE {
            let Ok(item) = self.subscription.queue.try_recv() else { break };
            revision = collect(item, &mut events);
        }
        self.batch(revision, &events)
    }

    fn batch(&mut self, revision: u64, events: &[Arc<Event>]) -> Result<WatchBatch, StorageError> {
        self.next = revision + 1;
        let events =
            events.iter().map(|event| event.to_watch_event(&self.codec)).collect::<Result<_, _>>()?;
        Ok(WatchBatch { revision: Revision(revision), events })
    }

    fn end(&self) -> StorageError {
        match &*self.subscription.end.lock() {
            End::Overflow { revision } | End::Replaced { revision } => {
                StorageError::Compacted { requested: Revision(self.next), oldest: Revision(*revision) }
            }
            End::Closed { why } => StorageError::Unavailable { why: why.clone() },
            End::Gone => StorageError::Unavailable { why: "the store is gone".into() },
        }
    }
}

fn collect(item: Item, events: &mut Vec<Arc<Event>>) -> u64 {
    match item {
        Item::Events { revision, events: more } => {
            events.extend(more.iter().cloned());
            revision
        }
        Item::Progress { revision } => revision,
    }
}
