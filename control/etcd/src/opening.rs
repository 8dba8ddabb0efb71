//! What a client says first on a connection.
//!
//! etcdctl 3.4 calls single endpoints by their whole URL, scheme included, where HTTP/2 wants a host and
//! nothing else (RFC 9113, section 8.3.1). etcd overlooks that; hyper must not. Nothing here depends on what a
//! server is called, so the first request, whose headers those of all later ones refer to (RFC 7541,
//! section 2.3.2), gets another name on its way to hyper. What follows it is left alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an HTTP/2 client begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a frame: three bytes of length, its type, its flags, four bytes of the stream's number.
const FRAME_HEADER: usize = 9;
/// No frame may be larger before a server said that it takes more.
const LARGEST: usize = 16 << 10;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The place of `:authority` in the static table.
const AUTHORITY: usize = 1;
/// What a name that is none begins with: as it is, and as its Huffman code begins.
const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];
const CODED_SCHEMES: [&[u8]; 2] = [&[0x9d, 0x29, 0xae, 0xe3, 0x0c], &[0x9d, 0x29, 0xad, 0x17, 0x18]];
/// A name in its place, as it is coded.
const NAME: &[u8] = b"\x09localhost";

/// A connection whose first request is looked at.
pub(crate) struct Opening<S> {
    stream: S,
    /// What has come and is not complete.
    begun: BytesMut,
    /// What may be read.
    ready: BytesMut,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preface,
    Frames,
    /// The first request is through, or this is something else.
    Over,
}

impl<S> Opening<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, begun: BytesMut::new(), ready: BytesMut::new(), stage: Stage::Preface }
    }

    /// Passes on what is complete of what has begun.
    fn sift(&mut self) {
        if self.stage == Stage::Preface && !self.begun.iter().zip(PREFACE).all(|(ours, its)| ours == its) {
            // Another protocol: its client waits for an answer.
            self.stage = Stage::Over;
        }
        while let Some(length) = self.complete() {
            let mut piece = self.begun.split_to(length);
            if self.stage == Stage::Preface {
                self.stage = Stage::Frames;
            } else if piece.get(3) == Some(&HEADERS) {
                if let Some(named) = renamed(&piece) {
                    piece = named;
                }
                self.stage = Stage::Over;
            }
            self.ready.unsplit(piece);
        }
        if self.stage == Stage::Over {
            let rest = self.begun.split();
            self.ready.unsplit(rest);
        }
    }

    /// The length of the preface or of the next frame, if all of it is there.
    fn complete(&mut self) -> Option<usize> {
        let length = match self.stage {
            Stage::Preface => PREFACE.len(),
            Stage::Frames => {
                let (length, _) = self.begun.split_first_chunk::<3>()?;
                let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                if length > LARGEST {
                    // It is refused for what it is.
                    self.stage = Stage::Over;
                    return None;
                }
                FRAME_HEADER + length
            }
            Stage::Over => return None,
        };
        (self.begun.len() >= length).then_some(length)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready.split_to(length));
                return Poll::Ready(Ok(()));
            }
            if this.stage == Stage::Over {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let mut piece = [0; 1 << 10];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            if piece.filled().is_empty() {
                // It ended in the middle.
                this.stage = Stage::Over;
            }
            this.begun.extend_from_slice(piece.filled());
            this.sift();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A HEADERS frame with another name for the server, where it had a URL.
fn renamed(frame: &BytesMut) -> Option<BytesMut> {
    let (head, payload) = frame.split_at_checked(FRAME_HEADER)?;
    let flags = *head.get(4)?;
    if flags & END_HEADERS == 0 || flags & PADDED != 0 {
        return None;
    }
    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
    let (before, after) = around_url(payload.get(priority..)?)?;
    let kept = priority + before;
    let payload = [payload.get(..kept)?, NAME, payload.get(payload.len().checked_sub(after)?..)?].concat();
    let [_, a, b, c] = u32::try_from(payload.len()).ok()?.to_be_bytes();
    Some(BytesMut::from(&[&[a, b, c], head.get(3..)?, &payload].concat()[..]))
}

/// How much of a header block stands before and after a `:authority` that is a URL.
fn around_url(block: &[u8]) -> Option<(usize, usize)> {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let name = match first {
            0x80.. => {
                integer(&mut rest, 7)?;
                continue;
            }
            0x40.. => integer(&mut rest, 6)?,
            0x20.. => {
                integer(&mut rest, 5)?;
                continue;
            }
            _ => integer(&mut rest, 4)?,
        };
        if name == 0 {
            string(&mut rest)?;
        }
        let before = block.len() - rest.len();
        let (coded, value) = string(&mut rest)?;
        let schemes = if coded { CODED_SCHEMES } else { SCHEMES };
        if name == AUTHORITY && schemes.iter().any(|scheme| value.starts_with(scheme)) {
            return Some((before, rest.len()));
        }
    }
    None
}

/// A number whose first part is the last `bits` bits of a byte (RFC 7541, section 5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1 << bits) - 1;
    let mut number = usize::from(rest.try_get_u8().ok()? & mask);
    if number < usize::from(mask) {
        return Some(number);
    }
    // More than four bytes make a length that no frame has.
    for shift in [0, 7, 14, 21] {
        let byte = rest.try_get_u8().ok()?;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A string, and whether it is Huffman-coded (RFC 7541, section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let coded = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((coded, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// `:method: POST`, `:scheme: http`, `:path: /` as they are coded in the static table.
    const USUAL: &[u8] = &[0x83, 0x86, 0x84];
    /// `content-type: application/grpc`, its name from the static table, and a header with a name of its own.
    const FURTHER: &[u8] = b"\x5f\x10application/grpc\x00\x02te\x08trailers";
    /// `:authority: https://www.example.com` as Huffman codes it.
    const CODED: &[u8] = &[
        0x41, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae,
        0x43, 0xd3,
    ];

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn opening(first: &[u8]) -> Vec<u8> {
        [PREFACE, &frame(4, 0, b""), &frame(8, 0, &[0, 0, 1, 0]), first, b"whatever follows"].concat()
    }

    /// What is read of what is sent in pieces.
    async fn through(sent: &[u8], piece: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(piece);
        let mut server = Opening::new(server);
        let mut read = Vec::new();
        let write = async {
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let ((), result) = tokio::join!(write, server.read_to_end(&mut read));
        result.unwrap();
        read
    }

    #[tokio::test]
    async fn a_url_is_no_name_of_a_server() {
        for url in [&b"\x41\x15http://127.0.0.1:2379"[..], b"\x01\x0bhttps://a:1", CODED] {
            for (flags, priority) in [(0x5, &b""[..]), (0x25, &[0, 0, 0, 0, 15])] {
                let sent = frame(1, flags, &[priority, USUAL, url, FURTHER].concat());
                let named = [&url[..1], NAME].concat();
                let wanted = frame(1, flags, &[priority, USUAL, &named, FURTHER].concat());
                for piece in [1, 7, 4096] {
                    assert_eq!(through(&opening(&sent), piece).await, opening(&wanted), "{url:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn everything_else_is_left_as_it_is() {
        let url = &b"\x41\x15http://127.0.0.1:2379"[..];
        let long = [&b"\x40\x02id\x7f\x80\x01"[..], &[b'x'; 255]].concat();
        for first in [
            frame(1, 0x5, &[USUAL, b"\x41\x0e127.0.0.1:2379", FURTHER].concat()),
            // Its length takes more than one byte.
            frame(1, 0x5, &[USUAL, &long, FURTHER].concat()),
            // A name may say what it likes elsewhere.
            frame(1, 0x5, &[USUAL, b"\x0f\x2d\x09http://ab", FURTHER].concat()),
            // More headers follow, or padding.
            frame(1, 0x1, &[USUAL, url].concat()),
            frame(1, 0xd, &[&[0], USUAL, url].concat()),
            // Only the first request is looked at.
            [frame(1, 0x5, USUAL), frame(1, 0x5, &[USUAL, url].concat())].concat(),
            frame(1, 0x5, b"\x41\xff\xff\xff\xff\xff\xff"),
            frame(1, 0x5, b"\x41\x15http"),
            b"\xff\xff\xff\x01\x05".to_vec(),
            b"\x00\x00".to_vec(),
        ] {
            assert_eq!(through(&opening(&first), 64).await, opening(&first), "{first:?}");
        }
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET /").await.unwrap();
        let mut read = [0; 5];
        Opening::new(server).read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /", "whoever speaks something else is not kept waiting");
    }

    proptest! {
        #[test]
        fn whatever_is_sent_comes_through(sent in prop::collection::vec(any::<u8>(), 0..200), piece in 1..50usize) {
            // The chance that this is a header block with a URL is nil.
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent = [PREFACE, &frame(1, 0x5, &sent)].concat();
            prop_assert_eq!(runtime.block_on(through(&sent, piece)), sent);
        }
    }
}
