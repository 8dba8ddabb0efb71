//! The envelope around each value: compressed where that helps, sealed where that is asked for.
//!
//! A value enters its envelope before it is proposed and leaves it when it is handed to a
//! caller, so log, tables and snapshots hold only envelopes. The first byte says which:
//! `0` the plain bytes, `1` sealed (another envelope inside), `2` zstd.

use std::cell::RefCell;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;

use crate::seal::Keyring;
use crate::storage::StorageError;
use crate::txn::MAX_TXN_BYTES;

const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const ZSTD: u8 = 2;

/// Smaller values do not repay the frame's own bytes.
const COMPRESS_FROM: usize = 192;
/// The fastest level: values are small, and nodes may be too.
const LEVEL: i32 = 1;

/// Puts values into their envelopes and takes them out.
#[derive(Debug, Default)]
pub(crate) struct Codec {
    compress: bool,
    sealed_prefixes: Vec<Bytes>,
    keys: Option<RwLock<Keyring>>,
}

impl Codec {
    /// Neither compresses nor seals: for values that never leave memory.
    pub(crate) fn plain() -> Self {
        Self::default()
    }

    /// Compresses, and seals the values of keys under `sealed_prefixes` where there are `keys`.
    pub(crate) fn new(sealed_prefixes: Vec<Bytes>, keys: Option<Keyring>) -> Self {
        Self { compress: true, sealed_prefixes, keys: keys.map(RwLock::new) }
    }

    pub(crate) fn keys(&self) -> Option<&RwLock<Keyring>> {
        self.keys.as_ref()
    }

    pub(crate) fn sealed_prefixes(&self) -> &[Bytes] {
        &self.sealed_prefixes
    }

    /// Puts a value into its envelope.
    pub(crate) fn encode(&self, key: &[u8], value: &[u8]) -> Result<Bytes, StorageError> {
        let packed = self.pack(value);
        if !self.sealed_prefixes.iter().any(|prefix| key.starts_with(prefix)) {
            return Ok(packed);
        }
        let Some(keys) = &self.keys else {
            return Err(StorageError::Unavailable { why: "no keys to seal values with".into() });
        };
        let keys = keys.read();
        let mut out = BytesMut::with_capacity(packed.len() + Keyring::OVERHEAD + 1);
        out.put_u8(SEALED);
        keys.seal(key, &packed, &mut out)?;
        Ok(out.freeze())
    }

    /// Whether a value came without the seal that it would get here: from a store that seals
    /// nothing, or from another program.
    pub(crate) fn should_seal(&self, key: &[u8], envelope: &[u8]) -> bool {
        envelope.first() != Some(&SEALED)
            && self.keys.is_some()
            && self.sealed_prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Takes a value out of its envelope.
    pub(crate) fn decode(&self, key: &[u8], envelope: &Bytes) -> Result<Bytes, StorageError> {
        match envelope.split_first() {
            Some((&PLAIN, _)) => Ok(envelope.slice(1..)),
            Some((&ZSTD, packed)) => unpack(packed),
            Some((&SEALED, sealed)) => {
                let Some(keys) = &self.keys else {
                    return Err(StorageError::Corrupt { what: "a sealed value, but no keys".into() });
                };
                let opened = Bytes::from(keys.read().open(key, sealed)?);
                if opened.first() == Some(&SEALED) {
                    return Err(StorageError::Corrupt { what: "a value is sealed twice".into() });
                }
                self.decode(key, &opened)
            }
            _ => Err(StorageError::Corrupt { what: "a value has an unknown envelope".into() }),
        }
    }

    fn pack(&self, value: &[u8]) -> Bytes {
        if self.compress
            && value.len() >= COMPRESS_FROM
            && !is_noise(value)
            && let Some(packed) = compress(value)
            && packed.len() < value.len() - value.len() / 16
        {
            return packed;
        }
        let mut out = BytesMut::with_capacity(value.len() + 1);
        out.put_u8(PLAIN);
        out.put_slice(value);
        out.freeze()
    }
}

/// The id of the key that an envelope is sealed with, if it is sealed.
pub(crate) fn sealing_key(envelope: &[u8]) -> Option<u32> {
    match envelope.split_first() {
        Some((&SEALED, sealed)) => Keyring::key_of(sealed),
        _ => None,
    }
}

/// Whether a value is short and its bytes are all about as frequent: compressed or sealed already,
/// or random. Finding that out costs a fraction of a compression in vain.
fn is_noise(value: &[u8]) -> bool {
    const SHORT: usize = 4096;
    if value.len() > SHORT {
        return false;
    }
    let mut counts = [0_u32; 256];
    for byte in value {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    // Even bytes make the sum of squares the least, which is this; text comes to four times it.
    let squares: usize = counts.iter().map(|count| (*count as usize).pow(2)).sum();
    let length = value.len();
    squares < length + length * length / 256 * 5 / 4
}

thread_local! {
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
}

/// A failure to compress is no failure: the value is then kept as it is.
fn compress(value: &[u8]) -> Option<Bytes> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = zstd::bulk::Compressor::new(LEVEL).ok();
        }
        let frame = slot.as_mut()?.compress(value).ok()?;
        let mut out = BytesMut::with_capacity(frame.len() + 1);
        out.put_u8(ZSTD);
        out.put_slice(&frame);
        Some(out.freeze())
    })
}

fn unpack(frame: &[u8]) -> Result<Bytes, StorageError> {
    let size = match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(size)) if size <= MAX_TXN_BYTES as u64 => size as usize,
        _ => return Err(StorageError::Corrupt { what: "a compressed value has no sound length".into() }),
    };
    zstd::bulk::decompress(frame, size)
        .map(Bytes::from)
        .map_err(|error| StorageError::Corrupt { what: format!("a compressed value is damaged: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing() -> Codec {
        Codec::new(vec![Bytes::from_static(b"/secret/")], Some(Keyring::generate().unwrap()))
    }

    #[test]
    fn every_value_comes_out_as_it_went_in() {
        let codec = sealing();
        for key in [&b"/secret/a"[..], b"/open/a"] {
            for len in [0, 1, 191, 192, 5_000, 200_000] {
                let value: Vec<u8> = (0..len).map(|i| (i % 7) as u8).collect();
                let envelope = codec.encode(key, &value).unwrap();
                assert_eq!(codec.decode(key, &envelope).unwrap(), value, "{len} bytes");
            }
        }
    }

    #[test]
    fn values_shrink_where_that_helps_and_never_grow_by_more_than_a_byte() {
        let codec = sealing();
        assert!(codec.encode(b"/open/a", &[7; 4_000]).unwrap().len() < 100);
        let mut noise = vec![0; 4_000];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(codec.encode(b"/open/a", &noise).unwrap().len(), 4_001);
    }

    #[test]
    fn noise_is_told_from_what_can_be_compressed() {
        let mut noise = vec![0; 1_024];
        getrandom::fill(&mut noise).unwrap();
        assert!(is_noise(&noise));
        let text: Vec<u8> = noise.iter().map(|byte| b'A' + byte % 64).collect();
        assert!(!is_noise(&text), "six bits a byte");
        assert!(!is_noise(&[0; 300]));
        assert!(!is_noise(&noise.repeat(5)), "long");
    }

    #[test]
    fn a_sealed_value_opens_only_under_its_own_key_name() {
        let codec = sealing();
        let envelope = codec.encode(b"/secret/a", b"password").unwrap();
        assert!(!envelope.windows(8).any(|window| window == b"password"));
        assert!(codec.decode(b"/secret/b", &envelope).is_err());
        let mut tampered = envelope.to_vec();
        *tampered.last_mut().unwrap() ^= 1;
        assert!(codec.decode(b"/secret/a", &tampered.into()).is_err());
    }

    #[test]
    fn a_damaged_envelope_is_an_error_and_never_a_value() {
        let codec = Codec::plain();
        for envelope in [&b""[..], &[9, 1, 2], &[ZSTD, 1, 2, 3], &[SEALED, 0, 0, 0, 1]] {
            assert!(codec.decode(b"k", &Bytes::copy_from_slice(envelope)).is_err(), "{envelope:?}");
        }
    }
}
