//! From a plain snapshot to the bytes of a backup; no I/O.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{CHUNK, HASH, Header, LAST, Sealer, Summary, Trailer, preamble};
use crate::BackupError;

/// Takes the snapshot piece by piece, hands the file out piece by piece; holds one chunk.
pub(crate) struct Encoder {
    header: Header,
    bound: [u8; HASH],
    sealer: Option<Sealer>,
    hash: Sha256,
    size: u64,
    taken: u64,
    waiting: BytesMut,
    out: BytesMut,
}

impl Encoder {
    /// Begins the file; `sealer` is there if and only if the header says so, and so are `private`
    /// files.
    pub(crate) fn new(header: Header, sealer: Option<Sealer>, private: &[u8]) -> Result<Self, BackupError> {
        let (begin, bound) = preamble(&header)?;
        let mut encoder = Self {
            header,
            bound,
            sealer,
            hash: Sha256::new(),
            size: 0,
            taken: 0,
            waiting: BytesMut::with_capacity(CHUNK),
            out: BytesMut::new(),
        };
        encoder.emit(&begin);
        encoder.push(private)?;
        // What is counted is the snapshot.
        encoder.taken = 0;
        Ok(encoder)
    }

    /// The snapshot's next bytes.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), BackupError> {
        self.taken += piece.len() as u64;
        while !piece.is_empty() {
            // A full chunk waits until it is known not to be the last.
            if self.waiting.len() == CHUNK {
                let plain = self.waiting.split();
                let bytes = match &mut self.sealer {
                    Some(sealer) => Bytes::from(sealer.next(&self.bound, &plain)?),
                    None => plain.freeze(),
                };
                self.chunk(0, &bytes);
            }
            let (now, later) = piece.split_at(piece.len().min(CHUNK - self.waiting.len()));
            self.waiting.put_slice(now);
            piece = later;
        }
        Ok(())
    }

    /// What of the file is ready to be written.
    pub(crate) fn ready(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// The snapshot is complete and has so many keys: the rest of the file.
    pub(crate) fn finish(mut self, keys: u64) -> Result<(Bytes, Summary), BackupError> {
        let trailer = Trailer { keys, bytes: self.taken };
        let plain = self.waiting.split();
        let bytes = match self.sealer.take() {
            Some(sealer) => Bytes::from(sealer.last(&self.bound, trailer, &plain)?),
            None => plain.freeze(),
        };
        self.chunk(LAST, &bytes);
        self.emit(&trailer.to_bytes());
        let hash: [u8; HASH] = self.hash.finalize_reset().into();
        self.emit(&hash);
        let summary = Summary::of(&self.header, trailer, self.size, &hash, true);
        Ok((self.out.freeze(), summary))
    }

    fn chunk(&mut self, mark: u32, bytes: &[u8]) {
        // Never longer than a chunk and its tag.
        let length = u32::try_from(bytes.len()).unwrap_or(LAST - 1);
        self.emit(&(length | mark).to_le_bytes());
        self.emit(bytes);
    }

    fn emit(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.out.put_slice(bytes);
    }
}
