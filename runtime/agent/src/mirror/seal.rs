//! The seal on the mirror's file: XChaCha20-Poly1305 under a key of this machine.
//!
//! The file is `magic ∥ format ∥ nonce ∥ ciphertext`; the node's name and everything before the
//! nonce are authenticated, too. The key lies beside it (0600): what is protected against is a file
//! that strays (a backup, a card that is read elsewhere without its key), and every change to it.

use std::path::Path;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

use super::file;
use crate::error::AgentError;

const MAGIC: &[u8; 6] = b"sampan";
/// The format of what is sealed.
const FORMAT: u16 = 1;
const HEADER: usize = MAGIC.len() + 2;
const NONCE: usize = 24;

/// Why a sealed file cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// It is no file of ours, or cut short.
    #[error("it is not a sealed cache, or cut short")]
    Foreign,
    /// A newer program wrote it.
    #[error("it has format {0}, this program reads {FORMAT}")]
    Newer(u16),
    /// It was changed, or belongs to another node or key.
    #[error("it was damaged, or sealed by another node or with another key")]
    Damaged,
    /// No random numbers, or more data than can be sealed at once.
    #[error("it cannot be sealed")]
    Cannot,
}

/// Seals and opens. One per node.
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    node: String,
}

impl Seal {
    /// With the key in `path`, which is made where it is missing.
    pub(crate) fn load_or_create(path: &Path, node: &str) -> Result<Self, AgentError> {
        let failed = |source| AgentError::File { path: path.to_owned(), source };
        let key = match std::fs::read(path) {
            Ok(key) => key,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = vec![0; 32];
                getrandom::fill(&mut key).map_err(AgentError::Random)?;
                file::replace(path, &key).map_err(failed)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        let cipher =
            XChaCha20Poly1305::new_from_slice(&key).map_err(|_| AgentError::Key { path: path.to_owned() })?;
        Ok(Self { cipher, node: node.to_owned() })
    }

    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Cannot)?;
        let header = [&MAGIC[..], &FORMAT.to_be_bytes()].concat();
        let payload = Payload { msg: plain, aad: &self.authenticated(&header) };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        Ok([header, nonce.to_vec(), sealed.map_err(|_| SealError::Cannot)?].concat())
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (header, rest) = sealed.split_at_checked(HEADER).ok_or(SealError::Foreign)?;
        let format = header.strip_prefix(MAGIC).ok_or(SealError::Foreign)?;
        let format = format.iter().fold(0, |sum: u16, byte| (sum << 8) | u16::from(*byte));
        if format != FORMAT {
            return Err(SealError::Newer(format));
        }
        let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or(SealError::Foreign)?;
        let payload = Payload { msg: sealed, aad: &self.authenticated(header) };
        self.cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Damaged)
    }

    fn authenticated(&self, header: &[u8]) -> Vec<u8> {
        [header, self.node.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_sealed_is_opened_by_the_same_node_with_the_same_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("key"), dir.path().join("other"));
        let seal = Seal::load_or_create(&path, "n1").unwrap();
        let sealed = seal.seal(b"very secret").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(Seal::load_or_create(&path, "n1").unwrap().open(&sealed).unwrap(), b"very secret");
        for stranger in [Seal::load_or_create(&path, "n2"), Seal::load_or_create(&other, "n1")] {
            assert_eq!(stranger.unwrap().open(&sealed), Err(SealError::Damaged));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::load_or_create(&dir.path().join("key"), "n1").unwrap();
        let sealed = seal.seal(b"text").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal.open(&changed).is_err(), "byte {at}");
            assert!(seal.open(&sealed[..at]).is_err(), "cut after {at}");
        }
        let mut newer = sealed;
        newer[HEADER - 1] = 2;
        assert_eq!(seal.open(&newer), Err(SealError::Newer(2)));
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(Seal::load_or_create(&path, "n1"), Err(AgentError::Key { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "short");
    }
}
