//! A stream of bytes in both directions, the same over both kinds of connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::identity::Role;
use crate::mux;
use crate::purpose::{Purpose, UnknownPurpose};
use crate::quic;

/// The acceptor's first byte: whether it serves the stream.
const SERVED: u8 = 0;
const UNKNOWN: u8 = 1;
const NOT_PERMITTED: u8 = 2;

/// A stream for one purpose. `shutdown` ends its direction and the other side reads the end; a stream
/// that is dropped before that is reset, and the other side reads an error, never a false end.
/// Writes are buffered: what must go out now is flushed, as always.
#[derive(Debug)]
pub struct Stream {
    read: ReadHalf,
    write: WriteHalf,
}

/// What is read from a stream.
#[derive(Debug)]
pub struct ReadHalf {
    raw: RawRead,
    /// The opener waits for the acceptor's word before the first byte.
    answer_due: Option<Purpose>,
}

/// What is written to a stream. Over TCP the other side may notice that only this half was dropped as
/// late as when the other is dropped, too.
#[derive(Debug)]
pub struct WriteHalf {
    raw: RawWrite,
}

#[derive(Debug)]
pub(crate) enum RawRead {
    Quic(quinn::RecvStream),
    Tcp(mux::MuxRead),
}

#[derive(Debug)]
pub(crate) enum RawWrite {
    Quic { stream: quinn::SendStream, finished: bool },
    Tcp(mux::MuxWrite),
}

impl RawWrite {
    pub(crate) fn quic(stream: quinn::SendStream) -> Self {
        Self::Quic { stream, finished: false }
    }
}

impl Stream {
    /// Names the purpose; the answer is read later, with the first bytes.
    pub(crate) async fn open(raw: (RawRead, RawWrite), purpose: Purpose) -> io::Result<Self> {
        let (read, mut write) = raw;
        write.write_all(&purpose.number().to_be_bytes()).await?;
        write.flush().await?;
        Ok(Self { read: ReadHalf { raw: read, answer_due: Some(purpose) }, write: WriteHalf { raw: write } })
    }

    /// Reads the purpose, and says whether such a stream is served.
    pub(crate) async fn accept(
        raw: (RawRead, RawWrite),
        opener: Role,
        acceptor: Role,
    ) -> io::Result<(Purpose, Self)> {
        let (mut read, mut write) = raw;
        let mut number = [0; 2];
        read.read_exact(&mut number).await?;
        let refusal = match Purpose::try_from(u16::from_be_bytes(number)) {
            Ok(purpose) if purpose.permitted(opener, acceptor) => {
                write.write_all(&[SERVED]).await?;
                write.flush().await?;
                let read = ReadHalf { raw: read, answer_due: None };
                return Ok((purpose, Self { read, write: WriteHalf { raw: write } }));
            }
            Ok(purpose) => {
                (NOT_PERMITTED, format!("a {opener} may not open {purpose} streams to a {acceptor}"))
            }
            Err(unknown @ UnknownPurpose(_)) => (UNKNOWN, unknown.to_string()),
        };
        let (byte, reason) = refusal;
        write.write_all(&[byte]).await?;
        write.shutdown().await?;
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    /// Both halves, to be used apart.
    #[must_use]
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

impl ReadHalf {
    /// Reads the acceptor's word, once.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(purpose) = self.answer_due else { return Poll::Ready(Ok(())) };
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.raw).poll_read(cx, &mut buffer))?;
        let answer = buffer.filled().first().copied();
        let refused = |why: String| Poll::Ready(Err(io::Error::new(io::ErrorKind::Unsupported, why)));
        match answer {
            Some(SERVED) => {
                self.answer_due = None;
                Poll::Ready(Ok(()))
            }
            Some(UNKNOWN) => refused(format!("the peer does not know {purpose} streams")),
            Some(_) => refused(format!("the peer does not permit us {purpose} streams")),
            None => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                format!("the peer did not take the {purpose} stream"),
            ))),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_answer(cx))?;
        Pin::new(&mut this.raw).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

impl AsyncRead for RawRead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic(stream) => AsyncRead::poll_read(Pin::new(stream), cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for RawWrite {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Quic { stream, .. } => AsyncWrite::poll_write(Pin::new(stream), cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic { stream, .. } => AsyncWrite::poll_flush(Pin::new(stream), cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Quic { stream, finished } => {
                *finished = true;
                AsyncWrite::poll_shutdown(Pin::new(stream), cx)
            }
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Drop for RawWrite {
    fn drop(&mut self) {
        if let Self::Quic { stream, finished: false } = self {
            // Left alone, QUIC would end the stream as if all had been said.
            let _ = stream.reset(quic::CLOSED);
        }
    }
}
