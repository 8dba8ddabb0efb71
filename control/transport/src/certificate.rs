//! Reading a machine's certificate: who it is, what it may be used for, until when, who signed it.
//!
//! Time is left out here on purpose: a chain is built as if at a moment when all of it is valid, and
//! [`crate::validity`] judges the expiry with everything that is known about the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{KeyId, PeerIdentity, Role};
use crate::tls::provider;

/// Longest name of a machine, as Kubernetes limits node names.
const MAX_NAME: usize = 253;

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// None of our authorities signed it.
    #[error("none of the known authorities signed it")]
    UnknownAuthority,
    /// It is not one, or not a well-formed one.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It is not made for connections between machines in this direction.
    #[error("it is not made for {0} authentication")]
    Usage(&'static str),
    /// Its subject is not that of a machine.
    #[error("its subject ({0}) is not that of a machine")]
    NotAMachine(String),
    /// Its signatures are not right.
    #[error("it does not verify: {0}")]
    Invalid(String),
}

/// Which side of a handshake the owner of a certificate is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
    /// Our own certificate, used for both.
    Both,
}

/// A certificate that one of the authorities signed, expired or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) identity: PeerIdentity,
    /// The earliest expiry in the chain.
    pub(crate) not_after: SystemTime,
}

/// Checks everything about a chain but the time.
pub(crate) fn check_chain(
    roots: &RootCertStore,
    clients: &dyn ClientCertVerifier,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    usage: Usage,
) -> Result<Checked, CertificateFault> {
    let parsed = parse(leaf)?;
    let identity = machine(&parsed)?;
    check_usage(&parsed, usage)?;
    let mut window = Window::of(&parsed);
    for certificate in intermediates {
        window.narrow(&Window::of(&parse(certificate)?));
    }
    let at = UnixTime::since_unix_epoch(Duration::from_secs(window.not_before));
    if usage != Usage::Client {
        let end = ParsedCertificate::try_from(leaf).map_err(fault)?;
        let algorithms = provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&end, roots, intermediates, at, algorithms)
            .map_err(fault)?;
    }
    if usage != Usage::Server {
        clients.verify_client_cert(leaf, intermediates, at).map_err(fault)?;
    }
    let not_after = UNIX_EPOCH.checked_add(Duration::from_secs(window.not_after)).unwrap_or(UNIX_EPOCH);
    Ok(Checked { identity, not_after })
}

/// From when until when, in seconds since 1970.
struct Window {
    not_before: u64,
    not_after: u64,
}

impl Window {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: u64::try_from(validity.not_before.timestamp()).unwrap_or(0),
            not_after: u64::try_from(validity.not_after.timestamp()).unwrap_or(0),
        }
    }

    fn narrow(&mut self, other: &Self) {
        self.not_before = self.not_before.max(other.not_before);
        self.not_after = self.not_after.min(other.not_after);
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateFault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateFault::Malformed("more follows it".to_owned())),
        Err(error) => Err(CertificateFault::Malformed(error.to_string())),
    }
}

/// Who the certificate names: exactly one common name, and the organization of its role.
fn machine(certificate: &X509Certificate<'_>) -> Result<PeerIdentity, CertificateFault> {
    let subject = certificate.subject();
    let no = || CertificateFault::NotAMachine(subject.to_string());
    let mut names = subject.iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return Err(no()) };
    let name = name.as_str().map_err(|_| no())?;
    for role in [Role::Server, Role::Node] {
        let Some(name) = name.strip_prefix(role.prefix()) else { continue };
        let in_group = subject.iter_organization().any(|o| o.as_str() == Ok(role.organization()));
        if !in_group || !is_name(name) {
            return Err(no());
        }
        let key = KeyId::of_spki(certificate.public_key().raw);
        return Ok(PeerIdentity { name: name.to_owned(), role, key });
    }
    Err(no())
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

/// The chain builder lets a certificate without this extension pass; here it must be there.
fn check_usage(certificate: &X509Certificate<'_>, usage: Usage) -> Result<(), CertificateFault> {
    let extension =
        certificate.extended_key_usage().map_err(|e| CertificateFault::Malformed(e.to_string()))?;
    let (client, server) = extension.map_or((false, false), |e| (e.value.client_auth, e.value.server_auth));
    match usage {
        Usage::Client | Usage::Both if !client => Err(CertificateFault::Usage("client")),
        Usage::Server | Usage::Both if !server => Err(CertificateFault::Usage("server")),
        _ => Ok(()),
    }
}

fn fault(error: rustls::Error) -> CertificateFault {
    match error {
        // The signature fails where two authorities share a name.
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => CertificateFault::UnknownAuthority,
        other => CertificateFault::Invalid(other.to_string()),
    }
}
