//! The threads that run guests: two tokio runtimes of their own, one for commands and one for
//! HTTP handlers, below the node's own threads in priority. The caller's runtime never runs
//! guest code.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// How much lower than the node's own threads guests run.
const NICE: i32 = 10;
/// Threads for file operations and logs, at most, for each runtime.
const BLOCKING_THREADS: usize = 32;

/// Both runtimes. Dropping it abandons whatever runs.
pub(crate) struct GuestThreads {
    batch: Handle,
    http: Handle,
    runtimes: Vec<Runtime>,
}

impl GuestThreads {
    /// Starts `workers` threads for each runtime.
    ///
    /// # Errors
    /// When threads cannot be made.
    pub(crate) fn start(workers: usize) -> std::io::Result<Self> {
        let (batch, http) = (runtime("sampan-batch", workers)?, runtime("sampan-http", workers)?);
        Ok(Self { batch: batch.handle().clone(), http: http.handle().clone(), runtimes: vec![batch, http] })
    }

    /// Where commands run, and whatever blocks.
    #[must_use]
    pub(crate) fn batch(&self) -> &Handle {
        &self.batch
    }

    /// Where HTTP handlers run.
    #[must_use]
    pub(crate) fn http(&self) -> &Handle {
        &self.http
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        // A plain drop would block, which tokio forbids in asynchronous code.
        for runtime in self.runtimes.drain(..) {
            runtime.shutdown_background();
        }
    }
}

fn runtime(name: &str, workers: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers.max(1))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name(name)
        .on_thread_start(lower_priority)
        .enable_all()
        .build()
}

/// On Linux the call is about the calling thread alone.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "guest threads keep the node's priority");
    }
}
