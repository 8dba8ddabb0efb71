//! A guest's standard input: at its end from the start, or open until the container is asked
//! to end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

/// The standard input of a container.
#[derive(Clone)]
pub(crate) struct Stdin {
    end: CancellationToken,
    awaited: Arc<AtomicBool>,
}

impl Stdin {
    /// Input that is at its end from the start.
    #[must_use]
    pub(crate) fn closed() -> Self {
        let end = CancellationToken::new();
        end.cancel();
        Self { end, awaited: Arc::default() }
    }

    /// Input without data that ends with the stop request.
    #[must_use]
    pub(crate) fn until(stop: CancellationToken) -> Self {
        Self { end: stop, awaited: Arc::default() }
    }

    /// Whether the guest has ever waited for input: then it notices its end.
    #[must_use]
    pub(crate) fn awaited(&self) -> bool {
        self.awaited.load(Relaxed)
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        let ended = Box::pin(self.end.clone().cancelled_owned());
        Box::new(Reader { ended, awaited: self.awaited.clone() })
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl InputStream for Stdin {
    fn read(&mut self, _size: usize) -> StreamResult<Bytes> {
        if self.end.is_cancelled() { Err(StreamError::Closed) } else { Ok(Bytes::new()) }
    }
}

#[async_trait::async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        self.awaited.store(true, Relaxed);
        self.end.cancelled().await;
    }
}

struct Reader {
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    awaited: Arc<AtomicBool>,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.awaited.store(true, Relaxed);
        ready!(me.ended.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn open_input_ends_with_the_stop_request_and_tells_that_it_was_awaited() {
        let stop = CancellationToken::new();
        let stdin = Stdin::until(stop.clone());
        assert!(!stdin.awaited());
        let mut stream = Box::into_pin(stdin.async_stream());
        let read = tokio::spawn(async move { stream.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        stop.cancel();
        assert_eq!(read.await.unwrap().unwrap(), 0);
        assert!(stdin.awaited());
    }

    #[tokio::test]
    async fn closed_input_is_at_its_end() {
        assert_eq!(Box::into_pin(Stdin::closed().async_stream()).read(&mut [0; 8]).await.unwrap(), 0);
    }
}
