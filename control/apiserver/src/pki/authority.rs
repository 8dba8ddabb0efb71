//! A certificate authority, and what it issues.

use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;

const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A server with these names and addresses.
    Server {
        /// DNS names.
        dns: &'a [String],
        /// IP addresses.
        ips: &'a [IpAddr],
    },
    /// A client: its user name and groups.
    Client {
        /// User name.
        user: &'a str,
        /// Groups.
        groups: &'a [&'a str],
    },
    /// A machine of the cluster, which both opens and accepts connections.
    Machine {
        /// Common name.
        user: &'a str,
        /// Organization.
        group: &'a str,
    },
}

/// Signs certificates.
pub(super) struct Authority {
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, valid for ten years.
    pub(super) fn create(name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let bad = |source| PkiError::Certificate { what: name.to_owned(), source };
        let key = KeyPair::generate().map_err(bad)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(bad)?;
        // The number makes the names of two clusters' authorities differ, so that a client with the
        // wrong one gets a clear error.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name}@{}", now.as_microsecond()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now, AUTHORITY_LIFE);
        let certificate = params.self_signed(&key).map_err(bad)?;
        let identity = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        Self::from_identity(name, identity)
    }

    /// An authority that exists already; `what` names it in errors.
    pub(super) fn from_identity(what: &str, identity: Identity) -> Result<Self, PkiError> {
        let bad = |source| PkiError::Certificate { what: what.to_owned(), source };
        let key = KeyPair::from_pem(&identity.key_pem).map_err(bad)?;
        if !fits(&identity.certificate_pem, &key)? {
            return Err(PkiError::Unusable { what: format!("{what}: the key does not fit the certificate") });
        }
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate_pem, key).map_err(bad)?;
        Ok(Self { certificate_pem: identity.certificate_pem, key_pem: identity.key_pem, issuer })
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A new certificate with a new key.
    pub(super) fn issue(
        &self,
        subject: &Subject<'_>,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()
            .map_err(|source| PkiError::Certificate { what: "a new key".to_owned(), source })?;
        let certificate_pem = self.certify(subject, &key, now, life)?;
        Ok(Identity { certificate_pem, key_pem: key.serialize_pem() })
    }

    /// A new certificate (PEM) over somebody's public key.
    pub(super) fn certify(
        &self,
        subject: &Subject<'_>,
        key: &impl rcgen::PublicKeyData,
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<String, PkiError> {
        let bad = |source| PkiError::Certificate { what: "a new certificate".to_owned(), source };
        let params = leaf_params(subject, now, life).map_err(bad)?;
        Ok(params.signed_by(key, &self.issuer).map_err(bad)?.pem())
    }

    /// Whether this authority signed the certificate and the key fits it.
    pub(super) fn signed(&self, identity: &Identity) -> Result<bool, PkiError> {
        let Ok(key) = KeyPair::from_pem(&identity.key_pem) else { return Ok(false) };
        Ok(fits(&identity.certificate_pem, &key)?
            && is_issued_by(&identity.certificate_pem, &self.certificate_pem)?)
    }
}

/// Whether a certificate names another one as its issuer.
pub(super) fn is_issued_by(certificate_pem: &str, issuer_pem: &str) -> Result<bool, PkiError> {
    let (own, other) = (certificate_der(issuer_pem)?, certificate_der(certificate_pem)?);
    let (own, other) = (parse(&own)?, parse(&other)?);
    Ok(own.subject() == other.issuer())
}

fn leaf_params(
    subject: &Subject<'_>,
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Strict verifiers (Python's from 3.13 on) insist on it.
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, life);
    match subject {
        Subject::Server { dns, ips } => {
            params.distinguished_name.push(DnType::CommonName, "sampan");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for name in *dns {
                params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
            }
            params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
        }
        Subject::Client { user, groups } => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.distinguished_name.push(DnType::CommonName, *user);
            // A distinguished name holds one value of a type here: several groups need several
            // certificates' worth of attributes, which the library does not write.
            if let [first, rest @ ..] = groups {
                params.distinguished_name.push(DnType::OrganizationName, *first);
                if !rest.is_empty() {
                    return Err(rcgen::Error::UnsupportedExtension);
                }
            }
        }
        Subject::Machine { user, group } => {
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            params.distinguished_name.push(DnType::CommonName, *user);
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
    }
    Ok(params)
}

/// Valid from long ago (machines without a clock battery start in the past) for `life` from now.
fn validity(params: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    let end = now.saturating_add(life).unwrap_or(Timestamp::MAX).as_second();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after =
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(end).unwrap_or_default());
}

/// The first certificate of a PEM text.
pub(super) fn certificate_der(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| PkiError::Unusable { what: format!("a certificate does not parse: {e}") })
}

/// A parsed certificate.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|e| PkiError::Unusable { what: format!("a certificate does not parse: {e}") })?;
    Ok(certificate)
}

fn fits(certificate_pem: &str, key: &KeyPair) -> Result<bool, PkiError> {
    let der = certificate_der(certificate_pem)?;
    let certificate = parse(&der)?;
    Ok(certificate.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(key))
}

/// When a certificate (PEM) ends.
pub fn not_after(certificate_pem: &str) -> Result<Timestamp, PkiError> {
    let der = certificate_der(certificate_pem)?;
    let seconds = parse(&der)?.validity().not_after.timestamp();
    Ok(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// Whether two thirds of a certificate's life are over, its life being `life`.
pub(super) fn expires_soon(
    certificate_pem: &str,
    now: Timestamp,
    life: SignedDuration,
) -> Result<bool, PkiError> {
    Ok(not_after(certificate_pem)?.duration_since(now) < life / 3)
}
