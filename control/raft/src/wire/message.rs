//! The messages themselves. Variants and fields are pinned by `pinned.rs`: add, never change.

use bytes::Bytes;
use sampan_store::{Revision, Txn, TxnResponse};
use serde::{Deserialize, Serialize};

use super::error::{MembershipError, Refusal, WireError};

/// The first message on every stream, from the member that opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The version of the messages on this stream.
    pub version: u16,
    /// The cluster's id; 0 where the sender does not know it yet.
    pub cluster: u64,
    /// The sender.
    pub from: u64,
    /// The member that is meant.
    pub to: u64,
    /// The newest membership that the sender knows of (by its place in the log), so that the
    /// receiver can tell a member that was removed from one that it has not heard of yet.
    pub membership: Option<LogPosition>,
    /// What the stream is for.
    pub kind: Kind,
}

/// What a stream is for, and with that which messages travel on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// One [`Message`] there, one back: votes, heartbeats, transfers of leadership.
    Call,
    /// Any number of [`Message::Append`], each answered by a [`Message::Appended`], in order.
    Append,
    /// A snapshot: begin → at, frames, end → (installing)… done.
    Snapshot,
    /// Any number of [`Message::Ask`], answered in any order by [`Message::Answer`].
    Forward,
    /// [`Message::VolatileAsk`] → begin or copy, frames, end; or none.
    Volatile,
}

/// The first message back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admit {
    /// Go on.
    Accepted {
        /// The newest version that the receiver speaks; a later stream may use it.
        version: u16,
    },
    /// Nothing more comes.
    Refused(Refusal),
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that wrote it.
    pub term: u64,
    /// Its place.
    pub index: u64,
}

/// A vote: a term, whom it is for, and whether a quorum granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate, or leader.
    pub candidate: u64,
    /// Whether a quorum granted it: the candidate leads.
    pub committed: bool,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub position: LogPosition,
    /// What it holds, in the bytes that the log has for it (a [`sampan_store::Command`]).
    pub payload: Bytes,
}

/// Who belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRecord {
    /// The sets of voters: one, or two while voters change.
    pub voters: Vec<Vec<u64>>,
    /// Every member's record.
    pub members: Vec<crate::types::Member>,
}

/// Entries for a follower; with none it is a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The leader's vote.
    pub vote: Vote,
    /// The position just before the entries.
    pub previous: Option<LogPosition>,
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// What is committed, as the leader knows.
    pub commit: Option<LogPosition>,
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Appended {
    /// The follower's log is the leader's up to here, on disk.
    Matching(Option<LogPosition>),
    /// The follower has something else, or nothing, at this position.
    Conflict(LogPosition),
    /// There is a newer leader or candidate.
    HigherVote(Vote),
    /// The follower cannot store anything any more.
    Failed {
        /// Why.
        why: String,
    },
}

/// A candidate asks for a vote, or whether it would get one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequest {
    /// The vote asked for.
    pub vote: Vote,
    /// The end of the candidate's log.
    pub last: Option<LogPosition>,
    /// Whether the leader itself asked the candidate to take over.
    pub transfer: bool,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoteAnswer {
    /// What the voter decided.
    Decided {
        /// The voter's own vote now.
        vote: Vote,
        /// Whether it granted.
        granted: bool,
        /// The end of the voter's log.
        last: Option<LogPosition>,
    },
    /// The voter's own store has failed.
    Failed {
        /// Why.
        why: String,
    },
}

/// The leader hands over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The leader's vote.
    pub from: Vote,
    /// The member that shall lead.
    pub to: u64,
    /// The end of the leader's log, which the next leader must have.
    pub last: Option<LogPosition>,
}

/// The answer to a [`Transfer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transferred {
    /// The member stands for election, or lets the other one.
    Accepted,
    /// Somebody else leads by now.
    VoteChanged {
        /// The vote that it has.
        actual: Vote,
    },
    /// The member's log is not long enough.
    Behind {
        /// The end of its log.
        actual: Option<LogPosition>,
    },
    /// The member's own store has failed.
    Failed {
        /// Why.
        why: String,
    },
}

/// A snapshot begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    /// The leader's vote.
    pub vote: Vote,
    /// The last entry that the snapshot holds the effect of.
    pub last: Option<LogPosition>,
    /// The place of the membership in the log.
    pub membership_at: Option<LogPosition>,
    /// The membership as of `last`.
    pub membership: MembershipRecord,
    /// Tells this cut of the leader's state from every other: a broken transfer goes on where
    /// the receiver's partial copy of the same cut ends.
    pub id: [u8; 16],
}

/// A change of the group, or a question about it: for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admin {
    /// A new member, without a vote at first; answered once it has caught up.
    AddLearner(crate::types::Member),
    /// A learner gets a vote.
    Promote(u64),
    /// A member goes.
    Remove(u64),
    /// A member's record (its addresses) changes.
    Update(crate::types::Member),
    /// Somebody else shall lead: this one, or the one that is furthest.
    TransferLeadership(Option<u64>),
    /// How everybody stands.
    Standings,
}

/// How a member stands, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its record.
    pub member: crate::types::Member,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// How many entries of the log it lacks; `None` where nobody knows.
    pub lag: Option<u64>,
    /// Whether it answered the leader of late; `None` where nobody knows.
    pub reachable: Option<bool>,
}

/// What a member asks of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A transaction, as the client sent it.
    Txn(Txn),
    /// A compaction.
    Compact(Revision),
    /// The position that a linearizable read must have applied.
    ReadIndex,
    /// A change of the group.
    Admin(Admin),
}

/// What the leader says to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The transaction's outcome.
    Txn(TxnResponse),
    /// It was done; whoever asked waits until it has applied this revision.
    Done {
        /// The store's revision after it.
        revision: Revision,
    },
    /// The read index.
    ReadIndex {
        /// The index in the log that must be applied before the read.
        index: u64,
    },
    /// How the members stand.
    Standings(Vec<Standing>),
    /// This member does not lead: the request was certainly not accepted.
    NotLeader {
        /// Who leads, if it is known.
        leader: Option<u64>,
    },
    /// The request was refused, or failed: it has no effect.
    Failed(WireError),
    /// Whether the request takes effect is not known.
    Unknown {
        /// What happened.
        why: String,
    },
    /// A change of the group was refused.
    Membership(MembershipError),
}

/// What travels after the opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Entries, or a heartbeat.
    Append(Append),
    /// Its answer.
    Appended(Appended),
    /// A candidate asks for a vote.
    Vote(VoteRequest),
    /// A candidate asks whether it would get one.
    PreVote(VoteRequest),
    /// The answer to either.
    Voted(VoteAnswer),
    /// The leader hands over.
    Transfer(Transfer),
    /// Its answer.
    Transferred(Transferred),
    /// A snapshot begins.
    SnapshotBegin(SnapshotBegin),
    /// From here on the receiver needs frames; empty is the start.
    SnapshotAt {
        /// The cursor after the last frame that the receiver has.
        cursor: Bytes,
    },
    /// A piece of the snapshot.
    SnapshotFrame {
        /// The cursor after it.
        cursor: Bytes,
        /// The piece, in the store's own format.
        frame: Bytes,
    },
    /// That was all.
    SnapshotEnd,
    /// The receiver is still putting the snapshot in place.
    SnapshotInstalling,
    /// The snapshot is in place, or a newer vote was in the way.
    SnapshotDone {
        /// The receiver's vote.
        vote: Vote,
    },
    /// The receiver cannot take the snapshot.
    SnapshotFailed {
        /// Why.
        why: String,
    },
    /// A request for the leader.
    Ask {
        /// Names the request on this stream.
        id: u64,
        /// The request.
        ask: Ask,
    },
    /// Its answer.
    Answer {
        /// The request's name.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// The keys kept in memory only, please.
    VolatileAsk,
    /// They come, as of this position.
    VolatileBegin {
        /// How many entries of the log they hold the effect of.
        applied: u64,
    },
    /// Some of them.
    VolatileFrame {
        /// In the store's own format.
        frame: Bytes,
    },
    /// That was all.
    VolatileEnd,
    /// As [`Message::VolatileBegin`], from level 3 on.
    VolatileCopy {
        /// How many entries of the log they hold the effect of,
        applied: u64,
        /// and the revision that these led to.
        revision: u64,
    },
    /// There is no copy: this member lacks some of them itself.
    VolatileNone,
}
