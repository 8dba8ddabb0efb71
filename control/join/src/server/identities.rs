//! Which key owns which name. A name is given to the first key that enrols with it, and is free
//! again when the Node is deleted, or the member is removed.

use jiff::{SignedDuration, Timestamp};
use sampan_api::status::Status;
use sampan_apiserver::pki::MachineRole;
use sampan_store::{Compare, Op};
use serde::{Deserialize, Serialize};

use super::records::{self, Record, Records};
use crate::KeyId;

pub(crate) const PREFIX: &str = "/sampan/identities/";
pub(crate) const REMOVED: &str = "/sampan/removed/";
const NODES: &str = "/registry/core/nodes/";
/// A node that has just enrolled has no Node object yet; its name is not free for that.
const REGISTRATION: SignedDuration = SignedDuration::from_mins(2);
/// Writers that met each other try again so often.
const ATTEMPTS: usize = 16;

/// The owner of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its key.
    pub(crate) key: KeyId,
    /// `host:port` each, where it was reached last.
    pub(crate) addresses: Vec<String>,
    /// When it was given the name, in seconds since 1970.
    pub(crate) since: i64,
    /// Which generation of the cluster's authorities it trusts, as far as it told.
    pub(crate) generation: u64,
}

/// A key that is not wanted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// The name that it had.
    pub(crate) name: String,
    /// When it was removed, in seconds since 1970.
    pub(crate) at: i64,
}

/// A machine that asks for names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) name: &'a str,
    pub(crate) roles: &'a [MachineRole],
    pub(crate) key: KeyId,
    pub(crate) addresses: &'a [String],
    /// Which generation of the cluster's authorities it is known to have.
    pub(crate) holds: u64,
}

/// What the machine proves beside its key.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// A token, which must still be as it was read.
    Token(Compare),
    /// Nothing more is needed: it is this server itself, or it showed certificates of ours.
    Key,
    /// Nothing: the name must be its already.
    Known,
}

/// Why a machine does not get a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "this machine's key was removed from the cluster on {at} (as {name:?}); to join again, delete its data directory and use a new token"
    )]
    Removed { name: String, at: Timestamp },
    #[error(
        "the node name {0:?} belongs to another machine's key; delete that Node first ('kubectl delete node {0}'), or choose another --node-name"
    )]
    NodeTaken(String),
    #[error(
        "the node name {0:?} was given to another machine's key a moment ago; choose another --node-name"
    )]
    NodeJustTaken(String),
    #[error(
        "the server name {0:?} belongs to another machine's key; remove that member first ('sampan member remove {0}'), or choose another --node-name"
    )]
    ServerTaken(String),
    #[error("this machine's key is not known as {0:?} here; join with a new token")]
    Unknown(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = match refusal {
            Refusal::Removed { .. } => (403, "Forbidden"),
            Refusal::NodeTaken(_) | Refusal::NodeJustTaken(_) | Refusal::ServerTaken(_) => (409, "Conflict"),
            Refusal::Unknown(_) => (401, "Unauthorized"),
        };
        Status::failure(code, reason, refusal.to_string())
    }
}

/// What is known about a name and a key.
#[derive(Clone, Debug, Default)]
struct Known {
    owner: Option<Identity>,
    removed: Option<Removed>,
    /// Whether there is a Node object of the name.
    registered: bool,
}

/// Whether a key may have a name.
fn judge(role: MachineRole, name: &str, key: KeyId, known: &Known, now: Timestamp) -> Result<(), Refusal> {
    if let Some(removed) = &known.removed {
        let at = Timestamp::from_second(removed.at).unwrap_or_default();
        return Err(Refusal::Removed { name: removed.name.clone(), at });
    }
    let Some(owner) = known.owner.as_ref().filter(|owner| owner.key != key) else { return Ok(()) };
    let age = now.as_second().saturating_sub(owner.since);
    match role {
        MachineRole::Server => Err(Refusal::ServerTaken(name.to_owned())),
        MachineRole::Node if known.registered => Err(Refusal::NodeTaken(name.to_owned())),
        MachineRole::Node if age < REGISTRATION.as_secs() => Err(Refusal::NodeJustTaken(name.to_owned())),
        MachineRole::Node => Ok(()),
    }
}

/// Keeps identities.
pub(crate) struct Identities {
    records: Records,
}

impl Identities {
    pub(crate) fn new(records: Records) -> Self {
        Self { records }
    }

    /// Gives a machine its names, all or none; names that it has already stay its.
    pub(crate) async fn admit(
        &self,
        machine: &Applicant<'_>,
        proof: Proof,
        now: Timestamp,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let observed = self.observe(machine).await?;
            let (compares, changes) = plan(machine, &proof, &observed, now)?;
            if changes.is_empty() || self.records.change(compares, changes).await? {
                return Ok(());
            }
        }
        Err(Status::unavailable("the machine's names could not be written down; try again"))
    }

    async fn observe(&self, machine: &Applicant<'_>) -> Result<Vec<Record>, Status> {
        let mut keys = vec![format!("{REMOVED}{}", machine.key), format!("{NODES}{}", machine.name)];
        keys.extend(machine.roles.iter().map(|role| key(*role, machine.name)));
        self.records.read(&keys).await
    }

    /// The owner of a name.
    pub(crate) async fn owner(&self, role: MachineRole, name: &str) -> Result<Option<Identity>, Status> {
        self.records.read_one(&key(role, name)).await?.get()
    }

    /// Whether this server knows a machine's key under all of its names.
    pub(crate) async fn is_known(&self, machine: &Applicant<'_>) -> Result<bool, Status> {
        for role in machine.roles {
            let owner: Option<Identity> = self.records.peek(&key(*role, machine.name)).await?;
            if owner.is_none_or(|owner| owner.key != machine.key) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a key was removed, and as whom.
    pub(crate) async fn check_not_removed(&self, key: KeyId) -> Result<(), Status> {
        let removed: Option<Removed> = self.records.read_one(&format!("{REMOVED}{key}")).await?.get()?;
        match removed {
            None => Ok(()),
            Some(Removed { name, at }) => {
                Err(Refusal::Removed { name, at: Timestamp::from_second(at).unwrap_or_default() }.into())
            }
        }
    }

    /// Turns a machine's key away for good, and frees its name.
    pub(crate) async fn remove(
        &self,
        role: MachineRole,
        name: &str,
        owner: KeyId,
        now: Timestamp,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let record = self.records.read_one(&key(role, name)).await?;
            let removed = Removed { name: name.to_owned(), at: now.as_second() };
            let mut changes = vec![records::put(&format!("{REMOVED}{owner}"), &removed)?];
            if record.get::<Identity>()?.is_some_and(|found| found.key == owner) {
                changes.push(records::delete(&record.key));
            }
            if self.records.change(vec![record.unchanged()], changes).await? {
                return Ok(());
            }
        }
        Err(Status::unavailable("the machine's key could not be written down as removed; try again"))
    }

    /// Writes down which authorities a machine trusts.
    pub(crate) async fn acknowledge(
        &self,
        role: MachineRole,
        name: &str,
        generation: u64,
    ) -> Result<(), Status> {
        for _ in 0..ATTEMPTS {
            let record = self.records.read_one(&key(role, name)).await?;
            let Some(mut found) = record.get::<Identity>()? else { return Ok(()) };
            if found.generation == generation {
                return Ok(());
            }
            found.generation = generation;
            let change = records::put(&record.key, &found)?;
            if self.records.change(vec![record.unchanged()], vec![change]).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes down which authorities a server trusts, which may be a node as well.
    pub(crate) async fn acknowledge_server(&self, name: &str, generation: u64) -> Result<(), Status> {
        let Some(server) = self.owner(MachineRole::Server, name).await? else { return Ok(()) };
        self.acknowledge(MachineRole::Server, name, generation).await?;
        match self.owner(MachineRole::Node, name).await? {
            Some(node) if node.key == server.key => {
                self.acknowledge(MachineRole::Node, name, generation).await
            }
            _ => Ok(()),
        }
    }

    /// All machines of a role, by name.
    pub(crate) async fn all(&self, role: MachineRole) -> Result<Vec<(String, Identity)>, Status> {
        self.records.list(&key(role, "")).await
    }
}

/// The changes that give a machine its names, and what they rest on; none where it has them.
fn plan(
    machine: &Applicant<'_>,
    proof: &Proof,
    observed: &[Record],
    now: Timestamp,
) -> Result<(Vec<Compare>, Vec<Op>), Status> {
    let [removed, node, owners @ ..] = observed else { return Ok((Vec::new(), Vec::new())) };
    let mut changes = Vec::new();
    for (role, record) in machine.roles.iter().zip(owners) {
        let known = Known { owner: record.get()?, removed: removed.get()?, registered: node.exists() };
        judge(*role, machine.name, machine.key, &known, now)?;
        let own = known.owner.filter(|owner| owner.key == machine.key);
        if own.is_none() && matches!(proof, Proof::Known) {
            return Err(Refusal::Unknown(machine.name.to_owned()).into());
        }
        let next = Identity {
            key: machine.key,
            addresses: machine.addresses.to_vec(),
            since: own.as_ref().map_or(now.as_second(), |own| own.since),
            generation: own.as_ref().map_or(0, |own| own.generation).max(machine.holds),
        };
        if own.as_ref() != Some(&next) {
            changes.push(records::put(&record.key, &next)?);
        }
    }
    let mut compares: Vec<Compare> = observed.iter().map(Record::unchanged).collect();
    if let Proof::Token(compare) = proof {
        compares.push(compare.clone());
    }
    Ok((compares, changes))
}

fn key(role: MachineRole, name: &str) -> String {
    let role = match role {
        MachineRole::Server => "server",
        MachineRole::Node => "node",
    };
    format!("{PREFIX}{role}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(key: u8, since: i64) -> Option<Identity> {
        Some(Identity { key: KeyId([key; 32]), addresses: Vec::new(), since, generation: 0 })
    }

    #[test]
    fn a_name_is_for_one_key_while_it_is_in_use() {
        let own = KeyId([1; 32]);
        let now = Timestamp::from_second(10_000).unwrap();
        let taken = |refusal: fn(String) -> Refusal| Err(refusal("n".to_owned()));
        let cases = [
            (MachineRole::Node, Known::default(), Ok(())),
            (MachineRole::Node, Known { registered: true, ..Known::default() }, Ok(())),
            (MachineRole::Node, Known { owner: owner(1, 0), registered: true, removed: None }, Ok(())),
            (
                MachineRole::Node,
                Known { owner: owner(2, 0), registered: true, removed: None },
                taken(Refusal::NodeTaken),
            ),
            (MachineRole::Node, Known { owner: owner(2, 0), ..Known::default() }, Ok(())),
            (
                MachineRole::Node,
                Known { owner: owner(2, 9_990), ..Known::default() },
                taken(Refusal::NodeJustTaken),
            ),
            (
                MachineRole::Server,
                Known { owner: owner(2, 0), ..Known::default() },
                taken(Refusal::ServerTaken),
            ),
            (MachineRole::Server, Known { owner: owner(1, 0), ..Known::default() }, Ok(())),
        ];
        for (role, known, expected) in cases {
            assert_eq!(judge(role, "n", own, &known, now), expected, "{role:?} {known:?}");
        }
        let removed = Some(Removed { name: "old".into(), at: 5 });
        let known = Known { owner: owner(1, 0), removed, registered: true };
        let refusal = judge(MachineRole::Node, "n", own, &known, now).unwrap_err();
        assert!(
            refusal.to_string().contains("removed from the cluster on 1970-01-01T00:00:05Z"),
            "{refusal}"
        );
    }
}
