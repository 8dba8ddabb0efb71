//! A snapshot of the store as an answer's body, written while it is sent.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use sampan_apiserver::Body;
use sampan_store::Storage;
use tokio_util::io::ReaderStream;

/// What may wait between the store and the network.
const PIPE: usize = 256 << 10;

/// The snapshot. Where the store fails midway the body ends with an error, so that the connection
/// breaks and nobody takes the beginning for the whole; snapshots are checksummed besides.
pub(super) fn stream(storage: Arc<dyn Storage>) -> Body {
    let (mut writer, reader) = tokio::io::duplex(PIPE);
    let written = tokio::spawn(async move { storage.snapshot(&mut writer).await });
    let pieces = ReaderStream::with_capacity(reader, PIPE);
    let end = futures::stream::once(async move {
        match written.await {
            Ok(Ok(revision)) => {
                tracing::info!(%revision, "a snapshot was taken");
                Ok(Bytes::new())
            }
            Ok(Err(error)) => Err(std::io::Error::other(error)),
            Err(error) => Err(std::io::Error::other(error)),
        }
    });
    Body::from_stream(pieces.chain(end))
}
