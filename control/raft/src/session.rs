//! One of openraft's sessions on an append stream: appends go out as they come, without waiting
//! for answers, which come back in order.
//!
//! openraft takes the answer to an append for one to everything it has sent up to the same entry,
//! and believes that the follower was there when the last of that was sent. Two appends that end
//! with the same entry (the second only tells what is committed) would so let an old answer, one
//! that a cut held up, prove that the follower is there now: the leader would read under a lease
//! that it has not got. So an answer is held back while another append is out that ends no later;
//! and appends are taken from openraft only while it waits for an answer, so that none is counted
//! as sent between an answer and what openraft makes of it.

use std::collections::VecDeque;

use futures::{Stream, StreamExt};
use openraft::alias::LogIdOf;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::network::{APPEND_WITHIN, Ends, Rpc, failed, out_of_place, rpc_error};
use crate::peers::{Incoming, Link, Outgoing, PeerError};
use crate::types::TypeConfig;
use crate::wire::{Append, Message, convert};

/// How many appends may be on their way to one follower.
const IN_FLIGHT: usize = 64;

type LogId = LogIdOf<TypeConfig>;

/// A session; `S` is what openraft wants to have sent.
pub(crate) struct Session<'a, S> {
    ends: Ends,
    /// Where the stream is left for the next session.
    idle: &'a mut Option<Link>,
    /// `None` once no more come.
    input: Option<S>,
    /// The last entry that each unanswered append ends with, in order.
    awaited: VecDeque<Option<LogId>>,
    /// Since when the oldest of them is waited for.
    since: Instant,
    incoming: Box<dyn Incoming>,
    writer: Writer,
}

/// What happens next in a session.
enum Next {
    Append(Option<AppendEntriesRequest<TypeConfig>>),
    Answer(Result<Option<Message>, PeerError>),
    Broken(PeerError),
    Late,
}

impl<'a, S> Session<'a, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// A session over `link`, which is put into `idle` where it comes to a good end.
    pub(crate) fn new(ends: Ends, idle: &'a mut Option<Link>, link: Link, input: S) -> Self {
        let Link { outgoing, incoming, .. } = link;
        let (awaited, since) = (VecDeque::with_capacity(IN_FLIGHT), Instant::now());
        Self { ends, idle, input: Some(input), awaited, since, incoming, writer: Writer::start(outgoing) }
    }

    /// The next append's result; `None` where all are answered and no more come.
    pub(crate) async fn result(&mut self) -> Result<Option<StreamAppendResult<TypeConfig>>, Rpc> {
        while self.input.is_some() || !self.awaited.is_empty() {
            match self.next().await {
                Next::Append(Some(request)) => self.send(&request).map_err(|error| self.failed(error))?,
                Next::Append(None) => self.input = None,
                Next::Answer(answer) => {
                    let result = self.answered(answer)?;
                    if !is_held_back(&result, &self.awaited) {
                        return Ok(Some(result));
                    }
                }
                Next::Broken(error) => return Err(self.failed(error)),
                Next::Late => {
                    let member = self.ends.target;
                    return Err(self.failed(PeerError::Timeout { member, within: APPEND_WITHIN }));
                }
            }
        }
        Ok(None)
    }

    async fn next(&mut self) -> Next {
        let is_awaited = !self.awaited.is_empty();
        let input = async {
            match self.input.as_mut() {
                Some(input) if self.awaited.len() < IN_FLIGHT => input.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = self.incoming.next(), if is_awaited => Next::Answer(answer),
            error = self.writer.broken(self.ends.target) => Next::Broken(error),
            request = input => Next::Append(request),
            () = sleep_until(self.since + APPEND_WITHIN), if is_awaited => Next::Late,
        }
    }

    fn send(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> Result<(), PeerError> {
        let member = self.ends.target;
        let append = convert::append(request);
        let append = append.map_err(|error| PeerError::nonsense(member, error.to_string()))?;
        self.writer.put(append).ok_or_else(|| PeerError::broken(member, "its writer ended"))?;
        if self.awaited.is_empty() {
            self.since = Instant::now();
        }
        self.awaited.push_back(request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id));
        Ok(())
    }

    fn answered(
        &mut self,
        answer: Result<Option<Message>, PeerError>,
    ) -> Result<StreamAppendResult<TypeConfig>, Rpc> {
        let member = self.ends.target;
        self.awaited.pop_front();
        self.since = Instant::now();
        match answer.map_err(|error| self.failed(error))? {
            Some(Message::Appended(appended)) => {
                convert::raft_appended(appended).map_err(|why| failed(member, &why))
            }
            Some(other) => Err(out_of_place(member, &other)),
            None => Err(rpc_error(PeerError::broken(member, "it ended early"))),
        }
    }

    fn failed(&self, error: PeerError) -> Rpc {
        self.ends.note(&error);
        rpc_error(error)
    }

    /// Everything was answered: the stream is as good as new.
    pub(crate) async fn keep(mut self) {
        if let Some(outgoing) = self.writer.finish().await {
            *self.idle = Some(Link { member: self.ends.target, outgoing, incoming: self.incoming });
        }
    }
}

/// Whether an answer says nothing that the answer to a later append will not say as well, and must
/// not be taken for that one.
fn is_held_back(result: &StreamAppendResult<TypeConfig>, awaited: &VecDeque<Option<LogId>>) -> bool {
    matches!(result, Ok(matching) if awaited.iter().any(|last| last <= matching))
}

/// The task that writes a session's appends; it ends with the session.
struct Writer {
    appends: Option<mpsc::Sender<Append>>,
    task: JoinHandle<Result<Box<dyn Outgoing>, PeerError>>,
}

impl Writer {
    fn start(outgoing: Box<dyn Outgoing>) -> Self {
        let (appends, queue) = mpsc::channel(IN_FLIGHT);
        Self { appends: Some(appends), task: tokio::spawn(write(outgoing, queue)) }
    }

    /// Writes an append; `None` where the task has ended. There is room for all that may be out.
    fn put(&self, append: Append) -> Option<()> {
        self.appends.as_ref()?.try_send(append).ok()
    }

    /// Waits until the stream breaks.
    async fn broken(&mut self, member: crate::types::MemberId) -> PeerError {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            // It goes on for as long as appends may come.
            Ok(Ok(_)) | Err(_) => PeerError::broken(member, "its writer ended"),
        }
    }

    /// The sending half, once everything is written.
    async fn finish(&mut self) -> Option<Box<dyn Outgoing>> {
        self.appends = None;
        (&mut self.task).await.ok()?.ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Writes appends until no more come; gives the sending half back where all were sent.
async fn write(
    mut outgoing: Box<dyn Outgoing>,
    mut queue: mpsc::Receiver<Append>,
) -> Result<Box<dyn Outgoing>, PeerError> {
    while let Some(append) = queue.recv().await {
        outgoing.send(Message::Append(append)).await?;
    }
    Ok(outgoing)
}

#[cfg(test)]
mod tests {
    use openraft::raft::StreamAppendError;
    use openraft::vote::RaftLeaderId;
    use openraft::vote::leader_id_std::LeaderId;

    use super::*;

    fn log_id(index: u64) -> Option<LogId> {
        Some(LogId { leader_id: LeaderId::new(1, 1).to_committed(), index })
    }

    #[test]
    fn an_answer_waits_for_that_of_an_append_that_ends_no_later() {
        let table: [(&[Option<LogId>], bool); 5] = [
            (&[], false),
            (&[log_id(6)], false),
            (&[log_id(5)], true),
            (&[log_id(6), log_id(5)], true),
            (&[None], true),
        ];
        for (awaited, held) in table {
            let awaited: VecDeque<_> = awaited.iter().copied().collect();
            assert_eq!(is_held_back(&Ok(log_id(5)), &awaited), held, "{awaited:?}");
        }
        let conflict = Err(StreamAppendError::Conflict(log_id(5).unwrap()));
        assert!(!is_held_back(&conflict, &VecDeque::from([log_id(5)])), "it ends the session");
    }
}
