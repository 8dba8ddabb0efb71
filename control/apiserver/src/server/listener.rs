//! The TLS listener: connections, HTTP/2 and HTTP/1.1, client certificates, an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::auth::{self, KEY_EXTRA, MACHINES, UserInfo};
use crate::body::Body;
use crate::core::Core;
use crate::filters::{self, Caller};
use crate::pki::Pki;
use crate::server::ApiServer;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(32);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// One connection of a Go client carries all its watches.
const MAX_STREAMS: u32 = 2000;
/// How long requests under way may take when the server goes down.
const DRAIN: Duration = Duration::from_secs(10);
/// After a failed accept (out of file descriptors), a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes over TLS connections that agreed on a protocol of its own instead of HTTP.
pub trait Handover: Send + Sync + 'static {
    /// The protocol's name in TLS (ALPN).
    fn protocol(&self) -> &[u8];

    /// Takes a connection: its stream, the certificates that the other side showed (checked against
    /// the client authority; none if it showed none), and where it comes from. Must not block.
    fn adopt(&self, stream: TlsStream<TcpStream>, chain: Vec<CertificateDer<'static>>, remote: SocketAddr);
}

/// Accepts connections until `shutdown`, then drains them.
pub(super) async fn serve(
    server: &ApiServer,
    listener: TcpListener,
    config: rustls::ServerConfig,
    shutdown: CancellationToken,
) {
    let (core, pki) = (&server.core, &server.pki);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connections = TaskTracker::new();
    connections.spawn(renew(Arc::clone(pki), shutdown.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, acceptor, shutdown) = (server.clone(), acceptor.clone(), shutdown.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(server, acceptor, (stream, peer), shutdown).await {
                        tracing::debug!(%peer, error = &*error as &dyn std::error::Error, "a connection broke");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    core.shutdown.cancel();
    connections.close();
    if timeout(DRAIN + ACCEPT_PAUSE, connections.wait()).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

/// Renews certificates while the server runs.
async fn renew(pki: Arc<Pki>, shutdown: CancellationToken) {
    while timeout(pki.check_interval(), shutdown.cancelled()).await.is_err() {
        match pki.renew_due(pki.now()) {
            Ok(true) => tracing::info!("certificates were renewed"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "certificates cannot be renewed");
            }
        }
    }
}

async fn connection(
    server: ApiServer,
    acceptor: TlsAcceptor,
    (stream, remote): (TcpStream, SocketAddr),
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    if let Some(handover) =
        server.handover.filter(|h| stream.get_ref().1.alpn_protocol() == Some(h.protocol()))
    {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        handover.adopt(stream, chain, remote);
        return Ok(());
    }
    let core = server.core;
    let (caller, http2) = peer(&stream);
    let revoked = revoked(Arc::clone(&core), caller.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, caller) = (Arc::clone(&core), caller.clone());
        async move { Ok::<_, Infallible>(filters::handle(core, caller, request.map(Body::new)).await) }
    });
    let builder = builder(http2);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        // Whatever is under way, watches too, ends with the connection.
        why = revoked => {
            tracing::info!(%remote, why, "a machine's connection is closed");
            return Ok(());
        }
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    timeout(DRAIN, connection).await?
}

/// Waits until the machine at the other end may not be believed any more, having been believed when it
/// came: one that comes later is told why.
async fn revoked(core: Arc<Core>, caller: Caller) -> String {
    let Caller::Network(Some(user)) = caller else { return std::future::pending().await };
    match (&core.revocations, user.extra.get(KEY_EXTRA).and_then(|keys| keys.first())) {
        (Some(revocations), Some(key)) if revocations.refusal(&user.name, key).is_none() => {
            auth::revoked(&**revocations, &user.name, key).await
        }
        _ => std::future::pending().await,
    }
}

/// How a connection speaks HTTP: which of the two was agreed on already.
fn builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE);
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

/// Who is at the other end, and whether HTTP/2 was agreed on.
fn peer(stream: &TlsStream<TcpStream>) -> (Caller, bool) {
    let (_, session) = stream.get_ref();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let user = session.peer_certificates().and_then(|chain| chain.first()).and_then(certificate_user);
    (Caller::Network(user.map(Arc::new)), http2)
}

/// The user that a client certificate names. That our authority signed it, whoever asks has checked.
pub fn certificate_user(certificate: &CertificateDer<'_>) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    if name.is_empty() {
        return None;
    }
    let mut user = UserInfo::new(name, groups);
    if MACHINES.iter().any(|group| user.in_group(group)) {
        let digest = Sha256::digest(certificate.public_key().raw);
        let key = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        user.extra.insert(KEY_EXTRA.to_owned(), vec![key]);
    }
    Some(user)
}
