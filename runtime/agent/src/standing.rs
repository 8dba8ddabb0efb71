//! Whether a server answers for its group. One that is cut off from the others takes connections and
//! knows nothing: a node that believed it would wait for it instead of starting from its own copy.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, StatusCode};
use sampan_apiserver::Body;
use sampan_transport::{Connection, Purpose, TransportError};

use crate::http1;

/// A read of the newest state, which takes a leader and a quorum. It needs no rights, and servers of
/// every release answer it.
const QUESTION: &str = "/readyz/store";
/// A server gives up after three seconds by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a server is of no use now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Useless {
    /// It cannot be reached, or is not who it should be.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// It ended the connection at once.
    #[error("the server {server:?} turns this node away: {why}")]
    TurnedAway {
        /// The server's name.
        server: String,
        /// What it said.
        why: String,
    },
    /// It is there, and its group is not.
    #[error(
        "the server {0:?} answers, but not for its group: it has no leader or no quorum, or still starts"
    )]
    Alone(String),
}

impl Useless {
    /// Whether nobody answered at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport(error) if error.is_unreachable())
    }

    /// Whether a server is there that may be of use soon.
    pub(crate) fn may_pass_soon(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// Whether the server at the other end answers for its group now.
pub(crate) async fn answers(connection: &Connection) -> bool {
    let asking = async {
        let stream = connection.open(Purpose::Api).await.ok()?;
        Some(http1::send(stream, question()?).await.ok()?.status())
    };
    is_good(tokio::time::timeout(PATIENCE, asking).await.ok().flatten())
}

/// The same of an API in this process.
pub(crate) async fn answers_here<S>(mut api: S) -> bool
where
    S: tower::Service<Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let asking = async { Some(api.call(question()?).await.ok()?.status()) };
    is_good(tokio::time::timeout(PATIENCE, asking).await.ok().flatten())
}

/// Whether an answer to something else is a reason to ask.
pub(crate) fn is_doubtful(status: StatusCode) -> bool {
    matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn question() -> Option<Request<Body>> {
    Request::get(QUESTION).body(Body::empty()).ok()
}

fn is_good(status: Option<StatusCode>) -> bool {
    status == Some(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Response;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_good_answer_in_time_counts() {
        let ask = |status: Option<StatusCode>| async move {
            let asked = Arc::new(parking_lot::Mutex::new(String::new()));
            let heard = Arc::clone(&asked);
            let api = tower::service_fn(move |request: Request<Body>| {
                *heard.lock() = request.uri().to_string();
                async move {
                    let Some(status) = status else { return std::future::pending().await };
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            let good = answers_here(api).await;
            assert_eq!(*asked.lock(), "/readyz/store");
            good
        };
        assert!(ask(Some(StatusCode::OK)).await);
        for status in [None, Some(StatusCode::INTERNAL_SERVER_ERROR), Some(StatusCode::NOT_FOUND)] {
            assert!(!ask(status).await, "{status:?}");
        }
        assert!(is_doubtful(StatusCode::SERVICE_UNAVAILABLE) && !is_doubtful(StatusCode::CONFLICT));
    }
}
