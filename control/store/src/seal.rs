//! Sealing of values: XChaCha20-Poly1305 under one of several keys.
//!
//! A sealed value is `key id (u32, big-endian) | nonce (24 bytes) | ciphertext and tag`, with the
//! value's own key name as associated data, so that no sealed value can stand in for another.
//! New values are sealed with the newest key; old ones open as long as their key is kept.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

use crate::storage::StorageError;

/// The bytes of one key.
pub(crate) type Secret = [u8; 32];

const ID: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;

/// The keys of a store, by id; the highest id is the newest.
pub(crate) struct Keyring {
    keys: BTreeMap<u32, (Secret, XChaCha20Poly1305)>,
    newest: u32,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("ids", &self.keys.keys()).finish()
    }
}

impl Keyring {
    /// What sealing adds to a value.
    pub(crate) const OVERHEAD: usize = ID + NONCE + TAG;

    /// A ring with one new key.
    pub(crate) fn generate() -> Result<Self, StorageError> {
        let mut ring = Self { keys: BTreeMap::new(), newest: 0 };
        ring.add()?;
        Ok(ring)
    }

    /// The ring of these keys; none is no ring.
    pub(crate) fn from_secrets(secrets: BTreeMap<u32, Secret>) -> Option<Self> {
        let newest = *secrets.keys().next_back()?;
        let keys = secrets.into_iter().map(|(id, secret)| (id, (secret, cipher(&secret)))).collect();
        Some(Self { keys, newest })
    }

    /// A ring with one key more, which becomes the newest; this ring stays as it is.
    pub(crate) fn with_new_key(&self) -> Result<Self, StorageError> {
        let secrets = self.secrets().map(|(id, secret)| (id, *secret)).collect();
        let Some(mut ring) = Self::from_secrets(secrets) else { return Self::generate() };
        ring.add()?;
        Ok(ring)
    }

    fn add(&mut self) -> Result<(), StorageError> {
        let mut secret = Secret::default();
        random(&mut secret)?;
        self.newest += 1;
        self.keys.insert(self.newest, (secret, cipher(&secret)));
        Ok(())
    }

    pub(crate) fn secrets(&self) -> impl Iterator<Item = (u32, &Secret)> {
        self.keys.iter().map(|(id, (secret, _))| (*id, secret))
    }

    /// The id of the key that new values are sealed with.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }

    pub(crate) fn holds(&self, id: u32) -> bool {
        self.keys.contains_key(&id)
    }

    /// Appends the sealed form of `plain` to `out`.
    pub(crate) fn seal(&self, aad: &[u8], plain: &[u8], out: &mut BytesMut) -> Result<(), StorageError> {
        self.seal_with(self.newest, aad, plain, out)
    }

    pub(crate) fn seal_with(
        &self,
        id: u32,
        aad: &[u8],
        plain: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), StorageError> {
        let Some((_, cipher)) = self.keys.get(&id) else {
            return Err(StorageError::Unavailable { why: format!("there is no key {id}") });
        };
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad })
            .map_err(|_| StorageError::Unavailable { why: "a value could not be sealed".into() })?;
        out.put_u32(id);
        out.put_slice(&nonce);
        out.put_slice(&sealed);
        Ok(())
    }

    /// Opens what [`Keyring::seal`] made.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StorageError> {
        let parts = sealed.split_first_chunk::<ID>().and_then(|(id, rest)| {
            rest.split_first_chunk::<NONCE>().map(|(nonce, text)| (u32::from_be_bytes(*id), nonce, text))
        });
        let Some((id, nonce, text)) = parts else {
            return Err(StorageError::Corrupt { what: "a sealed value is too short".into() });
        };
        let Some((_, cipher)) = self.keys.get(&id) else {
            return Err(StorageError::Corrupt {
                what: format!("a value is sealed with key {id}, which the key file does not hold"),
            });
        };
        cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: text, aad }).map_err(|_| {
            StorageError::Corrupt { what: format!("a value sealed with key {id} does not open") }
        })
    }

    /// The id of the key that a sealed value needs.
    pub(crate) fn key_of(sealed: &[u8]) -> Option<u32> {
        sealed.first_chunk::<ID>().map(|id| u32::from_be_bytes(*id))
    }
}

fn cipher(secret: &Secret) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(secret))
}

fn random(out: &mut [u8]) -> Result<(), StorageError> {
    getrandom::fill(out).map_err(|error| StorageError::Unavailable {
        why: format!("the system gives no randomness: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(ring: &Keyring, plain: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        ring.seal(b"name", plain, &mut out).unwrap();
        out
    }

    #[test]
    fn a_ring_with_a_new_key_still_opens_what_the_old_one_sealed() {
        let old = Keyring::generate().unwrap();
        let new = old.with_new_key().unwrap();
        let value = sealed(&old, b"plain");
        assert_eq!(new.open(b"name", &value).unwrap(), b"plain");
        assert_eq!(Keyring::key_of(&value), Some(1));
        let value = sealed(&new, b"plain");
        assert_eq!(Keyring::key_of(&value), Some(2));
        let refusal = old.open(b"name", &value).unwrap_err().to_string();
        assert!(refusal.contains("key 2"), "{refusal}");
    }

    #[test]
    fn the_same_value_is_sealed_differently_each_time() {
        let ring = Keyring::generate().unwrap();
        assert_ne!(sealed(&ring, b"plain"), sealed(&ring, b"plain"));
    }

    #[test]
    fn no_secret_shows_in_debug_output() {
        let ring = Keyring::generate().unwrap();
        assert_eq!(format!("{ring:?}"), "Keyring { ids: [1] }");
    }
}
