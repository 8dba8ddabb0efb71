//! The KV service: reads, writes, transactions, compaction.

use std::sync::Arc;

use sampan_store::{LeaseId, OpResult, Revision, StorageError, Txn, TxnResponse};
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest,
};
use crate::{check, convert, range, status};

pub(crate) struct KvService {
    pub(crate) context: Arc<Context>,
}

impl KvService {
    async fn run(&self, txn: Txn) -> Result<TxnResponse, Status> {
        let response = self.context.storage.txn(txn).await.map_err(|error| self.context.refusal(&error))?;
        match &*response.results {
            [OpResult::Refused(why)] => Err(status::refused(why)),
            _ => Ok(response),
        }
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request)?;
        let mut asked = range::asked(&request);
        if request.serializable && asked.revision.is_none() {
            // What this member has at hand, whatever the others know.
            asked.revision = Some(self.context.storage.revision());
        }
        if !request.serializable && asked.revision.is_some() {
            // This member may not have come as far as whoever names the revision.
            let confirmed = self.context.storage.current_revision().await;
            confirmed.map_err(|error| self.context.refusal(&error))?;
        }
        let found = self.context.storage.range(asked).await.map_err(|error| self.context.refusal(&error))?;
        let revision = self.context.storage.revision();
        let revision = if request.revision > 0 { revision } else { found.revision };
        let answer = range::answer(&request, found.kvs, found.count);
        Ok(Response::new(RangeResponse { header: Some(self.context.header(revision)), ..answer }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        check::put(&request)?;
        let response = match self.run(Txn { success: vec![convert::put(&request)], ..Txn::default() }).await {
            // Where both are missing etcd names the lease, other than in a transaction.
            Err(refusal) if request.lease != 0 && refusal.message() == status::key_not_found().message() => {
                let lease = Box::pin(self.context.lessor.granted_seconds(LeaseId(request.lease))).await;
                let granted = lease.map_err(|error| self.context.refusal(&error))?;
                return Err(granted.map_or_else(status::lease_not_found, |_| refusal));
            }
            response => response?,
        };
        let header = Some(self.context.header(response.revision));
        match response.results.into_iter().next() {
            Some(OpResult::Put { previous }) => {
                Ok(Response::new(PutResponse { header, ..convert::put_answer(&request, previous) }))
            }
            _ => Err(convert::unexpected()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete(&request)?;
        let response = self.run(Txn { success: convert::deletes(&request), ..Txn::default() }).await?;
        let header = Some(self.context.header(response.revision));
        let answer = convert::delete_answer(&request, &mut response.results.into_iter())?;
        Ok(Response::new(DeleteRangeResponse { header, ..answer }))
    }

    async fn txn(
        &self,
        request: Request<TxnRequest>,
    ) -> Result<Response<crate::proto::etcdserverpb::TxnResponse>, Status> {
        let request = request.into_inner();
        check::txn(&request, self.context.options.max_txn_ops)?;
        let response = self.run(convert::txn(&request)).await?;
        let header = Some(self.context.header(response.revision));
        let mut answer = convert::answer(&request, response)?;
        answer.header = header;
        Ok(Response::new(answer))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        let revision = u64::try_from(revision).ok().filter(|at| *at > 0).ok_or_else(status::compacted)?;
        let refusal = |error: StorageError| self.context.refusal(&error);
        if revision <= self.context.oldest().await.map_err(refusal)?.0 {
            return Err(status::compacted());
        }
        self.context.storage.compact(Revision(revision)).await.map_err(refusal)?;
        if physical {
            self.context.view.reclaim().await.map_err(|error| self.context.view_refusal(&error))?;
        }
        Ok(Response::new(CompactionResponse { header: Some(self.context.header_now()) }))
    }
}
