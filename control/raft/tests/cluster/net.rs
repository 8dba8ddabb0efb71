//! Streams in memory between members of one process. They can be cut, and what goes over them is
//! counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sampan_raft::peers::{Incoming, Link, Outgoing, PeerError, Peers, pair};
use sampan_raft::wire::{Admit, Kind, Message, Open};
use sampan_raft::{Member, MemberId, RaftStore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The network that all members of a cluster share.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<State>);

#[derive(Default)]
struct State {
    stores: Mutex<BTreeMap<MemberId, Arc<RaftStore>>>,
    /// Cancelled where the life of a member ends: what is left of it sends nothing more.
    lives: Mutex<BTreeMap<MemberId, CancellationToken>>,
    cut: Mutex<BTreeSet<MemberId>>,
    links: Mutex<Vec<Live>>,
    counts: Counts,
}

struct Live {
    from: MemberId,
    to: MemberId,
    broken: CancellationToken,
    serving: JoinHandle<()>,
}

/// What went over the network.
#[derive(Default)]
pub(crate) struct Counts {
    /// Frames of snapshots.
    pub(crate) frames: AtomicU64,
    /// Snapshots that went on where an earlier transfer broke off.
    pub(crate) resumed: AtomicU64,
    /// A stream breaks after so many more frames; 0 is never.
    pub(crate) break_after: AtomicU64,
    /// Appends that carried entries.
    pub(crate) appends: AtomicU64,
}

impl Net {
    /// What `member` sends with.
    pub(crate) fn peers(&self, member: MemberId) -> Arc<dyn Peers> {
        let ended = CancellationToken::new();
        self.0.lives.lock().insert(member, ended.clone());
        Arc::new(NetPeers { from: member, net: self.clone(), ended })
    }

    /// Streams to the member are served from now on.
    pub(crate) fn attach(&self, store: &Arc<RaftStore>) {
        self.0.stores.lock().insert(store.id(), Arc::clone(store));
    }

    /// The member is gone: nothing reaches it, and nothing of it goes on.
    pub(crate) async fn detach(&self, member: MemberId) {
        self.0.stores.lock().remove(&member);
        if let Some(ended) = self.0.lives.lock().remove(&member) {
            ended.cancel();
        }
        for serving in self.break_links(member, true) {
            let _ = serving.await;
        }
    }

    /// Cuts the member off, both ways.
    pub(crate) fn cut(&self, member: MemberId) {
        self.0.cut.lock().insert(member);
        self.break_links(member, false);
    }

    /// Lets the member back.
    pub(crate) fn heal(&self, member: MemberId) {
        self.0.cut.lock().remove(&member);
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    fn break_links(&self, member: MemberId, abort: bool) -> Vec<JoinHandle<()>> {
        let mut links = self.0.links.lock();
        let mut stopped = Vec::new();
        for live in std::mem::take(&mut *links) {
            if live.from != member && live.to != member {
                links.push(live);
                continue;
            }
            live.broken.cancel();
            if abort && live.to == member {
                live.serving.abort();
                stopped.push(live.serving);
            }
        }
        stopped
    }
}

struct NetPeers {
    from: MemberId,
    net: Net,
    ended: CancellationToken,
}

#[async_trait]
impl Peers for NetPeers {
    async fn stream(&self, to: &Member, mut open: Open, _within: Duration) -> Result<Link, PeerError> {
        let state = &self.net.0;
        let unreachable = || PeerError::Unreachable { member: to.id, why: "it is cut off".into() };
        let cut = |id: &MemberId| state.cut.lock().contains(id);
        if self.ended.is_cancelled() || cut(&self.from) || cut(&to.id) {
            return Err(unreachable());
        }
        // Held until the new one is among them: whoever detaches a member misses none.
        let mut links = state.links.lock();
        let store = state.stores.lock().get(&to.id).cloned().ok_or_else(unreachable)?;
        // As connections agree on the newest version that both sides speak.
        open.version = open.version.min(store.newest_level().number());
        // A snapshot's sender is not far ahead of its receiver, as on a real network.
        let room = if open.kind == Kind::Snapshot { 2 } else { 64 };
        let (ours, theirs) = pair(self.from, to.id, room);
        let broken = CancellationToken::new();
        let wrap = |link: Link| Link {
            member: link.member,
            outgoing: Box::new(Out {
                inner: link.outgoing,
                broken: broken.clone(),
                net: self.net.clone(),
                member: link.member,
            }),
            incoming: Box::new(In { inner: link.incoming, broken: broken.clone(), member: link.member }),
        };
        let (ours, theirs, from) = (wrap(ours), wrap(theirs), self.from);
        let serving = tokio::spawn(async move { store.serve_link(from, open, theirs).await });
        links.retain(|live| !live.serving.is_finished());
        links.push(Live { from, to: to.id, broken, serving });
        Ok(ours)
    }
}

struct Out {
    inner: Box<dyn Outgoing>,
    broken: CancellationToken,
    net: Net,
    member: MemberId,
}

impl Out {
    fn count(&self, message: &Message) {
        let counts = self.net.counts();
        match message {
            Message::SnapshotFrame { .. } => {
                counts.frames.fetch_add(1, Ordering::SeqCst);
                let left = counts.break_after.load(Ordering::SeqCst);
                if left > 0 {
                    counts.break_after.store(left - 1, Ordering::SeqCst);
                    if left == 1 {
                        self.broken.cancel();
                    }
                }
            }
            Message::SnapshotAt { cursor } if !cursor.is_empty() => {
                counts.resumed.fetch_add(1, Ordering::SeqCst);
            }
            Message::Append(append) if !append.entries.is_empty() => {
                counts.appends.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

fn cut_off(member: MemberId) -> PeerError {
    PeerError::Broken { member, why: "it was cut".into() }
}

#[async_trait]
impl Outgoing for Out {
    async fn admit(&mut self, admit: Admit) -> Result<(), PeerError> {
        self.inner.admit(admit).await
    }

    async fn send(&mut self, message: Message) -> Result<(), PeerError> {
        self.count(&message);
        tokio::select! {
            biased;
            () = self.broken.cancelled() => Err(cut_off(self.member)),
            sent = self.inner.send(message) => sent,
        }
    }

    async fn finish(&mut self) {
        self.inner.finish().await;
    }
}

struct In {
    inner: Box<dyn Incoming>,
    broken: CancellationToken,
    member: MemberId,
}

#[async_trait]
impl Incoming for In {
    async fn admit(&mut self) -> Result<Admit, PeerError> {
        tokio::select! {
            biased;
            () = self.broken.cancelled() => Err(cut_off(self.member)),
            admit = self.inner.admit() => admit,
        }
    }

    async fn next(&mut self) -> Result<Option<Message>, PeerError> {
        tokio::select! {
            biased;
            () = self.broken.cancelled() => Err(cut_off(self.member)),
            next = self.inner.next() => next,
        }
    }
}
