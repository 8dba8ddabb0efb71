//! From the bytes of a backup to the plain snapshot, refusing whatever is not a whole one.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use sampan_store::{SnapshotCheck, SnapshotFault};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::seal::Opener;
use super::{
    BARE_MAGIC, BEGIN, CHUNK, FORMAT, HASH, Header, LAST, MAGIC, MAX_HEADER, Shape, Summary, TAG, Trailer,
    hex,
};
use crate::secret::Passphrase;
use crate::{BackupError, KeyFiles, key_files};

/// What a backup is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The snapshot within: a sealed one takes its passphrase.
    Contents,
    /// To know what it is and whether it is whole: a sealed one stays shut without a passphrase.
    Verification,
}

/// Reads a backup chunk by chunk.
///
/// A chunk is handed out once the next one was read, and the last ones only after everything was
/// verified: whoever stops at the snapshot's own end has not got a changed one either.
pub(crate) struct Decoder<R> {
    from: Hashing<R>,
    content: Content,
    check: SnapshotCheck,
    /// Read, but not handed out; oldest first.
    held: VecDeque<Bytes>,
    /// What is wrong with the snapshot, where the file may turn out to be damaged, which says more.
    fault: Option<SnapshotFault>,
    summary: Option<Summary>,
    /// The private files, as far as they were read, and how much of them is to come.
    private: BytesMut,
    private_left: usize,
}

enum Content {
    Bare,
    Plain(Header),
    Sealed { header: Header, bound: [u8; HASH], opener: Option<Opener> },
    Shut(Header),
}

impl<R: AsyncRead + Unpin> Decoder<R> {
    /// Reads as far as the header.
    pub(crate) async fn open(
        from: R,
        passphrase: Option<&Passphrase>,
        purpose: Purpose,
    ) -> Result<Self, BackupError> {
        let mut from = Hashing { from, hash: Sha256::new(), size: 0 };
        let mut check = SnapshotCheck::new();
        let mut held = VecDeque::new();
        let content = match read_begin(&mut from).await? {
            Begin::Bare(begin) => {
                check.push(&begin)?;
                held.push_back(begin);
                Content::Bare
            }
            Begin::Backup { header, bound } => content(*header, bound, passphrase, purpose).await?,
        };
        if matches!(content, Content::Bare | Content::Plain(_)) && passphrase.is_some() {
            return Err(BackupError::NotSealed);
        }
        let private_left = match &content {
            Content::Sealed { header, .. } => header.private.unwrap_or(0) as usize,
            _ => 0,
        };
        let private = BytesMut::new();
        Ok(Self { from, content, check, held, fault: None, summary: None, private, private_left })
    }

    /// The private files that a sealed backup carries. Each chunk is authenticated by itself, so that
    /// they are genuine, whatever comes later.
    pub(crate) async fn private(&mut self) -> Result<Option<KeyFiles>, BackupError> {
        while self.private_left > 0 && self.summary.is_none() {
            self.step().await?;
        }
        match &self.content {
            Content::Sealed { header, .. } if header.private.is_some() => {
                KeyFiles::from_bytes(&self.private).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The snapshot's next bytes (some, unless it stays shut); `None` once all was read and verified.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BackupError> {
        loop {
            if self.summary.is_some() {
                return Ok(self.held.pop_front());
            }
            self.step().await?;
            if self.summary.is_none() && self.held.len() > 1 {
                return Ok(self.held.pop_front());
            }
        }
    }

    /// Reads one piece, and checks and keeps it.
    async fn step(&mut self) -> Result<(), BackupError> {
        let read = match self.content {
            Content::Bare => self.next_bare().await?,
            _ => self.next_chunk().await?,
        };
        match read {
            Some(read) => self.take(read),
            None => Ok(()),
        }
    }

    /// What the backup is, after [`Decoder::next`] said that all was read.
    pub(crate) fn into_summary(self) -> Result<Summary, BackupError> {
        self.summary.ok_or_else(|| BackupError::unsound("it was not read to its end"))
    }

    /// Checks what was read, and keeps it to be handed out.
    fn take(&mut self, mut read: Bytes) -> Result<(), BackupError> {
        let private = read.split_to(self.private_left.min(read.len()));
        self.private_left -= private.len();
        self.private.extend_from_slice(&private);
        if read.is_empty() || self.fault.is_some() {
            return Ok(());
        }
        match (self.check.push(&read), &self.content) {
            (Ok(()), _) => self.held.push_back(read),
            (Err(fault), Content::Bare) => return Err(fault.into()),
            (Err(fault), _) => {
                self.held.clear();
                self.fault = Some(fault);
            }
        }
        Ok(())
    }

    async fn next_bare(&mut self) -> Result<Option<Bytes>, BackupError> {
        let piece = self.from.at_most(CHUNK).await?;
        if !piece.is_empty() {
            return Ok(Some(piece));
        }
        let info = std::mem::take(&mut self.check).finish()?;
        self.summary = Some(Summary {
            shape: Shape::Bare,
            created: None,
            cluster: None,
            node: None,
            version: None,
            revision: info.revision,
            keys: info.keys,
            size: self.from.size,
            sha256: hex(&self.from.hash.finalize_reset()),
            sealed: false,
            private: false,
            opened: true,
        });
        Ok(None)
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BackupError> {
        let mark = self.from.number().await?;
        let length = (mark & !LAST) as usize;
        let overhead = if matches!(self.content, Content::Plain(_)) { 0 } else { TAG };
        let full = CHUNK + overhead;
        if length > full || length < overhead || (mark & LAST == 0 && length != full) {
            return Err(damaged());
        }
        let bytes = self.from.exactly(length).await?;
        if mark & LAST != 0 {
            return self.finish(bytes).await;
        }
        match &mut self.content {
            Content::Sealed { bound, opener: Some(opener), .. } => {
                opener.next(bound, &bytes).map(|plain| Some(plain.into()))
            }
            Content::Plain(_) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    /// The last chunk, and whether all that was read is what was written.
    async fn finish(&mut self, bytes: Bytes) -> Result<Option<Bytes>, BackupError> {
        let mut trailer = [0; Trailer::LEN];
        self.from.exactly(Trailer::LEN).await?.copy_to_slice(&mut trailer);
        let trailer = Trailer::from_bytes(trailer);
        let expected: [u8; HASH] = self.from.hash.finalize_reset().into();
        if self.from.exactly(HASH).await? != expected[..] {
            return Err(damaged());
        }
        if !self.from.at_most(1).await?.is_empty() {
            return Err(BackupError::unsound("something follows its end"));
        }
        let (header, last) = match &mut self.content {
            Content::Sealed { header, bound, opener } => {
                let opener = opener.take().ok_or_else(damaged)?;
                (&*header, Some(Bytes::from(opener.last(bound, trailer, &bytes)?)))
            }
            Content::Plain(header) => (&*header, Some(bytes)),
            Content::Shut(header) => (&*header, None),
            Content::Bare => return Err(damaged()),
        };
        let summary = Summary::of(header, trailer, self.from.size, &expected, last.is_some());
        if let Some(last) = last {
            self.take(last)?;
            if self.private_left > 0 {
                return Err(BackupError::unsound("the keys within are cut off"));
            }
            if let Some(fault) = self.fault.take() {
                return Err(fault.into());
            }
            let info = std::mem::take(&mut self.check).finish()?;
            if (info.revision, info.keys, info.bytes) != (summary.revision, trailer.keys, trailer.bytes) {
                return Err(BackupError::unsound("it says something else of itself than its contents do"));
            }
        }
        self.summary = Some(summary);
        Ok(None)
    }
}

async fn content(
    header: Header,
    bound: [u8; HASH],
    passphrase: Option<&Passphrase>,
    purpose: Purpose,
) -> Result<Content, BackupError> {
    match (&header.seal, passphrase, purpose) {
        (None, ..) => Ok(Content::Plain(header)),
        (Some(seal), Some(passphrase), _) => {
            let opener = Some(Opener::begin(seal, passphrase).await?);
            Ok(Content::Sealed { header, bound, opener })
        }
        (Some(_), None, Purpose::Verification) => Ok(Content::Shut(header)),
        (Some(_), None, Purpose::Contents) => Err(BackupError::PassphraseNeeded),
    }
}

/// The header alone, of the first bytes of a file; `None` for a bare snapshot.
pub(crate) async fn header(begin: &[u8]) -> Result<Option<Header>, BackupError> {
    let mut from = Hashing { from: begin, hash: Sha256::new(), size: 0 };
    match read_begin(&mut from).await? {
        Begin::Bare(_) => Ok(None),
        Begin::Backup { header, .. } => Ok(Some(*header)),
    }
}

enum Begin {
    /// With what was read of it.
    Bare(Bytes),
    Backup {
        header: Box<Header>,
        bound: [u8; HASH],
    },
}

async fn read_begin(from: &mut Hashing<impl AsyncRead + Unpin>) -> Result<Begin, BackupError> {
    let magic = from.at_most(MAGIC.len()).await?;
    if magic.is_empty() {
        return Err(BackupError::unsound("it is empty"));
    }
    if magic == BARE_MAGIC[..] {
        return Ok(Begin::Bare(magic));
    }
    if magic != MAGIC[..] {
        let cut = MAGIC.starts_with(&magic) || BARE_MAGIC.starts_with(&magic);
        return Err(if cut { cut_off() } else { BackupError::unsound("it is not a backup of sampan") });
    }
    let mut rest = from.exactly(BEGIN - MAGIC.len()).await?;
    let (format, length) = (rest.get_u16_le(), rest.get_u32_le());
    if format > FORMAT {
        return Err(BackupError::Newer { format, known: FORMAT });
    }
    if length > MAX_HEADER {
        return Err(damaged());
    }
    let text = from.exactly(length as usize).await?;
    let bound: [u8; HASH] = from.hash.clone().finalize().into();
    if from.exactly(HASH).await? != bound[..] {
        return Err(damaged());
    }
    let header: Box<Header> = serde_json::from_slice(&text)
        .map_err(|error| BackupError::unsound(format!("its header makes no sense: {error}")))?;
    let strange = header.private.is_some_and(|length| length > key_files::MAX_BYTES);
    if strange || header.format() != format || (header.private.is_some() && header.seal.is_none()) {
        return Err(BackupError::unsound("its header makes no sense: private files where there are none"));
    }
    Ok(Begin::Backup { header, bound })
}

/// Counts and hashes what is read.
struct Hashing<R> {
    from: R,
    hash: Sha256,
    size: u64,
}

impl<R: AsyncRead + Unpin> Hashing<R> {
    /// So many bytes; fewer only at the end.
    async fn at_most(&mut self, length: usize) -> Result<Bytes, BackupError> {
        let mut out = BytesMut::with_capacity(length);
        while out.len() < length {
            let mut rest = (&mut self.from).take((length - out.len()) as u64);
            if rest.read_buf(&mut out).await.map_err(BackupError::reading)? == 0 {
                break;
            }
        }
        self.hash.update(&out);
        self.size += out.len() as u64;
        Ok(out.freeze())
    }

    async fn exactly(&mut self, length: usize) -> Result<Bytes, BackupError> {
        let out = self.at_most(length).await?;
        if out.len() == length { Ok(out) } else { Err(cut_off()) }
    }

    async fn number(&mut self) -> Result<u32, BackupError> {
        Ok(self.exactly(4).await?.get_u32_le())
    }
}

fn damaged() -> BackupError {
    BackupError::unsound("it is damaged")
}

fn cut_off() -> BackupError {
    BackupError::unsound("it is cut off")
}
