//! Which client certificates a listener takes: those of every authority that is trusted now, that are
//! in date.
//!
//! Whether a certificate is in date depends on who holds it. A person's ends when the most likely time
//! is past its end, as RFC 5280 has it. A machine is its key, and renews by that: its certificate ends
//! only when that is proven, so that a server whose clock is years ahead takes what the others take.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::PkiError;
use crate::auth::MACHINES;

/// What is known of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// A time that is certainly past.
    pub floor: Timestamp,
    /// The most likely time.
    pub likely: Timestamp,
}

/// Tells what is known of the time.
pub type Time = Arc<dyn Fn() -> Moment + Send + Sync>;

/// By which time to judge a certificate that is good from and to these times, in seconds since 1970;
/// `None`: it has expired.
fn judge(machine: bool, (from, to): (i64, i64), moment: Moment) -> Option<i64> {
    let likely = moment.likely.as_second();
    match machine {
        // A person's: whoever checks the rest checks the dates, too.
        false => Some(likely),
        true if moment.floor.as_second() > to => None,
        true => Some(likely.clamp(from, to.max(from))),
    }
}

/// Checks client certificates, which are asked for but not required. Which authorities are trusted
/// may change while connections are made.
pub(super) struct LiveVerifier {
    current: RwLock<Arc<dyn ClientCertVerifier>>,
    /// `None`: the system's clock is all there is, and what it says is taken for proven.
    time: RwLock<Option<Time>>,
}

impl LiveVerifier {
    pub(super) fn new(roots_pem: &str) -> Result<Self, PkiError> {
        Ok(Self { current: RwLock::new(verifier(roots_pem)?), time: RwLock::default() })
    }

    /// From now on, certificates are judged by this.
    pub(super) fn set_time(&self, time: Time) {
        *self.time.write() = Some(time);
    }

    /// What is known of the time; `None` where there is only the system's clock.
    pub(super) fn moment(&self) -> Option<Moment> {
        let time = self.time.read().clone();
        time.map(|time| time())
    }

    /// Whether one of the authorities signed a certificate, at whatever time.
    pub(super) fn has_signed(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let (_, to) = dates(&parse(certificate)?);
        Ok(self.current().verify_client_cert(certificate, &[], second(to)).is_ok())
    }

    /// From now on, the authorities of this PEM text are trusted.
    pub(super) fn replace(&self, roots_pem: &str) -> Result<(), PkiError> {
        let new = verifier(roots_pem)?;
        *self.current.write() = new;
        Ok(())
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current.read())
    }
}

impl std::fmt::Debug for LiveVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for LiveVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: clients show what they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let time = match self.moment() {
            None => now,
            Some(moment) => {
                let certificate = parse(end_entity)?;
                let judged = judge(is_machine(&certificate), dates(&certificate), moment);
                second(judged.ok_or(Error::InvalidCertificate(CertificateError::Expired))?)
            }
        };
        self.current().verify_client_cert(end_entity, intermediates, time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(parsed)
}

/// Whether a certificate is a machine's of the cluster, by its own word. (Who signed it is checked
/// afterwards.)
fn is_machine(certificate: &X509Certificate<'_>) -> bool {
    let mut groups = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok());
    groups.any(|group| MACHINES.contains(&group))
}

fn dates(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    (validity.not_before.timestamp(), validity.not_after.timestamp())
}

fn second(time: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(time).unwrap_or_default()))
}

fn verifier(roots_pem: &str) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        let root = root.map_err(|e| PkiError::Unusable { what: format!("a client authority: {e}") })?;
        roots.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
        .map_err(|e| PkiError::Unusable { what: format!("the client authority: {e}") })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::pki::{MachineRole, Pki, ServingNames};

    const YEAR: i64 = 365 * 86_400;

    #[test]
    fn a_persons_certificate_ends_by_the_likely_time_and_a_machines_when_that_is_proven() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let moment = |floor, likely| Moment { floor: at(floor), likely: at(likely) };
        let dates = (100, 200);
        for (machine, moment, expected) in [
            (false, moment(0, 150), Some(150)),
            (false, moment(0, 900), Some(900)),
            (true, moment(0, 150), Some(150)),
            (true, moment(150, 900), Some(200)),
            (true, moment(200, 900), Some(200)),
            (true, moment(201, 900), None),
            (true, moment(0, 1), Some(100)),
        ] {
            assert_eq!(judge(machine, dates, moment), expected, "{machine} {moment:?}");
        }
    }

    #[test]
    fn a_server_whose_clock_is_years_off_takes_machines_and_those_people_who_are_in_date() {
        let pki = Pki::in_memory(ServingNames::new([], [])).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let machine = pki.issue_machine(MachineRole::Node, "n1", &request).unwrap();
        let person = pki.issue_client("jane", &["devs"]).unwrap().certificate_pem;
        let verifier = LiveVerifier::new(&pki.client_ca_pem()).unwrap();
        let now = Timestamp::now();
        let check = |pem: &str, floor: i64, likely: i64| {
            let after = |years: i64| now + jiff::SignedDuration::from_secs(years * YEAR);
            let moment = Moment { floor: after(floor), likely: after(likely) };
            verifier.set_time(Arc::new(move || moment));
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            // The clock that TLS looks at is not asked any more.
            verifier.verify_client_cert(&der, &[], UnixTime::since_unix_epoch(Default::default())).is_ok()
        };
        assert!(check(&machine, 0, 0) && check(&person, 0, 0));
        assert!(check(&machine, -1, 5), "years ahead, and nothing is proven");
        assert!(!check(&person, -1, 5));
        assert!(check(&machine, -40, -40), "a clock that starts in the past");
        assert!(!check(&machine, 2, 2) && !check(&person, 2, 2), "it is proven");
        // Another authority's machine is none of ours, whatever the time.
        let other = Pki::in_memory(ServingNames::new([], [])).unwrap();
        let foreign = other.issue_machine(MachineRole::Node, "n1", &request).unwrap();
        assert!(!check(&foreign, -1, 5) && !check(&foreign, 0, 0));
        // Without anything but the system's clock, dates are dates.
        let plain = LiveVerifier::new(&pki.client_ca_pem()).unwrap();
        let der = CertificateDer::from_pem_slice(machine.as_bytes()).unwrap();
        let late = second(now.as_second() + 5 * YEAR);
        assert!(plain.verify_client_cert(&der, &[], late).is_err());
        assert!(plain.has_signed(&der).unwrap());
    }
}
