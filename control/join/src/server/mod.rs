//! The server's side of joining: routes below `/sampan/v1/` and the work in the background.
//!
//! The API server mounts [`JoinService::router`] behind its filters; [`JoinService::run`] keeps
//! tokens swept and authorities the same on all servers. State is in the store, so that any server
//! answers.

mod authorities;
mod enrollment;
mod identities;
mod limiter;
mod members;
mod ranges;
mod records;
mod revoked;
mod routes;
mod snapshot;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::{SignedDuration, Timestamp};
use revoked::Revoked;
use sampan_api::status::Status;
use sampan_apiserver::Revocations;
use sampan_apiserver::pki::Pki;
use sampan_store::Storage;
use tokio_util::sync::CancellationToken;

use crate::client::Joined;
use crate::wire::{CreatedToken, NewToken, RotationStatus};
use crate::{JoinError, Membership, TokenRole};
use crate::{KeyId, MachineRole};
use identities::Identities;
use limiter::Limiter;
use records::Records;
use tokens::Tokens;

/// Keys below this prefix hold private keys: the store must seal their values.
pub const SEALED_PREFIX: &str = "/sampan/pki/";

/// How long the tokens hold that a new cluster shows at first.
pub const FIRST_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

const FIRST_TOKENS: &str = "/sampan/first-tokens";
const SWEEP: Duration = Duration::from_secs(3600);

/// Reads the content of the store's key file, where values are sealed.
pub type SealingKeys = Arc<dyn Fn() -> std::io::Result<String> + Send + Sync>;

/// What the service works with.
pub struct JoinConfig {
    /// Where tokens and identities are kept.
    pub storage: Arc<dyn Storage>,
    /// The cluster's authorities.
    pub pki: Arc<Pki>,
    /// The group of servers.
    pub membership: Arc<dyn Membership>,
    /// Which cluster this is.
    pub cluster_id: String,
    /// This server's name.
    pub name: String,
    /// Settings that are the whole cluster's, such as address ranges; a server that joins takes them.
    pub settings: BTreeMap<String, String>,
    /// How many nodes the range of pod addresses has parts for.
    pub node_parts: u32,
    /// The store's keys, where it seals values.
    pub sealing_keys: Option<SealingKeys>,
    /// For how long a change of authorities waits for nodes that do not show up.
    pub patience: SignedDuration,
    /// How often a change of authorities is looked at.
    pub step_every: Duration,
}

impl JoinConfig {
    /// Everything but the necessary as usual.
    pub fn new(
        storage: Arc<dyn Storage>,
        pki: Arc<Pki>,
        membership: Arc<dyn Membership>,
        cluster_id: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            storage,
            pki,
            membership,
            cluster_id: cluster_id.into(),
            name: name.into(),
            settings: BTreeMap::new(),
            node_parts: 256,
            sealing_keys: None,
            patience: SignedDuration::from_hours(7 * 24),
            step_every: Duration::from_secs(60),
        }
    }
}

/// What routes and tasks share.
pub(crate) struct Inner {
    config: JoinConfig,
    tokens: Tokens,
    identities: Identities,
    records: Records,
    revoked: Arc<Revoked>,
    strangers: Limiter,
}

/// The server's side of joining. Cheap to clone.
#[derive(Clone)]
pub struct JoinService {
    inner: Arc<Inner>,
}

impl JoinService {
    /// A service; it does nothing by itself until [`JoinService::run`].
    pub fn new(config: JoinConfig) -> Self {
        let records = Records::new(Arc::clone(&config.storage));
        let inner = Inner {
            tokens: Tokens::new(records.clone()),
            identities: Identities::new(records.clone()),
            revoked: Revoked::new(records.clone()),
            records,
            strangers: Limiter::new(),
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The routes, with their whole paths: for `sampan_apiserver::Config::extension`.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.inner))
    }

    /// Sweeps tokens, takes over authorities that another server changed, and takes the next step of
    /// a change of authorities when it is time, until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        tokio::join!(
            sweep(inner, shutdown.clone()),
            authorities::follow(inner, shutdown.clone()),
            authorities::step_by_step(inner, shutdown.clone()),
            inner.revoked.follow(shutdown),
        );
    }

    /// Brings this server's authorities and the store's together, and finds out who was removed,
    /// once: to be awaited after the store is open and before the API is served.
    /// [`JoinService::run`] goes on from there.
    pub async fn share_authorities(&self) -> Result<(), JoinError> {
        authorities::reconcile(&self.inner).await.map_err(refused)?;
        self.inner.revoked.load().await.map(|_| ()).map_err(refused)
    }

    /// Who was removed, kept current by [`JoinService::run`]: for `sampan_apiserver::Config::revocations`.
    pub fn revocations(&self) -> Arc<dyn Revocations> {
        Arc::clone(&self.inner.revoked) as Arc<dyn Revocations>
    }

    /// Writes down that this server's key owns its names, as enrolment does for machines that join.
    pub async fn record_self(&self, joined: &Joined, addresses: &[String]) -> Result<(), JoinError> {
        let machine = identities::Applicant {
            name: &joined.name,
            roles: &joined.roles,
            key: joined.key.id(),
            addresses,
            holds: self.inner.config.pki.authorities().generation,
        };
        self.inner.take_over(joined.key.id(), &joined.name).await.map_err(refused)?;
        self.inner.identities.admit(&machine, identities::Proof::Key, Timestamp::now()).await.map_err(refused)
    }

    /// Which part of the range of pod addresses a node has; given now if it has none.
    pub async fn node_index(&self, name: &str) -> Result<u32, JoinError> {
        self.inner.node_index(name).await.map_err(refused)
    }

    /// Makes a token.
    pub async fn create_token(&self, wanted: &NewToken) -> Result<CreatedToken, JoinError> {
        self.inner.create_token(wanted).await.map_err(refused)
    }

    /// The first tokens of a new cluster, one for servers and one for agents; made once, `None` ever after.
    pub async fn first_tokens(&self) -> Result<Option<[CreatedToken; 2]>, JoinError> {
        let first = self.inner.records.create(FIRST_TOKENS, &true).await.map_err(refused)?;
        if !first {
            return Ok(None);
        }
        let wanted = |role| NewToken {
            role,
            ttl_seconds: Some(FIRST_TOKEN_TTL.as_secs()),
            description: "made with the cluster".to_owned(),
        };
        let server = self.create_token(&wanted(TokenRole::Server)).await?;
        let agent = self.create_token(&wanted(TokenRole::Agent)).await?;
        Ok(Some([server, agent]))
    }

    /// Begins a change of the cluster's authorities. It goes on in the background, on whichever
    /// server runs.
    pub async fn rotate(&self) -> Result<RotationStatus, JoinError> {
        authorities::rotate(&self.inner).await.map_err(refused)
    }

    /// Where a change of authorities stands.
    pub async fn rotation_status(&self) -> Result<RotationStatus, JoinError> {
        authorities::status(&self.inner).await.map_err(refused)
    }
}

impl Inner {
    /// In a cluster that was restored on another machine this server's name belongs to a key of which
    /// no member is: that machine is gone, and its key is turned away. Nobody else's name is touched.
    async fn take_over(&self, own: KeyId, name: &str) -> Result<(), Status> {
        let owner = self.identities.owner(MachineRole::Server, name).await?;
        let Some(old) = owner.map(|owner| owner.key).filter(|key| *key != own) else { return Ok(()) };
        if members::list(self).await?.iter().any(|state| state.member.key == old) {
            return Ok(());
        }
        tracing::warn!(name, key = %old, "the machine that had this server's name is no member any more");
        let now = Timestamp::now();
        if self.identities.owner(MachineRole::Node, name).await?.is_some_and(|node| node.key == old) {
            self.identities.remove(MachineRole::Node, name, old, now).await?;
        }
        self.identities.remove(MachineRole::Server, name, old, now).await
    }

    async fn node_index(&self, name: &str) -> Result<u32, Status> {
        ranges::claim(&self.records, name, self.config.node_parts, Timestamp::now()).await
    }

    async fn create_token(&self, wanted: &NewToken) -> Result<CreatedToken, Status> {
        let authorities = self.config.pki.authorities();
        let authority = authorities
            .signing_server()
            .and_then(|root| sampan_apiserver::pki::fingerprint(&root.certificate_pem))
            .map_err(|error| Status::internal(error.to_string()))?;
        self.tokens.create(&authority, wanted, Timestamp::now()).await
    }
}

async fn sweep(inner: &Inner, shutdown: CancellationToken) {
    loop {
        match inner.tokens.sweep(Timestamp::now()).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "expired join tokens are gone"),
            Err(status) => tracing::debug!(why = status.message, "expired join tokens stay for now"),
        }
        if tokio::time::timeout(SWEEP, shutdown.cancelled()).await.is_ok() {
            return;
        }
    }
}

fn refused(status: Status) -> JoinError {
    JoinError::Refused { code: status.code, message: status.message }
}
