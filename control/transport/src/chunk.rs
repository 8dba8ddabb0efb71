//! Chunks on a multiplexed stream over TCP: a length (two bytes, big endian) and that many bytes; 0 ends
//! the stream. The multiplexer itself cannot tell an end from a broken stream; with this, an end that
//! was not said is an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use futures::task::noop_waker_ref;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The length that ends a stream.
const END: u16 = 0;
/// The length that says that the writer gave up.
const GIVEN_UP: u16 = u16::MAX;
/// With its header, a chunk just fills a frame of the multiplexer.
const LARGEST: u16 = 16 * 1024 - 2;

/// Reads the bytes of chunks.
#[derive(Debug)]
pub(crate) struct ChunkReader<R> {
    inner: R,
    header: [u8; 2],
    /// How much of the header is there.
    have: usize,
    /// What is left of the chunk.
    left: usize,
    ended: bool,
}

impl<R> ChunkReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, header: [0; 2], have: 0, left: 0, ended: false }
    }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the stream broke off")
}

impl<R: AsyncRead + Unpin> ChunkReader<R> {
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.header.get_mut(self.have..).filter(|rest| !rest.is_empty()) {
            let mut buffer = ReadBuf::new(rest);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
            match buffer.filled().len() {
                0 => return Poll::Ready(Err(given_up())),
                n => self.have += n,
            }
        }
        self.have = 0;
        match u16::from_be_bytes(self.header) {
            END => self.ended = true,
            GIVEN_UP => return Poll::Ready(Err(given_up())),
            length => self.left = usize::from(length),
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ChunkReader<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left == 0 {
            if this.ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_header(cx))?;
        }
        let wanted = this.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(wanted));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        if read == 0 && wanted > 0 {
            return Poll::Ready(Err(given_up()));
        }
        buf.advance(read);
        this.left = this.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

/// Writes bytes as chunks. Dropped before `shutdown`, it says, if it can, that it gave up.
#[derive(Debug)]
pub(crate) struct ChunkWriter<W: AsyncWrite + Unpin> {
    inner: W,
    /// A chunk that is not wholly written.
    pending: BytesMut,
    ended: bool,
}

impl<W: AsyncWrite + Unpin> ChunkWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, pending: BytesMut::new(), ended: false }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.pending))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.pending.advance(n),
            }
        }
        // An idle stream holds no memory.
        self.pending = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for ChunkWriter<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let length = u16::try_from(buf.len()).unwrap_or(LARGEST).min(LARGEST);
        let Some(part) = buf.get(..usize::from(length)).filter(|part| !part.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        this.pending.reserve(part.len() + 2);
        this.pending.extend_from_slice(&length.to_be_bytes());
        this.pending.extend_from_slice(part);
        // What cannot go out now waits for the next write, flush or shutdown.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(usize::from(length))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    /// Ends the chunks; the stream below stays open, for its end says nothing.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            ready!(this.poll_drain(cx))?;
            this.pending.extend_from_slice(&END.to_be_bytes());
            this.ended = true;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }
}

impl<W: AsyncWrite + Unpin> Drop for ChunkWriter<W> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut cx = Context::from_waker(noop_waker_ref());
        if matches!(self.poll_drain(&mut cx), Poll::Ready(Ok(()))) {
            self.pending.extend_from_slice(&GIVEN_UP.to_be_bytes());
            let _ = self.poll_drain(&mut cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in_until_the_end() {
        let (a, b) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            let mut writer = ChunkWriter::new(a);
            for part in copy.chunks(33_333) {
                writer.write_all(part).await.unwrap();
            }
            writer.shutdown().await.unwrap();
            assert!(writer.write_all(b"more").await.is_err());
            writer
        });
        let mut got = Vec::new();
        let mut reader = ChunkReader::new(b);
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == sent);
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn an_end_that_was_not_said_is_an_error() {
        let (a, b) = tokio::io::duplex(1000);
        let mut writer = ChunkWriter::new(a);
        writer.write_all(b"half").await.unwrap();
        drop(writer);
        let mut got = Vec::new();
        let error = ChunkReader::new(b).read_to_end(&mut got).await.unwrap_err();
        assert_eq!((got.as_slice(), error.kind()), (&b"half"[..], io::ErrorKind::ConnectionReset));
        for cut in [&[][..], &[0], &[0, 5, b'h']] {
            let error = ChunkReader::new(cut).read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn what_could_not_go_out_goes_out_with_the_flush() {
        let (a, mut b) = tokio::io::duplex(4);
        let mut writer = ChunkWriter::new(a);
        writer.write_all(b"0123456789").await.unwrap();
        let flush = tokio::spawn(async move {
            writer.flush().await.unwrap();
            writer
        });
        let mut got = [0; 12];
        b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"\x00\x0a0123456789");
        drop(flush.await.unwrap());
    }
}
