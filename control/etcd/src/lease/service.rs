//! The Lease service.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use sampan_store::LeaseId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::lessor::Revoked;
use crate::context::Context;
use crate::proto::etcdserverpb::lease_server::Lease;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::status;

/// The shortest lease, in seconds: longer than an election, as etcd has it.
const MIN_TTL: i64 = 2;
/// The longest one, as etcd has it.
const MAX_TTL: i64 = 9_000_000_000;

pub(crate) struct LeaseService {
    pub(crate) context: Arc<Context>,
}

impl LeaseService {
    fn refused(&self, error: &sampan_store::StorageError) -> Status {
        self.context.refusal(error)
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_TTL {
            return Err(status::lease_ttl_too_large());
        }
        let ttl = ttl.max(MIN_TTL);
        let lessor = &self.context.lessor;
        let (lease, revision) = loop {
            let lease = LeaseId(if id == 0 { random_id()? } else { id });
            match lessor.grant(lease, ttl).await.map_err(|error| self.refused(&error))? {
                Some(revision) => break (lease, revision),
                None if id == 0 => {}
                None => return Err(status::lease_exists()),
            }
        };
        Ok(Response::new(LeaseGrantResponse {
            header: Some(self.context.header(revision)),
            id: lease.0,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let lease = LeaseId(request.into_inner().id);
        match self.context.lessor.revoke(lease).await.map_err(|error| self.refused(&error))? {
            Revoked::Gone(revision) => {
                Ok(Response::new(LeaseRevokeResponse { header: Some(self.context.header(revision)) }))
            }
            Revoked::NotFound => Err(status::lease_not_found()),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(keep_alive(Arc::clone(&self.context), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let lease = LeaseId(id);
        let lessor = &self.context.lessor;
        let granted = lessor.granted_seconds(lease).await.map_err(|error| self.refused(&error))?;
        let header = Some(self.context.header_now());
        let Some(granted_ttl) = granted else {
            let gone = LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
            return Ok(Response::new(gone));
        };
        let remaining = lessor.remaining(lease).map_or(granted_ttl, |left| left.as_secs().cast_signed());
        let keys =
            if keys { lessor.keys(lease).await.map_err(|error| self.refused(&error))? } else { Vec::new() };
        Ok(Response::new(LeaseTimeToLiveResponse { header, id, ttl: remaining, granted_ttl, keys }))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let (leases, revision) = self.context.lessor.leases().await.map_err(|error| self.refused(&error))?;
        let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.0 }).collect();
        Ok(Response::new(LeaseLeasesResponse { header: Some(self.context.header(revision)), leases }))
    }
}

/// Answers one stream's requests to keep leases alive, in order.
async fn keep_alive(
    context: Arc<Context>,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
) {
    loop {
        let request = tokio::select! {
            biased;
            () = context.stop.cancelled() => {
                let _ = answers.send(Err(status::stopped())).await;
                return;
            }
            request = requests.message() => request,
        };
        let Ok(Some(LeaseKeepAliveRequest { id })) = request else { return };
        let answer = match context.lessor.keep_alive(LeaseId(id)).await {
            Ok(ttl) => Ok(LeaseKeepAliveResponse {
                header: Some(context.header_now()),
                id,
                // 0 says that there is no such lease.
                ttl: ttl.unwrap_or(0),
            }),
            Err(error) => Err(context.refusal(&error)),
        };
        let last = answer.is_err();
        if answers.send(answer).await.is_err() || last {
            return;
        }
    }
}

/// A positive number that nobody has guessed.
fn random_id() -> Result<i64, Status> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Status::internal(format!("etcdserver: {error}")))?;
    Ok((i64::from_ne_bytes(bytes) & i64::MAX).max(1))
}
