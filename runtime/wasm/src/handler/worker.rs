//! One instance of a handler: takes requests until it has been idle for a while, has served
//! enough, or failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::time::Instant;
use wasmtime::AsContextMut as _;
use wasmtime::component::{Accessor, Func};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::handler::{ExpirationError, Prepared, Proxy};

use super::queue::Placed;
use super::{Handler, Job};
use crate::guest::Guest;

/// How long after its deadline a request that keeps the instance from noticing it ends it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Leaves the handler's queue whatever happens.
struct Membership {
    handler: Arc<Handler>,
    id: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let placed = self.handler.queue.lock().leave(self.id, self.handler.settings.max_instances);
        act(&self.handler, placed);
    }
}

fn act(handler: &Arc<Handler>, placed: Placed) {
    match placed {
        Placed::Start(job) if handler.gone.is_cancelled() => drop(job),
        Placed::Start(job) => handler.start_worker(job),
        Placed::Woken(waker) => waker.wake(),
        Placed::Waits | Placed::Full(_) => {}
    }
}

/// What the inside of the instance's event loop tells the outside.
struct Watch {
    /// Requests under way: when they should be answered, and whether they are.
    outstanding: Mutex<Vec<(usize, Instant, Arc<AtomicBool>)>>,
    /// Whether all requests under way wait for something, so that another may come in beside.
    overlap: AtomicBool,
}

impl Watch {
    /// The earliest time at which a request that is not answered ends the instance.
    fn next_end(&self) -> Option<Instant> {
        let outstanding = self.outstanding.lock();
        let open = outstanding.iter().filter(|(_, _, answered)| !answered.load(Relaxed));
        open.map(|(_, deadline, _)| *deadline + PATIENCE).min()
    }
}

/// Runs an instance from its first request on.
pub(super) async fn work(handler: Arc<Handler>, id: u64, first: Job) {
    let membership = Membership { handler: handler.clone(), id };
    let (mut store, proxy) = match handler.instantiate(first.deadline).await {
        Ok(instance) => instance,
        Err(error) => {
            if !error.is::<ExpirationError>() {
                handler.failed(&error);
            }
            let _ = first.reply.send(Err(error));
            return;
        }
    };
    let watch = Watch { outstanding: Mutex::default(), overlap: AtomicBool::new(true) };
    let mut alarm = Box::pin(tokio::time::sleep_until(first.deadline + PATIENCE));
    let result = {
        let mut serving = Box::pin(store.run_concurrent(async |accessor| {
            Serving::new(&handler, id, &proxy, &watch).run(accessor, first).await
        }));
        // A guest that computes, or blocks in a call, keeps its event loop from noticing the
        // time: deadlines are enforced here, from outside.
        std::future::poll_fn(|cx| {
            let polled = serving.as_mut().poll(cx);
            if polled.is_ready() {
                return polled;
            }
            while alarm.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                match watch.next_end() {
                    Some(end) if end <= now => return Poll::Ready(Err(ExpirationError.into())),
                    next => alarm.as_mut().reset(next.unwrap_or(now + handler.timeout)),
                }
            }
            // It waits: another request may come in beside.
            if watch.overlap.swap(true, Relaxed) { polled } else { serving.as_mut().poll(cx) }
        })
        .await
    };
    if let Err(error) = result.and_then(|result| result) {
        handler.failed(&error);
    }
    drop(store);
    drop(membership);
}

/// The inside of the event loop.
struct Serving<'a> {
    handler: &'a Arc<Handler>,
    id: u64,
    proxy: &'a Proxy,
    watch: &'a Watch,
    entry: Func,
    concurrent: usize,
    served: usize,
    /// Whether the instance takes further requests at all.
    fresh: bool,
    /// Whether the queue knows it as idle.
    offered: bool,
}

impl<'a> Serving<'a> {
    fn new(handler: &'a Arc<Handler>, id: u64, proxy: &'a Proxy, watch: &'a Watch) -> Self {
        let (entry, concurrent) = match proxy {
            Proxy::P2(proxy) => (*proxy.wasi_http_incoming_handler().func_handle().func(), 1),
            Proxy::P3(proxy) => {
                (*proxy.wasi_http_handler().func_handle().func(), handler.settings.max_concurrent)
            }
        };
        Self { handler, id, proxy, watch, entry, concurrent, served: 0, fresh: true, offered: false }
    }

    async fn run(mut self, accessor: &Accessor<Guest>, first: Job) -> wasmtime::Result<()> {
        let mut next = Some(first);
        let mut running = FuturesUnordered::new();
        let idle = self.handler.settings.idle_timeout;
        let mut idle_since = Instant::now();
        let mut idle_alarm = Box::pin(tokio::time::sleep(idle));
        std::future::poll_fn(move |cx| {
            loop {
                if let Some(job) = next.take() {
                    running.push(self.accept(accessor, job));
                }
                match running.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok((key, sent)))) => self.done(key, sent),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) | Poll::Pending => {}
                }
                if self.takes(accessor, running.len(), cx) {
                    next = self.handler.queue.lock().take(self.id, cx.waker());
                    self.offered = next.is_none();
                    if next.is_some() {
                        idle_since = Instant::now();
                        continue;
                    }
                } else {
                    self.decline();
                }
                // The guest may work on after its answer.
                if !running.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                    return Poll::Pending;
                }
                if !self.offered || self.handler.pressed() {
                    return Poll::Ready(Ok(()));
                }
                if idle_alarm.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if idle_since.elapsed() >= idle {
                    return Poll::Ready(Ok(()));
                }
                idle_alarm.as_mut().reset(idle_since + idle);
            }
        })
        .await
    }

    /// Begins a request.
    fn accept<'b>(
        &mut self,
        accessor: &'b Accessor<Guest>,
        job: Job,
    ) -> impl Future<Output = wasmtime::Result<(usize, bool)>> + use<'a, 'b>
    where
        'a: 'b,
    {
        // It computes, as far as we know; only when the event loop waits may others join.
        self.watch.overlap.store(false, Relaxed);
        self.served += 1;
        let key = self.served;
        let Job { request, reply, deadline, answered } = job;
        self.watch.outstanding.lock().push((key, deadline, answered));
        let proxy = self.proxy;
        let prepared = accessor
            .with(|mut access| Prepared::new(access.as_context_mut(), proxy, request, Guest::http, reply));
        async move {
            let sent = prepared?.run(accessor, tokio::time::sleep_until(deadline)).await?;
            Ok((key, sent))
        }
    }

    fn done(&mut self, key: usize, sent: bool) {
        self.watch.outstanding.lock().retain(|(known, _, _)| *known != key);
        // A request that ran out of time may still be running inside.
        self.fresh &= sent;
    }

    fn takes(&mut self, accessor: &Accessor<Guest>, running: usize, cx: &mut Context<'_>) -> bool {
        let ready = accessor.poll_ready_for_concurrent_call(self.entry, cx).is_ready();
        self.fresh &= self.served < self.handler.settings.max_reuse;
        let room = running == 0 || (running < self.concurrent && self.watch.overlap.load(Relaxed));
        ready && self.fresh && room
    }

    fn decline(&mut self) {
        if std::mem::take(&mut self.offered) {
            let max = self.handler.settings.max_instances;
            let placed = self.handler.queue.lock().decline(self.id, max);
            act(self.handler, placed);
        }
    }
}
