//! HTTP handlers: containers without a process. The node owns the listening sockets and lends
//! an instance to each request; an idle container has none.
//!
//! - [`serve`] accepts connections and speaks HTTP;
//! - [`queue`] hands requests to idle instances, makes new ones up to a limit, and holds back
//!   the rest;
//! - [`worker`] is one instance: it takes requests, again and again, until it has been idle for
//!   a while.

mod queue;
mod serve;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::channel::oneshot;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime::Store;
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{ExpirationError, Proxy, ProxyPre};

use self::queue::Queue;
pub(crate) use self::serve::listen;
use crate::command::fuel;
use crate::container::Container;
use crate::cpu::Metered;
use crate::guest::Guest;
use crate::memory::StoreMemory;
use crate::program::{Program, Run};
use crate::record::Records;
use crate::stdin::Stdin;

/// How handlers are run.
#[derive(Clone, Debug)]
pub struct HandlerSettings {
    /// How long a guest may take to its response head; the annotation
    /// `sampan.dev/request-timeout` (seconds) overrides it.
    pub request_timeout: Duration,
    /// How long an idle instance is kept warm.
    pub idle_timeout: Duration,
    /// Instances of one container at one time.
    pub max_instances: usize,
    /// Requests that an instance serves before a fresh one takes its place.
    pub max_reuse: usize,
    /// Requests at one time in an instance of WASI 0.3 (0.2 cannot overlap them).
    pub max_concurrent: usize,
    /// Requests of one container that may wait for an instance.
    pub max_waiting: usize,
}

impl Default for HandlerSettings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(10),
            max_instances: 128,
            max_reuse: 1_000,
            max_concurrent: 16,
            max_waiting: 1_024,
        }
    }
}

/// The name of the annotation for a handler's own timeout.
const TIMEOUT_ANNOTATION: &str = "sampan.dev/request-timeout";

/// A request on its way to an instance.
struct Job {
    request: Request<WasiBody>,
    reply: oneshot::Sender<wasmtime::Result<Response<WasiBody>>>,
    deadline: Instant,
    answered: Arc<AtomicBool>,
}

/// Why a request got no answer of the guest's.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Too many requests wait already.
    Busy,
    /// The guest took too long.
    TimedOut,
    /// The guest failed; its log says how.
    Failed,
}

/// A running handler container.
pub(crate) struct Handler {
    container: Arc<Container>,
    program: Arc<Program>,
    records: Records,
    settings: Arc<HandlerSettings>,
    timeout: Duration,
    slots: Arc<Semaphore>,
    queue: Mutex<Queue>,
    next_worker: AtomicU64,
    /// Connections.
    connections: TaskTracker,
    /// Fires when connections and instances are dropped at once.
    gone: CancellationToken,
    /// Fires when the container has crossed its memory limit.
    out_of_memory: CancellationToken,
}

impl Handler {
    /// The handler of a container; `slots` is the node's pool of instances.
    ///
    /// # Errors
    /// When the container's timeout annotation is no number of seconds.
    pub(crate) fn new(
        container: Arc<Container>,
        program: Arc<Program>,
        records: Records,
        settings: Arc<HandlerSettings>,
        slots: Arc<Semaphore>,
    ) -> Result<Self, String> {
        let timeout = match container.config.annotations.get(TIMEOUT_ANNOTATION) {
            None => settings.request_timeout,
            Some(text) => match text.parse::<u32>() {
                Ok(seconds) if seconds > 0 => Duration::from_secs(seconds.into()),
                _ => {
                    return Err(format!("annotation {TIMEOUT_ANNOTATION}: {text:?} is no number of seconds"));
                }
            },
        };
        Ok(Self {
            container,
            program,
            records,
            settings,
            timeout,
            slots,
            queue: Mutex::default(),
            next_worker: AtomicU64::new(0),
            connections: TaskTracker::new(),
            gone: CancellationToken::new(),
            out_of_memory: CancellationToken::new(),
        })
    }

    /// Has the guest answer a request. Called on the handlers' threads.
    ///
    /// # Errors
    /// When there is no answer of the guest's.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: Request<WasiBody>,
    ) -> Result<Response<WasiBody>, Failure> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + self.timeout;
        let answered = Arc::new(AtomicBool::new(false));
        let job = Job { request, reply, deadline, answered: answered.clone() };
        self.submit(job)?;
        let answer = answer.await;
        answered.store(true, Relaxed);
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is::<ExpirationError>() => Err(Failure::TimedOut),
            _ if Instant::now() >= deadline => Err(Failure::TimedOut),
            Ok(Err(error)) => {
                self.container.log.line(&format!("error: request failed: {error:#}"));
                Err(Failure::Failed)
            }
            Err(_) => Err(Failure::Failed),
        }
    }

    /// Hands a request to an idle instance, a new one, or the waiting line, if that has room.
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), Failure> {
        let placed = self.queue.lock().place(job, self.settings.max_instances, self.settings.max_waiting);
        match placed {
            queue::Placed::Start(job) => self.start_worker(job),
            queue::Placed::Woken(waker) => waker.wake(),
            queue::Placed::Waits => {}
            queue::Placed::Full(_) => return Err(Failure::Busy),
        }
        Ok(())
    }

    fn start_worker(self: &Arc<Self>, job: Job) {
        let id = self.next_worker.fetch_add(1, Relaxed);
        let work = worker::work(self.clone(), id, job);
        let work = Metered::new(work, self.container.cpu.clone());
        let gone = self.gone.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// An instance with its store.
    async fn instantiate(&self, deadline: Instant) -> wasmtime::Result<(Store<Guest>, Proxy)> {
        let Run::Handler(pre) = &self.program.run else {
            return Err(wasmtime::Error::msg("the image is no HTTP handler"));
        };
        let slot = tokio::time::timeout_at(deadline, self.slots.clone().acquire_owned()).await;
        let Ok(Ok(slot)) = slot else { return Err(ExpirationError.into()) };
        let launch = self.container.launch(&self.records, &self.program).await?;
        let wasi = launch.wasi(&self.container.net, &self.container.log, Stdin::closed())?.build();
        let memory = StoreMemory::new(self.container.memory.clone());
        let (net, stop) = (self.container.net.clone(), self.container.stop.clone());
        let engine = match pre {
            ProxyPre::P2(pre) => pre.engine(),
            ProxyPre::P3(pre) => pre.engine(),
        };
        let mut store = Store::new(engine, Guest::new(wasi, memory, net, stop, Some(slot)));
        store.limiter(Guest::memory_limiter);
        fuel(&mut store)?;
        let proxy = pre.instantiate_async(&mut store).await?;
        Ok((store, proxy))
    }

    /// An instance has failed: said in the log, and the container's end if it was its memory.
    fn failed(&self, error: &wasmtime::Error) {
        self.container.log.line(&format!("error: {error:?}"));
        if self.container.memory.exceeded() {
            self.out_of_memory.cancel();
        }
    }

    /// Whether idle instances should give their place to others.
    fn pressed(&self) -> bool {
        self.container.stop.is_cancelled() || self.slots.available_permits() < 100
    }
}
