//! Messages on a stream: a length (four bytes, big endian), then that many bytes of postcard.
//!
//! A stream that ends between messages ended well (`None`); one that ends inside a message is
//! [`FrameError::Truncated`]. A length beyond the limit is refused before anything is read. Trailing
//! bytes of a message are ignored, so that a newer peer may append fields.

use std::io;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER: usize = 4;
/// How much is asked of the stream at once.
const READ: usize = 8 * 1024;
/// A buffer that grew beyond this for a large message is given back.
const KEEP: usize = 64 * 1024;

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is larger than the limit, in bytes.
    #[error("a message of {length} bytes where {limit} are the limit")]
    TooLarge {
        /// Its length.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// The bytes are not such a message.
    #[error("a message does not decode")]
    Malformed(#[source] postcard::Error),
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[from] io::Error),
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error,
            FrameError::Truncated => Self::new(io::ErrorKind::UnexpectedEof, error),
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// A message with its length, as [`write`] sends it.
///
/// # Errors
/// When it is larger than `limit`, or cannot be encoded.
pub fn encode<T: Serialize + ?Sized>(value: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(value, vec![0; HEADER]).map_err(FrameError::Malformed)?;
    let length = bytes.len().saturating_sub(HEADER);
    let too_large = FrameError::TooLarge { length, limit };
    let Ok(header) = u32::try_from(length) else { return Err(too_large) };
    if length > limit {
        return Err(too_large);
    }
    for (to, from) in bytes.iter_mut().zip(header.to_be_bytes()) {
        *to = from;
    }
    Ok(bytes)
}

/// Writes one message and flushes it. Not cancellation-safe: a stream on which this was given up is
/// to be dropped.
///
/// # Errors
/// When the message is larger than `limit`, or the stream broke.
pub async fn write<W, T>(stream: &mut W, value: &T, limit: usize) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin + ?Sized,
    T: Serialize + ?Sized,
{
    let bytes = encode(value, limit)?;
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one message and nothing beyond it; `None` when the stream ended. Not cancellation-safe: see
/// [`Reader`].
///
/// # Errors
/// When the message is larger than `limit`, is cut off, does not decode, or the stream broke.
pub async fn read<T, R>(stream: &mut R, limit: usize) -> Result<Option<T>, FrameError>
where
    R: AsyncRead + Unpin + ?Sized,
    T: DeserializeOwned,
{
    let mut header = [0; HEADER];
    let mut have = 0;
    while let Some(rest) = header.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::Truncated),
            n => have += n,
        }
    }
    let length = checked_length(header, limit)?;
    // The claimed length is not allocated for: memory follows what arrives.
    let mut body = Vec::with_capacity(length.min(READ));
    stream.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(FrameError::Truncated);
    }
    postcard::from_bytes(&body).map(Some).map_err(FrameError::Malformed)
}

fn checked_length(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > limit { Err(FrameError::TooLarge { length, limit }) } else { Ok(length) }
}

/// Reads messages one after the other. [`Reader::read`] may be given up at any point and called again.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    limit: usize,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads messages of up to `limit` bytes each from `stream`.
    pub fn new(stream: R, limit: usize) -> Self {
        Self { stream, limit, buffer: BytesMut::new() }
    }

    /// The next message; `None` when the stream ended.
    ///
    /// # Errors
    /// When the message is larger than the limit, is cut off, does not decode, or the stream broke.
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// The stream, and what was read of it beyond the last message.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = checked_length(*header, self.limit)?;
        let Some(body) = self.buffer.get(HEADER..HEADER + length) else { return Ok(None) };
        let message = postcard::from_bytes(body).map_err(FrameError::Malformed)?;
        self.buffer.advance(HEADER + length);
        if self.buffer.is_empty() && length > KEEP {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: usize = 1 << 20;

    #[tokio::test]
    async fn messages_follow_one_another_until_a_clean_end() {
        let (mut a, b) = tokio::io::duplex(64);
        let writer = tokio::spawn(async move {
            for n in 0..10_usize {
                write(&mut a, &vec![7_u8; n * 1000], LIMIT).await.unwrap();
            }
        });
        let mut reader = Reader::new(b, LIMIT);
        for n in 0..10 {
            assert_eq!(reader.read::<Vec<u8>>().await.unwrap().unwrap().len(), n * 1000);
        }
        assert!(reader.read::<Vec<u8>>().await.unwrap().is_none());
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_given_up_in_the_middle_goes_on_where_it_was() {
        let (mut a, b) = tokio::io::duplex(64);
        let bytes = encode("a text of some length", LIMIT).unwrap();
        let mut reader = Reader::new(b, LIMIT);
        for byte in &bytes[..bytes.len() - 1] {
            a.write_all(&[*byte]).await.unwrap();
            let waiting = tokio::time::timeout(Duration::from_millis(1), reader.read::<String>());
            assert!(waiting.await.is_err());
        }
        a.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_eq!(reader.read::<String>().await.unwrap().unwrap(), "a text of some length");
    }

    #[tokio::test]
    async fn an_end_inside_a_message_is_an_error() {
        let bytes = encode("text", LIMIT).unwrap();
        for length in 1..bytes.len() {
            let mut cut = &bytes[..length];
            assert!(matches!(read::<String, _>(&mut cut, LIMIT).await, Err(FrameError::Truncated)));
            let mut reader = Reader::new(&bytes[..length], LIMIT);
            assert!(matches!(reader.read::<String>().await, Err(FrameError::Truncated)));
        }
        let mut none: &[u8] = &[];
        assert!(read::<String, _>(&mut none, LIMIT).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn too_large_a_message_is_refused_on_both_sides() {
        let mut out = Vec::new();
        let refused = write(&mut out, &vec![0_u8; 100], 100).await;
        assert!(matches!(refused, Err(FrameError::TooLarge { length: 101, limit: 100 })));
        assert!(out.is_empty());
        let mut hostile: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0];
        assert!(matches!(read::<String, _>(&mut hostile, 100).await, Err(FrameError::TooLarge { .. })));
        let mut reader = Reader::new(&[0, 0, 0, 101][..], 100);
        assert!(matches!(reader.read::<String>().await, Err(FrameError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn fields_that_a_newer_peer_appends_are_ignored_and_nonsense_is_an_error() {
        let mut newer = &encode(&(7_u32, "new"), LIMIT).unwrap()[..];
        assert_eq!(read::<(u32,), _>(&mut newer, LIMIT).await.unwrap(), Some((7,)));
        let mut nonsense = &encode(&[0xff_u8; 3], LIMIT).unwrap()[..];
        assert!(matches!(read::<String, _>(&mut nonsense, LIMIT).await, Err(FrameError::Malformed(_))));
    }
}
