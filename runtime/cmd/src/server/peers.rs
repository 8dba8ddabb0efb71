//! Connections between machines: those that this server makes, and those that it takes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sampan_agent::{Gateway, ServerInfo};
use sampan_apiserver::Handover;
use sampan_raft::RaftStore;
use sampan_transport::{ALPN, Connection, Endpoint, Purpose, Role, Stream, Target, TransportError};
use tokio_util::sync::CancellationToken;

/// Connections to other servers for what is not Raft's: one each, made when it is needed.
pub(super) struct OtherServers {
    endpoint: Endpoint,
    held: Mutex<HashMap<sampan_transport::KeyId, Connection>>,
}

impl OtherServers {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, held: Mutex::default() }
    }

    pub(super) async fn open(&self, server: &ServerInfo, purpose: Purpose) -> Result<Stream, TransportError> {
        let held = self.held.lock().get(&server.key).cloned();
        if let Some(connection) = held.filter(|connection| connection.close_reason().is_none())
            && let Ok(stream) = connection.open(purpose).await
        {
            return Ok(stream);
        }
        let target = Target {
            addresses: server.addresses.clone(),
            role: Role::Server,
            key: Some(server.key),
            allow_tcp: true,
        };
        let connection = self.endpoint.connect(&target).await?;
        let stream = connection.open(purpose).await?;
        self.held.lock().insert(server.key, connection);
        Ok(stream)
    }
}

/// Takes connections until `shutdown`: of other servers, and of nodes.
pub(super) async fn accept(
    endpoint: Endpoint,
    store: Arc<RaftStore>,
    gateway: Arc<OnceLock<Gateway>>,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = endpoint.accept() => accepted,
            () = shutdown.cancelled() => None,
        };
        let Some(connection) = accepted else { return };
        let (store, gateway) = (Arc::clone(&store), Arc::clone(&gateway));
        tokio::spawn(async move {
            match (connection.peer().role, gateway.get()) {
                (Role::Server, _) => serve_server(connection, &store, &gateway).await,
                (Role::Node, Some(gateway)) => gateway.serve(connection).await,
                (Role::Node, None) => connection.close("this server is still starting"),
            }
        });
    }
}

/// Serves the streams of another server until its connection ends.
async fn serve_server(connection: Connection, store: &Arc<RaftStore>, gateway: &OnceLock<Gateway>) {
    while let Ok((purpose, stream)) = connection.accept().await {
        match purpose {
            Purpose::Raft | Purpose::RaftSnapshot | Purpose::Forward => {
                let (store, peer) = (Arc::clone(store), connection.peer().clone());
                tokio::spawn(async move { store.serve_stream(purpose, stream, &peer).await });
            }
            // Who is not a member any more is refused by the store itself, and learns it by that.
            Purpose::Relay => match gateway.get().cloned() {
                Some(gateway) if gateway.refusal(connection.peer()).is_none() => {
                    tokio::spawn(async move { gateway.serve_relay(stream).await });
                }
                _ => drop(stream),
            },
            other => {
                tracing::debug!(purpose = %other, "a server opened a stream that is not for servers");
            }
        }
    }
}

/// Machines that come over TCP to the API's port, because UDP is blocked on their way.
pub(super) struct OverTcp(pub(super) Endpoint);

impl Handover for OverTcp {
    fn protocol(&self) -> &[u8] {
        ALPN
    }

    fn adopt(
        &self,
        stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
        chain: Vec<CertificateDer<'static>>,
        remote: std::net::SocketAddr,
    ) {
        if let Err(error) = self.0.adopt(stream, chain, remote) {
            tracing::debug!(%remote, error = %sampan_client::informer::chain(&error), "a machine was turned away");
        }
    }
}
