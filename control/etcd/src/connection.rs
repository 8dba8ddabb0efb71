//! One connection of a client: its frames and its calls are one task.
//!
//! The calls go on as far as they can, and then all that they answered goes out with one write. With
//! many calls at once, a task and a write for each would cost more than what they do.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::{BoxFuture, poll_fn};
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{FutureExt, StreamExt};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::dispatch::Dispatch;
use crate::opening::Opening;

/// How often a quiet connection is asked whether its client is still there, and how long it may
/// take to say so.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// So many calls begin before others get their turn: what they propose is on its way by then.
const AT_ONCE: usize = 16;
/// How often the connection is looked at again before others get their turn.
const ROUNDS: usize = 4;

/// Serves a connection until it ends. From `stop` on, no calls are taken; those under way end.
pub(crate) async fn serve(stream: Stream, dispatch: Dispatch, stop: CancellationToken) {
    let calls = Calls::default();
    let connection = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(Opening::new(stream)), dispatch);
    let (mut connection, mut stopped) = (pin!(connection), pin!(stop.cancelled().fuse()));
    let mut running = FuturesUnordered::new();
    let ended = rounds(|cx| {
        if stopped.poll_unpin(cx).is_ready() {
            connection.as_mut().graceful_shutdown();
        }
        while let Poll::Ready(Some(())) = running.poll_next_unpin(cx) {}
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if calls.begin(&mut running) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection of the etcd API broke");
    }
}

type Call = BoxFuture<'static, ()>;

/// Calls that have come in and not begun.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<VecDeque<Call>>>);

impl Calls {
    /// Adds some of them to those that run; tells whether there were any.
    fn begin(&self, running: &mut FuturesUnordered<Call>) -> bool {
        let mut waiting = self.0.lock();
        let count = waiting.len().min(AT_ONCE);
        running.extend(waiting.drain(..count));
        count > 0
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.0.lock().push_back(Box::pin(call));
    }
}

/// Polls again, a few times, what wakes itself: the parts of a connection wake each other all the
/// time, and a task that is woken while it runs disturbs the other threads.
async fn rounds<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let again = Arc::new(Again::default());
    let waker = Waker::from(Arc::clone(&again));
    poll_fn(|cx| {
        again.task.take();
        for _ in 0..ROUNDS {
            again.again.store(false, Ordering::SeqCst);
            if let Poll::Ready(done) = poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(done);
            }
            if !again.again.load(Ordering::SeqCst) {
                break;
            }
        }
        again.task.register(cx.waker());
        if again.again.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Who was woken, and the task that this is to wake unless it runs.
#[derive(Default)]
struct Again {
    again: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.again.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// The bytes of a connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
