//! The accepting side: handshakes, hellos and judgement, for QUIC and for TLS streams handed over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::certificate::{CertificateFault, Checked, Usage};
use crate::connection::{Connection, Link};
use crate::endpoint::Core;
use crate::error::TransportError;
use crate::hello;
use crate::mux::{self, Side};
use crate::quic;
use crate::verify;

/// How often the floor's file is looked after.
const PERSIST_EVERY: Duration = Duration::from_secs(3600);
/// How long a refusal may take to get through.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Accepts QUIC connections until the endpoint closes.
pub(crate) async fn listen(core: Arc<Core>, endpoint: quinn::Endpoint) {
    let mut persist = tokio::time::interval(PERSIST_EVERY);
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => take(&core, incoming),
                None => break,
            },
            _ = persist.tick() => {
                let clock = Arc::clone(&core.config.clock);
                core.tasks.spawn_blocking(move || clock.persist());
            }
            () = core.cancel.cancelled() => break,
        }
    }
}

/// Starts a handshake, unless there are too many; when there are many, addresses must prove to be real.
fn take(core: &Arc<Core>, incoming: quinn::Incoming) {
    let address = incoming.remote_address();
    let free = core.handshakes.available_permits();
    let Ok(permit) = Arc::clone(&core.handshakes).try_acquire_owned() else {
        tracing::debug!(%address, "too many handshakes at once");
        incoming.refuse();
        return;
    };
    if free < core.many_handshakes && !incoming.remote_address_validated() && incoming.may_retry() {
        if let Err(error) = incoming.retry() {
            tracing::debug!(%address, %error, "a handshake could not be put off");
        }
        return;
    }
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let _permit = permit;
        let arrived = within(&core, address, welcome_quic(&core, incoming)).await;
        deliver(&core, address, arrived).await;
    });
}

/// Takes over a TLS connection. The chain must have been proven by the handshake.
pub(crate) fn adopt<S>(
    core: &Arc<Core>,
    stream: S,
    chain: &[CertificateDer<'_>],
    remote: SocketAddr,
) -> Result<(), TransportError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let checked = judge_chain(core, remote, chain)?;
    let permit = Arc::clone(&core.handshakes).try_acquire_owned().map_err(|_| TransportError::Handshake {
        address: remote.to_string(),
        reason: "too many handshakes at once".to_owned(),
    })?;
    let core = Arc::clone(core);
    let tasks = core.tasks.clone();
    tasks.spawn(async move {
        let _permit = permit;
        let arrived = within(&core, remote, welcome_tcp(&core, stream, &checked, remote)).await;
        deliver(&core, remote, arrived).await;
    });
    Ok(())
}

async fn within(
    core: &Core,
    address: SocketAddr,
    welcome: impl Future<Output = Result<Connection, TransportError>>,
) -> Result<Connection, TransportError> {
    timeout(core.config.handshake_timeout, welcome).await.unwrap_or_else(|_| {
        Err(TransportError::Handshake {
            address: address.to_string(),
            reason: "it takes too long".to_owned(),
        })
    })
}

async fn deliver(core: &Core, address: SocketAddr, arrived: Result<Connection, TransportError>) {
    match arrived {
        Ok(connection) => {
            tracing::debug!(%address, peer = %connection.peer(), quic = connection.is_quic(), "connected");
            if let Err(unwanted) = core.arrivals.send(connection).await {
                unwanted.0.close("going down");
            }
        }
        Err(error) if hello::was_answered(&error) => tracing::warn!(%error, "a connection was refused"),
        Err(error) => {
            tracing::debug!(%address, error = &error as &dyn std::error::Error, "no connection came about");
        }
    }
}

fn judge_chain(
    core: &Core,
    address: SocketAddr,
    chain: &[CertificateDer<'_>],
) -> Result<Checked, TransportError> {
    let address = address.to_string();
    verify::check(&core.config.identity, chain, Usage::Client).map_err(|source| match source {
        CertificateFault::UnknownAuthority => TransportError::UnknownAuthority(address),
        source => TransportError::Certificate { address, source },
    })
}

async fn welcome_quic(core: &Core, incoming: quinn::Incoming) -> Result<Connection, TransportError> {
    let remote = incoming.remote_address();
    let address = remote.to_string();
    let failure = |error| quic::failure(&address, &error);
    let connection = incoming.accept().map_err(failure)?.await.map_err(failure)?;
    let checked = judge_chain(core, remote, &quic::peer_chain(&connection))?;
    let (write, read) = connection.accept_bi().await.map_err(failure)?;
    let mut stream = tokio::io::join(read, write);
    let agreed = hello::accept(&mut stream, &core.terms(), &address, &checked).await;
    let _ = stream.shutdown().await;
    match agreed {
        Ok(agreed) => Ok(core.connected(Link::Quic(connection), checked, agreed)),
        Err(error) => {
            if hello::was_answered(&error) {
                let _ = timeout(REFUSAL_PATIENCE, connection.closed()).await;
            }
            connection.close(quic::REFUSED, error.to_string().as_bytes());
            Err(error)
        }
    }
}

async fn welcome_tcp<S>(
    core: &Core,
    mut stream: S,
    checked: &Checked,
    remote: SocketAddr,
) -> Result<Connection, TransportError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let address = remote.to_string();
    match hello::accept(&mut stream, &core.terms(), &address, checked).await {
        Ok(agreed) => {
            let handle = mux::start(stream, Side::Acceptor, remote, core.mux_settings(), &core.tasks);
            core.remember(&handle);
            Ok(core.connected(Link::Tcp(handle), checked.clone(), agreed))
        }
        Err(error) => {
            if hello::was_answered(&error) {
                let _ = stream.shutdown().await;
                let _ = timeout(REFUSAL_PATIENCE, stream.read(&mut [0])).await;
            }
            Err(error)
        }
    }
}
