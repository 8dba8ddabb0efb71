//! The group's level: what all members may use, see [`sampan_store::Level`].
//!
//! Every member says with each stream that it lets in what it understands; one that was made
//! before there were levels says 1. The leader asks all of them as long as the group is not where
//! the leader itself could be, and has the level raised by a command once nobody is behind. From
//! then on a member that is too old gets no entries and no streams.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sampan_store::{Command, Level};
use tokio::time::{sleep, timeout};

use crate::membership;
use crate::peers::PeerError;
use crate::store::{Core, LocalError, RaftStore};
use crate::types::{Member, MemberId};
use crate::wire::{Kind, MembershipError, Refusal};

/// How often the leader asks the members, while the level could go up.
const LOOK: Duration = Duration::from_secs(1);
/// How long a member may take to say what it understands.
const WITHIN: Duration = Duration::from_secs(1);

/// The group's level, and what the members understand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The group's level.
    pub group: Level,
    /// The newest level that each member understands; `None` where it does not answer.
    pub members: Vec<(MemberId, Option<Level>)>,
}

impl RaftStore {
    /// What the group has agreed to use, as far as this member knows.
    pub fn level(&self) -> Level {
        self.core.level()
    }

    /// The newest level that this member takes part in.
    pub fn newest_level(&self) -> Level {
        self.core.directory.newest()
    }

    /// Asks every member what it understands. A member that does not answer is not waited for longer
    /// than a second.
    pub async fn levels(&self) -> Levels {
        let core = &self.core;
        let others = ask_all(core, &core.directory.others()).await;
        let others = others.into_iter().map(|asked| (asked.member.id, asked.understands));
        let mut members: Vec<_> = others.chain([(core.id, Some(core.directory.newest()))]).collect();
        members.sort_by_key(|(id, _)| *id);
        Levels { group: core.level(), members }
    }
}

impl Core {
    /// The group's level.
    pub(crate) fn level(&self) -> Level {
        self.directory.level()
    }
}

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    member: Member,
    understands: Option<Level>,
}

/// What the leader does about the level.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It goes up.
    Raise(Level),
    /// It stays, as long as there are these.
    Held(String),
}

/// Decides it: the level is the newest one that everybody understands, the leader among them.
fn decide(group: Level, own: Level, others: &[Asked]) -> Decision {
    let common = others.iter().map(|other| other.understands).min().unwrap_or(Some(own));
    match common.map(|common| common.min(own)) {
        Some(common) if common > group => Decision::Raise(common),
        _ => Decision::Held(
            others
                .iter()
                .filter(|other| other.understands <= Some(group))
                .map(behind)
                .collect::<Vec<_>>()
                .join(", "),
        ),
    }
}

fn behind(asked: &Asked) -> String {
    match asked.understands {
        Some(level) => format!("{} understands {level}", asked.member.name),
        None => format!("{} does not answer", asked.member.name),
    }
}

async fn ask_all(core: &Core, members: &[Member]) -> Vec<Asked> {
    let ask = async |member: &Member| Asked { member: member.clone(), understands: ask(core, member).await };
    join_all(members.iter().map(ask)).await
}

/// What a member understands: it says so where it lets a stream in, on which nothing follows.
async fn ask(core: &Core, member: &Member) -> Option<Level> {
    let open = core.directory.open(member.id, Kind::Append);
    let asked = async {
        let mut link = core.forward.peers().stream(member, open, WITHIN).await?;
        let version = link.admitted().await;
        link.outgoing.finish().await;
        version
    };
    match timeout(WITHIN, asked).await {
        Ok(Ok(version)) => {
            core.directory.understands(member, version);
            Some(Level::of_number(version))
        }
        Ok(Err(error)) => {
            core.directory.heard(&error);
            match error {
                // A member whose versions have nothing in common with these says which it has.
                PeerError::Refused { refusal: Refusal::Version { newest, .. }, .. } => {
                    Some(Level::of_number(newest))
                }
                _ => None,
            }
        }
        Err(_) => None,
    }
}

/// While this member leads, raises the level once everybody understands a newer one.
pub(crate) async fn keep(core: Arc<Core>) {
    let mut leadership = core.leadership.subscribe();
    let mut said = None;
    loop {
        let leads = leadership.borrow_and_update().mine;
        if !leads || core.level() >= core.directory.newest() {
            said = None;
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        }
        look(&core, &mut said).await;
        tokio::select! {
            () = sleep(LOOK) => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// Asks everybody, and raises the level where that can be. `said` is what kept it the last time.
async fn look(core: &Core, said: &mut Option<String>) {
    let _members = core.changes.without_newcomers().await;
    let (group, own) = (core.level(), core.directory.newest());
    match decide(group, own, &ask_all(core, &membership::others(core)).await) {
        Decision::Raise(level) => {
            match core.write(Command::Level { level: level.number() }).await {
                Ok(_) => {
                    tracing::info!(%level, "the group is at this level now; no older member can be part of it")
                }
                // It is tried again, here or by whoever leads then.
                Err(LocalError::NotLeader { .. }) => {}
                Err(error) => tracing::debug!(?error, "the group's level did not go up"),
            }
        }
        Decision::Held(by) => {
            if said.as_ref() != Some(&by) {
                tracing::info!(level = %group, by, "the group stays at this level");
                *said = Some(by);
            }
        }
    }
}

/// Refuses a machine that wants to become a member and is too old for the group.
///
/// # Errors
/// [`MembershipError::TooOld`]. One that does not answer is let pass: it will not catch up.
pub(crate) async fn check_newcomer(core: &Core, member: &Member) -> Result<(), MembershipError> {
    let group = core.level();
    if group == Level::OLDEST {
        return Ok(());
    }
    match ask(core, member).await {
        Some(level) if level < group => Err(MembershipError::TooOld {
            name: member.name.clone(),
            understands: level.number(),
            group: group.number(),
        }),
        _ => Ok(()),
    }
}

/// What is said of a member that is too old.
pub(crate) fn too_old(name: &str, understands: Level, group: Level) -> String {
    format!(
        "{name} is too old for this cluster: it understands level {understands}, and the cluster is at level {group}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_goes_up_once_everybody_understands_the_next_one() {
        let level = |number| Some(Level::of_number(number));
        let asked = |levels: &[Option<Level>]| -> Vec<Asked> {
            let one = |(place, understands): (usize, &Option<Level>)| Asked {
                member: Member { name: format!("s{}", place + 2), ..Member::default() },
                understands: *understands,
            };
            levels.iter().enumerate().map(one).collect()
        };
        let raise = |number| Decision::Raise(Level::of_number(number));
        let held = |by: &str| Decision::Held(by.to_owned());
        // group, own, others, decision
        let table = [
            (1, 2, &[][..], raise(2)),
            (1, 2, &[level(2), level(2)], raise(2)),
            (1, 2, &[level(2), level(3)], raise(2)),
            (1, 4, &[level(2), level(3)], raise(2)),
            (1, 4, &[level(4), level(3)], raise(3)),
            (2, 4, &[level(4), level(3)], raise(3)),
            (1, 2, &[level(1), level(2)], held("s2 understands 1 (0.2)")),
            (1, 2, &[level(2), None], held("s3 does not answer")),
            (2, 3, &[level(1), level(3)], held("s2 understands 1 (0.2)")),
            (1, 1, &[level(2), level(2)], held("")),
            (2, 2, &[level(2)], held("s2 understands 2 (0.3)")),
        ];
        for (group, own, others, expected) in table {
            let (group, own) = (Level::of_number(group), Level::of_number(own));
            assert_eq!(decide(group, own, &asked(others)), expected, "{group} {own} {others:?}");
        }
    }
}
