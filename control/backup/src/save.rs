//! Making a backup: from a store's snapshot to a file or an object, with bounded memory.

use bytes::BytesMut;
use jiff::Timestamp;
use sampan_store::{Revision, SnapshotCheck, Storage, StorageError};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::format::{Encoder, Header, Sealer, Summary};
use crate::place::{Existing, Location, Sink};
use crate::secret::{Cost, Passphrase};
use crate::{BackupError, KeyFiles, Place};

/// How much of a snapshot is read at once, and may wait between the store and the file.
const PIECE: usize = 256 << 10;

/// Who makes a backup; stands in its header, readable by everybody who has the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The id of the cluster.
    pub cluster: String,
    /// The name of the node.
    pub node: String,
    /// The version of the program.
    pub version: String,
}

/// How a backup is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// What opens it again.
    pub passphrase: Passphrase,
    /// What it costs to try a passphrase.
    pub cost: Cost,
}

impl Seal {
    /// Sealed with `passphrase`, at the default cost.
    pub fn new(passphrase: Passphrase) -> Self {
        Self { passphrase, cost: Cost::DEFAULT }
    }
}

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Who makes it.
    pub origin: Origin,
    /// When it is made.
    pub created: Timestamp,
    /// Sealed, or readable by everybody who has the file.
    pub seal: Option<Seal>,
    /// The cluster's private files, which only a sealed backup carries.
    pub private: Option<KeyFiles>,
    /// Whether it may take the place of another one.
    pub existing: Existing,
}

/// Backs up `storage` while it runs, at one revision. Where this fails or its future is dropped,
/// nothing appears at `location`, and what was there stays.
pub async fn save(
    storage: &dyn Storage,
    location: &Location,
    options: &SaveOptions,
) -> Result<Summary, BackupError> {
    from_storage(storage, options, |_| location.clone()).await.map(|(_, summary)| summary)
}

/// Backs up what a plain snapshot stream holds, as [`save`] does; a stream that is not a whole
/// snapshot is refused. For snapshots that come from elsewhere, such as over the network.
pub async fn save_stream(
    snapshot: impl AsyncRead + Send + Unpin,
    location: &Location,
    options: &SaveOptions,
) -> Result<Summary, BackupError> {
    from_stream(snapshot, options, |_| location.clone()).await.map(|(_, summary)| summary)
}

/// Backs up `storage` under a name that the revision is part of.
pub(crate) async fn save_named(
    storage: &dyn Storage,
    place: &Place,
    name: impl Fn(Revision) -> String + Send,
    options: &SaveOptions,
) -> Result<(Location, Summary), BackupError> {
    from_storage(storage, options, move |revision| place.at(name(revision))).await
}

async fn from_storage(
    storage: &dyn Storage,
    options: &SaveOptions,
    location: impl Fn(Revision) -> Location + Send,
) -> Result<(Location, Summary), BackupError> {
    let (mut to, from) = tokio::io::duplex(PIECE);
    let snapshot = async move { storage.snapshot(&mut to).await };
    // Each ends when the other does: the streams are dropped with their futures.
    let (taken, saved) = tokio::join!(snapshot, from_stream(from, options, location));
    match (taken, saved) {
        (Ok(_), saved) => saved,
        // The store failed as nobody took its snapshot any more.
        (Err(StorageError::Io(error)), Err(saved)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(saved)
        }
        // The store's own failure cut the stream off.
        (Err(error), Err(BackupError::Unsound { .. })) => Err(BackupError::Store(error)),
        (Err(_), Err(saved)) => Err(saved),
        (Err(error), Ok(_)) => Err(BackupError::Store(error)),
    }
}

async fn from_stream(
    mut snapshot: impl AsyncRead + Send + Unpin,
    options: &SaveOptions,
    location: impl Fn(Revision) -> Location + Send,
) -> Result<(Location, Summary), BackupError> {
    let mut intake = Intake { check: SnapshotCheck::new(), buffer: BytesMut::with_capacity(PIECE) };
    let mut begin = BytesMut::new();
    let revision = loop {
        if let Some(revision) = intake.check.revision() {
            break revision;
        }
        if !intake.next(&mut snapshot).await? {
            // Says what is wrong with it.
            intake.check.finish()?;
            return Err(BackupError::unsound("its snapshot is empty"));
        }
        begin.extend_from_slice(&intake.buffer);
    };
    let location = location(revision);
    let private = private(options)?;
    let (header, sealer) = header(options, private.as_deref(), revision).await?;
    let mut encoder = Encoder::new(header, sealer, private.as_deref().unwrap_or_default())?;
    drop(private);
    encoder.push(&begin)?;
    drop(begin);
    let mut sink = location.create(options.existing).await?;
    match pump(intake, encoder, snapshot, &mut *sink).await {
        Ok(summary) => {
            sink.commit().await?;
            Ok((location, summary))
        }
        Err(error) => {
            sink.discard().await;
            Err(error)
        }
    }
}

/// The private files as they go into the backup.
fn private(options: &SaveOptions) -> Result<Option<Vec<u8>>, BackupError> {
    match (&options.private, &options.seal) {
        (None, _) => Ok(None),
        (Some(files), Some(_)) => files.to_bytes().map(Some),
        (Some(_), None) => Err(BackupError::setting(
            "the cluster's keys are only carried by a sealed backup: give a passphrase",
        )),
    }
}

async fn header(
    options: &SaveOptions,
    private: Option<&[u8]>,
    revision: Revision,
) -> Result<(Header, Option<Sealer>), BackupError> {
    let (seal, sealer) = match &options.seal {
        Some(Seal { passphrase, cost }) => {
            let (header, sealer) = Sealer::begin(passphrase, *cost).await?;
            (Some(header), Some(sealer))
        }
        None => (None, None),
    };
    let Origin { cluster, node, version } = options.origin.clone();
    let private = private.and_then(|bytes| u32::try_from(bytes.len()).ok());
    let header =
        Header { created: options.created, cluster, node, version, revision: revision.0, seal, private };
    Ok((header, sealer))
}

async fn pump(
    mut intake: Intake,
    mut encoder: Encoder,
    mut snapshot: impl AsyncRead + Unpin,
    sink: &mut dyn Sink,
) -> Result<Summary, BackupError> {
    loop {
        let ready = encoder.ready();
        if !ready.is_empty() {
            sink.write(ready).await?;
        }
        if !intake.next(&mut snapshot).await? {
            break;
        }
        encoder.push(&intake.buffer)?;
    }
    let info = intake.check.finish()?;
    let (rest, summary) = encoder.finish(info.keys)?;
    sink.write(rest).await?;
    Ok(summary)
}

/// Reads a snapshot, checking what passes.
struct Intake {
    check: SnapshotCheck,
    /// The piece read last.
    buffer: BytesMut,
}

impl Intake {
    /// Reads the next piece; false at the end.
    async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<bool, BackupError> {
        self.buffer.clear();
        let read = from.read_buf(&mut self.buffer).await.map_err(BackupError::Incoming)?;
        self.check.push(&self.buffer)?;
        Ok(read > 0)
    }
}
