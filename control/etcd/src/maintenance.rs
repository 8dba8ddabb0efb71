//! The Maintenance service.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use sampan_store::{Revision, StorageError};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
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
use crate::{ETCD_VERSION, hash, status};

/// How much of a snapshot one answer carries.
const PIECE: usize = 32 << 10;
/// Clients of etcd tell by the length that a checksum follows: its files come in whole blocks.
const BLOCK: usize = 512;

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

type Pieces = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Sends a snapshot of the store, filled up with zeros to whole blocks, and its SHA-256.
async fn snapshot(context: Arc<Context>, answers: Pieces) {
    if let Err(status) = send_snapshot(&context, &answers).await {
        let _ = answers.send(Err(status)).await;
    }
}

async fn send_snapshot(context: &Arc<Context>, answers: &Pieces) -> Result<(), Status> {
    let (mut to, mut from) = tokio::io::duplex(4 * PIECE);
    let storage = Arc::clone(&context.storage);
    let writer = tokio::spawn(async move {
        let written = storage.snapshot(&mut to).await;
        // Only now does the reader see the end.
        drop(to);
        written
    });
    let mut expected = context.view.db_size().in_use;
    let mut hasher = Sha256::new();
    let mut total = 0;
    loop {
        let piece = read_piece(&mut from).await?;
        if piece.is_empty() {
            break;
        }
        total += piece.len();
        hasher.update(&piece);
        expected = expected.saturating_sub(piece.len() as u64);
        send(context, answers, piece, expected.max(1)).await?;
    }
    let written = writer.await.map_err(|error| Status::internal(format!("etcdserver: {error}")))?;
    written.map_err(|error| context.refusal(&error))?;
    let padding = Bytes::from(vec![0; total.next_multiple_of(BLOCK) - total]);
    hasher.update(&padding);
    if !padding.is_empty() {
        send(context, answers, padding, 1).await?;
    }
    send(context, answers, Bytes::copy_from_slice(&hasher.finalize()), 0).await
}

/// A whole piece, or what is left.
async fn read_piece(from: &mut (impl AsyncReadExt + Unpin)) -> Result<Bytes, Status> {
    let mut piece = BytesMut::with_capacity(PIECE);
    while piece.len() < PIECE {
        let read = from.read_buf(&mut piece).await;
        if read.map_err(|error| Status::internal(format!("etcdserver: {error}")))? == 0 {
            break;
        }
    }
    Ok(piece.freeze())
}

async fn send(context: &Context, answers: &Pieces, blob: Bytes, remaining_bytes: u64) -> Result<(), Status> {
    let header = Some(context.header_now());
    let answer = SnapshotResponse { header, remaining_bytes, blob, version: ETCD_VERSION.to_owned() };
    tokio::select! {
        biased;
        () = context.stop.cancelled() => Err(status::stopped()),
        sent = answers.send(Ok(answer)) => sent.map_err(|_| Status::cancelled("the client is gone")),
    }
}
