//! The verifiers of handshakes: whose certificate is it, did one of our authorities sign it, is it the
//! machine that was asked for. No DNS names, no addresses, no time (see [`crate::validity`]).

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::certificate::{CertificateFault, Checked, Usage, check_chain};
use crate::error::TransportError;
use crate::identity::{Identity, KeyId, PeerIdentity, Role};
use crate::tls::provider;

/// Whom a client wants to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) role: Role,
    pub(crate) key: Option<KeyId>,
}

/// What a client's verifier found wrong with the server of this attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    Fault(CertificateFault),
    Role { expected: Role, found: PeerIdentity },
    Key { expected: KeyId, found: PeerIdentity },
}

impl Objection {
    pub(crate) fn into_error(self, address: String) -> TransportError {
        match self {
            Self::Fault(CertificateFault::UnknownAuthority) => TransportError::UnknownAuthority(address),
            Self::Fault(source) => TransportError::Certificate { address, source },
            Self::Role { expected, found } => {
                TransportError::WrongRole { address, name: found.name, expected, found: found.role }
            }
            Self::Key { expected, found } => {
                TransportError::WrongKey { address, name: found.name, expected, found: found.key }
            }
        }
    }
}

/// Where a verifier leaves what TLS alerts cannot say.
pub(crate) type Verdict = Arc<Mutex<Option<Objection>>>;

/// Checks the chain that a peer presented, with the newest authorities.
pub(crate) fn check(
    identity: &Identity,
    chain: &[CertificateDer<'_>],
    usage: Usage,
) -> Result<Checked, CertificateFault> {
    let live = identity.live();
    let (leaf, intermediates) =
        chain.split_first().ok_or_else(|| CertificateFault::Malformed("there is none".to_owned()))?;
    check_chain(&live.roots, live.clients.as_ref(), leaf, intermediates, usage)
}

fn check_parts(
    identity: &Identity,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
) -> Result<Checked, CertificateFault> {
    let live = identity.live();
    check_chain(&live.roots, live.clients.as_ref(), leaf, intermediates, usage)
}

/// The alert that says it best.
fn alert(fault: &CertificateFault) -> Error {
    Error::InvalidCertificate(match fault {
        CertificateFault::UnknownAuthority => CertificateError::UnknownIssuer,
        CertificateFault::Malformed(_) => CertificateError::BadEncoding,
        CertificateFault::Usage(_) => CertificateError::InvalidPurpose,
        CertificateFault::NotAMachine(_) | CertificateFault::Invalid(_) => {
            CertificateError::ApplicationVerificationFailure
        }
    })
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

/// Verifies servers, on the dialling side.
pub(crate) struct ServerVerifier {
    identity: Identity,
    expected: Expected,
    verdict: Verdict,
}

impl ServerVerifier {
    pub(crate) fn new(identity: Identity, expected: Expected, verdict: Verdict) -> Self {
        Self { identity, expected, verdict }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), (Objection, Error)> {
        let checked = check_parts(&self.identity, leaf, intermediates, Usage::Server).map_err(|fault| {
            let alert = alert(&fault);
            (Objection::Fault(fault), alert)
        })?;
        let Expected { role, key } = self.expected;
        let unwelcome = || Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        if checked.identity.role != role {
            return Err((Objection::Role { expected: role, found: checked.identity }, unwelcome()));
        }
        match key {
            Some(expected) if expected != checked.identity.key => {
                Err((Objection::Key { expected, found: checked.identity }, unwelcome()))
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, intermediates).map_err(|(objection, alert)| {
            *self.verdict.lock() = Some(objection);
            alert
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Verifies clients, on the accepting side: any machine of this cluster.
pub(crate) struct ClientVerifier {
    identity: Identity,
}

impl ClientVerifier {
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity }
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// None: machines have one certificate and need no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match check_parts(&self.identity, leaf, intermediates, Usage::Client) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(fault) => {
                tracing::warn!(%fault, "a machine's certificate was refused");
                Err(alert(&fault))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").finish_non_exhaustive()
    }
}
