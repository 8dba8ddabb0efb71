//! What all requests share: the registries, the caches, and who decides what.

use std::sync::Arc;

use sampan_store::Storage;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Finder};
use crate::auth::{Authorizer, Revocations, TokenAuthority};
use crate::cacher::Caches;
use crate::discovery::Documents;
use crate::endpoints::NodeConnector;
use crate::filters::audit::AuditLog;
use crate::registry::Registries;
use crate::server::Figures;

/// The server's state; made once, then shared.
pub(crate) struct Core {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) caches: Arc<Caches>,
    pub(crate) registries: Registries,
    pub(crate) admission: Admission,
    pub(crate) finder: Finder,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: TokenAuthority,
    pub(crate) audit: Option<AuditLog>,
    pub(crate) nodes: Option<Arc<dyn NodeConnector>>,
    pub(crate) documents: Documents,
    /// More for `/metrics`.
    pub(crate) figures: Option<Figures>,
    /// Who is not what his certificate says any more; nobody without it.
    pub(crate) revocations: Option<Arc<dyn Revocations>>,
    /// Routes below `/sampan/v1/`, where there are any.
    pub(crate) extension: Option<axum::Router>,
    /// `host:port` by which clients reach us.
    pub(crate) advertise: String,
    /// Set when the server is going down: watches end.
    pub(crate) shutdown: CancellationToken,
}
