//! Which request goes to which instance: decisions only, under the handler's lock.

use std::collections::VecDeque;
use std::task::Waker;

use super::Job;

/// The requests that wait, and the instances that could take one.
pub(super) struct Queue<J = Job> {
    waiting: VecDeque<J>,
    /// Instances that wait for a request; the one that waited least is woken first, so that
    /// surplus ones go idle for good.
    idle: Vec<(u64, Waker)>,
    workers: usize,
}

impl<J> Default for Queue<J> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), idle: Vec::new(), workers: 0 }
    }
}

/// What becomes of a request.
pub(super) enum Placed<J = Job> {
    /// A new instance is to be started with it.
    Start(J),
    /// It waits, and this instance is to be woken for it.
    Woken(Waker),
    /// It waits for an instance that is busy now.
    Waits,
    /// There is no room.
    Full(J),
}

impl<J> Queue<J> {
    /// Places a request.
    pub(super) fn place(&mut self, job: J, max_workers: usize, max_waiting: usize) -> Placed<J> {
        if let Some((_, waker)) = self.idle.pop() {
            self.waiting.push_back(job);
            return Placed::Woken(waker);
        }
        if self.workers < max_workers {
            self.workers += 1;
            return Placed::Start(job);
        }
        if self.waiting.len() >= max_waiting {
            return Placed::Full(job);
        }
        self.waiting.push_back(job);
        Placed::Waits
    }

    /// Instance `id` can take a request: the next one, or it is noted as idle.
    pub(super) fn take(&mut self, id: u64, waker: &Waker) -> Option<J> {
        let known = self.idle.iter().position(|(idle, _)| *idle == id);
        if let Some(job) = self.waiting.pop_front() {
            if let Some(at) = known {
                self.idle.remove(at);
            }
            return Some(job);
        }
        match known.and_then(|at| self.idle.get_mut(at)) {
            Some((_, known)) => known.clone_from(waker),
            None => self.idle.push((id, waker.clone())),
        }
        None
    }

    /// Instance `id` takes no more for now. A request that it was woken for goes to another:
    /// the answer says what is to be done.
    pub(super) fn decline(&mut self, id: u64, max_workers: usize) -> Placed<J> {
        self.idle.retain(|(idle, _)| *idle != id);
        if self.waiting.is_empty() {
            return Placed::Waits;
        }
        if let Some((_, waker)) = self.idle.pop() {
            return Placed::Woken(waker);
        }
        if self.workers < max_workers
            && let Some(job) = self.waiting.pop_front()
        {
            self.workers += 1;
            return Placed::Start(job);
        }
        Placed::Waits
    }

    /// Instance `id` is gone.
    pub(super) fn leave(&mut self, id: u64, max_workers: usize) -> Placed<J> {
        self.workers -= 1;
        self.decline(id, max_workers)
    }

    /// All idle instances, to be woken because the container ends.
    pub(super) fn dismiss(&mut self) -> Vec<Waker> {
        self.idle.drain(..).map(|(_, waker)| waker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(queue: &mut Queue<u32>, job: u32) -> String {
        name(&queue.place(job, 2, 2))
    }

    fn name(placed: &Placed<u32>) -> String {
        match placed {
            Placed::Start(job) => format!("start {job}"),
            Placed::Woken(_) => "woken".to_owned(),
            Placed::Waits => "waits".to_owned(),
            Placed::Full(job) => format!("full {job}"),
        }
    }

    #[test]
    fn requests_start_instances_then_wait_then_are_refused() {
        let mut queue = Queue::default();
        let placed: Vec<_> = (1..=5).map(|job| place(&mut queue, job)).collect();
        assert_eq!(placed, ["start 1", "start 2", "waits", "waits", "full 5"]);
    }

    #[test]
    fn an_idle_instance_is_woken_rather_than_another_started() {
        let mut queue = Queue::default();
        place(&mut queue, 1);
        assert_eq!(queue.take(7, Waker::noop()), None);
        assert_eq!(place(&mut queue, 2), "woken");
        assert_eq!(queue.take(7, Waker::noop()), Some(2));
    }

    #[test]
    fn a_request_whose_instance_declines_goes_to_another() {
        let mut queue = Queue::default();
        place(&mut queue, 1);
        queue.take(7, Waker::noop());
        place(&mut queue, 2);
        assert_eq!(name(&queue.decline(7, 2)), "start 2");
    }

    #[test]
    fn a_request_waits_for_nobody_when_the_last_instance_leaves() {
        let mut queue = Queue::default();
        place(&mut queue, 1);
        place(&mut queue, 2);
        place(&mut queue, 3);
        assert_eq!(name(&queue.leave(0, 2)), "start 3");
        assert_eq!(name(&queue.leave(1, 2)), "waits");
        assert_eq!(queue.workers, 1);
    }
}
