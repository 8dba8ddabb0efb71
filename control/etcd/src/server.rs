//! The listener: plaintext on loopback, mutual TLS elsewhere; and all services on it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use sampan_store::Storage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::auth::AuthService;
use crate::cluster::ClusterService;
use crate::context::{Context, Options};
use crate::kv::KvService;
use crate::lease::{LeaseService, Lessor};
use crate::maintenance::MaintenanceService;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::view::ClusterView;
use crate::watch::WatchService;

/// The most bytes that a request may have, as etcd's: its 1.5 MiB and what surrounds them.
const MAX_REQUEST: usize = (1536 + 512) << 10;
/// Answers are as large as they need to be.
const MAX_RESPONSE: usize = i32::MAX as usize;
/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often a quiet connection is asked whether its client is still there, and how long it may
/// take to say so.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections whose handshake is done and that are not served yet.
const BACKLOG: usize = 64;

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
    /// Serving failed.
    #[error("the etcd API is no longer served")]
    Serve(#[source] tonic::transport::Error),
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
    pub async fn serve(self, listener: Listener, shutdown: CancellationToken) -> Result<(), ServeError> {
        let context = self.context;
        let (ready, connections) = mpsc::channel(BACKLOG);
        let stop = context.stop.clone();
        let _stop_accepting = stop.clone().drop_guard();
        tokio::spawn(accept(listener, ready, stop.clone()));
        macro_rules! service {
            ($server:ident, $service:ident) => {
                $server::new($service { context: Arc::clone(&context) })
                    .max_decoding_message_size(MAX_REQUEST)
                    .max_encoding_message_size(MAX_RESPONSE)
            };
        }
        Server::builder()
            .max_concurrent_streams(u32::MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(service!(KvServer, KvService))
            .add_service(service!(WatchServer, WatchService))
            .add_service(service!(LeaseServer, LeaseService))
            .add_service(service!(ClusterServer, ClusterService))
            .add_service(service!(MaintenanceServer, MaintenanceService))
            .add_service(service!(AuthServer, AuthService))
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                shutdown.cancelled().await;
                stop.cancel();
            })
            .await
            .map_err(ServeError::Serve)
    }
}

/// Accepts connections and hands over those whose handshake succeeds.
async fn accept(listener: Listener, ready: mpsc::Sender<io::Result<Connection>>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.tcp.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: that passes.
                tracing::warn!(%error, "the etcd API could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let (ready, security) = (ready.clone(), listener.security.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, secure(tcp, security)).await {
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(why)) => tracing::info!(%peer, %why, "a client of the etcd API was refused"),
                Err(_) => tracing::info!(%peer, "a client of the etcd API took too long for its handshake"),
            }
        });
    }
}

async fn secure(tcp: TcpStream, security: Security) -> Result<Connection, String> {
    match security {
        Security::Plaintext => Ok(Connection::Plain(tcp)),
        Security::MutualTls { config, admit } => {
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
            let tls = tls.map_err(|error| error.to_string())?;
            let (_, session) = tls.get_ref();
            admit(session.peer_certificates().ok_or("it showed no certificate")?)?;
            Ok(Connection::Tls(Box::new(tls)))
        }
    }
}

/// One connection of a client.
enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
