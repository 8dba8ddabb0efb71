//! The authorities of a cluster as data: which there are, which one signs, and how one follows
//! another. A cluster that never changed its authorities has one of each kind, and generation 0.
//!
//! Everything here is pure; [`super::Pki`] holds the state, and whoever shares it between servers
//! decides when to take a step.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::SigningKey;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::authority::{Authority, certificate_der, parse};
use super::{Identity, PkiError};

const SERVER_NAME: &str = "sampan-server-ca";
const CLIENT_NAME: &str = "sampan-client-ca";
/// What a signature over a successor begins with, so that it means nothing elsewhere.
const SUCCESSION: &[u8] = b"sampan authority succession\0";

/// Where an authority is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is trusted, and signs nothing yet.
    Staged,
    /// It signs.
    Signing,
    /// It signed what is still in use, and signs no more.
    Retiring,
}

/// One authority with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// Where it is in its life.
    pub stage: Stage,
    /// When it came there, in seconds since 1970.
    pub since: i64,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("stage", &self.stage).field("since", &self.since).finish_non_exhaustive()
    }
}

/// An authority's word that another one follows it: who trusts the elder may trust the younger. By
/// it a machine that slept while authorities were changed, or that holds an old token, finds its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The elder's certificate, PEM.
    pub elder_pem: String,
    /// The younger's certificate, PEM.
    pub younger_pem: String,
    /// The elder's signature (ECDSA P-256 with SHA-256, base64) over the younger.
    pub signature: String,
}

impl Succession {
    fn sign(elder: &Root, younger_pem: &str) -> Result<Self, PkiError> {
        let bad = |source| PkiError::Certificate { what: "an authority's key".to_owned(), source };
        let key = rcgen::KeyPair::from_pem(&elder.key_pem).map_err(bad)?;
        let signature = key.sign(&message(&certificate_der(younger_pem)?)).map_err(bad)?;
        Ok(Self {
            elder_pem: elder.certificate_pem.clone(),
            younger_pem: younger_pem.to_owned(),
            signature: STANDARD.encode(signature),
        })
    }

    /// Whether the elder did sign this.
    pub fn is_genuine(&self) -> Result<bool, PkiError> {
        let (elder, younger) = (certificate_der(&self.elder_pem)?, certificate_der(&self.younger_pem)?);
        let elder = parse(&elder)?;
        let Ok(signature) = STANDARD.decode(&self.signature) else { return Ok(false) };
        let key = &elder.public_key().subject_public_key.data;
        let provider = rustls::crypto::ring::default_provider();
        Ok(provider
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == rustls::SignatureScheme::ECDSA_NISTP256_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| algorithm.verify_signature(key, &message(&younger), &signature).is_ok()))
    }
}

fn message(younger: &CertificateDer<'_>) -> Vec<u8> {
    [SUCCESSION, younger.as_ref()].concat()
}

/// SHA-256 of a certificate (PEM), hex: what a join token pins.
pub fn fingerprint(certificate_pem: &str) -> Result<String, PkiError> {
    let der = certificate_der(certificate_pem)?;
    Ok(Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// All authorities of a cluster, keys included: what all servers share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// Grows with every change.
    pub generation: u64,
    /// Those that sign servers' certificates.
    pub server: Vec<Root>,
    /// Those that sign clients' and machines' certificates.
    pub client: Vec<Root>,
    /// Which server authority followed which, oldest first; kept when the elder is gone.
    pub successions: Vec<Succession>,
    /// The same of client authorities.
    pub client_successions: Vec<Succession>,
}

impl Authorities {
    /// One authority of each kind, new.
    pub(super) fn create(now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self::of(new_root(SERVER_NAME, Stage::Signing, now)?, new_root(CLIENT_NAME, Stage::Signing, now)?))
    }

    /// One authority of each kind, as files hold them.
    pub(super) fn from_identities(server: Identity, client: Identity) -> Self {
        let root = |identity: Identity| Root {
            certificate_pem: identity.certificate_pem,
            key_pem: identity.key_pem,
            stage: Stage::Signing,
            since: 0,
        };
        Self::of(root(server), root(client))
    }

    /// The first of a cluster. Files do not tell since when they sign, and it does not matter.
    fn of(server: Root, client: Root) -> Self {
        Self {
            generation: 0,
            server: vec![Root { since: 0, ..server }],
            client: vec![Root { since: 0, ..client }],
            successions: Vec::new(),
            client_successions: Vec::new(),
        }
    }

    /// The server authority that signs.
    pub fn signing_server(&self) -> Result<&Root, PkiError> {
        signing(&self.server, "server")
    }

    /// The client authority that signs.
    pub fn signing_client(&self) -> Result<&Root, PkiError> {
        signing(&self.client, "client")
    }

    /// All server authorities, PEM, the one that signs first: what clients trust.
    pub fn server_pem(&self) -> String {
        bundle(&self.server)
    }

    /// All client authorities, PEM, the one that signs first.
    pub fn client_pem(&self) -> String {
        bundle(&self.client)
    }

    /// New authorities beside those that sign; from now on both are to be trusted. `None` where a
    /// change is under way already.
    pub fn staged(&self, now: Timestamp) -> Result<Option<Self>, PkiError> {
        if self.server.len() != 1 || self.client.len() != 1 {
            return Ok(None);
        }
        let mut next = self.clone();
        next.generation += 1;
        let name = |name: &str| format!("{name}-{}", next.generation);
        let server = new_root(&name(SERVER_NAME), Stage::Staged, now)?;
        let client = new_root(&name(CLIENT_NAME), Stage::Staged, now)?;
        next.successions.push(Succession::sign(self.signing_server()?, &server.certificate_pem)?);
        next.client_successions.push(Succession::sign(self.signing_client()?, &client.certificate_pem)?);
        next.server.push(server);
        next.client.push(client);
        Ok(Some(next))
    }

    /// What was staged signs from now on, and what signed retires.
    #[must_use]
    pub fn switched(&self, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        for root in next.server.iter_mut().chain(&mut next.client) {
            root.stage = match root.stage {
                Stage::Staged => Stage::Signing,
                Stage::Signing | Stage::Retiring => Stage::Retiring,
            };
            root.since = now.as_second();
        }
        next
    }

    /// What retires is trusted no more.
    #[must_use]
    pub fn retired(&self) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        next.server.retain(|root| root.stage != Stage::Retiring);
        next.client.retain(|root| root.stage != Stage::Retiring);
        next
    }

    /// That there is exactly one signer of each kind, with a key that fits.
    pub(super) fn check(&self) -> Result<(), PkiError> {
        authority(self.signing_server()?, "server-ca")?;
        authority(self.signing_client()?, "client-ca")?;
        Ok(())
    }
}

/// A root's authority; `what` names it in errors.
pub(super) fn authority(root: &Root, what: &str) -> Result<Authority, PkiError> {
    let identity = Identity { certificate_pem: root.certificate_pem.clone(), key_pem: root.key_pem.clone() };
    Authority::from_identity(what, identity)
}

fn new_root(name: &str, stage: Stage, now: Timestamp) -> Result<Root, PkiError> {
    let made = Authority::create(name, now)?;
    Ok(Root {
        certificate_pem: made.certificate_pem().to_owned(),
        key_pem: made.key_pem().to_owned(),
        stage,
        since: now.as_second(),
    })
}

fn signing<'a>(roots: &'a [Root], kind: &str) -> Result<&'a Root, PkiError> {
    let mut signers = roots.iter().filter(|root| root.stage == Stage::Signing);
    match (signers.next(), signers.next()) {
        (Some(signer), None) => Ok(signer),
        _ => {
            Err(PkiError::Unusable { what: format!("there is not exactly one {kind} authority that signs") })
        }
    }
}

fn bundle(roots: &[Root]) -> String {
    let (signing, others): (Vec<&Root>, Vec<&Root>) =
        roots.iter().partition(|root| root.stage == Stage::Signing);
    let mut pem = String::new();
    for root in signing.into_iter().chain(others) {
        pem.push_str(root.certificate_pem.trim_end());
        pem.push('\n');
    }
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(roots: &[Root]) -> Vec<Stage> {
        roots.iter().map(|root| root.stage).collect()
    }

    #[test]
    fn authorities_follow_each_other_step_by_step() {
        let now = Timestamp::UNIX_EPOCH;
        let first = Authorities::create(now).unwrap();
        let staged = first.staged(now).unwrap().unwrap();
        assert_eq!(stages(&staged.server), [Stage::Signing, Stage::Staged]);
        assert_eq!(staged.signing_client().unwrap(), first.signing_client().unwrap());
        assert!(staged.staged(now).unwrap().is_none());
        let switched = staged.switched(now);
        assert_eq!(stages(&switched.client), [Stage::Retiring, Stage::Signing]);
        assert!(switched.server_pem().starts_with(staged.server[1].certificate_pem.trim_end()));
        let retired = switched.retired();
        assert_eq!(stages(&retired.server), [Stage::Signing]);
        assert_eq!(retired.generation, 3);
        assert_eq!(retired.successions.len(), 1);
        retired.check().unwrap();
    }

    #[test]
    fn a_succession_is_the_elders_word() {
        let now = Timestamp::UNIX_EPOCH;
        let staged = Authorities::create(now).unwrap().staged(now).unwrap().unwrap();
        let genuine = staged.successions[0].clone();
        assert!(genuine.is_genuine().unwrap());
        let other = Authorities::create(now).unwrap();
        let forged = Succession { younger_pem: other.server[0].certificate_pem.clone(), ..genuine.clone() };
        assert!(!forged.is_genuine().unwrap());
        let rubbish = Succession { signature: "AAAA".into(), ..genuine };
        assert!(!rubbish.is_genuine().unwrap());
    }
}
