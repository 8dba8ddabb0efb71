//! The kubelet's client: servers while one can be reached that answers for its group, the mirror while
//! none can.
//!
//! While connected, requests go to the server, and the answers that matter fill the mirror. When no
//! server answers within a few seconds of the start, the kubelet lists and watches from the mirror
//! and starts its pods; its watches end as expired once there is a server, so that it lists anew and
//! finds what changed meanwhile. When a connection is lost later, lists and watches wait for the
//! next one: the kubelet keeps what it knows, and running pods are left alone.

mod answer;
mod ask;
mod record;
mod token;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, request};
use http_body_util::{BodyExt, Full};
use sampan_api::status::Status;
use sampan_apiserver::{Body, LocalService};
use sampan_client::ApiLink;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api::ApiOverStreams;
use crate::link::{Link, LinkState};
use crate::mirror::Mirror;
use crate::standing;
use answer::{Absence, Answer};
use ask::Ask;

/// A request that waits for a server is told after this time that there is none.
const HOLD: Duration = Duration::from_secs(240);
/// The same where there is nothing to start from.
const HOLD_EMPTY: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The API as the node's kubelet sees it; give it to `kube::Client::new`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeApi {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    remote: Remote,
    link: watch::Receiver<LinkState>,
    /// To be notified when a server answers that it cannot.
    doubt: Arc<Notify>,
    mirror: Arc<Mirror>,
    /// Until then a first connection is waited for.
    patience: Instant,
    /// Whether anything was answered from the mirror since the start.
    cached: AtomicBool,
    told: watch::Sender<ApiLink>,
}

/// By which way requests go to a server.
pub(crate) enum Remote {
    /// Over the node's connection.
    Streams(ApiOverStreams),
    /// This process is a server itself; empty until its API is there.
    Own(Arc<OnceLock<LocalService>>),
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Streams(_) => "Streams",
            Self::Own(_) => "Own",
        })
    }
}

impl Remote {
    async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, BoxError> {
        match self {
            Self::Streams(streams) => Ok(streams.request(request).await?),
            Self::Own(api) => match api.get() {
                Some(api) => match tower::Service::call(&mut api.clone(), request).await {
                    Ok(answer) => Ok(answer),
                    Err(never) => match never {},
                },
                None => Ok(answer::unavailable()),
            },
        }
    }
}

/// How requests are dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A server answers.
    Online,
    /// The first connection is waited for.
    Starting,
    /// The mirror answers.
    Offline(Absence),
    /// There is neither a server nor a mirror.
    Nothing,
}

/// The phase; `waited`: whether a first connection has been waited for long enough.
fn phase(connected: bool, generation: u64, waited: bool, usable: impl FnOnce() -> bool) -> Phase {
    match (connected, generation) {
        (true, _) => Phase::Online,
        (false, 1..) => Phase::Offline(Absence::Lost),
        (false, 0) if !waited => Phase::Starting,
        (false, 0) if usable() => Phase::Offline(Absence::SinceStart),
        (false, 0) => Phase::Nothing,
    }
}

impl NodeApi {
    /// The API by way of `link`, else from `mirror`. A first connection is waited for so long.
    pub fn new(link: &Link, mirror: Arc<Mirror>, first_wait: Duration) -> Self {
        let remote = Remote::Streams(ApiOverStreams::new(link.clone()));
        Self::over(remote, (link.state(), link.doubt()), mirror, first_wait)
    }

    /// The same by another way: how it stands with it, and whom to tell of doubts.
    pub(crate) fn over(
        remote: Remote,
        (link, doubt): (watch::Receiver<LinkState>, Arc<Notify>),
        mirror: Arc<Mirror>,
        first_wait: Duration,
    ) -> Self {
        let shared = Shared {
            remote,
            link: link.clone(),
            doubt,
            mirror,
            patience: Instant::now() + first_wait,
            cached: AtomicBool::new(false),
            told: watch::Sender::new(ApiLink::default()),
        };
        let own = Self { shared: Arc::new(shared) };
        tokio::spawn(follow(Arc::downgrade(&own.shared), link));
        own
    }

    /// A client over it, with `namespace` as its default.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// How things stand, for the kubelet.
    pub fn link(&self) -> watch::Receiver<ApiLink> {
        self.shared.told.subscribe()
    }

    fn phase(&self) -> Phase {
        let (connected, generation) = {
            let state = self.shared.link.borrow();
            (state.connected.is_some(), state.generation)
        };
        let waited = Instant::now() >= self.shared.patience;
        phase(connected, generation, waited, || self.shared.mirror.is_usable())
    }

    async fn route(&self, parts: request::Parts, body: Bytes) -> Result<Response<Body>, BoxError> {
        let ask = Ask::parse(&parts.method, &parts.uri);
        let begun = Instant::now();
        let mut link = self.shared.link.clone();
        loop {
            // Before the phase is looked at, so that no change is missed.
            link.mark_unchanged();
            let (until, patient) = match self.phase() {
                Phase::Online => match self.send(&parts, &body, ask.as_ref()).await {
                    // The connection ended this very moment. What only reads can be asked elsewhere.
                    Err(_) if parts.method == Method::GET && self.phase() != Phase::Online => continue,
                    answered => return answered,
                },
                Phase::Starting => (self.shared.patience, true),
                Phase::Nothing => (begun + HOLD_EMPTY, false),
                Phase::Offline(absence) => match self.offline(absence, &parts, &body, ask.as_ref()) {
                    Answer::Now(answer) => return Ok(answer),
                    Answer::ExpireLater => return Ok(self.expire_later()),
                    Answer::Hold => (begun + HOLD, false),
                },
            };
            let changed = tokio::time::timeout_at(until, link.changed()).await;
            match changed {
                Ok(Ok(())) => {}
                // The link is no more.
                Ok(Err(_)) => return Ok(answer::unavailable()),
                Err(_) if patient => {}
                Err(_) => return Ok(answer::unavailable()),
            }
        }
    }

    /// Asks a server, and lets the mirror see the answer.
    async fn send(
        &self,
        parts: &request::Parts,
        body: &Bytes,
        ask: Option<&Ask>,
    ) -> Result<Response<Body>, BoxError> {
        let request = Request::from_parts(parts.clone(), Full::new(body.clone()));
        let answer = self.shared.remote.request(request).await?;
        if standing::is_doubtful(answer.status()) {
            self.shared.doubt.notify_one();
        }
        match ask.filter(|ask| record::concerns(ask)) {
            Some(ask) => Ok(record::pass(&self.shared.mirror, ask, body, answer).await?),
            None => Ok(answer),
        }
    }

    fn offline(&self, absence: Absence, parts: &request::Parts, body: &[u8], ask: Option<&Ask>) -> Answer {
        let Some(ask) = ask else { return Answer::Now(answer::unavailable()) };
        if absence == Absence::SinceStart && !self.shared.cached.swap(true, Ordering::Relaxed) {
            tracing::warn!("no server can be reached; the node starts from its own cache");
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        answer::answer(&self.shared.mirror, absence, ask, content_type.unwrap_or_default(), body)
    }

    /// A watch in which nothing happens until there is a server.
    fn expire_later(&self) -> Response<Body> {
        let mut link = self.shared.link.clone();
        let end = async move {
            // Where the link is no more, the end of the stream says enough.
            drop(link.wait_for(|state| state.connected.is_some()).await.map(drop));
            let status =
                Status::expired("too old resource version: what was read came from the node's own cache");
            let mut line = json!({"type": "ERROR", "object": status}).to_string();
            line.push('\n');
            Ok::<_, Infallible>(Bytes::from(line))
        };
        let mut response = Response::new(Body::from_stream(futures::stream::once(end)));
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        response
    }
}

/// Tells of new connections until nobody uses the API any more.
async fn follow(shared: std::sync::Weak<Shared>, mut link: watch::Receiver<LinkState>) {
    let mut seen = 0;
    loop {
        let generation = link.borrow_and_update().generation;
        let Some(shared) = shared.upgrade() else { return };
        if generation > seen {
            // Local readers saw what only this node knew under versions of its own.
            shared.mirror.refresh_readers();
            let cached = seen == 0 && shared.cached.load(Ordering::Relaxed);
            shared.told.send_modify(|told| {
                told.generation = generation;
                if cached {
                    told.cached_before = generation;
                }
            });
            seen = generation;
        }
        drop(shared);
        if link.changed().await.is_err() {
            return;
        }
    }
}

impl<B> tower::Service<Request<B>> for NodeApi
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            own.route(parts, body).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_answers_at_the_start_only_where_no_server_came_and_it_holds_the_node() {
        let cases = [
            ((true, 1, true, true), Phase::Online),
            ((false, 0, false, true), Phase::Starting),
            ((false, 0, true, true), Phase::Offline(Absence::SinceStart)),
            ((false, 0, true, false), Phase::Nothing),
            ((false, 3, true, false), Phase::Offline(Absence::Lost)),
            ((false, 1, false, true), Phase::Offline(Absence::Lost)),
        ];
        for ((connected, generation, waited, usable), expected) in cases {
            assert_eq!(phase(connected, generation, waited, || usable), expected);
        }
    }
}
