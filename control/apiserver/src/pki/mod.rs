//! The cluster's own keys and certificates: two authorities (one for servers, one for clients), the
//! serving certificate, the administrator's, and the key that signs service account tokens.
//!
//! [`Pki::load_or_create`] is idempotent: what exists and is good stays, what is missing is made,
//! what is about to expire or does not name this machine any more is made anew. Private files are
//! 0600 in a directory of 0700, and each is replaced atomically. Nothing here knows HTTP.

mod authority;
mod files;
mod kubeconfig;
mod serving;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::KeyPair;

pub use authority::{Identity, Subject};
pub use kubeconfig::kubeconfig;
pub use serving::ServingNames;

use authority::Authority;
use files::Vault;
use serving::ReloadableCertificate;

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

/// Everything that proves who is who in this cluster.
pub struct Pki {
    server_authority: Authority,
    client_authority: Authority,
    serving: Arc<ReloadableCertificate>,
    admin: parking_lot::RwLock<Identity>,
    token_key: KeyPair,
    names: ServingNames,
    vault: Vault,
}

/// How the administrator is called in certificates.
const ADMIN: &str = "kubernetes-admin";

impl Pki {
    /// Reads the files in `dir` (made if need be), and makes what is missing or due.
    pub fn load_or_create(dir: &Path, names: ServingNames) -> Result<Self, PkiError> {
        Self::open(Vault::directory(dir)?, names)
    }

    /// Keys and certificates that live as long as the process, for tests and tools.
    pub fn in_memory(names: ServingNames) -> Result<Self, PkiError> {
        Self::open(Vault::memory(), names)
    }

    fn open(vault: Vault, names: ServingNames) -> Result<Self, PkiError> {
        let now = Timestamp::now();
        let server_authority = Authority::load_or_create(&vault, "server-ca", "sampan-server-ca", now)?;
        let client_authority = Authority::load_or_create(&vault, "client-ca", "sampan-client-ca", now)?;
        let identity = serving::load_or_issue(&vault, &server_authority, &names, now)?;
        let serving = Arc::new(ReloadableCertificate::new(&identity)?);
        let admin = load_or_issue_admin(&vault, &client_authority, now)?;
        let token_key = load_or_create_key(&vault, "service-account.key")?;
        let admin = parking_lot::RwLock::new(admin);
        Ok(Self { server_authority, client_authority, serving, admin, token_key, names, vault })
    }

    /// The certificate of the authority that signs servers, PEM: what clients trust.
    pub fn ca_pem(&self) -> &str {
        self.server_authority.certificate_pem()
    }

    /// The certificate of the authority that signs clients, PEM.
    pub fn client_ca_pem(&self) -> &str {
        self.client_authority.certificate_pem()
    }

    /// The administrator's certificate and key.
    pub fn admin(&self) -> Identity {
        self.admin.read().clone()
    }

    /// A kubeconfig for the administrator.
    pub fn admin_kubeconfig(&self, server: &str) -> String {
        kubeconfig(server, self.ca_pem(), ADMIN, &self.admin())
    }

    /// A new client certificate, valid for a year.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        self.client_authority.issue(&Subject::Client { user, groups }, Timestamp::now())
    }

    /// The private key that signs service account tokens and its public part, both PEM.
    pub(crate) fn token_key(&self) -> (String, String) {
        (self.token_key.serialize_pem(), self.token_key.public_key_pem())
    }

    /// Makes anew what is about to expire; connections from now on see it. Whether anything was.
    pub fn renew_due(&self, now: Timestamp) -> Result<bool, PkiError> {
        let mut renewed = false;
        if serving::is_due(&self.serving.identity(), &self.names, now)? {
            let identity = serving::issue(&self.vault, &self.server_authority, &self.names, now)?;
            self.serving.replace(&identity)?;
            renewed = true;
        }
        if authority::expires_soon(&self.admin().certificate_pem, now)? {
            *self.admin.write() = issue_admin(&self.vault, &self.client_authority, now)?;
            renewed = true;
        }
        Ok(renewed)
    }

    /// How a listener speaks TLS: our serving certificate, client certificates asked for and
    /// checked but not required, HTTP/2 and HTTP/1.1.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority::certificate_der(self.client_ca_pem())?)?;
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .allow_unauthenticated()
        .build()
        .map_err(|e| PkiError::Unusable { what: format!("the client authority: {e}") })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.serving) as Arc<dyn rustls::server::ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The administrator's kubeconfig from the files that an earlier run left in `dir`. Makes nothing.
pub fn stored_admin_kubeconfig(dir: &Path, server: &str) -> Result<String, PkiError> {
    let missing =
        |what: &str| PkiError::Unusable { what: format!("{what} in {}: it is missing", dir.display()) };
    let vault = Vault::existing(dir);
    let ca = vault.read("server-ca.crt")?.ok_or_else(|| missing("server-ca.crt"))?;
    let admin = vault.read_identity("admin")?.ok_or_else(|| missing("admin.crt"))?;
    Ok(kubeconfig(server, &ca, ADMIN, &admin))
}

fn load_or_create_key(vault: &Vault, file: &str) -> Result<KeyPair, PkiError> {
    let bad = |source| PkiError::Certificate { what: file.to_owned(), source };
    if let Some(pem) = vault.read(file)? {
        return KeyPair::from_pem(&pem).map_err(bad);
    }
    let key = KeyPair::generate().map_err(bad)?;
    vault.write_private(file, &key.serialize_pem())?;
    Ok(key)
}

fn load_or_issue_admin(vault: &Vault, authority: &Authority, now: Timestamp) -> Result<Identity, PkiError> {
    if let Some(found) = vault.read_identity("admin")?
        && authority.signed(&found)?
        && !authority::expires_soon(&found.certificate_pem, now)?
    {
        return Ok(found);
    }
    issue_admin(vault, authority, now)
}

fn issue_admin(vault: &Vault, authority: &Authority, now: Timestamp) -> Result<Identity, PkiError> {
    let identity = authority.issue(&Subject::Client { user: ADMIN, groups: &[crate::auth::MASTERS] }, now)?;
    vault.write_identity("admin", &identity)?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
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
}
