//! The API over a node's connection: a tower service for [`kube::Client::new`]. Each request is a
//! stream of its own, so that a long watch holds nobody up and needs no share of a window. Servers
//! allow a node so many streams at once; watches take only a part of them, so that writes always
//! find one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use sampan_apiserver::Body;
use sampan_transport::{Purpose, TransportError};

use crate::http1;
use crate::link::Link;

/// Watches at once over QUIC, where a server allows 128 streams or more;
const WATCHES_QUIC: usize = 96;
/// over TCP, where it allows 64 in both directions together.
const WATCHES_TCP: usize = 40;
/// So long a request waits for a free stream.
const OPEN: Duration = Duration::from_secs(10);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no connection to a server now.
    #[error("no server can be reached")]
    NotConnected,
    /// The connection took no new stream: it is ending.
    #[error("the connection to the server takes no request")]
    Open(#[source] TransportError),
    /// So many watches are under way that one more would take the streams of other requests.
    #[error("too many watches at once on this connection")]
    TooManyWatches,
    /// All streams that the server allows are in use.
    #[error("the server takes no more requests of this node at once")]
    Busy,
    /// The connection broke, or what came was no HTTP.
    #[error("the request to the server failed on its way")]
    Broken(#[source] hyper::Error),
}

/// The API by way of whichever server the node is connected to. Requests made while there is none
/// fail at once; those under way end when their connection does. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ApiOverStreams {
    link: Link,
    /// The watches under way.
    watches: Arc<AtomicUsize>,
}

/// A watch that is counted, until this is dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// Counts one more watch, if fewer than `most` are under way.
    fn one_more(watches: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |count| (count < most).then_some(count + 1);
        watches.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(watches)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ApiOverStreams {
    /// The API over a link.
    pub fn new(link: Link) -> Self {
        Self { link, watches: Arc::default() }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When there is no connection, or it ends before the answer's head has come.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connection = self.link.connection().ok_or(ApiError::NotConnected)?;
        let counted = if is_watch(&request) {
            let most = if connection.is_quic() { WATCHES_QUIC } else { WATCHES_TCP };
            Some(Counted::one_more(&self.watches, most).ok_or(ApiError::TooManyWatches)?)
        } else {
            None
        };
        let opening = tokio::time::timeout(OPEN, connection.open(Purpose::Api));
        let stream = opening.await.map_err(|_| ApiError::Busy)?.map_err(ApiError::Open)?;
        let answer = http1::send(stream, request).await.map_err(ApiError::Broken)?;
        Ok(match counted {
            // The watch is over when nobody reads it any more.
            Some(counted) => answer.map(|body| {
                Body::from_stream(body.into_data_stream().inspect(move |_| {
                    let _under_way = &counted;
                }))
            }),
            None => answer,
        })
    }
}

impl<B> tower::Service<Request<B>> for ApiOverStreams
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = ApiError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move { own.request(request).await })
    }
}

fn is_watch<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_counted_while_they_last() {
        let watches = Arc::default();
        let first = Counted::one_more(&watches, 2);
        let second = Counted::one_more(&watches, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Counted::one_more(&watches, 2).is_none());
        drop(first);
        assert!(Counted::one_more(&watches, 2).is_some());
    }

    #[test]
    fn a_watch_is_told_by_its_query() {
        for (uri, watch) in [
            ("/api/v1/pods?watch=true&resourceVersion=1", true),
            ("/api/v1/pods?&watch=1", true),
            ("/api/v1/pods?watch=false", false),
            ("/api/v1/pods", false),
        ] {
            assert_eq!(is_watch(&Request::get(uri).body(()).unwrap()), watch, "{uri}");
        }
    }
}
