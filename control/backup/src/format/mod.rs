//! The file format of a backup: a store's snapshot with what one wants to know of it.
//!
//! ```text
//! magic (16 bytes) | format (u16) | length (u32) | header (JSON) | SHA-256 of all that
//! chunks: length (u32, its highest bit marks the last one) | bytes
//! trailer: keys (u64) | length of the snapshot (u64) | SHA-256 of all before it
//! ```
//! Numbers are little-endian. The chunks carry the plain snapshot stream of the store. In a sealed
//! backup each is XChaCha20-Poly1305 (the STREAM construction, which pins order and end), with the
//! header's hash as associated data, and in the last one keys and length, too; so header and trailer
//! can be read without the passphrase (when, of which cluster, revision, keys) but not changed.
//!
//! Format 2 is for sealed backups alone: the cluster's private files (see [`crate::KeyFiles`]) stand
//! in the chunks before the snapshot, the header tells how long they are. Without them format 1 is
//! written, which older programs read.

mod read;
mod seal;
mod write;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use sampan_store::Revision;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use read::{Decoder, Purpose, header};
pub(crate) use seal::Sealer;
pub(crate) use write::Encoder;

use crate::BackupError;
use crate::secret::Derivation;

const MAGIC: &[u8; 16] = b"sampan backup\n\x1a\n";
/// What a bare snapshot of the store begins with.
const BARE_MAGIC: &[u8; 16] = b"sampan snapshot\n";
/// The newest format.
const FORMAT: u16 = 2;
/// The one without private files.
const FORMAT_PLAIN: u16 = 1;
/// Bytes of the snapshot in each chunk but the last.
const CHUNK: usize = 64 << 10;
/// What sealing adds to a chunk.
const TAG: usize = 16;
/// Marks the last chunk.
const LAST: u32 = 1 << 31;
const HASH: usize = 32;
/// Magic, format and the header's length.
const BEGIN: usize = MAGIC.len() + 2 + 4;
const MAX_HEADER: u32 = 64 << 10;
/// So many bytes hold any header whole.
pub(crate) const HEAD_BYTES: usize = BEGIN + MAX_HEADER as usize + HASH;

/// What a backup says of itself, readable without the passphrase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// When it was begun, in UTC.
    pub(crate) created: Timestamp,
    /// The id of the cluster.
    pub(crate) cluster: String,
    /// The node that made it.
    pub(crate) node: String,
    /// The version of the program that made it.
    pub(crate) version: String,
    /// The store's revision that it is of.
    pub(crate) revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seal: Option<SealHeader>,
    /// How many bytes of private files stand before the snapshot, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) private: Option<u32>,
}

impl Header {
    fn format(&self) -> u16 {
        if self.private.is_some() { FORMAT } else { FORMAT_PLAIN }
    }
}

/// How the payload is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SealHeader {
    /// Always `xchacha20poly1305-stream`.
    pub(crate) cipher: String,
    /// 19 random bytes, in hexadecimal.
    pub(crate) nonce: String,
    pub(crate) key: Derivation,
}

/// What follows the payload; its hash aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// How many keys the snapshot has.
    pub(crate) keys: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
}

impl Trailer {
    const LEN: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let mut at = &mut out[..];
        at.put_u64_le(self.keys);
        at.put_u64_le(self.bytes);
        out
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut at = &bytes[..];
        Self { keys: bytes::Buf::get_u64_le(&mut at), bytes: bytes::Buf::get_u64_le(&mut at) }
    }
}

/// All that stands before the payload, and its hash, which the seal binds to.
fn preamble(header: &Header) -> Result<(BytesMut, [u8; HASH]), BackupError> {
    let text = serde_json::to_vec(header).map_err(|error| BackupError::setting(error.to_string()))?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= MAX_HEADER);
    let length =
        length.ok_or_else(|| BackupError::setting("the names for the backup's header are too long"))?;
    let mut out = BytesMut::with_capacity(BEGIN + text.len() + HASH);
    out.put_slice(MAGIC);
    out.put_u16_le(header.format());
    out.put_u32_le(length);
    out.put_slice(&text);
    let hash: [u8; HASH] = Sha256::digest(&out).into();
    out.put_slice(&hash);
    Ok((out, hash))
}

/// The shape of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Shape {
    /// A file of this crate, with its format.
    Backup(u16),
    /// The bare snapshot stream of a store, as the store's own last good snapshot is.
    Bare,
}

/// What a backup is, after all of it was read and found whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its shape and format.
    pub shape: Shape,
    /// When it was begun; a bare snapshot does not say.
    pub created: Option<Timestamp>,
    /// The id of the cluster that it is of; a bare snapshot does not say.
    pub cluster: Option<String>,
    /// The node that made it; a bare snapshot does not say.
    pub node: Option<String>,
    /// The version of the program that made it; a bare snapshot does not say.
    pub version: Option<String>,
    /// The store's revision that it is of.
    pub revision: Revision,
    /// How many keys it has.
    pub keys: u64,
    /// Its size in bytes, as it is stored.
    pub size: u64,
    /// SHA-256 in hexadecimal: of all that stands before the hash in the file; of a bare snapshot, of the file.
    pub sha256: String,
    /// Whether a passphrase is needed to restore it.
    pub sealed: bool,
    /// Whether it carries the cluster's private files: authorities, the key of tokens, sealing keys.
    pub private: bool,
    /// Whether the keys within were checked, too; in a sealed backup that takes the passphrase.
    /// Without it, the hash says that the file is undamaged, not who wrote it.
    pub opened: bool,
}

impl Summary {
    fn of(header: &Header, trailer: Trailer, size: u64, hash: &[u8], opened: bool) -> Self {
        Self {
            shape: Shape::Backup(header.format()),
            created: Some(header.created),
            cluster: Some(header.cluster.clone()),
            node: Some(header.node.clone()),
            version: Some(header.version.clone()),
            revision: Revision(header.revision),
            keys: trailer.keys,
            size,
            sha256: hex(hash),
            sealed: header.seal.is_some(),
            private: header.private.is_some(),
            opened,
        }
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Bytes from hexadecimal.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<_>>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::try_from(pair.iter().fold(0, |value, digit| value * 16 + digit)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(unhex("001fff"), Some(vec![0, 0x1f, 0xff]));
        for bad in ["0", "0g", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
