//! Limits: how large a request may be, and how long it may take.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sampan_api::status::Status;

use crate::body::Body;

/// The largest body.
const MAX_BODY: usize = 3 << 20;

/// How long a request may take that is not a stream.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reads a request's body.
pub(super) async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Status::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(error) => Err(Status::bad_request(format!("the request's body cannot be read: {error}"))),
    }
}

/// Gives up on work that takes too long, unless it may.
pub(super) async fn within_deadline<T>(
    long_running: bool,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    if long_running {
        return work.await;
    }
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| {
        Err(Status::timeout("Timeout: request did not complete within the allotted timeout"))
    })
}
