//! Between openraft's types and ours. A message that no member can have sent is an error here and
//! never reaches the consensus core.

use std::collections::{BTreeMap, BTreeSet};

use openraft::Membership;
use openraft::alias::VoteOf;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest as OpenraftVoteRequest, VoteResponse,
};

use super::error::WireError;
use super::message::{
    Append, Appended, Entry, LogPosition, MembershipRecord, SnapshotBegin, Transfer, Transferred, Vote,
    VoteAnswer, VoteRequest,
};
use crate::log::codec;
use crate::types::{self, Member, MemberId, RaftLogId, SnapshotMeta, StoredMembership, TypeConfig};

type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
type RaftVoteRequest = OpenraftVoteRequest<TypeConfig>;

/// A log position as the wire has it.
pub(crate) fn position(id: RaftLogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

/// A log position as openraft has it.
pub(crate) fn log_id(position: LogPosition) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(position.term), position.index)
}

/// A vote as the wire has it.
pub(crate) fn vote(vote: &types::Vote) -> Vote {
    Vote { term: vote.leader_id.term, candidate: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote as openraft has it.
pub(crate) fn raft_vote(vote: Vote) -> types::Vote {
    if vote.committed {
        VoteOf::<TypeConfig>::new_committed(vote.term, vote.candidate)
    } else {
        VoteOf::<TypeConfig>::new(vote.term, vote.candidate)
    }
}

/// A membership as the wire has it.
pub(crate) fn membership(membership: &Membership<MemberId, Member>) -> MembershipRecord {
    MembershipRecord {
        voters: membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect(),
        members: membership.nodes().map(|(_, member)| member.clone()).collect(),
    }
}

/// A membership as openraft has it.
///
/// # Errors
/// [`WireError::Malformed`] where a voter has no record, or a set of voters is empty.
pub(crate) fn raft_membership(record: MembershipRecord) -> Result<Membership<MemberId, Member>, WireError> {
    let members: BTreeMap<MemberId, Member> =
        record.members.into_iter().map(|member| (member.id, member)).collect();
    if record.voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    let voters: Vec<BTreeSet<MemberId>> =
        record.voters.into_iter().map(|set| set.into_iter().collect()).collect();
    Membership::new(voters, members)
        .map_err(|error| WireError::Malformed { what: format!("a membership makes no sense: {error}") })
}

/// An entry as the wire has it.
///
/// # Errors
/// [`WireError::Malformed`] where it cannot be encoded.
pub(crate) fn entry(entry: &types::Entry) -> Result<Entry, WireError> {
    let payload = codec::payload_of(entry).map_err(|error| malformed(&error))?;
    Ok(Entry { position: position(entry.log_id), payload })
}

/// An entry as openraft has it.
///
/// # Errors
/// [`WireError::Malformed`] where it holds a command or a membership that makes no sense.
pub(crate) fn raft_entry(entry: Entry) -> Result<types::Entry, WireError> {
    let id = types::to_wal(Some(log_id(entry.position)));
    codec::entry(id, &entry.payload).map_err(|error| malformed(&error))
}

fn malformed(error: &std::io::Error) -> WireError {
    WireError::Malformed { what: format!("an entry makes no sense: {error}") }
}

/// Entries for a follower as the wire has them.
///
/// # Errors
/// As [`entry`].
pub(crate) fn append(request: &AppendEntriesRequest<TypeConfig>) -> Result<Append, WireError> {
    Ok(Append {
        vote: vote(&request.vote),
        previous: request.prev_log_id.map(position),
        entries: request.entries.iter().map(entry).collect::<Result<_, _>>()?,
        commit: request.leader_commit.map(position),
    })
}

/// Entries for a follower as openraft has them.
///
/// # Errors
/// As [`raft_entry`], and where the entries do not follow each other.
pub(crate) fn raft_append(append: Append) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let first = append.previous.map_or(0, |position| position.index + 1);
    if append.entries.iter().zip(first..).any(|(entry, expected)| entry.position.index != expected) {
        return Err(WireError::Malformed {
            what: "the entries of an append do not follow each other".into(),
        });
    }
    Ok(AppendEntriesRequest {
        vote: raft_vote(append.vote),
        prev_log_id: append.previous.map(log_id),
        entries: append.entries.into_iter().map(raft_entry).collect::<Result<_, _>>()?,
        leader_commit: append.commit.map(log_id),
    })
}

/// What became of an append, as the wire has it.
pub(crate) fn appended(result: StreamAppendResult<TypeConfig>) -> Appended {
    match result {
        Ok(matching) => Appended::Matching(matching.map(position)),
        Err(StreamAppendError::Conflict(at)) => Appended::Conflict(position(at)),
        Err(StreamAppendError::HigherVote(higher)) => Appended::HigherVote(vote(&higher)),
    }
}

/// What became of an append, as openraft has it; a follower that failed is an error of the peer.
///
/// # Errors
/// The follower's own words.
pub(crate) fn raft_appended(appended: Appended) -> Result<StreamAppendResult<TypeConfig>, String> {
    match appended {
        Appended::Matching(matching) => Ok(Ok(matching.map(log_id))),
        Appended::Conflict(at) => Ok(Err(StreamAppendError::Conflict(log_id(at)))),
        Appended::HigherVote(higher) => Ok(Err(StreamAppendError::HigherVote(raft_vote(higher)))),
        Appended::Failed { why } => Err(why),
    }
}

/// A candidate's question as the wire has it.
pub(crate) fn vote_request(request: &RaftVoteRequest) -> VoteRequest {
    VoteRequest {
        vote: vote(&request.vote),
        last: request.last_log_id.map(position),
        transfer: request.leadership_transfer,
    }
}

/// A candidate's question as openraft has it.
pub(crate) fn raft_vote_request(request: &VoteRequest) -> RaftVoteRequest {
    let mut raft = RaftVoteRequest::new(raft_vote(request.vote), request.last.map(log_id));
    raft.leadership_transfer = request.transfer;
    raft
}

/// A voter's answer as the wire has it.
pub(crate) fn vote_answer(response: &VoteResponse<TypeConfig>) -> VoteAnswer {
    VoteAnswer::Decided {
        vote: vote(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.map(position),
    }
}

/// A voter's answer as openraft has it.
///
/// # Errors
/// The voter's own words where its store has failed.
pub(crate) fn raft_vote_answer(answer: VoteAnswer) -> Result<VoteResponse<TypeConfig>, String> {
    match answer {
        VoteAnswer::Decided { vote, granted, last } => {
            Ok(VoteResponse::new(raft_vote(vote), last.map(log_id), granted))
        }
        VoteAnswer::Failed { why } => Err(why),
    }
}

/// A transfer as the wire has it.
pub(crate) fn transfer(request: &TransferLeaderRequest<TypeConfig>) -> Transfer {
    Transfer {
        from: vote(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(position),
    }
}

/// A transfer as openraft has it.
pub(crate) fn raft_transfer(transfer: &Transfer) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(raft_vote(transfer.from), transfer.to, transfer.last.map(log_id))
}

/// The answer to a transfer as the wire has it.
pub(crate) fn transferred(response: &TransferLeaderResponse<TypeConfig>) -> Transferred {
    match response {
        Ok(()) => Transferred::Accepted,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => {
            Transferred::VoteChanged { actual: vote(actual) }
        }
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            Transferred::Behind { actual: actual.map(position) }
        }
    }
}

/// The answer to a transfer as openraft has it.
///
/// # Errors
/// The member's own words where its store has failed.
pub(crate) fn raft_transferred(
    answer: Transferred,
    request: &TransferLeaderRequest<TypeConfig>,
) -> Result<TransferLeaderResponse<TypeConfig>, String> {
    match answer {
        Transferred::Accepted => Ok(Ok(())),
        Transferred::VoteChanged { actual } => Ok(Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: raft_vote(actual),
        })),
        Transferred::Behind { actual } => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: actual.map(log_id),
        })),
        Transferred::Failed { why } => Err(why),
    }
}

/// What a snapshot says of itself, as the wire has it.
pub(crate) fn snapshot_begin(leader: &types::Vote, meta: &SnapshotMeta, id: [u8; 16]) -> SnapshotBegin {
    SnapshotBegin {
        vote: vote(leader),
        last: meta.last_log_id.map(position),
        membership_at: meta.last_membership.log_id().map(position),
        membership: membership(meta.last_membership.membership()),
        id,
    }
}

/// What a snapshot says of itself, as openraft has it.
///
/// # Errors
/// As [`raft_membership`].
pub(crate) fn raft_snapshot_meta(begin: SnapshotBegin) -> Result<(types::Vote, SnapshotMeta), WireError> {
    let membership = raft_membership(begin.membership)?;
    let meta = SnapshotMeta {
        last_log_id: begin.last.map(log_id),
        last_membership: StoredMembership::new(begin.membership_at.map(log_id), membership),
    };
    Ok((raft_vote(begin.vote), meta))
}
