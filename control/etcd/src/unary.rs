//! Calls of one small message each way, without the machinery for streams of any size.
//!
//! Only what is as it usually is, is done here: one plain message in one frame. Everything else
//! goes the general way, from its first frame on.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tonic::Status;
use tonic::body::Body;

/// What stands before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// How a request begins.
pub(crate) enum Begun<Q> {
    /// This is all of it.
    Whole(Q),
    /// It must be read on.
    Pieces(Pieces),
}

/// Takes a request in, if it is simple.
///
/// # Errors
/// The client took it back, or is gone.
pub(crate) async fn begin<Q: Message + Default>(mut body: Incoming) -> Result<Begun<Q>, Status> {
    let first = body.frame().await;
    let data = first.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
    let Some(message) = data.and_then(whole).and_then(|message| Q::decode(message).ok()) else {
        return Ok(Begun::Pieces(Pieces { first, rest: body }));
    };
    // Nothing that means anything comes after it but the end.
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| Status::from_error(Box::new(error)))?;
    }
    Ok(Begun::Whole(message))
}

/// The message in a frame that holds exactly one plain one.
fn whole(frame: &Bytes) -> Option<Bytes> {
    let (head, message) = frame.split_first_chunk::<HEAD>()?;
    let [compressed, length @ ..] = *head;
    let exact = u32::from_be_bytes(length) as usize == message.len();
    (compressed == 0 && exact).then(|| frame.slice(HEAD..))
}

/// A body whose first frame was looked at.
pub(crate) struct Pieces {
    first: Option<Result<Frame<Bytes>, hyper::Error>>,
    rest: Incoming,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// The answer to a call, with what it gave.
pub(crate) fn answer<A: Message>(result: Result<tonic::Response<A>, Status>) -> Response<Body> {
    match result.and_then(|answer| framed(&answer.into_inner())) {
        Ok(message) => {
            let mut response = Response::new(Body::new(Answer { message: Some(message), ended: false }));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => status.into_http(),
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).map_err(|error| Status::out_of_range(error.to_string()))?);
    message.encode(&mut out).map_err(|error| Status::internal(error.to_string()))?;
    Ok(out.freeze())
}

/// A message, and that all is well.
struct Answer {
    message: Option<Bytes>,
    ended: bool,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let well = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
        Poll::Ready(Some(Ok(Frame::trailers(well))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_message_that_fills_its_frame_is_simple() {
        let is_simple = |frame: &'static [u8]| whole(&Bytes::from_static(frame));
        assert_eq!(is_simple(&[0, 0, 0, 0, 2, 7, 8]).as_deref(), Some(&[7, 8][..]));
        assert_eq!(is_simple(&[0, 0, 0, 0, 0]).as_deref(), Some(&[][..]));
        let odd: [&[u8]; 5] =
            [&[], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 1, 7, 8], &[1, 0, 0, 0, 1, 7]];
        for frame in odd {
            assert_eq!(is_simple(frame), None, "{frame:?}");
        }
    }
}
