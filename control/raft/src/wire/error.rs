//! Errors as they travel: each is something that the other side acts on differently.

use sampan_store::{Level, Revision, StorageError};
use serde::{Deserialize, Serialize};

/// Why a member does not answer a stream at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The versions have nothing in common.
    #[error("the member speaks versions {oldest} to {newest} of the members' messages, not {asked}")]
    Version {
        /// What was asked for.
        asked: u16,
        /// The oldest that the member speaks.
        oldest: u16,
        /// The newest that the member speaks.
        newest: u16,
    },
    /// The member belongs to another cluster.
    #[error("the member belongs to another cluster")]
    OtherCluster,
    /// Another member was meant: the address leads elsewhere now.
    #[error("another member was meant")]
    OtherMember,
    /// The sender's key is not the one of the member that it says it is.
    #[error("the connection's key is not that of the member it claims to be")]
    Impostor,
    /// The sender was a member once, and was removed.
    #[error("this member was removed from the cluster")]
    Removed,
    /// The sender is not, or not yet, a member.
    #[error("this machine is not a member of the cluster")]
    NotMember,
    /// The stream's first message made no sense, or came on a stream for something else.
    #[error("the stream did not begin as it must")]
    Malformed,
    /// The member is about to stop, or not ready yet.
    #[error("the member is not serving")]
    NotServing,
}

/// A [`StorageError`] on the wire, and what can go wrong with the wire itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum WireError {
    /// The revision asked for was compacted away.
    #[error("revision {requested} was compacted; the oldest kept is {oldest}")]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest that is kept.
        oldest: Revision,
    },
    /// The revision asked for lies ahead.
    #[error("revision {requested} is ahead of the store's {current}")]
    Future {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest that there is.
        current: Revision,
    },
    /// No space is left.
    #[error("no space left on the store's device")]
    NoSpace,
    /// The transaction is too large.
    #[error("transaction of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// The transaction breaks a rule.
    #[error("invalid transaction: {why}")]
    Invalid {
        /// Which one.
        why: String,
    },
    /// Data is damaged.
    #[error("{what}")]
    Corrupt {
        /// What, and how.
        what: String,
    },
    /// The store is not available.
    #[error("the store is not available: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
    /// Input or output failed at the leader.
    #[error("input or output failed: {what}")]
    Io {
        /// What failed.
        what: String,
    },
    /// A message made no sense.
    #[error("{what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
}

impl From<StorageError> for WireError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Compacted { requested, oldest } => Self::Compacted { requested, oldest },
            StorageError::Future { requested, current } => Self::Future { requested, current },
            StorageError::NoSpace => Self::NoSpace,
            StorageError::TooLarge { size, limit } => {
                Self::TooLarge { size: size as u64, limit: limit as u64 }
            }
            StorageError::Invalid { why } => Self::Invalid { why },
            StorageError::Corrupt { what } => Self::Corrupt { what },
            StorageError::Unavailable { why } => Self::Unavailable { why },
            StorageError::Io(error) => Self::Io { what: error.to_string() },
        }
    }
}

impl From<WireError> for StorageError {
    fn from(error: WireError) -> Self {
        let usize = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        match error {
            WireError::Compacted { requested, oldest } => Self::Compacted { requested, oldest },
            WireError::Future { requested, current } => Self::Future { requested, current },
            WireError::NoSpace => Self::NoSpace,
            WireError::TooLarge { size, limit } => Self::TooLarge { size: usize(size), limit: usize(limit) },
            WireError::Invalid { why } => Self::Invalid { why },
            WireError::Corrupt { what } => Self::Corrupt { what },
            WireError::Unavailable { why } => Self::Unavailable { why },
            WireError::Io { what } => Self::Io(std::io::Error::other(what)),
            WireError::Malformed { what } => Self::Unavailable { why: what },
        }
    }
}

/// Why a change of the group was refused, or did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum MembershipError {
    /// Another change is under way: one at a time.
    #[error("another change of the members is under way; try again when it is done")]
    Busy,
    /// No such member.
    #[error("there is no member {id:016x}")]
    NotMember {
        /// Who was meant.
        id: u64,
    },
    /// Another member has the name already.
    #[error("the name {name} belongs to another member already ({holder:016x}); remove that one first")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        holder: u64,
    },
    /// Without the member the group could not decide anything any more.
    #[error("the cluster would lose its quorum: {why}")]
    QuorumLost {
        /// How.
        why: String,
    },
    /// The member has not caught up with the log.
    #[error("the member {name} has not caught up: it lacks {lag}")]
    NotCaughtUp {
        /// Who.
        name: String,
        /// How much it lacks, in words.
        lag: String,
    },
    /// A learner cannot lead.
    #[error("the member {name} does not vote, so it cannot lead; promote it first")]
    NotVoter {
        /// Who.
        name: String,
    },
    /// The record of a member makes no sense.
    #[error("the member's record cannot be used: {why}")]
    Invalid {
        /// What is wrong.
        why: String,
    },
    /// There is no leader, or it cannot be reached, or it changed meanwhile.
    #[error("the change did not come to its end: {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
    /// The machine does not understand what the group uses. Said by groups beyond the first level only.
    #[error("{}", crate::level::too_old(name, Level::of_number(*understands), Level::of_number(*group)))]
    TooOld {
        /// Who.
        name: String,
        /// The newest level that it understands.
        understands: u16,
        /// The group's level.
        group: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_errors_survive_the_wire() {
        let errors = [
            StorageError::Compacted { requested: Revision(3), oldest: Revision(7) },
            StorageError::Future { requested: Revision(9), current: Revision(7) },
            StorageError::NoSpace,
            StorageError::TooLarge { size: 10, limit: 5 },
            StorageError::Invalid { why: "a key is empty".into() },
            StorageError::Corrupt { what: "bad".into() },
            StorageError::Unavailable { why: "closing".into() },
        ];
        for error in errors {
            let text = format!("{error:?}");
            let wire: WireError = error.into();
            let back: WireError = super::super::decode(&super::super::encode(&wire).unwrap()).unwrap();
            assert_eq!(format!("{:?}", StorageError::from(back)), text);
        }
        let io: WireError = StorageError::Io(std::io::Error::other("disk on fire")).into();
        assert!(
            matches!(StorageError::from(io), StorageError::Io(error) if error.to_string() == "disk on fire")
        );
    }
}
