//! The group of servers, as others need to see it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sampan_agent::{ServerInfo, Servers, ServersView};
use sampan_join::{KeyId, Member, MemberState, Membership, MembershipError};
use sampan_raft::{MemberId, RaftStore};
use sampan_store::Level;
use sampan_transport::{Purpose, Stream, TransportError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::etcd_urls;
use super::peers::OtherServers;

/// How often the members are looked at beside changes of leadership.
const LOOK: Duration = Duration::from_secs(5);

/// Whether this server leads, followed until `shutdown`.
pub(super) fn leading(store: &RaftStore) -> watch::Receiver<bool> {
    let mut leadership = store.leadership();
    let (mine, leading) = watch::channel(leadership.borrow().mine);
    tokio::spawn(async move {
        loop {
            let now = leadership.borrow_and_update().mine;
            mine.send_if_modified(|mine| std::mem::replace(mine, now) != now);
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = mine.closed() => return,
            }
        }
    });
    leading
}

/// The group, for the routes by which it is administered.
pub(super) struct Group(pub(super) Arc<RaftStore>);

#[async_trait]
impl Membership for Group {
    async fn list(&self) -> Result<Vec<MemberState>, MembershipError> {
        let (standings, levels) = tokio::join!(self.0.standings(), self.0.levels());
        // Without a leader there is still something to tell.
        let members = standings.unwrap_or_else(|_| self.0.members());
        let understands = |id: u64| levels.members.iter().find(|(member, _)| *member == id)?.1;
        let state = |standing: sampan_raft::MemberStatus| MemberState {
            level: understands(standing.member.id).map(Level::number),
            group_level: Some(levels.group.number()),
            member: Member {
                id: standing.member.id,
                name: standing.member.name,
                addresses: standing.member.addresses,
                key: KeyId(standing.member.key),
            },
            voter: standing.voter,
            leader: standing.leader,
            reachable: standing.reachable,
            lag: standing.lag,
        };
        Ok(members.into_iter().map(state).collect())
    }

    async fn add_learner(&self, member: Member) -> Result<(), MembershipError> {
        self.0.add_learner(to_raft(member)).await.map_err(refused)
    }

    async fn promote(&self, id: u64) -> Result<(), MembershipError> {
        self.0.promote(id).await.map_err(refused)
    }

    async fn remove(&self, id: u64) -> Result<(), MembershipError> {
        self.0.remove(id).await.map_err(refused)?;
        if id != self.0.id() {
            etcd_urls::forget(&self.0, id).await;
        }
        Ok(())
    }

    async fn update(&self, id: u64, addresses: Vec<String>) -> Result<(), MembershipError> {
        let known = self.0.members().into_iter().find(|standing| standing.member.id == id);
        let Some(known) = known else {
            return Err(MembershipError::NotFound(sampan_join::format_member_id(id)));
        };
        let member = sampan_raft::Member { addresses, ..known.member };
        self.0.update_member(member).await.map_err(refused)
    }
}

fn to_raft(member: Member) -> sampan_raft::Member {
    sampan_raft::Member { id: member.id, name: member.name, addresses: member.addresses, key: member.key.0 }
}

fn refused(error: sampan_raft::MembershipError) -> MembershipError {
    use sampan_raft::MembershipError as Raft;
    match error {
        Raft::NotMember { id } => MembershipError::NotFound(sampan_join::format_member_id(id)),
        error @ Raft::Unavailable { .. } => {
            MembershipError::Unavailable(sampan_client::informer::chain(&error))
        }
        error @ Raft::TooOld { .. } => MembershipError::TooOld(sampan_client::informer::chain(&error)),
        error => MembershipError::Refused(sampan_client::informer::chain(&error)),
    }
}

/// The group, for nodes: whom to connect to.
pub(super) struct Directory {
    view: watch::Receiver<ServersView>,
    others: OtherServers,
}

impl Directory {
    pub(super) fn new(view: watch::Receiver<ServersView>, others: OtherServers) -> Self {
        Self { view, others }
    }
}

#[async_trait]
impl Servers for Directory {
    fn view(&self) -> watch::Receiver<ServersView> {
        self.view.clone()
    }

    async fn open(&self, server: &ServerInfo, purpose: Purpose) -> Result<Stream, TransportError> {
        self.others.open(server, purpose).await
    }
}

/// Who the servers are and which of them leads, kept current until `shutdown`.
pub(super) async fn follow(
    store: Arc<RaftStore>,
    view: watch::Sender<ServersView>,
    shutdown: CancellationToken,
) {
    let mut leadership = store.leadership();
    loop {
        let leader = leadership.borrow_and_update().leader;
        let now = seen(&store, leader);
        view.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// The servers as this one knows them now.
pub(super) fn seen(store: &RaftStore, leader: Option<MemberId>) -> ServersView {
    let members = store.members();
    let key = |id: MemberId| {
        let found = members.iter().find(|standing| standing.member.id == id)?;
        Some(sampan_transport::KeyId(found.member.key))
    };
    let leader = leader.and_then(key);
    let servers = members
        .iter()
        .map(|standing| ServerInfo {
            name: standing.member.name.clone(),
            key: sampan_transport::KeyId(standing.member.key),
            addresses: standing.member.addresses.clone(),
        })
        .collect();
    ServersView { servers, leader }
}
