//! Changes of the group: members join as learners, get votes, change their addresses, lead, leave.
//!
//! The leader makes them, one at a time, for whoever asks; any member passes a request on to it.
//! What a change may do is decided by pure functions over a [`View`]; the rest waits and acts.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout, timeout_at};

use crate::forward::{self, ADMIN_WITHIN, Changed};
use crate::level;
use crate::store::{Core, RaftStore};
use crate::types::{Member, MemberId, RaftLogId, TypeConfig};
use crate::wire::{Admin, Answer, MembershipError, Standing};
use plan::{Removal, SILENT, Step, View, caught_up, plan_promote, plan_record, plan_remove, plan_transfer};

/// How long a new member may take to catch up (a snapshot, mostly).
const CATCH_UP_WITHIN: Duration = Duration::from_secs(90);
/// How long one change may take to be decided.
const DECIDE_WITHIN: Duration = Duration::from_secs(15);
/// How long the next leader may take to take over.
const TRANSFER_WITHIN: Duration = Duration::from_secs(2);

/// How long a change waits for the one before it.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Keeps changes one at a time.
#[derive(Default)]
pub(crate) struct Changes {
    one: Mutex<()>,
    /// Held by whoever adds a member, and by whoever finds out what all members understand.
    newcomers: Mutex<()>,
}

impl Changes {
    /// Waits for the change that is under way, which may be a member's that says where it is now.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, MembershipError> {
        timeout(TURN_WITHIN, self.one.lock()).await.map_err(|_| MembershipError::Busy)
    }

    /// Keeps newcomers out.
    pub(crate) async fn without_newcomers(&self) -> MutexGuard<'_, ()> {
        self.newcomers.lock().await
    }
}

/// All members but this one.
pub(crate) fn others(core: &Core) -> Vec<Member> {
    View::of(core).members.into_values().filter(|member| member.id != core.id).collect()
}

/// Why a change did not happen here.
#[derive(Debug)]
enum Trouble {
    /// This member does not lead: nothing happened.
    NotLeader,
    Refused(MembershipError),
}

impl From<MembershipError> for Trouble {
    fn from(error: MembershipError) -> Self {
        Self::Refused(error)
    }
}

/// Makes a change where this member leads.
async fn here(core: &Core, admin: &Admin) -> Result<Option<Vec<Standing>>, Trouble> {
    if forward::leader(core) != Some(core.id) {
        return Err(Trouble::NotLeader);
    }
    if !matches!(admin, Admin::Standings | Admin::TransferLeadership(_)) {
        settle(core).await?;
    }
    match admin {
        Admin::Standings => return Ok(Some(View::of(core).standings(Some(core.id)))),
        Admin::AddLearner(member) => {
            add(core, member).await?;
            wait_caught_up(core, member.id).await?;
        }
        Admin::Update(member) => {
            let step = |view: &View| {
                view.known(member.id)?;
                plan_record(view, member)
            };
            decide(core, step, Leaving::None).await?;
        }
        Admin::Promote(id) => {
            if !View::of(core).voters.contains(id) {
                wait_caught_up(core, *id).await?;
            }
            patiently(core, |view| plan_promote(view, *id)).await?;
            decide(core, |view| plan_promote(view, *id), Leaving::None).await?;
        }
        Admin::Remove(id) => remove(core, *id).await?,
        Admin::TransferLeadership(to) => transfer(core, *to).await?,
    }
    Ok(None)
}

/// Adds a member without a vote, unless it is too old for the group.
async fn add(core: &Core, member: &Member) -> Result<(), Trouble> {
    let _alone = core.changes.without_newcomers().await;
    level::check_newcomer(core, member).await?;
    decide(core, |view: &View| plan_record(view, member), Leaving::None).await
}

/// Ends a change of voters that a former leader left halfway.
async fn settle(core: &Core) -> Result<(), Trouble> {
    if !View::of(core).joint {
        return Ok(());
    }
    let _one = core.changes.turn().await?;
    propose(core, ChangeMembers::AddVoterIds(BTreeSet::new()), Leaving::None).await
}

/// While this member leads: ends a change of voters that a former leader left halfway, which else
/// would need the majority of both for good.
pub(crate) async fn finish(core: Arc<Core>) {
    let unfinished = async {
        while forward::leader(&core) == Some(core.id) && View::of(&core).joint {
            if let Err(error) = settle(&core).await {
                tracing::debug!(?error, "a change of the members is not finished yet");
            }
            tokio::time::sleep(SILENT / 20).await;
        }
    };
    tokio::select! {
        biased;
        () = core.ended.cancelled() => {}
        () = unfinished => {}
    }
}

async fn remove(core: &Core, id: MemberId) -> Result<(), Trouble> {
    match patiently(core, |view| plan_remove(view, id)).await? {
        Removal::HandOver => {
            transfer(core, None).await?;
            // The next leader is asked to do it.
            Err(Trouble::NotLeader)
        }
        Removal::Step(_) => {
            let step = |view: &View| match plan_remove(view, id)? {
                Removal::Step(step) => Ok(Some(step)),
                Removal::HandOver => Err(MembershipError::Busy),
            };
            decide(core, step, Leaving::Entirely).await
        }
    }
}

/// Plans, and where somebody does not answer, again for a moment: a leader that is new has not
/// heard of everybody yet.
async fn patiently<T>(
    core: &Core,
    plan: impl Fn(&View) -> Result<T, MembershipError>,
) -> Result<T, MembershipError> {
    let deadline = Instant::now() + SILENT;
    loop {
        let view = View::of(core);
        match plan(&view) {
            Err(MembershipError::QuorumLost { .. } | MembershipError::NotCaughtUp { .. })
                if view.voters.len() > 1 && Instant::now() < deadline =>
            {
                tokio::time::sleep(SILENT / 20).await;
            }
            planned => return planned,
        }
    }
}

/// What becomes of a voter that a step takes the vote from.
#[derive(Clone, Copy)]
enum Leaving {
    /// There is none.
    None,
    /// It does not stay as a learner.
    Entirely,
}

/// Plans a step and has it decided, one at a time.
async fn decide(
    core: &Core,
    plan: impl FnOnce(&View) -> Result<Option<Step>, MembershipError>,
    leaving: Leaving,
) -> Result<(), Trouble> {
    let _one = core.changes.turn().await?;
    let Some(step) = plan(&View::of(core))? else { return Ok(()) };
    propose(core, step, leaving).await
}

async fn propose(core: &Core, step: Step, leaving: Leaving) -> Result<(), Trouble> {
    tracing::info!(%step, "the members change");
    let stay = matches!(leaving, Leaving::None);
    let raft = core.raft.clone();
    // openraft takes two steps, the second of which must not be left out because whoever asked has gone:
    // the group would need the majority of its former voters, too, for good.
    let changing = tokio::spawn(async move { raft.change_membership(step, stay).await });
    let error = match timeout(DECIDE_WITHIN, changing).await {
        Ok(Ok(Ok(done))) => {
            shown(core, done.log_id).await;
            return Ok(());
        }
        Ok(Ok(Err(error))) => error,
        Ok(Err(_)) => {
            return Err(MembershipError::Unavailable { why: "this member is stopping".into() }.into());
        }
        Err(_) => {
            let why = format!("not decided in {} s; it may still be", DECIDE_WITHIN.as_secs());
            return Err(MembershipError::Unavailable { why }.into());
        }
    };
    Err(trouble(error))
}

/// Waits until the metrics, which [`View`] is made of, show a change that was decided.
async fn shown(core: &Core, at: RaftLogId) {
    let mut metrics = core.raft.metrics();
    let shown = async {
        while *metrics.borrow_watched().membership_config.log_id() < Some(at) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    };
    // Where they do not, the next plan is made of what they show.
    let _ = timeout(SILENT, shown).await;
}

fn trouble(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Trouble {
    let unavailable = |why: String| Trouble::Refused(MembershipError::Unavailable { why });
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Trouble::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
            unavailable("the leader changed; look whether it took place".into())
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                MembershipError::Busy.into()
            }
            other => MembershipError::Invalid { why: other.to_string() }.into(),
        },
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => MembershipError::Busy.into(),
        RaftError::Fatal(fatal) => unavailable(fatal.to_string()),
    }
}

/// Waits until a member has everything that was there when this was called, and not much less
/// than everything by then.
async fn wait_caught_up(core: &Core, id: MemberId) -> Result<(), Trouble> {
    let deadline = Instant::now() + CATCH_UP_WITHIN;
    let goal = View::of(core).last;
    let mut metrics = core.raft.metrics();
    loop {
        let view = View::of(core);
        let matched = view.matched.get(&id).copied().unwrap_or_default();
        let behind = match caught_up(&view, view.known(id)?) {
            Ok(()) if id == view.me || matched >= goal => return Ok(()),
            Ok(()) => MembershipError::NotCaughtUp {
                name: view.name(id),
                lag: format!("{} entries of the log", goal - matched),
            },
            Err(behind) => behind,
        };
        if forward::leader(core) != Some(core.id) {
            return Err(MembershipError::Unavailable { why: "the leader changed".into() }.into());
        }
        if Instant::now() >= deadline {
            return Err(behind.into());
        }
        // Metrics do not tell of time that passes without an answer: look again anyway.
        let until = deadline.min(Instant::now() + SILENT / 2);
        if let Ok(Err(_)) = timeout_at(until, metrics.changed()).await {
            return Err(MembershipError::Unavailable { why: "this member has ended".into() }.into());
        }
    }
}

async fn transfer(core: &Core, to: Option<MemberId>) -> Result<(), Trouble> {
    let Some(to) = patiently(core, |view| plan_transfer(view, to)).await? else { return Ok(()) };
    let unavailable = |why: String| Trouble::Refused(MembershipError::Unavailable { why });
    core.raft.trigger().transfer_leader(to).await.map_err(|fatal| unavailable(fatal.to_string()))?;
    let mut metrics = core.raft.server_metrics();
    let taken_over = async {
        loop {
            let leader = metrics.borrow_watched().current_leader;
            if leader.is_some_and(|leader| leader != core.id) || metrics.changed().await.is_err() {
                return;
            }
        }
    };
    let name = View::of(core).name(to);
    timeout(TRANSFER_WITHIN, taken_over)
        .await
        .map_err(|_| unavailable(format!("{name} has not taken over in {} s", TRANSFER_WITHIN.as_secs())))
}

/// Before this member stops: somebody else leads, where there is somebody.
pub(crate) async fn hand_over(core: &Core) {
    if forward::leader(core) != Some(core.id) || View::of(core).voters.len() < 2 {
        return;
    }
    match transfer(core, None).await {
        Ok(()) => tracing::info!("another member leads now"),
        Err(Trouble::NotLeader) => {}
        Err(Trouble::Refused(error)) => tracing::warn!(%error, "leadership is not handed over"),
    }
}

/// Tells the others where this member is now, where the membership has it elsewhere. What it tells them
/// may be overtaken by another move: it ends once the membership has the newest addresses.
pub(crate) async fn announce(core: Arc<Core>) {
    let mut addresses = core.addresses.subscribe();
    loop {
        let now = addresses.borrow_and_update().clone();
        let known = core.directory.member(core.id);
        if known.as_ref().is_some_and(|known| known.addresses == now) {
            return;
        }
        if let Some(known) = known {
            match change(&core, Admin::Update(Member { addresses: now.clone(), ..known })).await {
                Ok(_) => tracing::info!(addresses = ?now, "the others know where this member is"),
                Err(MembershipError::Invalid { .. } | MembershipError::NotMember { .. }) => return,
                Err(error) => tracing::debug!(%error, "the others do not know yet where this member is"),
            }
        }
        tokio::select! {
            biased;
            _ = addresses.changed() => {}
            () = tokio::time::sleep(SILENT) => {}
        }
    }
}

/// Answers another member's request for a change.
pub(crate) async fn answer(core: &Arc<Core>, admin: Admin) -> Answer {
    match here(core, &admin).await {
        Ok(Some(standings)) => Answer::Standings(standings),
        Ok(None) => Answer::Done { revision: core.machine.revision() },
        Err(Trouble::NotLeader) => Answer::NotLeader { leader: forward::leader(core) },
        Err(Trouble::Refused(error)) => Answer::Membership(error),
    }
}

/// Has the leader make a change, whoever it is.
async fn change(core: &Core, admin: Admin) -> Result<Vec<Standing>, MembershipError> {
    let deadline = Instant::now() + ADMIN_WITHIN;
    loop {
        match forward::admin(core, admin.clone(), deadline).await? {
            Changed::Done => return Ok(Vec::new()),
            Changed::Standings(standings) => return Ok(standings),
            Changed::Here => match here(core, &admin).await {
                Ok(standings) => return Ok(standings.unwrap_or_default()),
                Err(Trouble::Refused(error)) => return Err(error),
                Err(Trouble::NotLeader) if Instant::now() < deadline => {
                    forward::another_leader(core, Some(core.id), deadline).await;
                }
                Err(Trouble::NotLeader) => {
                    return Err(MembershipError::Unavailable { why: "there is no leader".into() });
                }
            },
        }
    }
}

impl RaftStore {
    /// Whether a change of voters is under way: until it is done the majority of those before and
    /// that of those after it decide together.
    pub fn is_changing(&self) -> bool {
        View::of(&self.core).joint
    }

    /// Takes a member in, without a vote, and returns once it has caught up with the log. A member
    /// that is there already keeps its vote; its record is brought up to date.
    ///
    /// # Errors
    /// [`MembershipError`]. One that has not caught up in time stays a learner.
    pub async fn add_learner(&self, member: Member) -> Result<(), MembershipError> {
        change(&self.core, Admin::AddLearner(member)).await.map(drop)
    }

    /// Gives a learner a vote, once it has caught up.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn promote(&self, id: MemberId) -> Result<(), MembershipError> {
        change(&self.core, Admin::Promote(id)).await.map(drop)
    }

    /// Takes a member in and gives it a vote once it has caught up.
    ///
    /// # Errors
    /// [`MembershipError`]; what was done stays.
    pub async fn add_voter(&self, member: Member) -> Result<(), MembershipError> {
        let id = member.id;
        self.add_learner(member).await?;
        self.promote(id).await
    }

    /// Removes a member, this one or the leader included. It is told so where it asks again.
    ///
    /// # Errors
    /// [`MembershipError::QuorumLost`] where too few voters would be left that answer, and others.
    pub async fn remove(&self, id: MemberId) -> Result<(), MembershipError> {
        change(&self.core, Admin::Remove(id)).await.map(drop)
    }

    /// Replaces a member's record: its addresses, or its name. A member that has moved says so itself, or
    /// it tells the others where it was before.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn update_member(&self, member: Member) -> Result<(), MembershipError> {
        if member.id == self.core.id {
            self.core.addresses.send_replace(member.addresses.clone());
        }
        change(&self.core, Admin::Update(member)).await.map(drop)
    }

    /// Has another voter lead: the one named, or the one that is furthest.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), MembershipError> {
        change(&self.core, Admin::TransferLeadership(to)).await.map(drop)
    }

    /// The members as this one knows them, in the order of their ids. Only the leader knows lags
    /// and who answers.
    pub fn members(&self) -> Vec<Standing> {
        View::of(&self.core).standings(forward::leader(&self.core))
    }

    /// The members as the leader sees them.
    ///
    /// # Errors
    /// [`MembershipError::Unavailable`] where there is none.
    pub async fn standings(&self) -> Result<Vec<Standing>, MembershipError> {
        change(&self.core, Admin::Standings).await
    }
}
