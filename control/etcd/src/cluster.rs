//! The Cluster service: who the members are. Changing them is done with sampan's own commands.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::proto::etcdserverpb::cluster_server::Cluster;
use crate::proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use crate::status;
use crate::view::MemberView;

pub(crate) struct ClusterService {
    pub(crate) context: Arc<Context>,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let revision = if request.into_inner().linearizable {
            let confirmed = self.context.storage.current_revision().await;
            confirmed.map_err(|error| self.context.refusal(&error))?
        } else {
            self.context.storage.revision()
        };
        let members = self.context.view.members().await;
        let members = members.map_err(|error| self.context.view_refusal(&error))?;
        Ok(Response::new(MemberListResponse {
            header: Some(self.context.header(revision)),
            members: members.into_iter().map(member).collect(),
        }))
    }

    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(status::unsupported("adding a member", "'sampan server --server URL --token TOKEN' joins one"))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(status::unsupported("removing a member", "use 'sampan member remove'"))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(status::unsupported("updating a member", "members tell their addresses themselves"))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(status::unsupported("promoting a member", "use 'sampan member promote'"))
    }
}

fn member(view: MemberView) -> Member {
    Member {
        id: view.id,
        name: view.name,
        peer_ur_ls: view.peer_urls,
        client_ur_ls: view.client_urls,
        is_learner: view.learner,
    }
}
