//! Requests that only the leader can answer, from members that do not lead.
//!
//! One stream to the leader carries any number of requests at once. A request that the leader
//! certainly did not accept is sent again, to the next leader; a write whose answer was lost is
//! not: the caller learns that its outcome is unknown. So a write is not sent to a leader that has
//! fallen silent: it waits for the next one, as long as an election may take. After a write, the
//! member answers once it has applied that revision itself, so that its client reads what it wrote.

mod heard;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use sampan_store::{Revision, StorageError, Txn, TxnResponse};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::Timing;
use crate::directory::Directory;
use crate::peers::{Link, PeerError, Peers, Unanswered};
use crate::reads;
use crate::store::{Core, LocalError};
use crate::types::{Member, MemberId};
use crate::wire::{Admin, Answer, Ask, Kind, MembershipError, Refusal, Standing, WireError};
use heard::Heard;
use lane::Lane;

/// How long a request may take in all, a change of the leader included.
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(7);
/// How long a change of the group may take: a new member has to catch up.
pub(crate) const ADMIN_WITHIN: Duration = Duration::from_secs(120);
/// How long a leader that leads no more, but is there, has to answer what it had got before.
const FORMER_LEADER_WITHIN: Duration = Duration::from_millis(500);
/// How long to wait before the leader is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a stream to the leader may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// How long a request waits for its answer before it is asked whether the leader can be reached, and how
/// long that may take. Leaders that write slowly answer late; that they are there they say at once.
const PROBE: Duration = Duration::from_millis(500);
/// That a member was not heard for less than this means nothing.
const MEANINGFUL: Duration = Duration::from_millis(250);

/// The way to whoever leads.
pub(crate) struct Forwarder {
    directory: Arc<Directory>,
    peers: Arc<dyn Peers>,
    lane: AsyncMutex<Option<Arc<Lane>>>,
    /// When leaders were heard.
    pub(crate) heard: Heard,
}

/// Why there is no answer.
#[derive(Debug)]
enum Lost {
    /// The request was certainly not accepted.
    Unsent(String),
    /// Nobody knows.
    Unknown(String),
}

impl Forwarder {
    /// Without any stream yet.
    pub(crate) fn new(directory: Arc<Directory>, peers: Arc<dyn Peers>) -> Self {
        Self { directory, peers, lane: AsyncMutex::new(None), heard: Heard::default() }
    }

    /// The way to everybody.
    pub(crate) fn peers(&self) -> &Arc<dyn Peers> {
        &self.peers
    }

    /// Sends one request to `leader` and waits for its answer.
    async fn ask(&self, core: &Core, leader: MemberId, ask: Ask, deadline: Instant) -> Result<Answer, Lost> {
        let lane = self.lane(core, leader, deadline).await?;
        let mut asking = std::pin::pin!(lane.ask(core, ask, deadline));
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut asking => break answer,
                () = self.probe(&lane) => {}
            }
        };
        if matches!(answer, Err(Lost::Unknown(_))) {
            self.peers.suspect(leader);
            self.forget(&lane).await;
        }
        answer
    }

    /// Once a request has waited for a while, finds out whether the leader is where the lane leads to:
    /// if not, the connection is dropped, and all who wait on the lane hear of it.
    async fn probe(&self, lane: &Lane) {
        tokio::time::sleep(PROBE).await;
        if let Some(member) = self.directory.member(lane.leader).filter(|_| lane.is_probe_due(PROBE)) {
            // What it says does not matter, only that it says something.
            drop(self.open(&member, PROBE).await);
        }
    }

    /// A stream that a member has let in. One that does not answer is suspected, also where whoever
    /// waits gives up.
    async fn open(&self, member: &Member, within: Duration) -> Result<Link, PeerError> {
        let unanswered = Unanswered::new(&*self.peers, member.id, MEANINGFUL);
        let opened = timeout(within, async {
            let mut link =
                self.peers.stream(member, self.directory.open(member.id, Kind::Forward), within).await?;
            link.admitted().await?;
            Ok(link)
        });
        let late = PeerError::Timeout { member: member.id, within };
        let opened = opened.await.unwrap_or(Err(late));
        if !matches!(opened, Err(PeerError::Timeout { .. })) {
            unanswered.answered();
        }
        opened
    }

    /// The stream to `leader`: the one there is, or a new one. It is given up when somebody else
    /// leads, so that nobody waits for one that is gone.
    async fn lane(&self, core: &Core, leader: MemberId, deadline: Instant) -> Result<Arc<Lane>, Lost> {
        let mut slot = self.lane.lock().await;
        if let Some(lane) = slot.as_ref().filter(|lane| lane.leader == leader && lane.is_alive()) {
            return Ok(Arc::clone(lane));
        }
        *slot = None;
        let unsent = |error: &PeerError| {
            self.directory.heard(error);
            Lost::Unsent(error.to_string())
        };
        let member = self.directory.member(leader);
        let member = member.ok_or_else(|| Lost::Unsent("the leader's record is not known".into()))?;
        let within = OPEN_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        let link = tokio::select! {
            biased;
            opened = self.open(&member, within) => opened.map_err(|error| unsent(&error))?,
            () = overtaken(core, leader) => return Err(Lost::Unsent("the leader changed".into())),
        };
        let lane = Arc::new(Lane::start(link));
        *slot = Some(Arc::clone(&lane));
        Ok(lane)
    }

    async fn forget(&self, lane: &Arc<Lane>) {
        let mut slot = self.lane.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, lane)) {
            *slot = None;
        }
    }
}

/// Ends when somebody else than `leader` leads.
async fn overtaken(core: &Core, leader: MemberId) {
    let mut metrics = core.raft.server_metrics();
    while metrics.borrow_watched().current_leader.is_none_or(|now| now == leader) {
        if metrics.changed().await.is_err() {
            break;
        }
    }
}

/// Ends when `leader` leads no more and, where it is there still, has had the time to answer what
/// it had got before.
async fn deposed(core: &Core, leader: MemberId) {
    overtaken(core, leader).await;
    if !is_silent(core.timing, core.forward.heard.silence(leader)) {
        tokio::time::sleep(FORMER_LEADER_WITHIN).await;
    }
}

/// Whether a leader that was not heard for so long is likely to be gone: that is said before an
/// election may begin.
fn is_silent(timing: Timing, silence: Option<Duration>) -> bool {
    silence.is_some_and(|silence| silence >= Duration::from_millis(timing.election_min))
}

/// Who leads, as this member knows.
pub(crate) fn leader(core: &Core) -> Option<MemberId> {
    core.raft.server_metrics().borrow_watched().current_leader
}

/// Waits until somebody else leads than `not`, or a moment.
pub(crate) async fn another_leader(core: &Core, not: Option<MemberId>, deadline: Instant) {
    let mut metrics = core.raft.server_metrics();
    let until = deadline.min(Instant::now() + PAUSE);
    while metrics.borrow_watched().current_leader == not {
        if !matches!(timeout_at(until, metrics.changed()).await, Ok(Ok(()))) {
            tokio::time::sleep_until(until).await;
            return;
        }
    }
    // A leader that answers "not leader" at once must not be asked in a busy loop.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Whether sending a request twice does no harm.
fn is_repeatable(ask: &Ask) -> bool {
    match ask {
        Ask::ReadIndex | Ask::Compact(_) | Ask::Admin(Admin::Standings) => true,
        Ask::Txn(_) | Ask::Admin(_) => false,
    }
}

/// What became of a request.
enum Outcome {
    Answer(Answer),
    /// This member leads by now: it answers itself.
    Here,
}

/// Whom to ask where this member hears of no leader: it may have moved, so that the leader cannot
/// reach it, while it can reach the others.
struct Search {
    since: Instant,
    hint: Option<MemberId>,
    asked: usize,
}

impl Search {
    fn new() -> Self {
        Self { since: Instant::now(), hint: None, asked: 0 }
    }

    /// Whether it is too early to look elsewhere: an election may be under way.
    fn is_early(&self, timing: Timing) -> bool {
        self.since.elapsed() < Duration::from_millis(2 * timing.election_max)
    }

    /// Nobody while an election may be under way; then whom the last one named, or the next one.
    fn guess(&mut self, core: &Core) -> Option<MemberId> {
        if self.is_early(core.timing) {
            return None;
        }
        self.hint.take().or_else(|| {
            let others = core.directory.others();
            self.asked += 1;
            others.get(self.asked % others.len().max(1)).map(|member| member.id)
        })
    }
}

/// Has the leader answer, whoever it is; waits for one to be elected.
async fn ask_leader(core: &Core, ask: &Ask, deadline: Instant) -> Result<Outcome, WireError> {
    let mut why = String::from("there is no leader");
    let mut search = Search::new();
    loop {
        let leader = leader(core).or_else(|| search.guess(core));
        match leader {
            Some(leader) if leader == core.id => return Ok(Outcome::Here),
            // If it is gone, nobody could say what became of the request.
            Some(leader)
                if !is_repeatable(ask)
                    && search.is_early(core.timing)
                    && is_silent(core.timing, core.forward.heard.silence(leader)) => {}
            Some(leader) => match core.forward.ask(core, leader, ask.clone(), deadline).await {
                Ok(Answer::NotLeader { leader }) => {
                    search.hint = leader.filter(|hint| *hint != core.id);
                    why = "the leader changed".into();
                }
                Ok(answer) => return Ok(Outcome::Answer(answer)),
                Err(Lost::Unsent(reason)) => why = reason,
                Err(Lost::Unknown(reason)) if is_repeatable(ask) => why = reason,
                Err(Lost::Unknown(why)) => return Ok(Outcome::Answer(Answer::Unknown { why })),
            },
            None => {}
        }
        if Instant::now() >= deadline || core.is_closing() {
            return Err(WireError::Unavailable { why });
        }
        if *core.directory.removed().borrow() {
            return Err(WireError::Unavailable { why: Refusal::Removed.to_string() });
        }
        another_leader(core, leader, deadline).await;
    }
}

/// A transaction, here or at the leader; returns once this member has applied it.
///
/// # Errors
/// As [`sampan_store::Storage::txn`]; [`StorageError::Unavailable`] where there is no leader, or
/// where the outcome is unknown (which the text says).
pub(crate) async fn txn(core: &Core, txn: Txn) -> Result<TxnResponse, StorageError> {
    let deadline = Instant::now() + REQUEST_WITHIN;
    let mut ask = Ask::Txn(txn);
    loop {
        match ask_leader(core, &ask, deadline).await? {
            Outcome::Here => {
                let Ask::Txn(txn) = ask else { return Err(unexpected()) };
                match core.propose(txn.clone()).await {
                    Ok(response) => return Ok(response),
                    Err(LocalError::NotLeader { leader }) => another_leader(core, leader, deadline).await,
                    Err(LocalError::Unknown { why }) => return Err(unknown(&why)),
                    Err(LocalError::Storage(error)) => return Err(error),
                }
                if Instant::now() >= deadline {
                    return Err(StorageError::Unavailable { why: "there is no leader".into() });
                }
                ask = Ask::Txn(txn);
            }
            Outcome::Answer(Answer::Txn(response)) => {
                core.applied_revision(response.revision, deadline).await?;
                return Ok(response);
            }
            Outcome::Answer(answer) => return Err(failure(answer)),
        }
    }
}

/// A compaction, here or at the leader; returns once this member has applied it.
///
/// # Errors
/// As [`sampan_store::Storage::compact`].
pub(crate) async fn compact(core: &Arc<Core>, revision: Revision) -> Result<(), StorageError> {
    let deadline = Instant::now() + REQUEST_WITHIN;
    loop {
        match ask_leader(core, &Ask::Compact(revision), deadline).await? {
            Outcome::Here => match core.propose_compact(revision).await {
                Ok(()) => return Ok(()),
                Err(LocalError::NotLeader { leader }) if Instant::now() < deadline => {
                    another_leader(core, leader, deadline).await;
                }
                Err(error) => return Err(refused(error)),
            },
            // A compaction is no revision of its own: a read of the newest state waits for it.
            Outcome::Answer(Answer::Done { .. }) => return reads::current_revision(core).await.map(drop),
            Outcome::Answer(answer) => return Err(failure(answer)),
        }
    }
}

/// The index that a linearizable read must have applied, from the leader; `None` where this
/// member leads by now.
///
/// # Errors
/// [`WireError::Unavailable`] where there is no leader.
pub(crate) async fn read_index(core: &Core, deadline: Instant) -> Result<Option<u64>, WireError> {
    match ask_leader(core, &Ask::ReadIndex, deadline).await? {
        Outcome::Here => Ok(None),
        Outcome::Answer(Answer::ReadIndex { index }) => Ok(Some(index)),
        Outcome::Answer(answer) => Err(failure(answer).into()),
    }
}

/// What the leader gave to a change of the group.
pub(crate) enum Changed {
    /// It was done.
    Done,
    /// How the members stand.
    Standings(Vec<Standing>),
    /// This member leads by now.
    Here,
}

/// A change of the group, at the leader.
///
/// # Errors
/// The leader's, and [`MembershipError::Unavailable`] where there is none.
pub(crate) async fn admin(core: &Core, admin: Admin, deadline: Instant) -> Result<Changed, MembershipError> {
    let unavailable = |why: String| MembershipError::Unavailable { why };
    let answer = ask_leader(core, &Ask::Admin(admin), deadline).await;
    match answer.map_err(|error| unavailable(error.to_string()))? {
        Outcome::Here => Ok(Changed::Here),
        Outcome::Answer(Answer::Done { .. }) => Ok(Changed::Done),
        Outcome::Answer(Answer::Standings(standings)) => Ok(Changed::Standings(standings)),
        Outcome::Answer(Answer::Membership(error)) => Err(error),
        Outcome::Answer(answer) => Err(unavailable(failure(answer).to_string())),
    }
}

/// Answers a request that came from another member.
pub(crate) async fn answer(core: &Arc<Core>, ask: Ask) -> Answer {
    if core.is_closing() {
        // It hands over: the next leader is asked.
        return Answer::NotLeader { leader: None };
    }
    match ask {
        Ask::Txn(txn) => match core.propose(txn).await {
            Ok(response) => Answer::Txn(response),
            Err(error) => local_failure(error),
        },
        Ask::Compact(revision) => match core.propose_compact(revision).await {
            Ok(()) => Answer::Done { revision: core.machine.revision() },
            Err(error) => local_failure(error),
        },
        Ask::ReadIndex => match crate::reads::local_index(core).await {
            Ok(index) => Answer::ReadIndex { index },
            Err(error) => local_failure(error),
        },
        Ask::Admin(admin) => crate::membership::answer(core, admin).await,
    }
}

fn local_failure(error: LocalError) -> Answer {
    match error {
        LocalError::NotLeader { leader } => Answer::NotLeader { leader },
        LocalError::Unknown { why } => Answer::Unknown { why },
        LocalError::Storage(error) => Answer::Failed(error.into()),
    }
}

fn refused(error: LocalError) -> StorageError {
    match error {
        LocalError::NotLeader { .. } => StorageError::Unavailable { why: "there is no leader".into() },
        LocalError::Unknown { why } => unknown(&why),
        LocalError::Storage(error) => error,
    }
}

fn failure(answer: Answer) -> StorageError {
    match answer {
        Answer::Failed(error) => error.into(),
        Answer::Unknown { why } => unknown(&why),
        Answer::NotLeader { .. } => StorageError::Unavailable { why: "there is no leader".into() },
        Answer::Membership(error) => StorageError::Unavailable { why: error.to_string() },
        Answer::Txn(_) | Answer::Done { .. } | Answer::ReadIndex { .. } | Answer::Standings(_) => {
            unexpected()
        }
    }
}

fn unknown(why: &str) -> StorageError {
    StorageError::Unavailable { why: format!("the outcome is unknown: {why}") }
}

fn unexpected() -> StorageError {
    StorageError::Unavailable { why: "the leader's answer is to something else".into() }
}
