//! Many streams over one TLS connection on TCP, for machines that UDP does not reach.
//!
//! A driver task owns the multiplexer (yamux). The first stream, opened by the dialler, is kept for the
//! two ends themselves: signs of life, and a last word when one closes. Memory is bounded by the
//! number of streams: each may hold one window (256 KiB) unread, and one that is read fast more.

mod streams;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frame;
use streams::{Lease, Raw};
pub(crate) use streams::{MuxRead, MuxWrite};

/// Streams that one side may have open at once, at most.
const MAX_STREAMS: u32 = 64;
/// What the multiplexer lets every stream hold.
const WINDOW: usize = yamux::DEFAULT_CREDIT as usize;
/// Longest message of the two ends.
const LIMIT: usize = 16 * 1024;
/// The number of the first stream that a dialler opens.
const FIRST: u32 = 1;
const CLOSED_HERE: &str = "closed on this side";
const NO_ANSWER: &str = "the peer does not answer";
const PEER_CLOSED: &str = "the peer closed it";
/// How long a last word may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Acceptor,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    keep_alive: Duration,
    idle_timeout: Duration,
    streams: usize,
}

impl Settings {
    pub(crate) fn new(keep_alive: Duration, idle_timeout: Duration, max_streams: u32) -> Self {
        let streams = usize::try_from(max_streams.clamp(1, MAX_STREAMS)).unwrap_or(1);
        Self { keep_alive, idle_timeout, streams }
    }

    fn yamux(&self) -> yamux::Config {
        // Each side's open streams, those not accepted yet, and some that one side has dropped and the
        // other has not.
        let all = self.streams * 4;
        let mut config = yamux::Config::default();
        config.set_max_num_streams(all).set_max_connection_receive_window(Some(all * WINDOW));
        config
    }
}

/// What the two ends say to each other.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Alive,
    Bye(String),
}

/// What the tasks of a connection and its handles share.
struct State {
    /// Why it ended.
    ended: watch::Sender<Option<String>>,
    /// Cancelled once there is such a reason: streams break then.
    over: CancellationToken,
    /// What the other side is still to be told.
    farewell: Mutex<Option<String>>,
    /// The last word has been said, or cannot be.
    done: CancellationToken,
    /// The other side is to close after our last word: to write to a socket that we have closed would
    /// cost it what it has not read yet.
    linger: AtomicBool,
    begun: Instant,
    /// When bytes last came in, in milliseconds since `begun`.
    heard: AtomicU64,
}

impl State {
    fn end(&self, why: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(why.to_owned());
            }
            first
        });
        self.over.cancel();
    }

    /// Waits for the end, and says why.
    async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }
}

/// What all handles and streams of a connection share; the connection ends with it.
pub(crate) struct Shared {
    state: Arc<State>,
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    inbound: tokio::sync::Mutex<mpsc::Receiver<yamux::Stream>>,
    may_open: Arc<Semaphore>,
    may_accept: Arc<Semaphore>,
    remote: SocketAddr,
}

impl Shared {
    pub(crate) fn close(&self, reason: &str) {
        if self.state.ended.borrow().is_none() {
            *self.state.farewell.lock() = Some(reason.chars().take(LIMIT / 8).collect());
        }
        self.state.end(CLOSED_HERE);
    }
}

/// A connection's handle.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Shared>);

/// Starts to multiplex, in two tasks of `tasks`; `io` has been authenticated.
pub(crate) fn start<S>(
    io: S,
    side: Side,
    remote: SocketAddr,
    settings: Settings,
    tasks: &TaskTracker,
) -> Handle
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let state = Arc::new(State {
        ended: watch::Sender::new(None),
        over: CancellationToken::new(),
        farewell: Mutex::default(),
        done: CancellationToken::new(),
        linger: AtomicBool::new(false),
        begun: Instant::now(),
        heard: AtomicU64::new(0),
    });
    let (opens, to_open) = mpsc::channel(settings.streams);
    let (arrivals, inbound) = mpsc::channel(settings.streams);
    let (first, control) = oneshot::channel();
    let mode = match side {
        Side::Dialler => yamux::Mode::Client,
        Side::Acceptor => yamux::Mode::Server,
    };
    let io = Listening { io, state: Arc::clone(&state) };
    let driver = Driver {
        connection: yamux::Connection::new(io.compat(), settings.yamux(), mode),
        to_open,
        opening: VecDeque::new(),
        arrivals,
        first: Some(first),
        side,
        state: Arc::clone(&state),
    };
    tasks.spawn(drive(driver));
    tasks.spawn(converse(control, settings, Arc::clone(&state)));
    Handle(Arc::new(Shared {
        state,
        opens,
        inbound: tokio::sync::Mutex::new(inbound),
        may_open: Arc::new(Semaphore::new(settings.streams)),
        may_accept: Arc::new(Semaphore::new(settings.streams)),
        remote,
    }))
}

impl Handle {
    /// Opens a stream; waits while there are as many as allowed.
    pub(crate) async fn open(&self) -> Result<(MuxRead, MuxWrite), String> {
        let opened = async {
            let permit = Arc::clone(&self.0.may_open).acquire_owned().await.ok()?;
            let (reply, stream) = oneshot::channel();
            self.0.opens.send(reply).await.ok()?;
            Some(self.lease(stream.await.ok()?, permit))
        };
        self.unless_ended(opened).await
    }

    /// The next stream that the other side opened. Cancellation-safe.
    pub(crate) async fn accept(&self) -> Result<(MuxRead, MuxWrite), String> {
        let accepted = async {
            let permit = Arc::clone(&self.0.may_accept).acquire_owned().await.ok()?;
            let stream = self.0.inbound.lock().await.recv().await?;
            Some(self.lease(stream, permit))
        };
        self.unless_ended(accepted).await
    }

    async fn unless_ended<T>(&self, attempt: impl Future<Output = Option<T>>) -> Result<T, String> {
        tokio::select! {
            biased;
            why = self.closed() => Err(why),
            got = attempt => match got {
                Some(got) => Ok(got),
                None => Err(self.closed().await),
            },
        }
    }

    fn lease(&self, stream: yamux::Stream, permit: tokio::sync::OwnedSemaphorePermit) -> (MuxRead, MuxWrite) {
        streams::halves(stream, self.0.state.over.clone(), Lease::new(Arc::clone(&self.0), permit))
    }

    pub(crate) fn close(&self, reason: &str) {
        self.0.close(reason);
    }

    pub(crate) async fn closed(&self) -> String {
        self.0.state.ended().await
    }

    pub(crate) fn close_reason(&self) -> Option<String> {
        self.0.state.ended.borrow().clone()
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.0.remote
    }

    pub(crate) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }
}

struct Driver<S> {
    connection: yamux::Connection<Compat<Listening<S>>>,
    to_open: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    opening: VecDeque<oneshot::Sender<yamux::Stream>>,
    arrivals: mpsc::Sender<yamux::Stream>,
    /// Gets the two ends' own stream.
    first: Option<oneshot::Sender<yamux::Stream>>,
    side: Side,
    state: Arc<State>,
}

/// Runs a connection to its end.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut driver: Driver<S>) {
    let state = Arc::clone(&driver.state);
    tokio::select! {
        why = std::future::poll_fn(|cx| driver.poll(cx)) => state.end(&why),
        () = state.done.cancelled() => {
            if state.linger.load(Ordering::Relaxed) {
                let _ = timeout(FAREWELL, std::future::poll_fn(|cx| driver.poll(cx))).await;
            }
        }
    }
    state.done.cancel();
    // What streams have written goes out first.
    let _ = timeout(FAREWELL, std::future::poll_fn(|cx| driver.connection.poll_close(cx))).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Ready with the reason when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if self.side == Side::Dialler
            && let Some(first) = self.first.take()
        {
            self.opening.push_back(first);
        }
        loop {
            match self.to_open.poll_recv(cx) {
                Poll::Ready(Some(reply)) => self.opening.push_back(reply),
                Poll::Ready(None) => {
                    self.state.end(CLOSED_HERE);
                    break;
                }
                Poll::Pending => break,
            }
        }
        while !self.opening.is_empty() {
            match self.connection.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    if let Some(reply) = self.opening.pop_front() {
                        // Given up meanwhile: the stream is dropped, and the other side never hears of it.
                        let _ = reply.send(stream);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(describe(&error)),
                Poll::Pending => break,
            }
        }
        loop {
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => self.arrived(stream),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(describe(&error)),
                Poll::Ready(None) => return Poll::Ready(PEER_CLOSED.to_owned()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn arrived(&mut self, stream: yamux::Stream) {
        // Other streams may show before it.
        if self.first.is_some() && stream.id().val() == FIRST {
            if let Some(first) = self.first.take() {
                let _ = first.send(stream);
            }
        } else if self.arrivals.try_send(stream).is_err() {
            // It is dropped, which resets it.
            tracing::debug!("a stream beyond those allowed was refused");
        }
    }
}

fn describe(error: &yamux::ConnectionError) -> String {
    match error {
        yamux::ConnectionError::Closed => PEER_CLOSED.to_owned(),
        yamux::ConnectionError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Signs of life and the last word.
async fn converse(mut control: oneshot::Receiver<yamux::Stream>, settings: Settings, state: Arc<State>) {
    let stream = tokio::select! {
        stream = timeout(settings.idle_timeout, &mut control) => Some(stream),
        _ = state.ended() => None,
    };
    // Where it ends at once, the last word still waits for the stream to say it on.
    let stream = match stream {
        Some(stream) => stream,
        None => timeout(FAREWELL, control).await,
    };
    let Ok(Ok(stream)) = stream else {
        state.end(NO_ANSWER);
        state.done.cancel();
        return;
    };
    let (read, mut write) = tokio::io::split(stream.compat());
    let why = tokio::select! {
        why = hear(read) => Some(why),
        why = show_life(&mut write, settings, &state) => Some(why),
        _ = state.ended() => None,
    };
    match why {
        Some(why) => state.end(&why),
        None => {
            let reason = state.farewell.lock().take().unwrap_or_default();
            let said = timeout(FAREWELL, frame::write(&mut write, &Word::Bye(reason), LIMIT)).await;
            state.linger.store(matches!(said, Ok(Ok(()))), Ordering::Relaxed);
        }
    }
    state.done.cancel();
}

/// Until the other side's last word.
async fn hear(read: tokio::io::ReadHalf<Raw>) -> String {
    let mut reader = frame::Reader::new(read, LIMIT);
    loop {
        match reader.read::<Word>().await {
            Ok(Some(Word::Alive)) => {}
            Ok(Some(Word::Bye(reason))) if !reason.is_empty() => return reason,
            Ok(_) => return PEER_CLOSED.to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

/// Until the other side has been silent for too long.
async fn show_life(write: &mut tokio::io::WriteHalf<Raw>, settings: Settings, state: &State) -> String {
    let mut tick = interval(settings.keep_alive);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if state.silence() >= settings.idle_timeout {
            return NO_ANSWER.to_owned();
        }
        match timeout(settings.idle_timeout, frame::write(write, &Word::Alive, LIMIT)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return NO_ANSWER.to_owned(),
        }
    }
}

/// Notes when something came in.
struct Listening<S> {
    io: S,
    state: Arc<State>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            let now = u64::try_from(this.state.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            this.state.heard.store(now, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
