//! The settings of QUIC, and what its errors mean.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, IdleTimeout, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};
use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use sha2::Sha256;

use crate::endpoint::EndpointConfig;
use crate::error::{RefusalCode, TransportError};
use crate::tls;
use crate::verify::{Expected, Verdict};

/// How a connection ended, as QUIC's application codes: the text says the rest.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(0);
pub(crate) const REFUSED: VarInt = VarInt::from_u32(1);

/// How much of one stream may be on its way unread: 20 MB/s at 50 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of a connection together; what a hostile node can make us hold.
const NODE_WINDOW: u32 = 4 << 20;
/// Between servers, where snapshots travel beside everything else.
const SERVER_WINDOW: u32 = 16 << 20;
/// Streams that a server may have open to another: forwarded requests are many.
const SERVER_STREAMS: u32 = 1024;
/// A restarted server tells each old peer that it does not know it; not more often than this.
const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// Handshakes that wait to be looked at.
const MAX_INCOMING: usize = 1024;

/// Signs and recognises stateless resets, so that peers of a killed process hear from its successor.
struct ResetKey(Hmac<Sha256>);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        let signature = self.0.clone().chain_update(data).finalize().into_bytes();
        for (to, from) in out.iter_mut().zip(signature) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.0.clone().chain_update(data).verify_slice(signature).map_err(|_| CryptoError)
    }
}

fn derive(key: &[u8; 64], label: &[u8]) -> Result<[u8; 32], TransportError> {
    let mac = Hmac::<Sha256>::new_from_slice(key).map_err(|e| TransportError::Settings(e.to_string()))?;
    Ok(mac.chain_update(label).finalize().into_bytes().into())
}

/// Connection ids and resets follow from one key, so that they mean the same after a restart.
pub(crate) fn endpoint_config(reset_key: &[u8; 64]) -> Result<quinn::EndpointConfig, TransportError> {
    let reset = derive(reset_key, b"sampan stateless reset")?;
    let reset = Hmac::new_from_slice(&reset).map_err(|e| TransportError::Settings(e.to_string()))?;
    let [a, b, c, d, e, f, g, h, ..] = derive(reset_key, b"sampan connection ids")?;
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let mut config = quinn::EndpointConfig::new(Arc::new(ResetKey(reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.min_reset_interval(RESET_INTERVAL);
    Ok(config)
}

pub(crate) fn transport_config(config: &EndpointConfig) -> Result<Arc<TransportConfig>, TransportError> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|_| TransportError::Settings("the idle timeout is too long".to_owned()))?;
    if config.keep_alive.is_zero() || config.keep_alive >= config.idle_timeout {
        return Err(TransportError::Settings(
            "connections must be kept alive more often than they time out".to_owned(),
        ));
    }
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(config.initial_rtt)
        .keep_alive_interval(Some(config.keep_alive))
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(config.max_streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(NODE_WINDOW.into())
        .send_window(NODE_WINDOW.into())
        .datagram_receive_buffer_size(None);
    Ok(Arc::new(transport))
}

pub(crate) fn server_config(
    config: &EndpointConfig,
    transport: &Arc<TransportConfig>,
) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = QuicServerConfig::try_from(tls::server_tls_config(&config.identity)?)
        .map_err(|e| TransportError::Settings(e.to_string()))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::clone(transport)).migration(true).max_incoming(MAX_INCOMING);
    Ok(server)
}

pub(crate) fn client_config(
    config: &EndpointConfig,
    transport: &Arc<TransportConfig>,
    expected: Expected,
    verdict: &Verdict,
) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = QuicClientConfig::try_from(tls::client_tls_config(&config.identity, expected, verdict)?)
        .map_err(|e| TransportError::Settings(e.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::clone(transport));
    Ok(client)
}

/// Two servers allow each other more: snapshots, and streams of forwarded requests.
pub(crate) fn widen_between_servers(connection: &quinn::Connection) {
    connection.set_receive_window(SERVER_WINDOW.into());
    connection.set_send_window(SERVER_WINDOW.into());
    connection.set_max_concurrent_bi_streams(SERVER_STREAMS.into());
}

/// The certificates that the other side proved to have the key of.
pub(crate) fn peer_chain(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain =
        connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// Why a connection ended, for people.
pub(crate) fn ending(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            "the peer closed it".to_owned()
        }
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::Reset => "the peer restarted".to_owned(),
        ConnectionError::TimedOut => "the peer does not answer".to_owned(),
        ConnectionError::LocallyClosed => "closed on this side".to_owned(),
        other => other.to_string(),
    }
}

/// Why no connection came about.
pub(crate) fn failure(address: &str, error: &ConnectionError) -> TransportError {
    let address = address.to_owned();
    match error {
        ConnectionError::TimedOut | ConnectionError::Reset => TransportError::Unreachable(address),
        ConnectionError::ConnectionClosed(close) => {
            match u64::from(close.error_code).checked_sub(0x100).map(u8::try_from) {
                Some(Ok(alert)) => alerted(address, AlertDescription::from(alert)),
                _ => TransportError::Handshake { address, reason: close.to_string() },
            }
        }
        ConnectionError::ApplicationClosed(_) => {
            TransportError::Refused { address, code: RefusalCode::Other, reason: ending(error) }
        }
        other => TransportError::Handshake { address, reason: other.to_string() },
    }
}

/// What a TLS alert of the other side means.
pub(crate) fn alerted(address: String, alert: AlertDescription) -> TransportError {
    match alert {
        AlertDescription::UnknownCA => TransportError::UnknownToPeer(address),
        AlertDescription::CertificateExpired => TransportError::Refused {
            address,
            code: RefusalCode::Expired,
            reason: "our certificate has expired".to_owned(),
        },
        other => TransportError::Handshake { address, reason: format!("the peer answered {other:?}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_recognised_by_a_successor_with_the_same_key_only() {
        let signed = |key: u8| {
            let key = ResetKey(Hmac::new_from_slice(&derive(&[key; 64], b"x").unwrap()).unwrap());
            let mut signature = [0; 32];
            key.sign(b"connection", &mut signature);
            (key, signature)
        };
        let ((first, signature), (second, _), (other, _)) = (signed(1), signed(1), signed(2));
        assert!(first.verify(b"connection", &signature).is_ok());
        assert!(second.verify(b"connection", &signature).is_ok());
        assert!(other.verify(b"connection", &signature).is_err());
    }
}
