//! The writer of a log that has no thread: for simulations, which must do everything in one order.
//!
//! What is asked of it is done in place. On a disk that is slow it waits, and is done together with
//! what came meanwhile, as by the thread.

use std::sync::Arc;
use std::time::Duration;

use sampan_store::DiskFaults;

use super::writer::{Done, Job, Writer};

/// See the module's description.
#[derive(Default)]
pub(super) struct Inline {
    writer: Option<Box<Writer>>,
    disk: Option<Arc<dyn DiskFaults>>,
    waiting: Vec<Job>,
}

impl Inline {
    pub(super) fn set(&mut self, writer: Writer, disk: Option<Arc<dyn DiskFaults>>) {
        self.writer = Some(Box::new(writer));
        self.disk = disk;
    }

    /// Takes a job. Where it must wait, tells for how long; then [`Inline::write_waiting`] is due.
    pub(super) fn take(&mut self, job: Job) -> Option<Duration> {
        match &job {
            // Whoever waits for this lets nobody else run.
            Job::Flush { done: Done::Thread(_) } | Job::Stop { flush: true } => {
                self.waiting.push(job);
                self.write_waiting();
                None
            }
            // The process ends here and now.
            Job::Stop { flush: false } => {
                self.refuse_waiting();
                self.waiting.push(job);
                self.write_waiting();
                None
            }
            _ if !self.waiting.is_empty() => {
                self.waiting.push(job);
                None
            }
            _ => {
                let delay = self.disk.as_ref().map_or(Duration::ZERO, |disk| disk.delay());
                self.waiting.push(job);
                if delay.is_zero() {
                    self.write_waiting();
                    return None;
                }
                Some(delay)
            }
        }
    }

    pub(super) fn write_waiting(&mut self) {
        let jobs = std::mem::take(&mut self.waiting);
        match &mut self.writer {
            Some(_) if jobs.is_empty() => {}
            Some(writer) => {
                writer.process(jobs);
            }
            None => jobs.into_iter().for_each(Job::refuse),
        }
    }

    /// Nothing is written any more.
    pub(super) fn end(&mut self) {
        self.refuse_waiting();
        self.writer = None;
    }

    fn refuse_waiting(&mut self) {
        self.waiting.drain(..).for_each(Job::refuse);
    }
}
