//! Keeps a machine's certificates, and its trust in the cluster's authorities, fresh while it runs.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use sampan_apiserver::pki::{Pki, not_after};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::enroll::{fetch_authority, renew};
use super::layout::{self, Joined};
use super::trust;
use crate::JoinError;

/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Where new certificates come from.
#[derive(Clone)]
pub enum RenewFrom {
    /// From the servers that this gives (`https://HOST:6443` each), asked anew each time.
    Servers(Arc<dyn Fn() -> Vec<String> + Send + Sync>),
    /// From this server's own authorities.
    Own(Arc<Pki>),
}

/// What is new, to be put to use: certificates, authorities, or both.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// A certificate (PEM) with key for each role.
    pub identities: Vec<(sampan_apiserver::pki::MachineRole, sampan_apiserver::pki::Identity)>,
    /// The authorities of servers (the API's certificates), PEM.
    pub server_pem: String,
    /// The authorities of machines, PEM.
    pub client_pem: String,
    /// The servers as they were last heard of.
    pub servers: Vec<crate::Member>,
}

/// Renews certificates after two thirds of their life, and when another authority signs; fetches
/// the cluster's authorities. What is new is written down and then handed to `install`.
pub struct Renewer {
    joined: Joined,
    from: RenewFrom,
    addresses: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    install: Box<dyn Fn(Renewal) + Send + Sync>,
}

impl Renewer {
    /// `addresses` are this machine's now (`host:port` each); `clock` tells the time as far as it is
    /// known; `install` puts to use what is new, at once, without blocking.
    pub fn new(
        joined: Joined,
        from: RenewFrom,
        addresses: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        install: impl Fn(Renewal) + Send + Sync + 'static,
    ) -> Self {
        Self { joined, from, addresses, clock, install: Box::new(install) }
    }

    /// Looks now and then, until `shutdown`. What fails is tried again; the machine goes on with what
    /// it has.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = match &self.from {
            RenewFrom::Own(pki) => pki.trust(),
            RenewFrom::Servers(_) => watch::Sender::new(Default::default()).subscribe(),
        };
        loop {
            if let Err(error) = self.look().await {
                let why = chain(&error);
                if error.may_pass() {
                    tracing::debug!(why, "certificates could not be looked at; later again");
                } else {
                    tracing::warn!(why, "certificates could not be renewed; later again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause()) => {}
                () = changed(&mut changes) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One look: renews what is due, fetches what has changed. Whether anything was new.
    pub async fn look(&mut self) -> Result<bool, JoinError> {
        match self.from.clone() {
            RenewFrom::Own(pki) => self.look_at_own(&pki),
            RenewFrom::Servers(servers) => self.look_at(&servers()).await,
        }
    }

    fn look_at_own(&mut self, pki: &Pki) -> Result<bool, JoinError> {
        let trust = pki.trust().borrow().clone();
        let trusts = trust.server_pem == self.joined.server_pem && trust.client_pem == self.joined.client_pem;
        let due = is_due(&self.joined, &trust.client_pem, (self.clock)())?;
        if trusts && !due {
            return Ok(false);
        }
        if due {
            let (name, roles) = (self.joined.name.clone(), self.joined.roles.clone());
            self.joined.certificates = layout::issue(pki, &self.joined.key, &name, &roles)?;
            self.joined.life = pki.life();
        }
        self.joined.generation = trust.generation;
        self.joined.server_pem = trust.server_pem;
        self.joined.client_pem = trust.client_pem;
        self.joined.write()?;
        self.hand_over();
        Ok(true)
    }

    async fn look_at(&mut self, servers: &[String]) -> Result<bool, JoinError> {
        let addresses = (self.addresses)();
        if is_due(&self.joined, &self.joined.client_pem, (self.clock)())? {
            renew(&mut self.joined, servers, &addresses).await?;
            self.hand_over();
            self.acknowledge(servers).await?;
            return Ok(true);
        }
        let authority = match fetch_authority(&self.joined, servers).await {
            // Whatever stands in the way of the short way (the cluster's authorities were changed
            // while this machine slept): the long way shows.
            Err(JoinError::NotProven { .. }) => {
                renew(&mut self.joined, servers, &addresses).await?;
                self.hand_over();
                return Ok(true);
            }
            outcome => outcome?,
        };
        if authority.server_pem == self.joined.server_pem && authority.client_pem == self.joined.client_pem {
            return Ok(false);
        }
        self.joined.generation = authority.generation;
        self.joined.server_pem = authority.server_pem;
        self.joined.client_pem = authority.client_pem;
        self.joined.write()?;
        self.hand_over();
        if is_due(&self.joined, &self.joined.client_pem, (self.clock)())? {
            renew(&mut self.joined, servers, &addresses).await?;
            self.hand_over();
        }
        self.acknowledge(servers).await?;
        Ok(true)
    }

    /// Tells the servers which authorities this machine trusts by now.
    async fn acknowledge(&self, servers: &[String]) -> Result<(), JoinError> {
        fetch_authority(&self.joined, servers).await.map(|_| ())
    }

    fn hand_over(&self) {
        tracing::info!(name = self.joined.name, "certificates or authorities are new");
        let identity =
            |role: &sampan_apiserver::pki::MachineRole| Some((*role, self.joined.identity(*role)?));
        (self.install)(Renewal {
            identities: self.joined.roles.iter().filter_map(identity).collect(),
            server_pem: self.joined.server_pem.clone(),
            client_pem: self.joined.client_pem.clone(),
            servers: self.joined.servers.clone(),
        });
    }

    fn pause(&self) -> Duration {
        let base = Duration::try_from(self.joined.life / 24).unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
        // So that machines which started together do not ask together.
        base.mul_f64(rand::rng().random_range(0.75..1.25))
    }
}

/// Waits for a change; for ever where there will be none.
async fn changed<T>(changes: &mut watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether a certificate is to be renewed: two thirds of its life are over, or another authority (the
/// first of `client_pem`) signs by now.
fn is_due(joined: &Joined, client_pem: &str, now: Timestamp) -> Result<bool, JoinError> {
    for certificate in &joined.certificates {
        let left: SignedDuration = not_after(&certificate.pem)?.duration_since(now);
        if left < joined.life / 3 || !trust::is_issued_by(&certificate.pem, client_pem) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
