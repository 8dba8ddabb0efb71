//! Reading backups: what one is, whether it is whole, and the snapshot within.

use sampan_store::Revision;
use serde::Serialize;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::StreamReader;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::format::{Decoder, HEAD_BYTES, Purpose, Summary, header};
use crate::name::BackupName;
use crate::place::{Location, Place};
use crate::{BackupError, KeyFiles, Passphrase};

/// Reads all of a backup and says what it is, or why it cannot be used. A sealed one stays shut
/// without its passphrase: then its hash is verified, but not its contents.
pub async fn status(location: &Location, passphrase: Option<&Passphrase>) -> Result<Summary, BackupError> {
    status_stream(location.read().await?, passphrase).await
}

/// As [`status`], of the bytes of a backup.
pub async fn status_stream(
    backup: impl AsyncRead + Send + Unpin,
    passphrase: Option<&Passphrase>,
) -> Result<Summary, BackupError> {
    let mut decoder = Decoder::open(backup, passphrase, Purpose::Verification).await?;
    while decoder.next().await?.is_some() {}
    decoder.into_summary()
}

/// The plain snapshot within a backup, for [`sampan_store::Storage::restore`].
///
/// It is verified while it is read: the last piece comes only after everything was found sound,
/// so that nobody gets a whole snapshot out of a backup that is not. What is wrong is a
/// [`BackupError`] within the [`std::io::Error`].
pub struct Contents {
    private: Option<KeyFiles>,
    reader: StreamReader<BoxStream<'static, std::io::Result<Bytes>>, Bytes>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

impl Contents {
    /// The cluster's private files, where the backup carries them.
    pub fn private(&self) -> Option<&KeyFiles> {
        self.private.as_ref()
    }
}

impl AsyncRead for Contents {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

/// The snapshot within a backup (or a bare snapshot); a sealed one takes its passphrase, and one
/// that is not sealed must not be given any.
pub async fn open(location: &Location, passphrase: Option<&Passphrase>) -> Result<Contents, BackupError> {
    open_stream(location.read().await?, passphrase).await
}

/// As [`open`], of the bytes of a backup.
pub async fn open_stream(
    backup: impl AsyncRead + Send + Unpin + 'static,
    passphrase: Option<&Passphrase>,
) -> Result<Contents, BackupError> {
    let mut decoder = Decoder::open(backup, passphrase, Purpose::Contents).await?;
    let private = decoder.private().await?;
    let stream = futures::stream::try_unfold(decoder, |mut decoder| async {
        let next = decoder.next().await?;
        Ok(next.map(|bytes| (bytes, decoder)))
    });
    Ok(Contents { private, reader: StreamReader::new(Box::pin(stream)) })
}

/// A backup made by schedule, as its name and its header tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its name at its place.
    pub name: String,
    /// The node that made it.
    pub node: String,
    /// When.
    pub time: Timestamp,
    /// The store's revision that it is of.
    pub revision: Revision,
    /// In bytes.
    pub size: u64,
}

/// The backups at a place whose names are those of a schedule, newest first; of all clusters that
/// keep theirs there.
pub async fn list(place: &Place) -> Result<Vec<Listed>, BackupError> {
    let mut listed: Vec<_> = place
        .entries()
        .await?
        .into_iter()
        .filter_map(|entry| {
            let BackupName { node, time, revision } = BackupName::parse(&entry.name)?;
            Some(Listed { name: entry.name, node, time, revision, size: entry.size })
        })
        .collect();
    listed.sort_by(|a, b| (b.time, &b.name).cmp(&(a.time, &a.name)));
    Ok(listed)
}

/// The id of the cluster that a backup is of, which its first bytes tell; a bare snapshot does not.
pub(crate) async fn cluster_of(location: &Location) -> Result<Option<String>, BackupError> {
    let begin = location.begin_of(HEAD_BYTES).await?;
    Ok(header(&begin).await?.map(|header| header.cluster))
}
