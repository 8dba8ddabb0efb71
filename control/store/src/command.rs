//! What the log carries, one command an entry, and the names that go with it.
//!
//! Commands are stored and sent as postcard enums: variants are only ever appended, and each has
//! the [`Level`] that brought it: a group that is not there does not use it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::level::Level;
use crate::types::{LeaseId, Txn};

/// Names a cluster; 0 is none yet. A restored cluster gets another, so that members and backups
/// of the one are no longer taken for the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl ClusterId {
    /// A new id: random, never 0.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(u64::from_be_bytes(bytes).max(1)))
    }

    /// Whether it names no cluster.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for ClusterId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A transaction, its values in their envelopes.
    Txn {
        /// The revision is at least one more than this. Logs of 0.1.0 have the counter here that
        /// the transaction met, as volatile revisions were not logged; else 0.
        floor: u64,
        /// The transaction.
        txn: Txn,
    },
    /// Revisions up to `upto` may be given out although their entries may be lost.
    Reserve {
        /// The last of them.
        upto: u64,
    },
    /// History before `revision` is forgotten.
    Compact {
        /// The oldest revision kept.
        revision: u64,
    },
    /// Changes nothing.
    Blank,
    /// The members from here on, in the form of who orders the commands.
    Membership {
        /// Opaque here.
        membership: Bytes,
    },
    /// What a transaction over volatile keys does; it takes one revision. Never written to disk,
    /// where [`Command::Forgotten`] stands for it.
    Volatile {
        /// The changes, each of another key.
        effects: Vec<Effect>,
    },
    /// A volatile transaction whose content is gone: takes its revision and changes nothing.
    Forgotten,
    /// A leader begins: revisions that may have been given out stay used.
    Reign {
        /// The cluster's id; the first one stands.
        cluster: ClusterId,
        /// Use up a revision, so that whoever listed volatile keys under another leader notices
        /// what may have vanished.
        skip: bool,
    },
    /// What several volatile transactions do, one after the other; each takes one revision. Never
    /// written to disk, where [`Command::ForgottenBatch`] stands for it.
    VolatileBatch {
        /// The changes of each, as in [`Command::Volatile`].
        transactions: Vec<Vec<Effect>>,
    },
    /// Volatile transactions whose content is gone: they take their revisions and change nothing.
    ForgottenBatch {
        /// How many they were.
        revisions: u64,
    },
    /// The group is at this level from here on, where it was not there or beyond.
    Level {
        /// [`Level::number`].
        level: u16,
    },
    /// Nobody is known to have all volatile keys any more: they are gone from here on, everywhere,
    /// those too that some member still has. Takes a revision.
    Lost,
}

impl Command {
    /// The level that a group must have for this.
    pub fn level(&self) -> Level {
        match self {
            Self::Txn { .. }
            | Self::Reserve { .. }
            | Self::Compact { .. }
            | Self::Blank
            | Self::Membership { .. }
            | Self::Volatile { .. }
            | Self::Forgotten
            | Self::Reign { .. } => Level::OLDEST,
            Self::VolatileBatch { .. } | Self::ForgottenBatch { .. } => Level::BATCHES,
            Self::Level { level } => Level::of_number(*level),
            Self::Lost => Level::LOSSES,
        }
    }

    /// What stands on disk for a command whose content lives in memory only; `None` for all others.
    pub fn placeholder(&self) -> Option<Self> {
        match self {
            Self::Volatile { .. } | Self::Forgotten => Some(Self::Forgotten),
            Self::VolatileBatch { transactions } => {
                Some(Self::ForgottenBatch { revisions: transactions.len() as u64 })
            }
            Self::ForgottenBatch { revisions } => Some(Self::ForgottenBatch { revisions: *revisions }),
            _ => None,
        }
    }

    /// A word for it, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Txn { .. } => "transaction",
            Self::Reserve { .. } => "reservation",
            Self::Compact { .. } => "compaction",
            Self::Blank => "blank",
            Self::Membership { .. } => "membership",
            Self::Volatile { .. } => "volatile changes",
            Self::Forgotten => "forgotten changes",
            Self::Reign { .. } => "reign",
            Self::VolatileBatch { .. } => "volatile changes, several",
            Self::ForgottenBatch { .. } => "forgotten changes, several",
            Self::Level { .. } => "level",
            Self::Lost => "loss of what was in memory",
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Result<Bytes, postcard::Error> {
        let room = Vec::with_capacity(self.weight());
        postcard::to_extend(self, room).map(Bytes::from)
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }

    /// About how much memory it takes, and at least how much of the log.
    pub fn weight(&self) -> usize {
        const LEAST: usize = 128;
        LEAST
            + match self {
                Self::Txn { txn, .. } => crate::txn::logged_size(txn),
                Self::Membership { membership } => membership.len(),
                Self::Volatile { effects } => effects.iter().map(Effect::weight).sum(),
                Self::VolatileBatch { transactions } => {
                    transactions.iter().flatten().map(Effect::weight).sum()
                }
                Self::Reserve { .. }
                | Self::Compact { .. }
                | Self::Blank
                | Self::Forgotten
                | Self::ForgottenBatch { .. }
                | Self::Level { .. }
                | Self::Lost
                | Self::Reign { .. } => 0,
            }
    }
}

/// What a volatile transaction does to one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The key has this state from now on.
    Put {
        /// The key.
        key: Bytes,
        /// Its value, in its envelope.
        value: Bytes,
        /// The revision at which the key came to be; 0 is this transaction's.
        create: u64,
        /// How often it was written since then.
        version: u64,
    },
    /// The key is gone.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// As [`Effect::Put`], attached to a lease.
    Attach {
        /// The key.
        key: Bytes,
        /// Its value, in its envelope.
        value: Bytes,
        /// The revision at which the key came to be; 0 is this transaction's.
        create: u64,
        /// How often it was written since then.
        version: u64,
        /// The lease.
        lease: LeaseId,
    },
}

impl Effect {
    /// About how much memory it takes.
    pub fn weight(&self) -> usize {
        const LEAST: usize = 64;
        match self {
            Self::Put { key, value, .. } | Self::Attach { key, value, .. } => LEAST + key.len() + value.len(),
            Self::Delete { key } => LEAST + key.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs and wires of older members hold these numbers.
    #[test]
    fn commands_keep_their_numbers_and_levels() {
        // command, number, level
        let table = [
            (Command::Txn { floor: 0, txn: Txn::default() }, 0, 1),
            (Command::Reserve { upto: 1 }, 1, 1),
            (Command::Compact { revision: 1 }, 2, 1),
            (Command::Blank, 3, 1),
            (Command::Membership { membership: Bytes::new() }, 4, 1),
            (Command::Volatile { effects: Vec::new() }, 5, 1),
            (Command::Forgotten, 6, 1),
            (Command::Reign { cluster: ClusterId(1), skip: true }, 7, 1),
            (Command::VolatileBatch { transactions: Vec::new() }, 8, 2),
            (Command::ForgottenBatch { revisions: 1 }, 9, 2),
            (Command::Level { level: 2 }, 10, 2),
            (Command::Level { level: 3 }, 10, 3),
            (Command::Lost, 11, 3),
        ];
        for (command, number, level) in table {
            let bytes = command.to_bytes().unwrap();
            assert_eq!(bytes.first(), Some(&number), "{}", command.name());
            assert_eq!(command.level().number(), level, "{}", command.name());
            assert_eq!(Command::from_bytes(&bytes).unwrap(), command);
        }
    }

    #[test]
    fn what_lives_in_memory_only_uses_up_as_many_revisions_on_disk() {
        let batch = Command::VolatileBatch { transactions: vec![Vec::new(); 3] };
        let stored = batch.placeholder().unwrap();
        assert_eq!(stored, Command::ForgottenBatch { revisions: 3 });
        assert_eq!(stored.placeholder(), Some(stored));
        assert_eq!(Command::Volatile { effects: Vec::new() }.placeholder(), Some(Command::Forgotten));
        assert_eq!(Command::Blank.placeholder(), None);
    }
}
