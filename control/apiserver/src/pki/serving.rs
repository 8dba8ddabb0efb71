//! The serving certificate: which names it must carry, and how it is replaced while we serve.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::authority::{self, Authority};
use super::files::Vault;
use super::{Identity, PkiError, Subject};

const FILE: &str = "serving";

/// The names and addresses by which clients reach this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingNames {
    dns: Vec<String>,
    ips: Vec<IpAddr>,
}

impl ServingNames {
    /// The given names and addresses, and those that every server has: this machine itself, and
    /// the in-cluster names of the API.
    pub fn new(names: impl IntoIterator<Item = String>, ips: impl IntoIterator<Item = IpAddr>) -> Self {
        let fixed = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let dns: BTreeSet<String> = fixed.into_iter().map(str::to_owned).chain(names).collect();
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let ips: BTreeSet<IpAddr> = local.into_iter().chain(ips).collect();
        Self { dns: dns.into_iter().collect(), ips: ips.into_iter().collect() }
    }
}

/// The certificate on file if it is good, else a new one.
pub(super) fn load_or_issue(
    vault: &Vault,
    authority: &Authority,
    names: &ServingNames,
    (now, life): (Timestamp, SignedDuration),
) -> Result<Identity, PkiError> {
    if let Some(found) = vault.read_identity(FILE)?
        && authority.signed(&found)?
        && !is_due(&found, names, (now, life))?
    {
        return Ok(found);
    }
    issue(vault, authority, names, (now, life))
}

/// A new certificate, written down.
pub(super) fn issue(
    vault: &Vault,
    authority: &Authority,
    names: &ServingNames,
    (now, life): (Timestamp, SignedDuration),
) -> Result<Identity, PkiError> {
    let identity = authority.issue(&Subject::Server { dns: &names.dns, ips: &names.ips }, now, life)?;
    vault.write_identity(FILE, &identity)?;
    Ok(identity)
}

/// Whether a certificate expires soon or lacks a name.
pub(super) fn is_due(
    identity: &Identity,
    names: &ServingNames,
    (now, life): (Timestamp, SignedDuration),
) -> Result<bool, PkiError> {
    if authority::expires_soon(&identity.certificate_pem, now, life)? {
        return Ok(true);
    }
    let der = authority::certificate_der(&identity.certificate_pem)?;
    let certificate = authority::parse(&der)?;
    let Ok(Some(alternative)) = certificate.subject_alternative_name() else { return Ok(true) };
    let has = |wanted: &GeneralName<'_>| alternative.value.general_names.contains(wanted);
    let dns = names.dns.iter().all(|name| has(&GeneralName::DNSName(name)));
    let ips = names.ips.iter().all(|ip| match ip {
        IpAddr::V4(ip) => has(&GeneralName::IPAddress(&ip.octets())),
        IpAddr::V6(ip) => has(&GeneralName::IPAddress(&ip.octets())),
    });
    Ok(!(dns && ips))
}

/// The certificate that new connections see.
pub(super) struct ReloadableCertificate {
    current: RwLock<(Identity, Arc<CertifiedKey>)>,
    /// What is shown to machines that ask for another protocol than HTTP, by its name.
    machine: RwLock<Option<(Vec<u8>, Arc<CertifiedKey>)>>,
}

impl ReloadableCertificate {
    pub(super) fn new(identity: &Identity) -> Result<Self, PkiError> {
        Ok(Self {
            current: RwLock::new((identity.clone(), certified(identity)?)),
            machine: RwLock::default(),
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.current.read().0.clone()
    }

    pub(super) fn replace(&self, identity: &Identity) -> Result<(), PkiError> {
        let certified = certified(identity)?;
        *self.current.write() = (identity.clone(), certified);
        Ok(())
    }

    pub(super) fn replace_machine(&self, protocol: &[u8], identity: &Identity) -> Result<(), PkiError> {
        let certified = certified(identity)?;
        *self.machine.write() = Some((protocol.to_vec(), certified));
        Ok(())
    }
}

impl std::fmt::Debug for ReloadableCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReloadableCertificate").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some((protocol, machine)) = &*self.machine.read()
            && hello.alpn().is_some_and(|mut asked| asked.any(|name| name == protocol.as_slice()))
        {
            return Some(Arc::clone(machine));
        }
        Some(Arc::clone(&self.current.read().1))
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, PkiError> {
    let certificate = authority::certificate_der(&identity.certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|e| PkiError::Unusable { what: format!("the serving key does not parse: {e}") })?;
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}
