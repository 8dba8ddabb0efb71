//! The Watch service: any number of watches on one stream.
//!
//! Guarantees: each watch gets every event of its range from its first revision on, once and in
//! order, whole revisions at a time (cut only for clients that ask for fragments). Watches of one
//! stream that have caught up are told of a revision before any of them is told of a later one.
//! An answer to a progress request says that every watch of the stream was told of everything up
//! to its revision.

mod events;
mod merge;
mod session;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::context::Context;
use crate::proto::etcdserverpb::watch_server::Watch;
use crate::proto::etcdserverpb::{WatchRequest, WatchResponse};
use crate::status;

/// How many answers may wait for a client before its watches do.
const QUEUE: usize = 16;
/// What a client sends along that wants streams to end where nobody leads.
const REQUIRE_LEADER: &str = "hasleader";

pub(crate) struct WatchService {
    pub(crate) context: Arc<Context>,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let require = request.metadata().get(REQUIRE_LEADER).is_some_and(|value| value.as_bytes() == b"true");
        if require && self.context.view.leadership().leader.is_none() {
            return Err(status::no_leader());
        }
        let (answers, stream) = mpsc::channel(QUEUE);
        let session = session::Session::new(Arc::clone(&self.context), answers, require);
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
