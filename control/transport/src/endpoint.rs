//! The endpoint: one UDP socket, everything that is dialled and accepted.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{TokioRuntime, TransportConfig};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::certificate::Checked;
use crate::clock::{Clock, Testimony};
use crate::connection::{Connection, Link};
use crate::dial::{self, Target};
use crate::error::TransportError;
use crate::hello::{Agreed, ProtocolRange, Terms};
use crate::identity::Identity;
use crate::incoming;
use crate::mux;
use crate::quic;

/// Handshakes at once; beyond, newcomers are sent away.
const HANDSHAKES: usize = 512;
/// Connections that wait to be accepted.
const ARRIVALS: usize = 64;
/// How long connections may take to hear that this side goes down.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What an endpoint needs to know. [`EndpointConfig::new`] gives the usual settings.
#[derive(Clone)]
pub struct EndpointConfig {
    /// The UDP address. `[::]` takes IPv4, too.
    pub listen: SocketAddr,
    /// Who this machine is.
    pub identity: Identity,
    /// Kept by the machine: with it, a restarted process tells old peers at once that it does not know
    /// their connections.
    pub reset_key: [u8; 64],
    /// Judges certificates' ends.
    pub clock: Arc<dyn Clock>,
    /// The version of this build, for the peer's logs.
    pub build: String,
    /// How often an idle connection shows that it is alive.
    pub keep_alive: Duration,
    /// After how long a silent connection is dead.
    pub idle_timeout: Duration,
    /// How long a connection may take to stand.
    pub handshake_timeout: Duration,
    /// The time to a peer and back, before it has been measured.
    pub initial_rtt: Duration,
    /// Streams that a peer may have open at once (between servers: 1,024; over TCP: 64 at most).
    pub max_streams: u32,
    /// The protocols to offer: all that this build speaks, or what an older build spoke.
    pub protocols: ProtocolRange,
}

impl EndpointConfig {
    /// The usual settings.
    pub fn new(listen: SocketAddr, identity: Identity, reset_key: [u8; 64], clock: Arc<dyn Clock>) -> Self {
        Self {
            listen,
            identity,
            reset_key,
            clock,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            keep_alive: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(6),
            handshake_timeout: Duration::from_secs(5),
            initial_rtt: Duration::from_millis(50),
            max_streams: 128,
            protocols: ProtocolRange::default(),
        }
    }
}

/// What tasks of an endpoint share.
pub(crate) struct Core {
    pub(crate) config: EndpointConfig,
    pub(crate) transport: Arc<TransportConfig>,
    pub(crate) arrivals: mpsc::Sender<Connection>,
    pub(crate) handshakes: Arc<Semaphore>,
    /// With fewer free than this, addresses must prove to be real.
    pub(crate) many_handshakes: usize,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// TCP connections, to be closed with the endpoint.
    tcp: Mutex<Vec<Weak<mux::Shared>>>,
}

impl Core {
    pub(crate) fn terms(&self) -> Terms<'_> {
        let EndpointConfig { protocols, build, clock, .. } = &self.config;
        Terms { protocols: *protocols, build, clock: clock.as_ref() }
    }

    pub(crate) fn mux_settings(&self) -> mux::Settings {
        let EndpointConfig { keep_alive, idle_timeout, max_streams, .. } = self.config;
        mux::Settings::new(keep_alive, idle_timeout, max_streams)
    }

    pub(crate) fn remember(&self, handle: &mux::Handle) {
        let mut tcp = self.tcp.lock();
        tcp.retain(|connection| connection.strong_count() > 0);
        tcp.push(handle.downgrade());
    }

    /// A connection that stands; what its peer said about the time is taken in.
    pub(crate) fn connected(&self, link: Link, checked: Checked, agreed: Agreed) -> Connection {
        let Checked { identity: peer, .. } = checked;
        let testimony = Testimony { key: peer.key, role: peer.role, time: agreed.time };
        let clock = Arc::clone(&self.config.clock);
        self.tasks.spawn_blocking(move || clock.observe(&testimony));
        Connection::new(link, self.config.identity.own().role, peer, agreed.protocol, agreed.build)
    }
}

/// An endpoint; clones are the same one. It closes with the last clone.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    quic: quinn::Endpoint,
    arrived: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
    _guard: DropGuard,
}

impl Endpoint {
    /// Opens the socket and begins to accept. To be called on a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be had, or a setting cannot be.
    pub fn bind(config: EndpointConfig) -> Result<Self, TransportError> {
        let transport = quic::transport_config(&config)?;
        let server = quic::server_config(&config, &transport)?;
        Self::open(config, transport, Some(server))
    }

    /// As [`Endpoint::bind`], for a machine that only dials: whoever knocks gets no answer.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_dialler(config: EndpointConfig) -> Result<Self, TransportError> {
        let transport = quic::transport_config(&config)?;
        Self::open(config, transport, None)
    }

    fn open(
        config: EndpointConfig,
        transport: Arc<TransportConfig>,
        server: Option<quinn::ServerConfig>,
    ) -> Result<Self, TransportError> {
        let settings = quic::endpoint_config(&config.reset_key)?;
        let bad = |source| TransportError::Bind { address: config.listen, source };
        let socket = UdpSocket::bind(config.listen).map_err(bad)?;
        let quic = quinn::Endpoint::new(settings, server, socket, Arc::new(TokioRuntime)).map_err(bad)?;
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        let cancel = CancellationToken::new();
        let core = Arc::new(Core {
            config,
            transport,
            arrivals,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            many_handshakes: HANDSHAKES / 2,
            cancel: cancel.clone(),
            tasks: TaskTracker::new(),
            tcp: Mutex::default(),
        });
        core.tasks.spawn(incoming::listen(Arc::clone(&core), quic.clone()));
        let arrived = tokio::sync::Mutex::new(arrived);
        Ok(Self(Arc::new(Inner { core, quic, arrived, _guard: cancel.drop_guard() })))
    }

    /// The UDP address in use.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.0.quic.local_addr().unwrap_or(self.0.core.config.listen)
    }

    /// Who this machine is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.core.config.identity
    }

    /// The clock that judges certificates here.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.core.config.clock
    }

    /// Connects to the first of the target's addresses at which the machine that is wanted answers.
    /// May be given up at any time.
    ///
    /// # Errors
    /// See [`TransportError`]: nobody answered, another cluster, another role, another key, no common
    /// protocol, expired, refused.
    pub async fn connect(&self, target: &Target) -> Result<Connection, TransportError> {
        let Inner { core, quic, .. } = &*self.0;
        tokio::select! {
            connected = dial::connect(core, quic, target) => connected,
            () = core.cancel.cancelled() => Err(TransportError::Closed("going down".to_owned())),
        }
    }

    /// The next connection that came in, of either kind; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Connection> {
        let cancel = &self.0.core.cancel;
        let next = async { self.0.arrived.lock().await.recv().await };
        tokio::select! {
            connection = next => connection,
            () = cancel.cancelled() => None,
        }
    }

    /// Takes over a TLS connection that a listener accepted with [`crate::server_tls_config`] and whose
    /// ALPN is [`crate::ALPN`]; it then comes out of [`Endpoint::accept`]. `peer_chain` is what the
    /// handshake proved.
    ///
    /// # Errors
    /// When the chain is not that of a machine of this cluster, or too many are at their beginning.
    pub fn adopt<S>(
        &self,
        tls: S,
        peer_chain: Vec<CertificateDer<'static>>,
        remote: SocketAddr,
    ) -> Result<(), TransportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if self.0.core.cancel.is_cancelled() {
            return Err(TransportError::Closed("going down".to_owned()));
        }
        incoming::adopt(&self.0.core, tls, &peer_chain, remote)
    }

    /// Moves to another local address; QUIC connections move along.
    ///
    /// # Errors
    /// When the socket cannot be had.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), TransportError> {
        let bad = |source| TransportError::Bind { address: listen, source };
        let socket = UdpSocket::bind(listen).map_err(bad)?;
        self.0.quic.rebind(socket).map_err(bad)
    }

    /// Closes every connection, tells the peers why, and waits a moment until they know.
    pub async fn close(&self, reason: &str) {
        let Inner { core, quic, .. } = &*self.0;
        core.cancel.cancel();
        for connection in core.tcp.lock().drain(..) {
            if let Some(connection) = connection.upgrade() {
                connection.close(reason);
            }
        }
        quic.close(quic::CLOSED, reason.as_bytes());
        core.tasks.close();
        let _ = timeout(CLOSE_PATIENCE, async {
            quic.wait_idle().await;
            core.tasks.wait().await;
        })
        .await;
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.local_address()).finish_non_exhaustive()
    }
}
