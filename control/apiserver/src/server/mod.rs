//! The server: made once, reached over TLS ([`ApiServer::serve`]) and in process
//! ([`ApiServer::service`]) through the same filters.

mod bootstrap;
mod event_ttl;
mod listener;
mod local;

use std::path::PathBuf;
use std::sync::Arc;

use sampan_api::status::Status;
use sampan_store::{Storage, StorageError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Finder};
use crate::auth::{Authorizer, BuiltInAuthorizer, Revocations, TokenAuthority, UserInfo};
use crate::cacher::Caches;
use crate::core::Core;
use crate::discovery::Documents;
use crate::endpoints::NodeConnector;
use crate::filters::audit::AuditLog;
use crate::metrics;
use crate::pki::{Pki, PkiError};
use crate::registry::{Registries, strategies};

pub use listener::{Handover, certificate_user};
pub use local::LocalService;

/// Who issues service account tokens, and for whom, where nothing else is configured.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why the server could not start or serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Storage(#[from] StorageError),
    /// Keys or certificates cannot be used.
    #[error("keys or certificates cannot be used")]
    Pki(#[from] PkiError),
    /// The key of service account tokens cannot be used.
    #[error("the service account key cannot be used")]
    TokenKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The audit log cannot be opened.
    #[error("the audit log {path} cannot be opened")]
    Audit {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What every cluster has could not be made.
    #[error("the first objects cannot be made")]
    Bootstrap(#[source] Box<Status>),
}

/// Whose objects a server serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Its cluster's: what every cluster has is made at the start, and old events go.
    #[default]
    Own,
    /// Copies of another server's: nothing is made, and nothing goes by itself.
    Copies,
}

/// Tells metrics, as Prometheus' text. Asked whenever somebody scrapes; must not block.
pub type Figures = Arc<dyn Fn() -> String + Send + Sync>;

/// How the server is set up.
pub struct Config {
    /// Where objects are kept.
    pub storage: Arc<dyn Storage>,
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// Where the audit log goes; none without a file.
    pub audit: Option<PathBuf>,
    /// How nodes are reached, for logs.
    pub nodes: Option<Arc<dyn NodeConnector>>,
    /// `host:port` by which clients reach us.
    pub advertise: String,
    /// The `iss` of service account tokens, and the audience that means this server.
    pub issuer: String,
    /// Who decides what users may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// Routes below `/sampan/v1/` (given with their whole paths), served behind the filters. A request
    /// carries its [`UserInfo`] as an extension. Its body is not read for it, and it has no deadline:
    /// both are the handler's, so that it may stream.
    pub extension: Option<axum::Router>,
    /// More for `/metrics`, as Prometheus' text: whatever this crate does not know of the store.
    pub figures: Option<Figures>,
    /// Whose machine certificates are not good any more: their requests are answered with 401, and
    /// their connections are closed.
    pub revocations: Option<Arc<dyn Revocations>>,
    /// Who takes connections over that agreed on another protocol than HTTP.
    pub handover: Option<Arc<dyn Handover>>,
    /// Whose objects `storage` holds.
    pub contents: Contents,
    /// Of several servers over one store, whether this one does what only one needs to do; without it,
    /// it does.
    pub leading: Option<tokio::sync::watch::Receiver<bool>>,
}

impl Config {
    /// Everything but the store, the keys and the address as usual.
    pub fn new(storage: Arc<dyn Storage>, pki: Arc<Pki>, advertise: impl Into<String>) -> Self {
        Self {
            storage,
            pki,
            audit: None,
            nodes: None,
            advertise: advertise.into(),
            issuer: DEFAULT_ISSUER.to_owned(),
            authorizer: Arc::new(BuiltInAuthorizer),
            extension: None,
            figures: None,
            revocations: None,
            handover: None,
            contents: Contents::Own,
            leading: None,
        }
    }
}

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
    pki: Arc<Pki>,
    handover: Option<Arc<dyn Handover>>,
}

impl ApiServer {
    /// Loads the caches and makes what every cluster has. The server answers from now on, in
    /// process; [`ApiServer::serve`] opens it to the network.
    pub async fn new(config: Config) -> Result<Self, ServerError> {
        let Config { storage, pki, audit, nodes, advertise, issuer, authorizer, .. } = config;
        let (extension, handover, contents) = (config.extension, config.handover, config.contents);
        let (leading, revocations) = (config.leading, config.revocations);
        let shutdown = CancellationToken::new();
        let (private, public) = pki.token_key();
        let tokens = TokenAuthority::new(&private, &public, &issuer, vec![issuer.clone()])
            .map_err(|e| ServerError::TokenKey(e.into()))?;
        let audit = match audit {
            Some(path) => Some(
                AuditLog::open(&path)
                    .map_err(|source| ServerError::Audit { path: path.display().to_string(), source })?,
            ),
            None => None,
        };
        let strategies = strategies::all();
        let caches = Caches::start(Arc::clone(&storage), &strategies, shutdown.clone()).await?;
        let finder = Finder::new(Arc::clone(&caches), Arc::clone(&storage));
        let core = Arc::new(Core {
            registries: Registries::new(&storage, &caches, &strategies),
            admission: Admission::new(&finder),
            storage,
            caches,
            finder,
            authorizer,
            tokens,
            audit,
            nodes,
            documents: Documents::default(),
            figures: config.figures,
            revocations,
            extension,
            advertise,
            shutdown: shutdown.clone(),
        });
        metrics::start(shutdown.clone());
        if contents == Contents::Own {
            tokio::spawn(event_ttl::run(Arc::clone(&core.storage), leading, shutdown));
            bootstrap::namespaces(&core).await.map_err(|status| ServerError::Bootstrap(Box::new(status)))?;
        }
        Ok(Self { core, pki, handover })
    }

    /// The server as a tower service, for a user of this process: give it to `kube::Client::new`.
    pub fn service(&self, user: UserInfo) -> LocalService {
        LocalService::new(Arc::clone(&self.core), user)
    }

    /// Serves TLS connections until `shutdown`; then watches end, requests under way are finished,
    /// and the caches stop.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServerError> {
        let mut config = self.pki.server_config()?;
        if let Some(handover) = &self.handover {
            config.alpn_protocols.push(handover.protocol().to_vec());
        }
        listener::serve(self, listener, config, shutdown).await;
        Ok(())
    }

    /// Ends all watches and the caches. Called by [`ApiServer::serve`] when it ends.
    pub fn shutdown(&self) {
        self.core.shutdown.cancel();
    }
}
