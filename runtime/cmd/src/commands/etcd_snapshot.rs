//! Snapshots that etcdctl saved, of us or of an etcd: looked at and restored like our own.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use sampan_etcd::{EtcdSnapshot, EtcdSnapshotError};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use crate::error::{CommandError, Doing};

/// How many pieces may wait to be taken.
const AHEAD: usize = 4;

/// The file of that name, where it is one that etcdctl saved. What cannot be opened is refused by
/// whoever reads our own snapshots.
pub(super) async fn find(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(name);
    let found = blocking(move || {
        let is_one = EtcdSnapshot::is_one(&mut File::open(&path)?)?;
        Ok(is_one.then_some(path))
    });
    found.await.unwrap_or(None)
}

/// What is in it, in words.
pub(super) async fn describe(path: PathBuf) -> Result<String, CommandError> {
    let name = path.display().to_string();
    let text = blocking(move || {
        let size = path.metadata()?.len();
        let snapshot = EtcdSnapshot::open(File::open(path)?)?;
        Ok(format!(
            "format    etcd\nrevision  {}\nkeys      {}\nsize      {size}\nsha256    {}\nsealed    no\n",
            snapshot.revision(),
            snapshot.keys(),
            snapshot.digest()
        ))
    });
    text.await.doing(|| format!("the snapshot {name} cannot be used"))
}

/// Its contents as our own snapshots have them.
pub(super) async fn contents(path: PathBuf) -> Result<impl AsyncRead + Send + Unpin, CommandError> {
    let name = path.display().to_string();
    // Whatever is wrong with it shows here, before anything is moved.
    let snapshot = blocking(move || EtcdSnapshot::open(File::open(path)?)).await;
    let snapshot = snapshot.doing(|| format!("the snapshot {name} cannot be used"))?;
    let (pieces, stream) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    tokio::task::spawn_blocking(move || {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let converted = snapshot.convert(|piece| pieces.blocking_send(Ok(piece.into())).map_err(gone));
        if let Err(error) = converted {
            // Whoever reads it says why it ended; one that has gone knows better.
            drop(pieces.blocking_send(Err(io::Error::other(error))));
        }
    });
    Ok(StreamReader::new(ReceiverStream::new(stream)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EtcdSnapshotError> + Send + 'static,
) -> Result<T, EtcdSnapshotError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}
