//! The cluster's own keys and certificates: two authorities (one for servers, one for clients), the
//! serving certificate, the administrator's, and the key that signs service account tokens.
//!
//! [`Pki::load_or_create`] is idempotent: what exists and is good stays, what is missing is made,
//! what is about to expire or does not name this machine any more is made anew. Private files are
//! 0600 in a directory of 0700, and each is replaced atomically. Nothing here knows HTTP.

mod authority;
mod files;
mod kubeconfig;
mod roots;
mod serving;
mod stored;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, RwLock};
use rcgen::KeyPair;
use rustls::server::danger::ClientCertVerifier;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use authority::{Identity, Subject, not_after};
pub use kubeconfig::kubeconfig;
pub use roots::{Authorities, Root, Stage, Succession, fingerprint};
pub use serving::ServingNames;
pub use stored::{shared_files, stored_admin_kubeconfig};
pub use verifier::{Moment, Time};

use authority::Authority;
use files::Vault;
use serving::ReloadableCertificate;
use stored::{
    ADMIN, CLIENT_FILE, SERVER_FILE, TOKEN_KEY_FILE, issue_admin, load_or_create_authorities,
    load_or_create_key, load_or_issue_admin, write_authorities,
};
use verifier::LiveVerifier;

/// Why keys or certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: cannot be read or written")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be made or understood.
    #[error("{what}: not a usable key or certificate")]
    Certificate {
        /// Which one.
        what: String,
        /// What was wrong.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate does not parse, or its key does not fit.
    #[error("{what}")]
    Unusable {
        /// What is wrong with which.
        what: String,
    },
    /// The TLS library refused.
    #[error("TLS set-up failed")]
    Tls(#[from] rustls::Error),
}

/// How long certificates live, and with that when they are renewed: after two thirds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(pub SignedDuration);

impl Default for Life {
    /// A year.
    fn default() -> Self {
        Self(SignedDuration::from_hours(24 * 365))
    }
}

/// What a machine of the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineRole {
    /// It holds the store and serves the API.
    Server,
    /// It runs pods.
    Node,
}

impl MachineRole {
    /// The user name of a machine with this role, as its certificate has it.
    pub fn user(self, name: &str) -> String {
        match self {
            Self::Server => format!("sampan:server:{name}"),
            Self::Node => format!("system:node:{name}"),
        }
    }

    fn group(self) -> &'static str {
        match self {
            Self::Server => crate::auth::SERVERS,
            Self::Node => "system:nodes",
        }
    }
}

/// The public side of the authorities at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// Which one; a higher one is newer.
    pub generation: u64,
    /// The authorities that sign servers, PEM, the one that signs now first.
    pub server_pem: String,
    /// The authorities that sign clients and machines, PEM, the one that signs now first.
    pub client_pem: String,
}

/// Everything that proves who is who in this cluster.
pub struct Pki {
    current: RwLock<Current>,
    serving: Arc<ReloadableCertificate>,
    clients: Arc<LiveVerifier>,
    admin: RwLock<Identity>,
    token_key: KeyPair,
    names: RwLock<ServingNames>,
    life: Life,
    vault: Vault,
    changes: watch::Sender<TrustBundle>,
    /// One change at a time.
    writer: Mutex<()>,
}

/// The authorities, and those of them that sign.
struct Current {
    authorities: Authorities,
    server: Arc<Authority>,
    client: Arc<Authority>,
}

impl Current {
    fn new(authorities: Authorities) -> Result<Self, PkiError> {
        authorities.check()?;
        let server = Arc::new(roots::authority(authorities.signing_server()?, SERVER_FILE)?);
        let client = Arc::new(roots::authority(authorities.signing_client()?, CLIENT_FILE)?);
        Ok(Self { authorities, server, client })
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle {
            generation: self.authorities.generation,
            server_pem: self.authorities.server_pem(),
            client_pem: self.authorities.client_pem(),
        }
    }
}

/// The longest time between two looks at what is due.
const LONGEST_CHECK: SignedDuration = SignedDuration::from_hours(12);

impl Pki {
    /// Reads the files in `dir` (made if need be), and makes what is missing or due.
    pub fn load_or_create(dir: &Path, names: ServingNames) -> Result<Self, PkiError> {
        Self::open(Vault::directory(dir)?, names, Life::default())
    }

    /// The same, with certificates that live so long.
    pub fn load_or_create_with(dir: &Path, names: ServingNames, life: Life) -> Result<Self, PkiError> {
        Self::open(Vault::directory(dir)?, names, life)
    }

    /// Keys and certificates that live as long as the process, for tests and tools.
    pub fn in_memory(names: ServingNames) -> Result<Self, PkiError> {
        Self::open(Vault::memory(), names, Life::default())
    }

    fn open(vault: Vault, names: ServingNames, life: Life) -> Result<Self, PkiError> {
        let now = Timestamp::now();
        let current = Current::new(load_or_create_authorities(&vault, now)?)?;
        let identity = serving::load_or_issue(&vault, &current.server, &names, (now, life.0))?;
        let bundle = current.bundle();
        Ok(Self {
            serving: Arc::new(ReloadableCertificate::new(&identity)?),
            clients: Arc::new(LiveVerifier::new(&bundle.client_pem)?),
            admin: RwLock::new(load_or_issue_admin(&vault, &current.client, (now, life.0))?),
            token_key: load_or_create_key(&vault, TOKEN_KEY_FILE)?,
            current: RwLock::new(current),
            names: RwLock::new(names),
            life,
            vault,
            changes: watch::Sender::new(bundle),
            writer: Mutex::default(),
        })
    }

    /// The certificates of the authorities that sign servers, PEM, the one that signs now first:
    /// what clients trust.
    pub fn ca_pem(&self) -> String {
        self.current.read().authorities.server_pem()
    }

    /// The certificates of the authorities that sign clients, PEM, the one that signs now first.
    pub fn client_ca_pem(&self) -> String {
        self.current.read().authorities.client_pem()
    }

    /// All authorities with their keys: for other servers, and nobody else.
    pub fn authorities(&self) -> Authorities {
        self.current.read().authorities.clone()
    }

    /// The authorities that are trusted, and every change of them.
    pub fn trust(&self) -> watch::Receiver<TrustBundle> {
        self.changes.subscribe()
    }

    /// How long the certificates live that are issued here.
    pub fn life(&self) -> SignedDuration {
        self.life.0
    }

    /// How often to look at what is due.
    pub fn check_interval(&self) -> std::time::Duration {
        let check = (self.life.0 / 24).min(LONGEST_CHECK);
        std::time::Duration::try_from(check).unwrap_or_default().max(std::time::Duration::from_secs(1))
    }

    /// The administrator's certificate and key.
    pub fn admin(&self) -> Identity {
        self.admin.read().clone()
    }

    /// A kubeconfig for the administrator.
    pub fn admin_kubeconfig(&self, server: &str) -> String {
        kubeconfig(server, &self.ca_pem(), ADMIN, &self.admin())
    }

    /// A new client certificate.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        self.client_authority().issue(&Subject::Client { user, groups }, self.now(), self.life.0)
    }

    /// A new certificate (PEM) for a machine, over the key whose possession `request` (a PKCS #10
    /// request, PEM) proves. What else the request asks for is ignored.
    ///
    /// Errors: the request does not parse, or its signature is not by its key.
    pub fn issue_machine(&self, role: MachineRole, name: &str, request: &str) -> Result<String, PkiError> {
        let bad = |source| PkiError::Certificate { what: "the certificate request".to_owned(), source };
        let request = rcgen::CertificateSigningRequestParams::from_pem(request).map_err(bad)?;
        let subject = Subject::Machine { user: &role.user(name), group: role.group() };
        self.client_authority().certify(&subject, &request.public_key, self.now(), self.life.0)
    }

    /// Whether a client authority that is trusted now signed a certificate (PEM), whose dates do not
    /// matter. It proves who somebody was; whether he still is, is for the caller to find out.
    pub fn has_signed(&self, certificate_pem: &str) -> Result<bool, PkiError> {
        Ok(self.clients.has_signed(&authority::certificate_der(certificate_pem)?)?)
    }

    /// From now on clients' certificates are judged, and certificates are issued, by what this tells
    /// of the time, instead of the system's clock.
    pub fn set_time(&self, time: Time) {
        self.clients.set_time(time);
    }

    /// The time, as far as it is known.
    pub(crate) fn now(&self) -> Timestamp {
        self.clients.moment().map_or_else(Timestamp::now, |moment| moment.likely)
    }

    /// Whether a certificate (PEM) is of the client authority that signs now.
    pub fn is_of_current_client_authority(&self, certificate_pem: &str) -> Result<bool, PkiError> {
        authority::is_issued_by(certificate_pem, self.client_authority().certificate_pem())
    }

    /// The private key that signs service account tokens, PEM: for other servers, and nobody else.
    pub fn token_key_pem(&self) -> String {
        self.token_key.serialize_pem()
    }

    /// The private key that signs service account tokens and its public part, both PEM.
    pub(crate) fn token_key(&self) -> (String, String) {
        (self.token_key.serialize_pem(), self.token_key.public_key_pem())
    }

    /// Makes anew what is about to expire; connections from now on see it. Whether anything was.
    pub fn renew_due(&self, now: Timestamp) -> Result<bool, PkiError> {
        let _writer = self.writer.lock();
        let (server, client) = (Arc::clone(&self.current.read().server), self.client_authority());
        let names = self.names.read().clone();
        let mut renewed = false;
        let serving = self.serving.identity();
        if serving::is_due(&serving, &names, (now, self.life.0))? || !server.signed(&serving)? {
            let identity = serving::issue(&self.vault, &server, &names, (now, self.life.0))?;
            self.serving.replace(&identity)?;
            renewed = true;
        }
        let admin = self.admin();
        if authority::expires_soon(&admin.certificate_pem, now, self.life.0)? || !client.signed(&admin)? {
            *self.admin.write() = issue_admin(&self.vault, &client, (now, self.life.0))?;
            renewed = true;
        }
        Ok(renewed)
    }

    /// The names and addresses by which clients reach this server are others now: the serving
    /// certificate is made anew if it lacks one. Whether it was.
    pub fn set_names(&self, names: ServingNames) -> Result<bool, PkiError> {
        *self.names.write() = names;
        self.renew_due(self.now())
    }

    /// Shows this certificate to machines that ask for the protocol `protocol` (ALPN) on the API's
    /// port, instead of the serving certificate.
    pub fn set_machine(&self, protocol: &[u8], identity: &Identity) -> Result<(), PkiError> {
        self.serving.replace_machine(protocol, identity)
    }

    /// Takes over the cluster's authorities: written down first, then trusted and signed with, and
    /// this server's certificates made anew if another one signs now. Which of two are the newer ones
    /// is the caller's to say. Whether they were others than here.
    pub fn adopt(&self, authorities: Authorities) -> Result<bool, PkiError> {
        let writer = self.writer.lock();
        if authorities == self.current.read().authorities {
            return Ok(false);
        }
        let next = Current::new(authorities)?;
        write_authorities(&self.vault, &next.authorities)?;
        let bundle = next.bundle();
        self.clients.replace(&bundle.client_pem)?;
        *self.current.write() = next;
        drop(writer);
        self.renew_due(self.now())?;
        self.changes.send_replace(bundle);
        Ok(true)
    }

    /// How a listener speaks TLS: our serving certificate, client certificates asked for and
    /// checked but not required, HTTP/2 and HTTP/1.1.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::clone(&self.clients) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(Arc::clone(&self.serving) as Arc<dyn rustls::server::ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn client_authority(&self) -> Arc<Authority> {
        Arc::clone(&self.current.read().client)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn names() -> ServingNames {
        ServingNames::new(["node1".to_owned()], ["10.43.0.1".parse().unwrap()])
    }

    #[test]
    fn what_was_made_once_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        let first = Pki::load_or_create(&tls, names()).unwrap();
        let second = Pki::load_or_create(&tls, names()).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.client_ca_pem(), second.client_ca_pem());
        assert_eq!(first.admin(), second.admin());
        assert_eq!(first.token_key(), second.token_key());
        assert_eq!(first.serving.identity(), second.serving.identity());
    }

    #[test]
    fn private_files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        Pki::load_or_create(&tls, names()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&tls), 0o700);
        let mut keys = 0;
        for entry in std::fs::read_dir(&tls).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            keys += usize::from(path.extension().is_some_and(|e| e == "key"));
        }
        assert_eq!(keys, 5);
    }

    #[test]
    fn a_new_name_or_nearing_expiry_renews_the_serving_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_create(dir.path(), names()).unwrap();
        let other = ServingNames::new(["node2".to_owned()], []);
        let second = Pki::load_or_create(dir.path(), other).unwrap();
        assert_ne!(first.serving.identity(), second.serving.identity());
        assert_eq!(first.ca_pem(), second.ca_pem());

        let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 350);
        let before = (second.serving.identity(), second.admin());
        assert!(!second.renew_due(Timestamp::now()).unwrap());
        assert!(second.renew_due(later).unwrap());
        assert_ne!(before, (second.serving.identity(), second.admin()));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        Pki::load_or_create(dir.path(), names()).unwrap();
        let path = dir.path().join("server-ca.key");
        std::fs::write(&path, "rubbish").unwrap();
        let error = Pki::load_or_create(dir.path(), names()).err().unwrap();
        assert!(error.to_string().contains("server-ca"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "rubbish");
    }

    #[test]
    fn another_server_starts_with_the_shared_files() {
        let first = Pki::in_memory(names()).unwrap();
        for authorities in
            [first.authorities(), first.authorities().staged(Timestamp::now()).unwrap().unwrap()]
        {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in shared_files(&authorities, &first.token_key_pem()).unwrap() {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let second = Pki::load_or_create(dir.path(), names()).unwrap();
            assert_eq!(second.authorities().server_pem(), authorities.server_pem());
            assert_eq!(second.authorities().generation, authorities.generation);
            assert_eq!(second.token_key(), first.token_key());
            assert!(first.has_signed(&second.admin().certificate_pem).unwrap());
            assert_ne!(second.serving.identity(), first.serving.identity());
        }
    }

    #[test]
    fn newer_authorities_are_taken_over_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(dir.path(), names()).unwrap();
        let trust = pki.trust();
        let old_admin = pki.admin();
        let staged = pki.authorities().staged(Timestamp::now()).unwrap().unwrap();
        assert!(pki.adopt(staged.clone()).unwrap());
        assert!(!pki.adopt(staged.clone()).unwrap());
        assert_eq!(trust.borrow().generation, 1);
        assert_eq!(pki.admin(), old_admin);
        let switched = staged.switched(Timestamp::now());
        pki.adopt(switched.clone()).unwrap();
        assert_ne!(pki.admin(), old_admin);
        assert!(pki.has_signed(&old_admin.certificate_pem).unwrap());
        assert!(pki.is_of_current_client_authority(&pki.admin().certificate_pem).unwrap());
        let again = Pki::load_or_create(dir.path(), names()).unwrap();
        assert_eq!(again.authorities(), switched);
        assert_eq!(again.admin(), pki.admin());
        let kubeconfig = stored_admin_kubeconfig(dir.path(), "https://localhost").unwrap();
        assert_eq!(kubeconfig, pki.admin_kubeconfig("https://localhost"));
        // Back to the first ones (a store that was restored), and they are found again as well.
        let first = Authorities { generation: 0, ..staged.clone() };
        again.adopt(first.clone()).unwrap();
        assert_eq!(Pki::load_or_create(dir.path(), names()).unwrap().authorities(), first);
        pki.adopt(switched.retired()).unwrap();
        assert!(!pki.has_signed(&old_admin.certificate_pem).unwrap());
        assert_eq!(pki.ca_pem(), switched.server[1].certificate_pem);
    }

    #[test]
    fn a_machines_certificate_is_over_its_own_key() {
        let pki = Pki::in_memory(names()).unwrap();
        let key = KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let pem = pki.issue_machine(MachineRole::Node, "n1", &request).unwrap();
        assert!(pki.has_signed(&pem).unwrap());
        let der = authority::certificate_der(&pem).unwrap();
        let certificate = authority::parse(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=system:node:n1, O=system:nodes");
        assert_eq!(certificate.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
        // The proof is of another key than the one that is named.
        let der =
            rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap();
        let mut forged = der.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(forged);
        let forged =
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
        assert!(pki.issue_machine(MachineRole::Node, "n1", &forged).is_err());
    }

    #[test]
    fn short_lives_are_renewed_at_two_thirds() {
        let life = SignedDuration::from_mins(3);
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create_with(dir.path(), names(), Life(life)).unwrap();
        let now = Timestamp::now();
        assert!(not_after(&pki.admin().certificate_pem).unwrap() <= now + life);
        assert!(!pki.renew_due(now + SignedDuration::from_secs(100)).unwrap());
        assert!(pki.renew_due(now + SignedDuration::from_secs(130)).unwrap());
    }
}
