//! Who a machine is: its key, its name, its role; and the credentials that prove it, replaceable live.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::certificate::{self, Usage};
use crate::error::TransportError;
use crate::tls::provider;

/// A machine's key: the SHA-256 of its SubjectPublicKeyInfo (DER).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The key id of a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The Raft member id of the machine with this key: the first eight bytes, big endian; never 0.
    #[must_use]
    pub fn member_id(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A text that is no key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 64 hexadecimal digits")]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(NotAKeyId);
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            // A sign would be taken by the number parser.
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return Err(NotAKeyId);
            }
            let digits = std::str::from_utf8(pair).map_err(|_| NotAKeyId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAKeyId)?;
        }
        Ok(Self(key))
    }
}

/// What a machine is, by its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Holds the store and serves the API.
    Server,
    /// Runs pods.
    Node,
}

impl Role {
    /// The organization in the subject of such a machine's certificate.
    #[must_use]
    pub fn organization(self) -> &'static str {
        match self {
            Self::Server => "sampan:servers",
            Self::Node => "system:nodes",
        }
    }

    /// What stands before the name in the common name of such a machine's certificate.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Server => "sampan:server:",
            Self::Node => "system:node:",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Node => "node",
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// The machine's name, as its certificate says.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its key, by which it is known.
    pub key: KeyId,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// What a machine proves itself with, and whom it believes.
pub struct Credentials {
    /// The machine's certificate, and intermediates if there are any.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The authorities that may sign machines' certificates: several while they are being rotated.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Credentials {
    /// Reads credentials from PEM texts.
    ///
    /// # Errors
    /// When a text is no PEM, or nothing is in it.
    pub fn from_pem(chain: &str, key: &str, roots: &str) -> Result<Self, TransportError> {
        let certificates = |what: &str, text: &str| {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            let found = found.map_err(|e| TransportError::Credentials(format!("{what}: {e}")))?;
            if found.is_empty() {
                return Err(TransportError::Credentials(format!("{what}: no certificate in it")));
            }
            Ok(found)
        };
        Ok(Self {
            chain: certificates("the machine's certificate", chain)?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|e| TransportError::Credentials(format!("the machine's key: {e}")))?,
            roots: certificates("the authorities", roots)?,
        })
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// This machine's identity, live: handshakes use what was put in last, connections that stand stay.
#[derive(Clone)]
pub struct Identity(Arc<RwLock<Arc<Live>>>);

/// Credentials, made ready for handshakes.
pub(crate) struct Live {
    pub(crate) own: PeerIdentity,
    pub(crate) not_after: SystemTime,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
}

impl Identity {
    /// The identity that these credentials prove.
    ///
    /// # Errors
    /// When the key does not fit the certificate, the certificate names no machine, or none of the
    /// authorities signed it.
    pub fn new(credentials: Credentials) -> Result<Self, TransportError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(Live::new(credentials)?)))))
    }

    /// Puts renewed credentials, or other authorities, in place for handshakes from now on.
    ///
    /// # Errors
    /// As [`Identity::new`], and when the key is another one: a machine is its key.
    pub fn replace(&self, credentials: Credentials) -> Result<(), TransportError> {
        let new = Live::new(credentials)?;
        let mut live = self.0.write();
        if new.own.key != live.own.key || new.own.role != live.own.role {
            return Err(TransportError::Credentials(format!(
                "{} with key {} cannot take the place of {} with key {}",
                new.own, new.own.key, live.own, live.own.key
            )));
        }
        *live = Arc::new(new);
        Ok(())
    }

    /// Who this machine is.
    #[must_use]
    pub fn own(&self) -> PeerIdentity {
        self.live().own.clone()
    }

    /// When the certificate in use expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.live().not_after
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.0.read())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.own()).finish()
    }
}

impl Live {
    fn new(credentials: Credentials) -> Result<Self, TransportError> {
        let bad = |what: &str, why: &dyn fmt::Display| TransportError::Credentials(format!("{what}: {why}"));
        let Credentials { chain, key, roots } = credentials;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|e| bad("an authority", &e))?;
        }
        let roots = Arc::new(store);
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
                .build()
                .map_err(|e| bad("the authorities", &e))?;
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| bad("the chain", &"it is empty"))?;
        let checked = certificate::check_chain(&roots, clients.as_ref(), leaf, intermediates, Usage::Both)
            .map_err(|fault| bad("the machine's certificate", &fault))?;
        let signing =
            provider().key_provider.load_private_key(key).map_err(|e| bad("the machine's key", &e))?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|e| bad("the machine's key", &e))?;
        Ok(Self {
            own: checked.identity,
            not_after: checked.not_after,
            certified: Arc::new(certified),
            roots,
            clients,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_written_and_read_as_hex() {
        let key = KeyId::of_spki(b"some key");
        let text = key.to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(key));
        for bad in ["", "00", &text[1..], &format!("{}+f", &text[2..]), &format!("{}ü", &text[2..])] {
            assert_eq!(bad.parse::<KeyId>(), Err(NotAKeyId), "{bad}");
        }
    }

    #[test]
    fn a_member_id_is_the_first_eight_bytes_and_never_nought() {
        let mut key = KeyId([0; 32]);
        assert_eq!(key.member_id(), 1);
        key.0[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(key.member_id(), 0x0102_0304_0506_0708);
    }
}
