//! The TLS settings of both kinds of connection: version 1.3 only, both sides with certificates, no
//! resumption (a resumed session would not look at the certificate again) and so no early data.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::error::TransportError;
use crate::identity::Identity;
use crate::verify::{ClientVerifier, Expected, ServerVerifier, Verdict};

/// What both sides say that they speak, in the TLS handshake.
pub const ALPN: &[u8] = b"sampan/1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// Whether a client that offers these protocols wants to speak ours: for a listener that serves others
/// too and looks at the offer before it chooses its settings.
pub fn speaks_sampan<'a>(offered: impl IntoIterator<Item = &'a [u8]>) -> bool {
    offered.into_iter().any(|protocol| protocol == ALPN)
}

/// The settings with which a TCP listener accepts our connections: this machine's certificate, and
/// machines' certificates only from the other side. The stream then goes to
/// [`crate::Endpoint::adopt`].
///
/// # Errors
/// When the cryptography in use has no TLS 1.3.
pub fn server_tls_config(identity: &Identity) -> Result<ServerConfig, TransportError> {
    let verifier = Arc::new(ClientVerifier::new(identity.clone()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Presented(identity.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The settings for one attempt to reach `expected`; what the verifier thinks of the server is left in
/// `verdict`.
pub(crate) fn client_tls_config(
    identity: &Identity,
    expected: Expected,
    verdict: &Verdict,
) -> Result<ClientConfig, TransportError> {
    let verifier = Arc::new(ServerVerifier::new(identity.clone(), expected, verdict.clone()));
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Presented(identity.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // Machines are known by their keys; there is no name to ask for.
    config.enable_sni = false;
    Ok(config)
}

fn unusable(error: rustls::Error) -> TransportError {
    TransportError::Settings(error.to_string())
}

/// Presents the newest certificate.
struct Presented(Identity);

impl Presented {
    fn newest(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.live().certified)
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presented").field(&self.0).finish()
    }
}
