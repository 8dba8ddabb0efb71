//! The checkpoint thread: brings generations into the tables, sweeps history, keeps the last
//! good snapshot. While nothing changes it writes nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::shared::Shared;

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// The state has a generation for the tables.
    Checkpoint,
    /// The store closes: the last chance for a snapshot.
    Finish,
    /// End, as a crash would.
    Stop,
}

/// Runs until it is told to stop.
pub(super) fn run(shared: &Arc<Shared>, jobs: &Receiver<Job>) {
    let _ending = Ending(Arc::clone(shared));
    let round = round(shared);
    let mut due = Instant::now() + round;
    loop {
        match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Job::Checkpoint) => shared.checkpoint_frozen(),
            Ok(Job::Finish) => shared.last_good.lock().write_if_due(shared),
            Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                due = Instant::now() + round;
                shared.sweep();
                shared.last_good.lock().write_if_due(shared);
            }
        }
    }
}

/// How often to look after history and snapshot.
fn round(shared: &Shared) -> Duration {
    const LONG: Duration = Duration::from_secs(24 * 3600);
    let wanted = [shared.config.compaction.interval, shared.config.last_good_interval];
    wanted.into_iter().filter(|interval| !interval.is_zero()).min().unwrap_or(LONG).min(LONG)
}

/// Others wait for this thread: they must learn of a panic.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("the checkpoint thread panicked");
        }
    }
}
