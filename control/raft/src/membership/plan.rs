//! What a change of the group may do: pure functions over the group as the leader sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant as _};
use sampan_transport::KeyId;

use crate::store::Core;
use crate::types::{Member, MemberId};
use crate::wire::{MembershipError, Standing};

/// How many entries a member may lack and still count as caught up.
const CAUGHT_UP: u64 = 1_000;
/// A member that answered no heartbeat for so long counts as unreachable.
pub(super) const SILENT: Duration = Duration::from_secs(1);

/// The group as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) me: MemberId,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) voters: BTreeSet<MemberId>,
    /// Voters are changing right now.
    pub(super) joint: bool,
    /// Those who vote before the change as well as after it.
    pub(super) settled: BTreeSet<MemberId>,
    /// The end of the leader's log, as a count of entries.
    pub(super) last: u64,
    /// How many entries each member is known to have.
    pub(super) matched: BTreeMap<MemberId, u64>,
    /// Who answered of late.
    pub(super) reachable: BTreeSet<MemberId>,
}

impl View {
    pub(super) fn of(core: &Core) -> Self {
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
            settled: in_all(membership.get_joint_config()),
            last: metrics.last_log_index.map_or(0, |index| index + 1),
            matched: matched.map(|(id, log)| (*id, log.as_ref().map_or(0, |log| log.index + 1))).collect(),
            reachable: heard.map(|(id, _)| *id).chain([core.id]).collect(),
        }
    }

    pub(super) fn name(&self, id: MemberId) -> String {
        self.members.get(&id).map_or_else(|| format!("{id:016x}"), |member| member.name.clone())
    }

    pub(super) fn lag(&self, id: MemberId) -> Option<u64> {
        if id == self.me {
            return Some(0);
        }
        self.matched.get(&id).map(|matched| self.last.saturating_sub(*matched))
    }

    pub(super) fn known(&self, id: MemberId) -> Result<&Member, MembershipError> {
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

    pub(super) fn standings(&self, leader: Option<MemberId>) -> Vec<Standing> {
        let leads = leader == Some(self.me);
        self.members
            .values()
            .map(|member| Standing {
                member: member.clone(),
                voter: self.settled.contains(&member.id),
                leader: leader == Some(member.id),
                lag: if leads { self.lag(member.id) } else { None },
                reachable: leads.then(|| self.reachable.contains(&member.id)),
            })
            .collect()
    }
}

fn in_all(configs: &[BTreeSet<MemberId>]) -> BTreeSet<MemberId> {
    let Some((first, rest)) = configs.split_first() else { return BTreeSet::new() };
    first.iter().copied().filter(|id| rest.iter().all(|config| config.contains(id))).collect()
}

/// A change that openraft makes.
pub(super) type Step = ChangeMembers<MemberId, Member>;

/// The record of a new member, or a new record of one: `None` where nothing changes.
pub(super) fn plan_record(view: &View, member: &Member) -> Result<Option<Step>, MembershipError> {
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
pub(super) fn plan_promote(view: &View, id: MemberId) -> Result<Option<Step>, MembershipError> {
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

pub(super) fn caught_up(view: &View, member: &Member) -> Result<(), MembershipError> {
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
pub(super) enum Removal {
    Step(Step),
    /// It leads: somebody else has to lead first.
    HandOver,
}

pub(super) fn plan_remove(view: &View, id: MemberId) -> Result<Removal, MembershipError> {
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
pub(super) fn plan_transfer(view: &View, to: Option<MemberId>) -> Result<Option<MemberId>, MembershipError> {
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
            settled: [id(1), id(2), id(3)].into(),
            last: 5_000,
            matched: members.keys().map(|id| (*id, 5_000)).collect(),
            reachable: members.keys().copied().collect(),
            members,
        }
    }

    #[test]
    fn whoever_votes_only_before_or_after_a_change_is_not_called_a_voter() {
        let configs = |configs: &[&[MemberId]]| -> Vec<MemberId> {
            let configs: Vec<BTreeSet<MemberId>> =
                configs.iter().map(|config| config.iter().copied().collect()).collect();
            in_all(&configs).into_iter().collect()
        };
        assert_eq!(configs(&[&[1, 2, 3]]), [1, 2, 3]);
        assert_eq!(configs(&[&[1, 2], &[1, 2, 3]]), [1, 2]);
        assert_eq!(configs(&[&[1, 2, 3], &[2, 3]]), [2, 3]);
        assert_eq!(configs(&[]), [0; 0]);
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
