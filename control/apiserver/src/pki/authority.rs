//! A certificate authority, and what it issues.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;
use super::files::Vault;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const AUTHORITY_DAYS: i32 = 3650;
const LEAF_DAYS: i32 = 365;
/// Certificates are made anew when less than this is left.
const RENEW_DAYS: i32 = 90;

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
}

/// Signs certificates.
pub(super) struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn load_or_create(
        vault: &Vault,
        file: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        if let Some(found) = vault.read_identity(file)? {
            return Self::from_identity(file, found);
        }
        let bad = |source| PkiError::Certificate { what: file.to_owned(), source };
        let key = KeyPair::generate().map_err(bad)?;
        let mut params = CertificateParams::new(Vec::new()).map_err(bad)?;
        // The number makes the names of two clusters' authorities differ, so that a client with the
        // wrong one gets a clear error.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{name}@{}", now.as_second()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        validity(&mut params, now, AUTHORITY_DAYS);
        let certificate = params.self_signed(&key).map_err(bad)?;
        let identity = Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        vault.write_identity(file, &identity)?;
        Self::from_identity(file, identity)
    }

    fn from_identity(file: &str, identity: Identity) -> Result<Self, PkiError> {
        let bad = |source| PkiError::Certificate { what: file.to_owned(), source };
        let key = KeyPair::from_pem(&identity.key_pem).map_err(bad)?;
        if !fits(&identity.certificate_pem, &key)? {
            return Err(PkiError::Unusable { what: format!("{file}: the key does not fit the certificate") });
        }
        let issuer = Issuer::from_ca_cert_pem(&identity.certificate_pem, key).map_err(bad)?;
        Ok(Self { certificate_pem: identity.certificate_pem, issuer })
    }

    pub(super) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A new certificate with a new key.
    pub(super) fn issue(&self, subject: &Subject<'_>, now: Timestamp) -> Result<Identity, PkiError> {
        let bad = |source| PkiError::Certificate { what: "a new certificate".to_owned(), source };
        let key = KeyPair::generate().map_err(bad)?;
        let params = leaf_params(subject, now).map_err(bad)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(bad)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Whether this authority signed the certificate and the key fits it.
    pub(super) fn signed(&self, identity: &Identity) -> Result<bool, PkiError> {
        let Ok(key) = KeyPair::from_pem(&identity.key_pem) else { return Ok(false) };
        if !fits(&identity.certificate_pem, &key)? {
            return Ok(false);
        }
        let own = certificate_der(&self.certificate_pem)?;
        let other = certificate_der(&identity.certificate_pem)?;
        let (own, other) = (parse(&own)?, parse(&other)?);
        Ok(own.subject() == other.issuer())
    }
}

fn leaf_params(subject: &Subject<'_>, now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Strict verifiers (Python's from 3.13 on) insist on it.
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, LEAF_DAYS);
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
    }
    Ok(params)
}

/// Valid from long ago (machines without a clock battery start in the past) for `days` from now.
fn validity(params: &mut CertificateParams, now: Timestamp, days: i32) {
    let end = now.saturating_add(DAY * days).unwrap_or(Timestamp::MAX).to_zoned(jiff::tz::TimeZone::UTC);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let part = |value: i8| u8::try_from(value).unwrap_or(1);
    params.not_after = rcgen::date_time_ymd(i32::from(end.year()), part(end.month()), part(end.day()));
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

/// Whether it is time to make a certificate anew.
pub(super) fn expires_soon(certificate_pem: &str, now: Timestamp) -> Result<bool, PkiError> {
    let der = certificate_der(certificate_pem)?;
    let left = parse(&der)?.validity().not_after.timestamp() - now.as_second();
    Ok(left < (DAY * RENEW_DAYS).as_secs())
}
