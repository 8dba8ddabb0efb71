//! Whom to trust: the authority that a token names, those known from before, and those that followed
//! them by their own word.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sampan_apiserver::pki::{Succession, fingerprint};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::KeyId;
use crate::wire::Authority;

/// The authorities (PEM) that a server names, and that are the one with this fingerprint or
/// followed it. Empty where the server is of another cluster.
pub(crate) fn by_fingerprint(authority: &Authority, pinned: &str) -> String {
    let named = certificates(&authority.server_pem);
    let elders = authority.successions.iter().map(|step| step.elder_pem.clone());
    let known: Vec<String> = named
        .into_iter()
        .chain(elders)
        .filter(|pem| fingerprint(pem).is_ok_and(|found| found == pinned))
        .collect();
    closure(known, &authority.successions)
}

/// The authorities that are known (PEM), and those that followed them.
pub(crate) fn by_known(known_pem: &str, successions: &[Succession]) -> String {
    closure(certificates(known_pem), successions)
}

fn closure(mut known: Vec<String>, successions: &[Succession]) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let mut prints: std::collections::BTreeSet<String> =
        known.iter().filter_map(|pem| fingerprint(pem).ok()).collect();
    // Each round adds at least one authority, or is the last.
    loop {
        let before = seen.len();
        for (number, step) in successions.iter().enumerate() {
            let elder = fingerprint(&step.elder_pem).unwrap_or_default();
            if seen.contains(&number) || !prints.contains(&elder) || !step.is_genuine().unwrap_or(false) {
                continue;
            }
            seen.insert(number);
            if let Ok(print) = fingerprint(&step.younger_pem)
                && prints.insert(print)
            {
                known.push(step.younger_pem.clone());
            }
        }
        if seen.len() == before {
            return known.concat();
        }
    }
}

/// Each certificate of a PEM text by itself.
fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .map(|part| format!("{}\n", part.trim()))
        .filter(|part| part.contains(END))
        .collect()
}

/// The common name and the key of a certificate (PEM).
pub(crate) fn certificate_subject(pem: &str) -> Option<(String, KeyId)> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    Some((name, KeyId::of(certificate.public_key().raw)))
}

/// Whether two certificates (PEM): the second names the first as its issuer.
pub(crate) fn is_issued_by(pem: &str, issuer_pem: &str) -> bool {
    let check = || {
        let (der, issuer) = (
            CertificateDer::from_pem_slice(pem.as_bytes()).ok()?,
            CertificateDer::from_pem_slice(issuer_pem.as_bytes()).ok()?,
        );
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let (_, issuer) = X509Certificate::from_der(&issuer).ok()?;
        Some(certificate.issuer() == issuer.subject())
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sampan_apiserver::pki::{Authorities, Pki, ServingNames};

    use super::*;

    fn fresh() -> Authorities {
        Pki::in_memory(ServingNames::new([], [])).unwrap().authorities()
    }

    fn public(authorities: &Authorities) -> Authority {
        Authority {
            cluster_id: "c".into(),
            generation: authorities.generation,
            server_pem: authorities.server_pem(),
            client_pem: authorities.client_pem(),
            successions: authorities.successions.clone(),
        }
    }

    fn next(authorities: &Authorities) -> Authorities {
        authorities.staged(Timestamp::now()).unwrap().unwrap().switched(Timestamp::now()).retired()
    }

    #[test]
    fn trust_is_handed_on_by_the_elders_word_only() {
        let first = fresh();
        let third = next(&next(&first));
        let print = |authorities: &Authorities| fingerprint(&authorities.server_pem()).unwrap();
        let all = by_fingerprint(&public(&third), &print(&first));
        assert!(all.contains(third.server_pem().trim()));
        assert_eq!(certificates(&all).len(), 3);
        assert_eq!(certificates(&by_fingerprint(&public(&third), &print(&third))).len(), 1);
        assert_eq!(by_fingerprint(&public(&third), &print(&fresh())), "");
        assert!(by_known(&first.server_pem(), &third.successions).contains(third.server_pem().trim()));
        // Somebody else's authority, said to have followed ours.
        let foreign = next(&fresh());
        let mut forged = foreign.successions.clone();
        forged[0].elder_pem = first.server_pem();
        assert_eq!(by_known(&first.server_pem(), &forged), first.server_pem());
    }
}
