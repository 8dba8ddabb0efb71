//! The two halves of a stream. They break as soon as their connection is over, whoever ended it: the
//! multiplexer wakes nobody who waits on a stream when it is closed in good order, and takes its time
//! where the other side does not answer any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Shared;
use crate::chunk::{ChunkReader, ChunkWriter};

/// What carries the chunks.
pub(super) type Raw = Compat<yamux::Stream>;

/// Keeps the connection, and the stream's place among those allowed.
#[derive(Debug)]
pub(super) struct Lease {
    _connection: Keep,
    _permit: OwnedSemaphorePermit,
}

struct Keep(#[expect(dead_code, reason = "held so that the connection stays")] Arc<Shared>);

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keep")
    }
}

impl Lease {
    pub(super) fn new(connection: Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        Self { _connection: Keep(connection), _permit: permit }
    }
}

/// Tells one half that the connection is over.
#[derive(Debug)]
struct Over {
    token: CancellationToken,
    told: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Over {
    fn new(token: CancellationToken) -> Self {
        Self { told: Box::pin(token.clone().cancelled_owned()), token }
    }

    /// What came of the stream itself, or that its connection is over.
    fn unless<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.told.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(broken()));
        }
        polled
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "its connection is closed")
}

/// Reads a stream.
#[derive(Debug)]
pub(crate) struct MuxRead {
    chunks: ChunkReader<tokio::io::ReadHalf<Raw>>,
    over: Over,
    _lease: Arc<Lease>,
}

/// Writes a stream.
#[derive(Debug)]
pub(crate) struct MuxWrite {
    chunks: ChunkWriter<tokio::io::WriteHalf<Raw>>,
    over: Over,
    _lease: Arc<Lease>,
}

/// Both halves of `stream`, which break with `over`.
pub(super) fn halves(stream: yamux::Stream, over: CancellationToken, lease: Lease) -> (MuxRead, MuxWrite) {
    let lease = Arc::new(lease);
    let (read, write) = tokio::io::split(stream.compat());
    (
        MuxRead { chunks: ChunkReader::new(read), over: Over::new(over.clone()), _lease: Arc::clone(&lease) },
        MuxWrite { chunks: ChunkWriter::new(write), over: Over::new(over), _lease: lease },
    )
}

impl AsyncRead for MuxRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.chunks).poll_read(cx, buf);
        self.over.unless(cx, polled)
    }
}

impl AsyncWrite for MuxWrite {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.over.token.is_cancelled() {
            return Poll::Ready(Err(broken()));
        }
        let polled = Pin::new(&mut self.chunks).poll_write(cx, buf);
        self.over.unless(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.chunks).poll_flush(cx);
        self.over.unless(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.chunks).poll_shutdown(cx);
        self.over.unless(cx, polled)
    }
}
