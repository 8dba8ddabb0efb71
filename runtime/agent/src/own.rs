//! The node of a server's own process. Its API is in the same process, and may still be none: a server
//! that boots without a quorum has nothing to say. Then the node starts from its sealed copy, as one
//! without servers does, and goes over when there is a quorum.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use sampan_apiserver::LocalService;
use sampan_client::ApiLink;
use sampan_transport::KeyId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::{companions, drop_output};
use crate::backoff::Backoff;
use crate::error::AgentError;
use crate::link::{Connected, LinkState};
use crate::mirror::{Mirror, MirrorConfig};
use crate::offline::{NodeApi, Remote};
use crate::standing;

/// After a question that the group did not answer, at least so long;
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// and at most.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// The API as the node of a server's own process sees it. The kubelet is made by its owner, with
/// [`OwnNode::client`] and [`OwnNode::api_link`].
#[derive(Debug)]
pub struct OwnNode {
    api: NodeApi,
    mirror: Arc<Mirror>,
    service: Service,
    tasks: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

/// The server's API, and what is known of it.
#[derive(Clone)]
struct Service {
    node: String,
    api: Arc<OnceLock<LocalService>>,
    state: watch::Sender<LinkState>,
    doubt: Arc<Notify>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl OwnNode {
    /// Reads the copy in `directory` (made, 0700, where it is missing), which may become about `limit`
    /// bytes large. The API is waited for so long before pods are started from the copy.
    ///
    /// # Errors
    /// When the directory or the copy's key cannot be used.
    pub fn start(
        node: &str,
        directory: PathBuf,
        first_wait: Duration,
        limit: usize,
    ) -> Result<Self, AgentError> {
        let mirror = Mirror::open(MirrorConfig { directory, node: node.to_owned(), limit })?;
        let service = Service {
            node: node.to_owned(),
            api: Arc::default(),
            state: watch::Sender::default(),
            doubt: Arc::default(),
        };
        let told = (service.state.subscribe(), Arc::clone(&service.doubt));
        let api = NodeApi::over(Remote::Own(Arc::clone(&service.api)), told, Arc::clone(&mirror), first_wait);
        let shutdown = CancellationToken::new();
        let companions = companions(api.client(), Arc::clone(&mirror), service.state.subscribe());
        let tasks = vec![
            tokio::spawn(drop_output(shutdown.clone().run_until_cancelled_owned(service.clone().attend()))),
            tokio::spawn(Arc::clone(&mirror).run(shutdown.clone())),
            tokio::spawn(drop_output(shutdown.clone().run_until_cancelled_owned(companions))),
        ];
        Ok(Self { api, mirror, service, tasks, shutdown })
    }

    /// The server's API is there, and its group has just answered it. A second one is ignored.
    pub fn attach(&self, api: LocalService) {
        if self.service.api.set(api).is_ok() {
            self.service.answers();
        }
    }

    /// Whether there is a copy to start from.
    pub fn can_start_alone(&self) -> bool {
        self.mirror.is_usable()
    }

    /// The API for the node's kubelet.
    pub fn client(&self) -> kube::Client {
        self.api.client()
    }

    /// How things stand between that client and the group: for the kubelet's configuration.
    pub fn api_link(&self) -> watch::Receiver<ApiLink> {
        self.api.link()
    }

    /// Writes the copy. The kubelet is to be stopped before.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            // A panic was reported where it happened.
            drop(task.await);
        }
    }
}

impl Service {
    /// Finds out anew whenever somebody doubts that the group answers.
    async fn attend(self) {
        loop {
            self.doubt.notified().await;
            let Some(api) = self.api.get() else { continue };
            let mut backoff = Backoff::new(ASK_AGAIN, ASK_AGAIN_MAX);
            while !standing::answers_here(api.clone()).await {
                self.is_silent();
                tokio::time::sleep(backoff.failed()).await;
            }
            self.answers();
        }
    }

    fn answers(&self) {
        self.state.send_if_modified(|state| {
            if state.connected.is_some() {
                return false;
            }
            state.generation += 1;
            state.connected = Some(Connected {
                server: self.node.clone(),
                // There is no connection, and nobody else sees this.
                key: KeyId([0; 32]),
                remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                quic: false,
                since: Timestamp::now(),
            });
            true
        });
    }

    fn is_silent(&self) {
        let changed = self.state.send_if_modified(|state| state.connected.take().is_some());
        if changed {
            tracing::warn!("this server's group does not answer; its node goes on with what it has");
        }
    }
}
