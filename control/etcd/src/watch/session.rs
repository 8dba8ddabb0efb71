//! One stream of watches, from its first request to its end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{AbortHandle, SelectAll, abortable};
use futures::{FutureExt, Stream, StreamExt};
use sampan_store::{Revision, StorageError, WatchBatch, WatchRequest as StoreWatch};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::events::{self, Wants};
use super::merge::{Piece, merge};
use crate::context::{Context, number};
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::view::LeadershipStream;
use crate::{keys, status};

/// The watch id of answers that concern all watches, or none.
const NO_WATCH: i64 = -1;
/// How large the answers of watches that take fragments are, as etcd's.
const FRAGMENT: usize = 1536 << 10;

/// What a watch of the store gave.
struct Update {
    watch: i64,
    /// Tells watches apart that had the same id one after the other.
    token: u64,
    batch: Result<WatchBatch, StorageError>,
}

type Updates = Pin<Box<dyn Stream<Item = Update> + Send>>;

/// A watch of the stream.
struct Watched {
    token: u64,
    key: Bytes,
    end: Option<Bytes>,
    wants: Wants,
    fragment: bool,
    progress_notify: bool,
    /// The first revision of which it was not told.
    next: u64,
    /// Something was sent since the last round of progress.
    told: bool,
    abort: AbortHandle,
}

/// The client is gone, or was told that the stream ends.
struct Over;

pub(super) struct Session {
    context: Arc<Context>,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    require_leader: bool,
    watches: BTreeMap<i64, Watched>,
    updates: SelectAll<Updates>,
    next_id: i64,
    next_token: u64,
    /// Revisions at which the client asked for progress and was not answered yet.
    progress: Vec<u64>,
}

impl Session {
    pub(super) fn new(
        context: Arc<Context>,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
        require_leader: bool,
    ) -> Self {
        Self {
            context,
            answers,
            require_leader,
            watches: BTreeMap::new(),
            updates: SelectAll::new(),
            next_id: 0,
            next_token: 0,
            progress: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let stop = self.context.stop.clone();
        let every = self.context.options.progress_interval.max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaders = Leaders::of(&self.context, self.require_leader);
        loop {
            let over = tokio::select! {
                biased;
                () = stop.cancelled() => self.end(status::stopped()).await,
                request = requests.message() => match request {
                    Ok(Some(request)) => self.request(request).await,
                    Ok(None) | Err(_) => Err(Over),
                },
                () = leaders.lost() => self.end(status::no_leader()).await,
                updates = next_updates(&mut self.updates) => self.update(updates).await,
                () = tick(&mut ticks) => self.tell_progress().await,
            };
            if over.is_err() {
                return;
            }
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Result<(), Over> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress.push(self.context.storage.revision().0);
                self.answer_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Over> {
        let now = self.context.storage.revision();
        let created = WatchResponse {
            header: Some(self.context.header(now)),
            created: true,
            ..WatchResponse::default()
        };
        // As etcd: no key is the first one.
        let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
        let end = keys::end(&request.range_end);
        let empty = end.as_ref().is_some_and(|end| !end.is_empty() && *end <= key);
        let refused = if empty {
            Some("mvcc: watcher range is empty")
        } else if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        if let Some(why) = refused {
            let cancel_reason = why.to_owned();
            return self
                .send(WatchResponse { watch_id: NO_WATCH, canceled: true, cancel_reason, ..created })
                .await;
        }
        let id = self.name(request.watch_id);
        self.send(WatchResponse { watch_id: id, ..created }).await?;
        let from = u64::try_from(request.start_revision).ok().filter(|from| *from > 0).unwrap_or(now.0 + 1);
        let watched = Watched {
            token: 0,
            key,
            end,
            wants: Wants::of(&request),
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            next: from,
            told: false,
            abort: AbortHandle::new_pair().0,
        };
        self.watches.insert(id, watched);
        self.follow(id).await
    }

    fn name(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Begins to follow the store where the watch has come to, or cancels it where that is forgotten.
    async fn follow(&mut self, id: i64) -> Result<(), Over> {
        let token = self.next_token;
        self.next_token += 1;
        let Some(watched) = self.watches.get_mut(&id) else { return Ok(()) };
        watched.token = token;
        let request =
            StoreWatch { start: watched.key.clone(), end: watched.end.clone(), from: Revision(watched.next) };
        match self.context.storage.watch(request).await {
            Ok(stream) => {
                let updates = stream.map(move |batch| Update { watch: id, token, batch });
                let (updates, abort) = abortable(updates);
                watched.abort = abort;
                self.updates.push(Box::pin(updates));
                Ok(())
            }
            Err(error) => self.failed(id, &error).await,
        }
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Over> {
        let Some(watched) = self.watches.remove(&id) else { return Ok(()) };
        watched.abort.abort();
        let header = Some(self.context.header_now());
        self.send(WatchResponse { header, watch_id: id, canceled: true, ..WatchResponse::default() }).await?;
        self.answer_progress().await
    }

    async fn update(&mut self, updates: Vec<Update>) -> Result<(), Over> {
        let mut batches = Vec::with_capacity(updates.len());
        let mut failed = Vec::new();
        for Update { watch, token, batch } in updates {
            if self.watches.get(&watch).is_none_or(|watched| watched.token != token) {
                continue;
            }
            match batch {
                Ok(batch) => batches.push((watch, batch)),
                Err(error) => failed.push((watch, error)),
            }
        }
        for piece in merge(batches) {
            self.deliver(piece).await?;
        }
        for (watch, error) in failed {
            self.lost(watch, error).await?;
        }
        self.answer_progress().await
    }

    async fn deliver(&mut self, piece: Piece) -> Result<(), Over> {
        let Piece { watch, revision, events } = piece;
        let Some(watched) = self.watches.get_mut(&watch) else { return Ok(()) };
        // A watch that waits for a revision ahead is not taken back.
        watched.next = watched.next.max(revision + 1);
        let wants = watched.wants;
        let events: Vec<_> = events.into_iter().filter_map(|event| wants.message(event)).collect();
        if events.is_empty() {
            return Ok(());
        }
        watched.told = true;
        let fragment = watched.fragment;
        let header = Some(self.context.header(Revision(revision)));
        let response = WatchResponse { header, watch_id: watch, events, ..WatchResponse::default() };
        if !fragment {
            return self.send(response).await;
        }
        for part in events::fragments(response, FRAGMENT) {
            self.send(part).await?;
        }
        Ok(())
    }

    /// A watch of the store ended. It may only have been too slow: then history goes on for it.
    async fn lost(&mut self, id: i64, error: StorageError) -> Result<(), Over> {
        match error {
            StorageError::Compacted { .. } => self.follow(id).await,
            error => self.failed(id, &error).await,
        }
    }

    async fn failed(&mut self, id: i64, error: &StorageError) -> Result<(), Over> {
        let response = match error {
            StorageError::Compacted { oldest, .. } => WatchResponse {
                compact_revision: number(oldest.0),
                cancel_reason: status::COMPACTED.to_owned(),
                ..WatchResponse::default()
            },
            StorageError::Unavailable { .. } => return self.end(self.context.refusal(error)).await,
            error => WatchResponse { cancel_reason: error.to_string(), ..WatchResponse::default() },
        };
        self.watches.remove(&id);
        let header = Some(self.context.header_now());
        self.send(WatchResponse { header, watch_id: id, canceled: true, ..response }).await
    }

    /// Answers the requests for progress that every watch has come up to.
    async fn answer_progress(&mut self) -> Result<(), Over> {
        let reached = self.watches.values().map(|watched| watched.next - 1).min().unwrap_or(u64::MAX);
        let (due, wait): (Vec<u64>, Vec<u64>) = self.progress.iter().partition(|at| **at <= reached);
        self.progress = wait;
        for revision in due {
            let header = Some(self.context.header(Revision(revision)));
            self.send(WatchResponse { header, watch_id: NO_WATCH, ..WatchResponse::default() }).await?;
        }
        Ok(())
    }

    /// Tells the quiet watches that asked for it how far they have come.
    async fn tell_progress(&mut self) -> Result<(), Over> {
        let now = self.context.storage.revision().0;
        let mut quiet = Vec::new();
        for (id, watched) in &mut self.watches {
            if watched.progress_notify && !std::mem::take(&mut watched.told) && watched.next <= now + 1 {
                quiet.push((*id, watched.next - 1));
            }
        }
        for (watch_id, revision) in quiet {
            let header = Some(self.context.header(Revision(revision)));
            self.send(WatchResponse { header, watch_id, ..WatchResponse::default() }).await?;
        }
        Ok(())
    }

    async fn end(&mut self, status: Status) -> Result<(), Over> {
        let _ = self.answers.send(Err(status)).await;
        Err(Over)
    }

    async fn send(&mut self, response: WatchResponse) -> Result<(), Over> {
        self.answers.send(Ok(response)).await.map_err(|_| Over)
    }
}

/// Waits for something to come, and takes everything that has come by then: what several watches
/// were given is only in order as a whole.
async fn next_updates(updates: &mut SelectAll<Updates>) -> Vec<Update> {
    let mut all = Vec::new();
    match updates.next().await {
        Some(update) => all.push(update),
        // There is no watch: wait for requests.
        None => std::future::pending().await,
    }
    // Without the runtime's budget, which could hide from us what is there already.
    while let Some(Some(update)) = tokio::task::unconstrained(updates.next()).now_or_never() {
        all.push(update);
    }
    all
}

async fn tick(ticks: &mut Interval) {
    ticks.tick().await;
}

/// Notices that nobody leads for longer than a client that wants a leader has patience.
struct Leaders {
    /// None for clients that do not mind.
    changes: Option<LeadershipStream>,
    patience: Duration,
    /// When patience ends.
    ends: Option<Instant>,
}

impl Leaders {
    fn of(context: &Context, required: bool) -> Self {
        let changes = required.then(|| context.view.leadership_changes());
        Self { changes, patience: context.options.leader_patience, ends: None }
    }

    /// Returns once there is no leader for too long.
    async fn lost(&mut self) {
        let Some(changes) = &mut self.changes else { return std::future::pending().await };
        loop {
            let out_of_patience = async {
                match self.ends {
                    Some(ends) => tokio::time::sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                change = changes.next() => match change {
                    Some(now) if now.leader.is_some() => self.ends = None,
                    Some(_) => { self.ends.get_or_insert(Instant::now() + self.patience); }
                    // The store is gone; its watches will say so.
                    None => return std::future::pending().await,
                },
                () = out_of_patience => return,
            }
        }
    }
}
