//! Entries as the log and the wire have them: the bytes of a [`Command`], with blank entries and
//! memberships among the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::{EntryPayload, Membership};
use sampan_store::wal::LogId;
use sampan_store::{Command, Level};
use serde::{Deserialize, Serialize};

use crate::types::{Entry, Member, MemberId, Proposal, from_wal};

/// The members of an entry or a snapshot. Stored and sent as postcard: fields are never changed.
#[derive(Serialize, Deserialize)]
struct Members {
    /// One set of voters; two while one gives way to another.
    configs: Vec<BTreeSet<MemberId>>,
    /// All members, learners among them.
    nodes: BTreeMap<MemberId, Member>,
}

/// The bytes of an entry's content.
pub fn payload_of(entry: &Entry) -> io::Result<Bytes> {
    let bytes = match &entry.payload {
        EntryPayload::Normal(Proposal(command)) => command.to_bytes(),
        EntryPayload::Blank => Command::Blank.to_bytes(),
        EntryPayload::Membership(membership) => {
            Command::Membership { membership: membership_bytes(membership)? }.to_bytes()
        }
    };
    bytes.map_err(io::Error::other)
}

/// The bytes of an entry's content as they are written to disk: of volatile changes only that
/// there were some.
pub(crate) fn stored_payload_of(entry: &Entry) -> io::Result<Bytes> {
    match placeholder(entry) {
        Some(placeholder) => placeholder.to_bytes().map_err(io::Error::other),
        None => payload_of(entry),
    }
}

fn placeholder(entry: &Entry) -> Option<Command> {
    match &entry.payload {
        EntryPayload::Normal(Proposal(command)) => command.placeholder(),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

/// The level that a group must have for an entry.
pub(crate) fn level(entry: &Entry) -> Level {
    match &entry.payload {
        EntryPayload::Normal(Proposal(command)) => command.level(),
        EntryPayload::Blank | EntryPayload::Membership(_) => Level::OLDEST,
    }
}

/// Whether an entry may be lost where nobody else has it.
pub(crate) fn is_volatile(entry: &Entry) -> bool {
    placeholder(entry).is_some()
}

/// An entry from its name and the bytes of its content.
pub fn entry(id: LogId, payload: &[u8]) -> io::Result<Entry> {
    let unknown = |error: postcard::Error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("entry {id} is of unknown form: {error}"))
    };
    let log_id = from_wal(id).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "entry 0"))?;
    let payload = match Command::from_bytes(payload).map_err(unknown)? {
        Command::Blank => EntryPayload::Blank,
        Command::Membership { membership } => EntryPayload::Membership(membership_from(&membership)?),
        command => EntryPayload::Normal(Proposal::new(command)),
    };
    Ok(Entry { log_id, payload })
}

/// About how much memory an entry takes, and at least how much of the log.
pub(crate) fn weight(entry: &Entry) -> usize {
    const LEAST: usize = 256;
    LEAST
        + match &entry.payload {
            EntryPayload::Normal(Proposal(command)) => command.weight(),
            EntryPayload::Blank => 0,
            EntryPayload::Membership(membership) => membership.nodes().count() * LEAST,
        }
}

/// A membership's bytes, as entries, snapshots and the state machine have them.
pub fn membership_bytes(membership: &Membership<MemberId, Member>) -> io::Result<Bytes> {
    let members = Members {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
    };
    postcard::to_allocvec(&members).map(Bytes::from).map_err(io::Error::other)
}

/// A membership from its bytes; none is the empty one.
pub fn membership_from(bytes: &[u8]) -> io::Result<Membership<MemberId, Member>> {
    if bytes.is_empty() {
        return Ok(Membership::default());
    }
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let Members { configs, nodes } =
        postcard::from_bytes(bytes).map_err(|error| invalid(error.to_string()))?;
    Membership::new(configs, nodes).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> LogId {
        LogId { term: 3, index }
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let member = Member { id: 7, name: "a".into(), addresses: vec!["a:1".into()], key: [7; 32] };
        let membership = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, member)])).unwrap();
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Membership(membership),
            EntryPayload::Normal(Proposal::new(Command::Reserve { upto: 9 })),
        ];
        for payload in payloads {
            let before = Entry { log_id: from_wal(id(4)).unwrap(), payload };
            let after = entry(id(4), &payload_of(&before).unwrap()).unwrap();
            assert_eq!(before, after);
        }
        assert!(entry(id(0), &Command::Blank.to_bytes().unwrap()).is_err(), "there is no entry 0");
        assert!(entry(id(1), &[250]).is_err(), "an unknown command is refused");
    }

    #[test]
    fn volatile_changes_are_written_as_forgotten() {
        let command = Command::Volatile {
            effects: vec![sampan_store::Effect::Delete { key: Bytes::from_static(b"k") }],
        };
        let volatile =
            Entry { log_id: from_wal(id(4)).unwrap(), payload: EntryPayload::Normal(Proposal::new(command)) };
        let stored = entry(id(4), &stored_payload_of(&volatile).unwrap()).unwrap();
        assert_eq!(stored.payload, EntryPayload::Normal(Proposal::new(Command::Forgotten)));
    }
}
