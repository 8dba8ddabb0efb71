//! The Auth service: users and roles of etcd's own do not exist, and requests for them say so.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::proto::etcdserverpb::auth_server::Auth;
use crate::proto::etcdserverpb::{AuthRequest, AuthResponse, AuthStatusRequest, AuthStatusResponse};
use crate::status;

pub(crate) struct AuthService {
    pub(crate) context: Arc<Context>,
}

type Answer = Result<Response<AuthResponse>, Status>;

fn refused() -> Answer {
    Err(status::unsupported("etcd's authentication", "clients are known by their certificates"))
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_status(
        &self,
        _: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let header = Some(self.context.header_now());
        Ok(Response::new(AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    /// As etcd without authentication: clients that were given a name and a password are told.
    async fn authenticate(&self, _: Request<AuthRequest>) -> Answer {
        Err(status::auth_not_enabled())
    }

    async fn auth_enable(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn auth_disable(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_add(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_get(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_list(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_delete(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_change_password(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_grant_role(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn user_revoke_role(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_add(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_get(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_list(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_delete(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_grant_permission(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }

    async fn role_revoke_permission(&self, _: Request<AuthRequest>) -> Answer {
        refused()
    }
}
