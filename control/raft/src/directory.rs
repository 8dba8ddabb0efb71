//! Who the members are, as this member knows it: where streams go, what their openings say, and
//! whom this member lets in.
//!
//! It follows the membership that Raft has in effect, so that a member whose addresses changed is
//! found under the new ones by streams that were made before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use openraft::async_runtime::WatchReceiver;
use parking_lot::{Mutex, RwLock};
use sampan_store::Level;
use tokio::sync::watch;

use crate::level;
use crate::peers::PeerError;
use crate::types::{Member, MemberId, StoredMembership, TypeConfig};
use crate::wire::{Kind, LogPosition, Open, Refusal, convert};

/// The part of Raft's metrics that this follows.
type Metrics = openraft::alias::WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>;

/// A cluster's id where it is not known yet.
pub(crate) const NO_CLUSTER: u64 = 0;

/// The members as this member knows them.
pub(crate) struct Directory {
    id: MemberId,
    /// The newest level that this member takes part in.
    newest: Level,
    /// The group's level, by its number.
    level: AtomicU16,
    /// Of whom it was said that they are too old.
    too_old: Mutex<BTreeSet<MemberId>>,
    known: RwLock<Known>,
    removed: watch::Sender<bool>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    cluster: u64,
    /// Records in effect, and of members that this one was told of otherwise.
    members: BTreeMap<MemberId, Member>,
    /// Where the membership in effect stands in the log.
    effective: Option<LogPosition>,
    /// The newest membership that cannot be taken back.
    committed: Settled,
}

/// A membership that cannot be taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Where it stands in the log.
    pub(crate) at: Option<LogPosition>,
    /// Whom it has.
    pub(crate) members: Vec<MemberId>,
}

impl Directory {
    /// Begins with what the store's directory on disk says: its cluster, or [`NO_CLUSTER`].
    /// `newest` is the level up to which this member takes part.
    pub(crate) fn new(id: MemberId, cluster: u64, newest: Level) -> Arc<Self> {
        let known = Known { cluster, ..Known::default() };
        Arc::new(Self {
            id,
            newest,
            level: AtomicU16::new(Level::OLDEST.number()),
            too_old: Mutex::default(),
            known: RwLock::new(known),
            removed: watch::Sender::new(false),
        })
    }

    /// The newest level that this member takes part in.
    pub(crate) fn newest(&self) -> Level {
        self.newest
    }

    /// The group's level.
    pub(crate) fn level(&self) -> Level {
        Level::of_number(self.level.load(Ordering::Acquire))
    }

    /// The group's level is this, or beyond.
    pub(crate) fn set_level(&self, level: Level) {
        self.level.fetch_max(level.number(), Ordering::AcqRel);
    }

    /// A member said what it understands. That it is too old is said once.
    pub(crate) fn understands(&self, member: &Member, version: u16) {
        let (understands, group) = (Level::of_number(version), self.level());
        let mut too_old = self.too_old.lock();
        if understands >= group {
            too_old.remove(&member.id);
        } else if too_old.insert(member.id) {
            tracing::warn!("{}", level::too_old(&member.name, understands, group));
        }
    }

    /// The cluster is known now: from a snapshot, or from whoever let this member in.
    pub(crate) fn set_cluster(&self, cluster: u64) {
        self.known.write().cluster = cluster;
    }

    /// Whether this member was told that it was removed.
    pub(crate) fn removed(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    /// The opening of a stream to `to`.
    pub(crate) fn open(&self, to: MemberId, kind: Kind) -> Open {
        let known = self.known.read();
        let (cluster, membership) = (known.cluster, known.effective);
        Open { version: self.newest.number(), cluster, from: self.id, to, membership, kind }
    }

    /// A member's record.
    pub(crate) fn member(&self, id: MemberId) -> Option<Member> {
        self.known.read().members.get(&id).cloned()
    }

    /// All members but this one.
    pub(crate) fn others(&self) -> Vec<Member> {
        self.known.read().members.values().filter(|member| member.id != self.id).cloned().collect()
    }

    /// A record from elsewhere, for a member that the membership does not tell of.
    pub(crate) fn introduce(&self, member: &Member) {
        self.known.write().members.entry(member.id).or_insert_with(|| member.clone());
    }

    /// What Raft has for the membership.
    pub(crate) fn learn(&self, effective: &StoredMembership, committed: &StoredMembership) {
        let at = effective.log_id().map(convert::position);
        let members: BTreeMap<_, _> =
            effective.membership().nodes().map(|(id, member)| (*id, member.clone())).collect();
        let mut known = self.known.write();
        if at > known.effective && members.contains_key(&self.id) {
            // It was taken in again.
            self.removed.send_if_modified(std::mem::take);
        }
        if !members.is_empty() {
            known.members = members;
        }
        known.effective = at;
        known.committed = Settled {
            at: committed.log_id().map(convert::position),
            members: committed.membership().nodes().map(|(id, _)| *id).collect(),
        };
    }

    /// Follows Raft's metrics until Raft ends.
    pub(crate) async fn follow(self: Arc<Self>, mut metrics: Metrics) {
        loop {
            {
                let now = metrics.borrow_watched();
                self.learn(&now.membership_config, &now.committed_membership_config);
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether a stream that begins with `open`, on a connection whose key is that of
    /// `authenticated`, is let in.
    pub(crate) fn admit(&self, open: &Open, authenticated: MemberId) -> Result<(), Refusal> {
        let known = self.known.read();
        let oldest = self.level().number();
        admit(open, authenticated, self.id, (oldest, self.newest.number()), known.cluster, &known.committed)
    }

    /// Takes note of what a peer said: that this member was removed.
    pub(crate) fn heard(&self, error: &PeerError) {
        let PeerError::Refused { member, refusal } = error else { return };
        if let Refusal::Version { asked, oldest, .. } = refusal
            && asked < oldest
            && self.too_old.lock().insert(self.id)
        {
            let (own, group) = (Level::of_number(*asked), Level::of_number(*oldest));
            tracing::error!("{}", level::too_old("this member", own, group));
        }
        if let Refusal::Removed = refusal {
            self.removed.send_if_modified(|removed| {
                let news = !*removed;
                if news {
                    tracing::error!(
                        by = format_args!("{member:016x}"),
                        "this member was removed from the cluster"
                    );
                }
                *removed = true;
                news
            });
        }
    }
}

/// Whom to let in. A sender whose membership is older than ours and who is not in ours was
/// removed; one that knows as much or more than we do is believed: it may have joined, or lead,
/// since the membership that we know of.
fn admit(
    open: &Open,
    authenticated: MemberId,
    id: MemberId,
    (oldest, newest): (u16, u16),
    cluster: u64,
    committed: &Settled,
) -> Result<(), Refusal> {
    if !(oldest..=newest).contains(&open.version) {
        return Err(Refusal::Version { asked: open.version, oldest, newest });
    }
    if open.from != authenticated {
        return Err(Refusal::Impostor);
    }
    if open.to != id {
        return Err(Refusal::OtherMember);
    }
    if open.cluster != cluster && open.cluster != NO_CLUSTER && cluster != NO_CLUSTER {
        return Err(Refusal::OtherCluster);
    }
    if committed.at.is_none() || committed.members.contains(&open.from) {
        return Ok(());
    }
    match (open.membership, committed.at) {
        (Some(theirs), Some(ours)) if theirs < ours => Err(Refusal::Removed),
        (None, _) => Err(Refusal::NotMember),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use openraft::Membership;

    use super::*;

    const US: u64 = 1;

    fn open(from: MemberId, membership: Option<(u64, u64)>) -> Open {
        let membership = membership.map(|(term, index)| LogPosition { term, index });
        Open { version: 2, cluster: US, from, to: 1, membership, kind: Kind::Call }
    }

    fn settled() -> Settled {
        Settled { at: Some(LogPosition { term: 3, index: 50 }), members: vec![1, 2, 3] }
    }

    #[test]
    fn members_come_in_and_everybody_else_learns_why_not() {
        let elsewhere = Open { cluster: 9, ..open(2, None) };
        let joining = Open { cluster: NO_CLUSTER, ..open(2, None) };
        let table = [
            (open(2, None), 2, Ok(())),
            (open(2, Some((1, 1))), 2, Ok(())),
            (open(2, None), 3, Err(Refusal::Impostor)),
            (Open { to: 8, ..open(2, None) }, 2, Err(Refusal::OtherMember)),
            (elsewhere, 2, Err(Refusal::OtherCluster)),
            (joining, 2, Ok(())),
            (
                Open { version: 3, ..open(2, None) },
                2,
                Err(Refusal::Version { asked: 3, oldest: 1, newest: 2 }),
            ),
            (Open { version: 1, ..open(2, None) }, 2, Ok(())),
            // Was a member as of an older membership than ours, and is not in ours.
            (open(7, Some((3, 49))), 7, Err(Refusal::Removed)),
            (open(7, Some((2, 99))), 7, Err(Refusal::Removed)),
            // May have joined since, or lead while it removes itself.
            (open(7, Some((3, 50))), 7, Ok(())),
            (open(7, Some((4, 60))), 7, Ok(())),
            (open(7, None), 7, Err(Refusal::NotMember)),
        ];
        for (open, authenticated, expected) in table {
            assert_eq!(admit(&open, authenticated, 1, (1, 2), US, &settled()), expected, "{open:?}");
        }
    }

    #[test]
    fn a_member_that_knows_nobody_yet_lets_any_server_in() {
        assert_eq!(admit(&open(7, Some((3, 50))), 7, 1, (1, 2), NO_CLUSTER, &Settled::default()), Ok(()));
    }

    #[test]
    fn a_member_that_is_too_old_is_not_let_in_once_the_group_went_on() {
        let directory = Directory::new(1, US, Level::of_number(2));
        let old = Open { version: 1, ..open(2, None) };
        assert_eq!(directory.admit(&old, 2), Ok(()));
        directory.set_level(Level::of_number(2));
        assert_eq!(directory.admit(&old, 2), Err(Refusal::Version { asked: 1, oldest: 2, newest: 2 }));
        assert_eq!(directory.admit(&open(2, None), 2), Ok(()));
        directory.set_level(Level::OLDEST);
        assert_eq!(directory.level(), Level::of_number(2), "it never goes down");
    }

    #[test]
    fn that_it_was_removed_is_noticed_once() {
        let directory = Directory::new(1, US, Level::NEWEST);
        let mut removed = directory.removed();
        directory.heard(&PeerError::Refused { member: 2, refusal: Refusal::NotMember });
        assert!(!*removed.borrow_and_update());
        directory.heard(&PeerError::Refused { member: 2, refusal: Refusal::Removed });
        assert!(*removed.borrow_and_update());
        directory.heard(&PeerError::Refused { member: 3, refusal: Refusal::Removed });
        assert!(!removed.has_changed().unwrap());
        // Until it is taken in again.
        let record = Member { id: 1, ..Member::default() };
        let taken_in = Membership::new(vec![[1].into()], BTreeMap::from([(1, record)])).unwrap();
        let at = convert::log_id(LogPosition { term: 1, index: 9 });
        let taken_in = StoredMembership::new(Some(at), taken_in);
        directory.learn(&taken_in, &StoredMembership::default());
        assert!(!*removed.borrow_and_update());
    }
}
