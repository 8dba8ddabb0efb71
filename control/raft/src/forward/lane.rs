//! One stream to one leader, with any number of requests on it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{Lost, deposed, is_repeatable, overtaken};
use crate::peers::{Link, Outgoing};
use crate::store::Core;
use crate::types::MemberId;
use crate::wire::{Answer, Ask, Message};

/// How many requests may wait to be written.
const ROOM: usize = 256;

/// A stream to one leader.
pub(super) struct Lane {
    pub(super) leader: MemberId,
    next: AtomicU64,
    pending: Arc<Mutex<Pending>>,
    requests: mpsc::Sender<Message>,
    tasks: [JoinHandle<()>; 2],
    /// When it was last asked whether the leader can be reached.
    probed: Mutex<Option<Instant>>,
}

/// Requests that have no answer yet; closed once the stream is over.
#[derive(Default)]
struct Pending {
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
    over: bool,
}

impl Pending {
    fn close(&mut self) {
        self.over = true;
        self.waiting.clear();
    }
}

impl Lane {
    pub(super) fn start(link: Link) -> Self {
        let Link { member, outgoing, mut incoming } = link;
        let pending = Arc::new(Mutex::new(Pending::default()));
        let (requests, queue) = mpsc::channel(ROOM);
        let write = tokio::spawn(write(outgoing, queue, Arc::clone(&pending)));
        let answers = Arc::clone(&pending);
        let read = tokio::spawn(async move {
            while let Ok(Some(Message::Answer { id, answer })) = incoming.next().await {
                if let Some(waiter) = answers.lock().waiting.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = waiter.send(answer);
                }
            }
            answers.lock().close();
        });
        Self {
            leader: member,
            next: AtomicU64::new(0),
            pending,
            requests,
            tasks: [write, read],
            probed: Mutex::default(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.pending.lock().over
    }

    /// Whether nobody asked for so long whether the leader can be reached; whoever hears so is to ask.
    pub(super) fn is_probe_due(&self, every: Duration) -> bool {
        let (mut probed, now) = (self.probed.lock(), Instant::now());
        let due = probed.is_none_or(|probed| now.duration_since(probed) >= every);
        if due {
            *probed = Some(now);
        }
        due
    }

    /// Sends a request and waits for its answer, as long as it makes sense to.
    pub(super) async fn ask(&self, core: &Core, ask: Ask, deadline: Instant) -> Result<Answer, Lost> {
        let repeatable = is_repeatable(&ask);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut pending = self.pending.lock();
            if pending.over {
                return Err(Lost::Unsent("the stream to the leader broke".into()));
            }
            pending.waiting.insert(id, sender);
        }
        let _forget = Forget { lane: self, id };
        match timeout_at(deadline, self.requests.send(Message::Ask { id, ask })).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Lost::Unsent("the stream to the leader broke".into())),
            Err(_) => return Err(Lost::Unsent("the leader takes nothing".into())),
        }
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| Lost::Unknown("the stream to the leader broke".into())),
            () = given_up(core, self.leader, repeatable) => Err(Lost::Unknown("the leader changed".into())),
            () = tokio::time::sleep_until(deadline) => Err(Lost::Unknown("the leader did not answer in time".into())),
        }
    }
}

/// Ends when `leader` is asked no more: what can be asked again is asked elsewhere at once.
async fn given_up(core: &Core, leader: MemberId, repeatable: bool) {
    if repeatable {
        overtaken(core, leader).await;
    } else {
        deposed(core, leader).await;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An asker that goes away is not waited for.
struct Forget<'a> {
    lane: &'a Lane,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.lane.pending.lock().waiting.remove(&self.id);
    }
}

async fn write(
    mut outgoing: Box<dyn Outgoing>,
    mut queue: mpsc::Receiver<Message>,
    pending: Arc<Mutex<Pending>>,
) {
    let mut messages = Vec::new();
    while queue.recv_many(&mut messages, ROOM).await > 0 {
        if outgoing.send_all(std::mem::take(&mut messages)).await.is_err() {
            break;
        }
    }
    pending.lock().close();
}
