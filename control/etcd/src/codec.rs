//! Messages on the wire, with buffers as large as most messages are.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// Takes a whole answer without a value. (Requests come in pieces whose lengths are known.)
const ENCODED: usize = 512;
/// Takes nothing until a request's length is known,
const DECODED: usize = 0;
/// and so much of a stream goes out at once, as is usual.
const AT_ONCE: usize = 32 << 10;

/// Protocol buffers. The usual codec begins each call with 8 KiB for either direction, which costs
/// more than the rest of a small call.
#[derive(Clone, Debug)]
pub(crate) struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(ENCODED, AT_ONCE))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(DECODED, AT_ONCE))
    }
}
