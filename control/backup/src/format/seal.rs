//! Sealing and opening of chunks: XChaCha20-Poly1305 in the STREAM construction.

use chacha20poly1305::aead::Payload;
use chacha20poly1305::aead::stream::{DecryptorBE32, EncryptorBE32};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305};

use super::{HASH, SealHeader, Trailer, hex, unhex};
use crate::BackupError;
use crate::secret::{Cost, Derivation, Passphrase, SealingKey, random};

const CIPHER: &str = "xchacha20poly1305-stream";
/// XChaCha20's 24 bytes less the counter and the end mark of STREAM.
const NONCE: usize = 19;

/// Seals chunks in order.
pub(crate) struct Sealer {
    stream: EncryptorBE32<XChaCha20Poly1305>,
}

impl Sealer {
    /// A sealer with a key of its own, and what the header must say for it to be opened again.
    pub(crate) async fn begin(
        passphrase: &Passphrase,
        cost: Cost,
    ) -> Result<(SealHeader, Self), BackupError> {
        let (derivation, key) = Derivation::begin(passphrase, cost).await?;
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let header = SealHeader { cipher: CIPHER.into(), nonce: hex(&nonce), key: derivation };
        Ok((header, Self { stream: EncryptorBE32::from_aead(cipher(&key), nonce.as_slice().into()) }))
    }

    pub(super) fn next(&mut self, bound: &[u8; HASH], plain: &[u8]) -> Result<Vec<u8>, BackupError> {
        self.stream.encrypt_next(Payload { msg: plain, aad: bound }).map_err(|_| too_long())
    }

    pub(super) fn last(
        self,
        bound: &[u8; HASH],
        trailer: Trailer,
        plain: &[u8],
    ) -> Result<Vec<u8>, BackupError> {
        let aad = last_bound(bound, trailer);
        self.stream.encrypt_last(Payload { msg: plain, aad: &aad }).map_err(|_| too_long())
    }
}

/// Opens chunks in order.
pub(super) struct Opener {
    stream: DecryptorBE32<XChaCha20Poly1305>,
}

impl Opener {
    pub(super) async fn begin(header: &SealHeader, passphrase: &Passphrase) -> Result<Self, BackupError> {
        let nonce = unhex(&header.nonce).filter(|nonce| nonce.len() == NONCE && header.cipher == CIPHER);
        let nonce = nonce
            .ok_or_else(|| BackupError::unsound("it is sealed in a way that this program does not know"))?;
        let key = header.key.repeat(passphrase).await?;
        Ok(Self { stream: DecryptorBE32::from_aead(cipher(&key), nonce.as_slice().into()) })
    }

    pub(super) fn next(&mut self, bound: &[u8; HASH], sealed: &[u8]) -> Result<Vec<u8>, BackupError> {
        self.stream.decrypt_next(Payload { msg: sealed, aad: bound }).map_err(|_| changed())
    }

    pub(super) fn last(
        self,
        bound: &[u8; HASH],
        trailer: Trailer,
        sealed: &[u8],
    ) -> Result<Vec<u8>, BackupError> {
        let aad = last_bound(bound, trailer);
        self.stream.decrypt_last(Payload { msg: sealed, aad: &aad }).map_err(|_| changed())
    }
}

fn cipher(key: &SealingKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(&key.0))
}

fn last_bound(bound: &[u8; HASH], trailer: Trailer) -> Vec<u8> {
    [&bound[..], &trailer.to_bytes()].concat()
}

fn changed() -> BackupError {
    BackupError::unsound("it is damaged")
}

fn too_long() -> BackupError {
    BackupError::Sealing { why: "the snapshot is too large to be sealed".into() }
}
