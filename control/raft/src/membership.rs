//! Changes of the group: members join as learners, get votes, change their addresses, lead, leave.
//!
//! The leader makes them, one at a time, for whoever asks; any member passes a request on to it.
//! What a change may do is decided by pure functions over a [`View`]; the rest waits and acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use sampan_transport::KeyId;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::forward::{self, ADMIN_WITHIN, Changed};
use crate::store::{Core, RaftStore};
use crate::types::{Member, MemberId, RaftLogId, TypeConfig};
use crate::wire::{Admin, Answer, MembershipError, Standing};

/// How many entries a member may lack and still count as caught up.
const CAUGHT_UP: u64 = 1_000;
/// How long a new member may take to catch up (a snapshot, mostly).
const CATCH_UP_WITHIN: Duration = Duration::from_secs(90);
/// How long one change may take to be decided.
const DECIDE_WITHIN: Duration = Duration::from_secs(15);
/// How long the next leader may take to take over.
const TRANSFER_WITHIN: Duration = Duration::from_secs(2);
/// A member that answered no heartbeat for so long counts as unreachable.
const SILENT: Duration = Duration::from_secs(1);

/// Keeps changes one at a time.
#[derive(Default)]
pub(crate) struct Changes {
    one: Mutex<()>,
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

/// The group as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    me: MemberId,
    members: BTreeMap<MemberId, Member>,
    voters: BTreeSet<MemberId>,
    /// Voters are changing right now.
    joint: bool,
    /// The end of the leader's log, as a count of entries.
    last: u64,
    /// How many entries each member is known to have.
    matched: BTreeMap<MemberId, u64>,
    /// Who answered of late.
    reachable: BTreeSet<MemberId>,
}

impl View {
    fn of(core: &Core) -> Self {
        let metrics = core.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        let heartbeats = metrics.heartbeat.iter().flatten();
        let heard = heartbeats.filter(|(_, at)| at.as_ref().is_some_and(|at| at.elapsed() < SILENT));
        Self {
            me: core.id,
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
            voters: membership.voter_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
            last: metrics.last_log_index.map_or(0, |index| index + 1),
            matched: matched.map(|(id, log)| (*id, log.as_ref().map_or(0, |log| log.index + 1))).collect(),
            reachable: heard.map(|(id, _)| *id).chain([core.id]).collect(),
        }
    }

    fn name(&self, id: MemberId) -> String {
        self.members.get(&id).map_or_else(|| format!("{id:016x}"), |member| member.name.clone())
    }

    fn lag(&self, id: MemberId) -> Option<u64> {
        if id == self.me {
            return Some(0);
        }
        self.matched.get(&id).map(|matched| self.last.saturating_sub(*matched))
    }

    fn known(&self, id: MemberId) -> Result<&Member, MembershipError> {
        self.members.get(&id).ok_or(MembershipError::NotMember { id })
    }

    /// Whether `voters` could decide anything, and if not, who is missing.
    fn quorum(&self, voters: &BTreeSet<MemberId>) -> Result<(), MembershipError> {
        let needed = voters.len() / 2 + 1;
        let silent: Vec<String> = voters.difference(&self.reachable).map(|id| self.name(*id)).collect();
        if voters.len() - silent.len() >= needed {
            return Ok(());
        }
        let why = format!(
            "of {} voters {needed} must answer, and these do not: {}",
            voters.len(),
            silent.join(", ")
        );
        Err(MembershipError::QuorumLost { why })
    }

    fn standings(&self, leader: Option<MemberId>) -> Vec<Standing> {
        let leads = leader == Some(self.me);
        self.members
            .values()
            .map(|member| Standing {
                member: member.clone(),
                voter: self.voters.contains(&member.id),
                leader: leader == Some(member.id),
                lag: if leads { self.lag(member.id) } else { None },
                reachable: leads.then(|| self.reachable.contains(&member.id)),
            })
            .collect()
    }
}

/// A change that openraft makes.
type Step = ChangeMembers<MemberId, Member>;

/// The record of a new member, or a new record of one: `None` where nothing changes.
fn plan_record(view: &View, member: &Member) -> Result<Option<Step>, MembershipError> {
    check(member)?;
    if view.joint {
        return Err(MembershipError::Busy);
    }
    if let Some(other) =
        view.members.values().find(|other| other.name == member.name && other.id != member.id)
    {
        return Err(MembershipError::NameTaken { name: member.name.clone(), holder: other.id });
    }
    let record = BTreeMap::from([(member.id, member.clone())]);
    Ok(match view.members.get(&member.id) {
        Some(known) if known == member => None,
        Some(_) => Some(ChangeMembers::SetNodes(record)),
        None => Some(ChangeMembers::AddNodes(record)),
    })
}

fn check(member: &Member) -> Result<(), MembershipError> {
    let invalid = |why: &str| Err(MembershipError::Invalid { why: why.into() });
    if member.id != KeyId(member.key).member_id() {
        return invalid("its id is not that of its key");
    }
    if member.name.is_empty() {
        return invalid("it has no name");
    }
    if member.addresses.is_empty() {
        return invalid("it has no address");
    }
    Ok(())
}

/// A vote for a learner that has caught up: `None` where it has one.
fn plan_promote(view: &View, id: MemberId) -> Result<Option<Step>, MembershipError> {
    let member = view.known(id)?;
    if view.joint {
        return Err(MembershipError::Busy);
    }
    if view.voters.contains(&id) {
        return Ok(None);
    }
    caught_up(view, member)?;
    let voters = view.voters.iter().copied().chain([id]).collect();
    view.quorum(&voters)?;
    Ok(Some(ChangeMembers::AddVoterIds(BTreeSet::from([id]))))
}

fn caught_up(view: &View, member: &Member) -> Result<(), MembershipError> {
    let lacks = |lag: String| MembershipError::NotCaughtUp { name: member.name.clone(), lag };
    match view.lag(member.id) {
        Some(lag) if lag > CAUGHT_UP => Err(lacks(format!("{lag} entries of the log"))),
        Some(_) if !view.reachable.contains(&member.id) => Err(lacks("an answer to the leader".into())),
        Some(_) => Ok(()),
        None => Err(lacks("all of the log".into())),
    }
}

/// How a member is removed.
#[derive(Debug, PartialEq)]
enum Removal {
    Step(Step),
    /// It leads: somebody else has to lead first.
    HandOver,
}

fn plan_remove(view: &View, id: MemberId) -> Result<Removal, MembershipError> {
    view.known(id)?;
    if view.joint {
        return Err(MembershipError::Busy);
    }
    if !view.voters.contains(&id) {
        return Ok(Removal::Step(ChangeMembers::RemoveNodes(BTreeSet::from([id]))));
    }
    let left: BTreeSet<_> = view.voters.iter().copied().filter(|voter| *voter != id).collect();
    if left.is_empty() {
        let why = format!("{} is the only voter", view.name(id));
        return Err(MembershipError::QuorumLost { why });
    }
    // The present voters decide on the change, those that are left on everything after it.
    view.quorum(&view.voters)?;
    view.quorum(&left)?;
    if id == view.me {
        return Ok(Removal::HandOver);
    }
    Ok(Removal::Step(ChangeMembers::RemoveVoters(BTreeSet::from([id]))))
}

/// Who shall lead: the one that is named, or the voter that is furthest. `None`: it leads already.
fn plan_transfer(view: &View, to: Option<MemberId>) -> Result<Option<MemberId>, MembershipError> {
    if let Some(id) = to {
        let member = view.known(id)?;
        if id == view.me {
            return Ok(None);
        }
        if !view.voters.contains(&id) {
            return Err(MembershipError::NotVoter { name: member.name.clone() });
        }
        caught_up(view, member)?;
        return Ok(Some(id));
    }
    let fit = |id: &&MemberId| **id != view.me && view.reachable.contains(id);
    let furthest = view.voters.iter().filter(fit).min_by_key(|id| view.lag(**id).unwrap_or(u64::MAX));
    match furthest {
        Some(id) => Ok(Some(*id)),
        None => Err(MembershipError::QuorumLost { why: "no other voter answers".into() }),
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
            let step = |view: &View| plan_record(view, member);
            decide(core, step, Leaving::None).await?;
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

/// Ends a change of voters that a former leader left halfway.
async fn settle(core: &Core) -> Result<(), Trouble> {
    if !View::of(core).joint {
        return Ok(());
    }
    let Ok(_one) = core.changes.one.try_lock() else { return Err(MembershipError::Busy.into()) };
    propose(core, ChangeMembers::AddVoterIds(BTreeSet::new()), Leaving::None).await
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
    let Ok(_one) = core.changes.one.try_lock() else { return Err(MembershipError::Busy.into()) };
    let Some(step) = plan(&View::of(core))? else { return Ok(()) };
    propose(core, step, leaving).await
}

async fn propose(core: &Core, step: Step, leaving: Leaving) -> Result<(), Trouble> {
    tracing::info!(%step, "the members change");
    let stay = matches!(leaving, Leaving::None);
    let decided = timeout(DECIDE_WITHIN, core.raft.change_membership(step, stay)).await;
    let error = match decided {
        Ok(Ok(done)) => {
            shown(core, done.log_id).await;
            return Ok(());
        }
        Ok(Err(error)) => error,
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
        let _ = timeout_at(until, metrics.changed()).await;
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

/// Tells the others where this member is now, where the membership has it elsewhere.
pub(crate) async fn announce(core: Arc<Core>, member: Member) {
    loop {
        let known = core.directory.member(core.id);
        if known.as_ref().is_some_and(|known| known.addresses == member.addresses) {
            return;
        }
        if let Some(known) = known {
            let moved = Member { addresses: member.addresses.clone(), ..known };
            match change(&core, Admin::Update(moved)).await {
                Ok(_) => {
                    tracing::info!(addresses = ?member.addresses, "the others know where this member is")
                }
                Err(MembershipError::Invalid { .. } | MembershipError::NotMember { .. }) => return,
                Err(error) => tracing::debug!(%error, "the others do not know yet where this member is"),
            }
        }
        tokio::time::sleep(SILENT).await;
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

    /// Replaces a member's record: its addresses, or its name.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn update_member(&self, member: Member) -> Result<(), MembershipError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn member(first: u8, name: &str) -> Member {
        let mut key = [0; 32];
        key[0] = first;
        let id = u64::from(first) << 56;
        Member { id, name: name.into(), addresses: vec!["h:1".into()], key }
    }

    fn id(first: u8) -> MemberId {
        u64::from(first) << 56
    }

    /// Voters 1, 2 and 3, of which 1 leads; a learner 4. All answer, and have everything.
    fn view() -> View {
        let members: BTreeMap<_, _> = [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
            .map(|(first, name)| (id(first), member(first, name)))
            .into();
        View {
            me: id(1),
            voters: [id(1), id(2), id(3)].into(),
            joint: false,
            last: 5_000,
            matched: members.keys().map(|id| (*id, 5_000)).collect(),
            reachable: members.keys().copied().collect(),
            members,
        }
    }

    #[test]
    fn records_are_checked_and_names_are_unique() {
        let new = member(5, "e");
        let add = ChangeMembers::AddNodes(BTreeMap::from([(new.id, new.clone())]));
        assert_eq!(plan_record(&view(), &new), Ok(Some(add)));
        assert_eq!(plan_record(&view(), &member(2, "b")), Ok(None));
        let moved = Member { addresses: vec!["h:2".into()], ..member(2, "b") };
        let set = ChangeMembers::SetNodes(BTreeMap::from([(moved.id, moved.clone())]));
        assert_eq!(plan_record(&view(), &moved), Ok(Some(set)));
        let taken = plan_record(&view(), &member(5, "b"));
        assert_eq!(taken, Err(MembershipError::NameTaken { name: "b".into(), holder: id(2) }));
        for bad in [
            Member { id: 9, ..member(5, "e") },
            member(5, ""),
            Member { addresses: vec![], ..member(5, "e") },
        ] {
            let refused = plan_record(&view(), &bad);
            assert!(matches!(refused, Err(MembershipError::Invalid { .. })), "{bad:?}: {refused:?}");
        }
        let joint = View { joint: true, ..view() };
        assert_eq!(plan_record(&joint, &new), Err(MembershipError::Busy));
    }

    #[test]
    fn only_learners_that_caught_up_and_answer_get_a_vote() {
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([id(4)]));
        assert_eq!(plan_promote(&view(), id(4)), Ok(Some(add)));
        assert_eq!(plan_promote(&view(), id(2)), Ok(None));
        assert_eq!(plan_promote(&view(), id(9)), Err(MembershipError::NotMember { id: id(9) }));
        let mut behind = view();
        behind.matched.insert(id(4), 3_000);
        let error = plan_promote(&behind, id(4)).unwrap_err();
        assert_eq!(error.to_string(), "the member d has not caught up: it lacks 2000 entries of the log");
        let mut silent = view();
        silent.reachable.remove(&id(4));
        assert!(matches!(plan_promote(&silent, id(4)), Err(MembershipError::NotCaughtUp { .. })));
        let mut unknown = view();
        unknown.matched.remove(&id(4));
        assert!(matches!(plan_promote(&unknown, id(4)), Err(MembershipError::NotCaughtUp { .. })));
    }

    #[test]
    fn a_removal_that_would_lose_the_quorum_is_refused_by_name() {
        let voter = ChangeMembers::RemoveVoters(BTreeSet::from([id(2)]));
        assert_eq!(plan_remove(&view(), id(2)), Ok(Removal::Step(voter)));
        let learner = ChangeMembers::RemoveNodes(BTreeSet::from([id(4)]));
        assert_eq!(plan_remove(&view(), id(4)), Ok(Removal::Step(learner)));
        assert_eq!(plan_remove(&view(), id(1)), Ok(Removal::HandOver));
        assert_eq!(plan_remove(&view(), id(9)), Err(MembershipError::NotMember { id: id(9) }));
        let mut one_silent = view();
        one_silent.reachable.remove(&id(3));
        let error = plan_remove(&one_silent, id(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the cluster would lose its quorum: of 2 voters 2 must answer, and these do not: c"
        );
        // The silent one itself may go.
        assert!(plan_remove(&one_silent, id(3)).is_ok());
        let alone = View { voters: [id(1)].into(), ..view() };
        let error = plan_remove(&alone, id(1)).unwrap_err();
        assert_eq!(error.to_string(), "the cluster would lose its quorum: a is the only voter");
    }

    #[test]
    fn the_voter_that_is_furthest_and_answers_leads_next() {
        let mut view = view();
        view.matched.insert(id(2), 4_000);
        assert_eq!(plan_transfer(&view, None), Ok(Some(id(3))));
        view.reachable.remove(&id(3));
        assert_eq!(plan_transfer(&view, None), Ok(Some(id(2))));
        assert_eq!(plan_transfer(&view, Some(id(1))), Ok(None));
        assert!(matches!(plan_transfer(&view, Some(id(4))), Err(MembershipError::NotVoter { .. })));
        assert!(matches!(plan_transfer(&view, Some(id(3))), Err(MembershipError::NotCaughtUp { .. })));
        view.reachable.remove(&id(2));
        assert!(matches!(plan_transfer(&view, None), Err(MembershipError::QuorumLost { .. })));
    }

    #[test]
    fn only_the_leader_tells_of_lags() {
        let mut view = view();
        view.matched.insert(id(2), 4_999);
        let standings = view.standings(Some(id(1)));
        assert_eq!(standings[1].lag, Some(1));
        assert!(standings[0].leader && standings[0].voter && !standings[3].voter);
        let followers = view.standings(Some(id(2)));
        assert!(followers.iter().all(|standing| standing.lag.is_none() && standing.reachable.is_none()));
        assert!(followers[1].leader);
    }
}
