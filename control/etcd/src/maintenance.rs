//! The Maintenance service.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use sampan_store::{Revision, StorageError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::context::{Context, number};
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::maintenance_server::Maintenance;
use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use crate::snapshot::Export;
use crate::{ETCD_VERSION, hash, status};

pub(crate) struct MaintenanceService {
    pub(crate) context: Arc<Context>,
}

impl MaintenanceService {
    fn refused(&self, error: &StorageError) -> Status {
        self.context.refusal(error)
    }

    async fn hash_at(&self, at: Revision) -> Result<u32, Status> {
        hash::hash(&*self.context.storage, at).await.map_err(|error| self.refused(&error))
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    /// There are no alarms: a full disk is told to whoever writes, and ends by itself.
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() == AlarmAction::Activate {
            return Err(status::unsupported("raising an alarm", "there are none"));
        }
        let header = Some(self.context.header_now());
        Ok(Response::new(AlarmResponse { header, alarms: Vec::new() }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let view = &self.context.view;
        let (leadership, log, size) = (view.leadership(), view.log(), view.db_size());
        let members = view.members().await.map_err(|error| self.context.view_refusal(&error))?;
        let learner = members.iter().any(|member| member.id == view.member_id() && member.learner);
        let errors = match leadership.leader {
            Some(_) => Vec::new(),
            None => vec!["etcdserver: no leader".to_owned()],
        };
        Ok(Response::new(StatusResponse {
            header: Some(self.context.header_now()),
            version: ETCD_VERSION.to_owned(),
            db_size: number(size.file),
            leader: leadership.leader.unwrap_or(0),
            raft_index: log.committed,
            raft_term: leadership.term,
            raft_applied_index: log.applied,
            errors,
            db_size_in_use: number(size.in_use),
            is_learner: learner,
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.context.view.reclaim().await.map_err(|error| self.context.view_refusal(&error))?;
        Ok(Response::new(DefragmentResponse { header: Some(self.context.header_now()) }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let at = self.context.storage.revision();
        let hash = self.hash_at(at).await?;
        Ok(Response::new(HashResponse { header: Some(self.context.header(at)), hash }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let asked = u64::try_from(request.into_inner().revision).unwrap_or(0);
        let at = if asked == 0 { self.context.storage.revision() } else { Revision(asked) };
        let hash = self.hash_at(at).await?;
        let oldest = self.context.oldest().await.map_err(|error| self.refused(&error))?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.context.header_now()),
            hash,
            compact_revision: number(oldest.0),
            hash_revision: number(at.0),
        }))
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(snapshot(Arc::clone(&self.context), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        if !self.context.view.leadership().mine {
            return Err(status::not_leader());
        }
        let moved = self.context.view.transfer_leadership(request.into_inner().target_id).await;
        moved.map_err(|error| self.context.view_refusal(&error))?;
        Ok(Response::new(MoveLeaderResponse { header: Some(self.context.header_now()) }))
    }

    async fn downgrade(&self, _: Request<DowngradeRequest>) -> Result<Response<DowngradeResponse>, Status> {
        Err(status::unsupported("downgrading", "servers of neighbouring versions run side by side"))
    }
}

type Answers = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Sends a snapshot of the store as of now.
async fn snapshot(context: Arc<Context>, answers: Answers) {
    if let Err(status) = send_snapshot(&context, &answers).await {
        let _ = answers.send(Err(status)).await;
    }
}

async fn send_snapshot(context: &Context, answers: &Answers) -> Result<(), Status> {
    let storage = &*context.storage;
    let refused = |error: StorageError| context.refusal(&error);
    let export = Export::new(storage, context.view.log().applied).await.map_err(refused)?;
    let mut left = export.bytes();
    let mut pieces = export.pieces(storage);
    while let Some(blob) = pieces.next().await.map_err(refused)? {
        left = left.saturating_sub(blob.len() as u64);
        let answer = SnapshotResponse {
            header: Some(context.header(export.revision())),
            remaining_bytes: left,
            blob,
            version: ETCD_VERSION.to_owned(),
        };
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return Err(status::stopped()),
            sent = answers.send(Ok(answer)) => sent.map_err(|_| Status::cancelled("the client is gone"))?,
        }
    }
    Ok(())
}
