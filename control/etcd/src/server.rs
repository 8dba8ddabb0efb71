//! The listener: plaintext on loopback, mutual TLS elsewhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use sampan_store::Storage;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, Stream};
use crate::context::{Context, Options};
use crate::dispatch::Dispatch;
use crate::lease::Lessor;
use crate::view::ClusterView;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Plaintext would leave the machine.
    #[error("the etcd API is served in plaintext on loopback addresses only; {address} needs mutual TLS")]
    Plaintext {
        /// Where it was to be served.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for the etcd API")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Decides by its certificate chain whether a client may do everything; else says why not.
pub type Admit = Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<(), String> + Send + Sync>;

/// How connections are secured.
#[derive(Clone)]
pub enum Security {
    /// Not at all: whoever can connect may do everything. On loopback addresses only.
    Plaintext,
    /// Both sides show certificates.
    MutualTls {
        /// Must ask clients for certificates and verify them.
        config: Arc<ServerConfig>,
        /// Which of those clients may do everything.
        admit: Admit,
    },
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "Plaintext",
            Self::MutualTls { .. } => "MutualTls",
        })
    }
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    security: Security,
}

impl Listener {
    /// Binds `address`; refuses plaintext on any that is not loopback.
    pub async fn bind(address: SocketAddr, security: Security) -> Result<Self, ServeError> {
        if matches!(security, Security::Plaintext) && !address.ip().to_canonical().is_loopback() {
            return Err(ServeError::Plaintext { address });
        }
        let failed = |source| ServeError::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address, security })
    }

    /// Where it listens; the port is known even where any was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// The etcd API of one member.
pub struct EtcdServer {
    context: Arc<Context>,
}

impl std::fmt::Debug for EtcdServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdServer").field("options", &self.context.options).finish_non_exhaustive()
    }
}

impl EtcdServer {
    /// A server over a store. The lessor is not run by it: leases end, too, where nobody serves this API.
    pub fn new(
        storage: Arc<dyn Storage>,
        view: Arc<dyn ClusterView>,
        lessor: Arc<Lessor>,
        options: Options,
    ) -> Self {
        let stop = CancellationToken::new();
        Self { context: Arc::new(Context { storage, view, lessor, options, stop }) }
    }

    /// Serves until `shutdown`; then requests under way are answered and streams end.
    pub async fn serve(self, listener: Listener, shutdown: CancellationToken) {
        let stop = self.context.stop.clone();
        let _stop = stop.clone().drop_guard();
        let dispatch = Dispatch::new(&self.context);
        let connections = TaskTracker::new();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = accept(&listener, &dispatch, &connections, &stop) => {}
        }
        drop(listener);
        stop.cancel();
        connections.close();
        connections.wait().await;
    }
}

/// Accepts connections and serves those whose handshake succeeds.
async fn accept(
    listener: &Listener,
    dispatch: &Dispatch,
    connections: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        let (tcp, peer) = match listener.tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: that passes.
                tracing::warn!(%error, "the etcd API could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let (security, dispatch, stop) = (listener.security.clone(), dispatch.clone(), stop.clone());
        connections.spawn(async move {
            let secured = tokio::time::timeout(HANDSHAKE, secure(tcp, security));
            let secured = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                secured = secured => secured,
            };
            match secured {
                Ok(Ok(stream)) => connection::serve(stream, dispatch, stop).await,
                Ok(Err(why)) => tracing::info!(%peer, %why, "a client of the etcd API was refused"),
                Err(_) => tracing::info!(%peer, "a client of the etcd API took too long for its handshake"),
            }
        });
    }
}

async fn secure(tcp: TcpStream, security: Security) -> Result<Stream, String> {
    match security {
        Security::Plaintext => Ok(Stream::Plain(tcp)),
        Security::MutualTls { config, admit } => {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
            let tls = tls.map_err(|error| error.to_string())?;
            let (_, session) = tls.get_ref();
            admit(session.peer_certificates().ok_or("it showed no certificate")?)?;
            Ok(Stream::Tls(Box::new(tls)))
        }
    }
}
