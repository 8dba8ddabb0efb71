//! `watch`: a stream of changes, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use rand::Rng;
use sampan_api::scheme::Resource;
use sampan_api::status::Status;
use tokio::time::{Instant, sleep_until};

use super::list::selection;
use super::negotiate::{Form, Output};
use super::options::{ListOptions, WatchStart};
use super::respond::{self, Renderer};
use super::{Call, Target};
use crate::body::Body;
use crate::cacher::{Delivery, Start, Subscription};

/// How often a client that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// So long before its end, a watch tells how far it came.
const FAREWELL: Duration = Duration::from_secs(2);

/// A chunk of the answer is sent when it is this large, even if there is more to send.
const CHUNK: usize = 32 << 10;

/// Answers with a stream of events.
pub(super) async fn watch(call: &Arc<Call>, target: Target<'_>) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&call.query)?;
    let start = options.watch_start()?;
    let selection = selection(call, target, &options)?;
    let output = call.renderer(target)?.output;
    let subscribed = match start {
        WatchStart::Current { at_least, .. } => {
            match at_least {
                Some(revision) => call.core.caches.wait_for(revision).await?,
                None => call.core.caches.wait_current().await?,
            }
            target.registry.cacher().subscribe(selection, Start::Now)
        }
        WatchStart::Latest => {
            call.core.caches.wait_current().await?;
            let now = call.core.caches.progress();
            target.registry.cacher().subscribe(selection, Start::After(now))
        }
        WatchStart::After(revision) => target.registry.cacher().subscribe(selection, Start::After(revision)),
    };
    let subscription = match subscribed {
        Ok(subscription) => subscription,
        // The request was good; what happened since is gone. Told in the stream, as Kubernetes does.
        Err(status) => return Ok(refused(output, &status)),
    };
    let now = Instant::now();
    let deadline = now + options.timeout.unwrap_or_else(default_timeout);
    let farewell = deadline.checked_sub(FAREWELL).filter(|at| *at > now);
    let stream = Watch {
        call: Arc::clone(call),
        resource: target.resource,
        output,
        position: subscription.revision,
        subscription,
        headers: true,
        bookmarks: options.bookmarks,
        initial_end: matches!(start, WatchStart::Current { marked: true, .. }),
        next_bookmark: farewell.map_or(deadline, |at| at.min(now + BOOKMARK_EVERY)),
        farewell,
        deadline,
        started: false,
        done: false,
    };
    Ok(streaming(output, Body::from_stream(futures::stream::unfold(stream, Watch::next))))
}

/// Half an hour to an hour, so that clients do not all come back at once.
fn default_timeout() -> Duration {
    Duration::from_secs(rand::rng().random_range(1800..3600))
}

fn streaming(output: Output, body: Body) -> Response<Body> {
    let mut response = respond::bytes(StatusCode::OK, output.content_type(), Bytes::new());
    *response.body_mut() = body;
    response
}

fn refused(output: Output, status: &Status) -> Response<Body> {
    let mut line = Vec::new();
    write_error(&mut line, status);
    streaming(output, Body::from(line))
}

fn write_error(out: &mut Vec<u8>, status: &Status) {
    out.extend_from_slice(b"{\"type\":\"ERROR\",\"object\":");
    out.extend_from_slice(&serde_json::to_vec(status).unwrap_or_default());
    out.extend_from_slice(b"}\n");
}

/// A watch under way.
struct Watch {
    call: Arc<Call>,
    resource: &'static Resource,
    output: Output,
    subscription: Subscription,
    /// Everything up to this revision has been written.
    position: u64,
    /// Whether the next table names its columns.
    headers: bool,
    bookmarks: bool,
    initial_end: bool,
    next_bookmark: Instant,
    farewell: Option<Instant>,
    deadline: Instant,
    started: bool,
    done: bool,
}

impl Watch {
    /// The next chunk of the stream.
    async fn next(mut self) -> Option<(Result<Bytes, std::convert::Infallible>, Self)> {
        let shutdown = self.call.core.shutdown.clone();
        let mut chunk = if self.started { Vec::new() } else { self.begin() };
        while chunk.is_empty() && !self.done {
            chunk = tokio::select! {
                delivery = self.subscription.queue.recv() => match delivery {
                    Some(delivery) => self.deliver(delivery),
                    None => return None,
                },
                () = sleep_until(self.next_bookmark), if self.bookmarks => self.mark(),
                () = sleep_until(self.deadline) => self.end(),
                () = shutdown.cancelled() => self.end(),
            };
        }
        (!chunk.is_empty()).then(|| (Ok(chunk.into()), self))
    }

    /// The objects that are there, and where they end.
    fn begin(&mut self) -> Vec<u8> {
        self.started = true;
        let mut out = Vec::new();
        for delivery in std::mem::take(&mut self.subscription.initial) {
            self.write(&mut out, &delivery);
        }
        self.position = self.subscription.revision;
        if self.initial_end {
            self.write_bookmark(&mut out, true);
        }
        out
    }

    /// An event, and as many more as are waiting and fit into a chunk.
    fn deliver(&mut self, first: Delivery) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, &first);
        self.drain(&mut out, CHUNK);
        out
    }

    fn drain(&mut self, out: &mut Vec<u8>, up_to: usize) {
        while out.len() < up_to
            && let Ok(delivery) = self.subscription.queue.try_recv()
        {
            self.write(out, &delivery);
        }
    }

    /// A bookmark: what is waiting comes first, so that it does not lie.
    fn mark(&mut self) -> Vec<u8> {
        let now = Instant::now();
        self.next_bookmark = match self.farewell {
            Some(at) if now < at => at.min(now + BOOKMARK_EVERY),
            _ => self.deadline + BOOKMARK_EVERY,
        };
        let mut out = Vec::new();
        let reached = self.subscription.progress();
        self.drain(&mut out, usize::MAX);
        self.position = self.position.max(reached);
        self.write_bookmark(&mut out, false);
        out
    }

    /// The end of the stream: what is waiting still goes out.
    fn end(&mut self) -> Vec<u8> {
        self.done = true;
        let mut out = Vec::new();
        self.drain(&mut out, usize::MAX);
        out
    }

    fn write(&mut self, out: &mut Vec<u8>, delivery: &Delivery) {
        let core = Arc::clone(&self.call.core);
        let Some(renderer) = self.renderer(&core) else { return };
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(delivery.kind.as_str().as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        renderer.write_event(out, &delivery.object, delivery.revision, self.headers);
        out.extend_from_slice(b"}\n");
        self.headers = false;
        self.position = self.position.max(delivery.revision);
    }

    fn write_bookmark(&self, out: &mut Vec<u8>, end_of_initial: bool) {
        let Some(renderer) = self.renderer(&self.call.core) else { return };
        out.extend_from_slice(b"{\"type\":\"BOOKMARK\",\"object\":");
        out.extend_from_slice(renderer.bookmark(self.position, end_of_initial).to_string().as_bytes());
        out.extend_from_slice(b"}\n");
    }

    fn renderer<'a>(&self, core: &'a crate::core::Core) -> Option<Renderer<'a>> {
        Some(Renderer {
            registry: core.registries.of(self.resource)?,
            requested: self.resource,
            output: self.output,
            // Checked when the watch began.
            include: self.call.include().ok()?,
            now: match self.output.form {
                Form::Table(_) => jiff::Timestamp::now(),
                _ => self.call.now,
            },
        })
    }
}
