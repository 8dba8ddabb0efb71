//! One simulated member: a real store on a directory of its own, in a runtime of its own that
//! only moves when it is stepped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use sampan_raft::{Member, MemberId, RaftConfig, RaftStore, Start};
use sampan_store::{Background, DurableConfig};
use tokio::runtime::Runtime;

use crate::disk::SimDisk;
use crate::hermetic;
use crate::history::VOLATILE_PREFIX;
use crate::nemesis::Sizes;
use crate::net::{Shared, SimPeers};

/// A member that is so far behind was stopped.
const A_JUMP: Duration = Duration::from_millis(20);

/// What the store's opening came to, once it did.
pub(crate) type Opened = Arc<Mutex<Option<Result<Arc<RaftStore>, String>>>>;

/// A machine that a member runs on.
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) id: MemberId,
    dir: PathBuf,
    pub(crate) disk: Arc<SimDisk>,
    /// Beside the true time, in milliseconds per second.
    drift: i64,
    sizes: Sizes,
    /// By how many seconds its wall clock is off.
    pub(crate) wall: i64,
    running: Option<Running>,
    pub(crate) paused: bool,
    pub(crate) life: u32,
    /// Whether it began the cluster.
    first: bool,
}

struct Running {
    runtime: Runtime,
    begun: tokio::time::Instant,
    /// The simulation's time when it began, in milliseconds.
    since: u64,
    opened: Opened,
}

pub(crate) fn member(id: MemberId, index: usize) -> Member {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&id.to_be_bytes());
    Member { id, name: format!("host-{index}"), addresses: vec![format!("host-{index}:6443")], key }
}

impl Host {
    pub(crate) fn new(
        index: usize,
        id: MemberId,
        dir: &Path,
        drift: i64,
        sizes: Sizes,
        disk: SimDisk,
    ) -> Self {
        Self {
            index,
            id,
            dir: dir.join(format!("host-{index}-{id:x}")),
            disk: Arc::new(disk),
            drift,
            sizes,
            wall: 0,
            running: None,
            paused: false,
            life: 0,
            first: index == 0,
        }
    }

    /// The machine is set up anew, as another member with an empty disk.
    pub(crate) fn replace(&mut self, id: MemberId) {
        let parent = self.dir.parent().unwrap().to_owned();
        let _ = std::fs::remove_dir_all(&self.dir);
        self.id = id;
        self.dir = parent.join(format!("host-{}-{id:x}", self.index));
        self.disk = Arc::new(self.disk.blank());
        self.first = false;
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The store, once it is open.
    pub(crate) fn store(&self) -> Option<Arc<RaftStore>> {
        let opened = self.running.as_ref()?.opened.lock();
        opened.as_ref()?.as_ref().ok().map(Arc::clone)
    }

    /// Why the store could not be opened, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        let opened = self.running.as_ref()?.opened.lock();
        opened.as_ref()?.as_ref().err().cloned()
    }

    fn config(&self) -> RaftConfig {
        let mut store = DurableConfig::new(&self.dir);
        store.segment_bytes = self.sizes.segment;
        store.checkpoint_bytes = self.sizes.checkpoint;
        store.redb_cache_bytes = 256 << 10;
        store.snapshot_frame_bytes = 256;
        store.compaction.interval = Duration::ZERO;
        store.last_good_interval = Duration::ZERO;
        store.volatile_prefixes = vec![VOLATILE_PREFIX.into()];
        store.sealed_prefixes = Vec::new();
        store.faults = Some(self.disk.clone());
        store.background = Background::Inline;
        RaftConfig::new(store, member(self.id, self.index))
    }

    /// Starts the member; it opens while it is stepped.
    pub(crate) fn start(&mut self, now: u64, net: &Shared) {
        self.life += 1;
        self.paused = false;
        hermetic::set_clock(Duration::from_millis(now), self.wall);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let begun = runtime.block_on(async { tokio::time::Instant::now() });
        let opened = Opened::default();
        let peers = Arc::new(SimPeers { net: Arc::clone(net), host: self.index });
        let (config, slot) = (self.config(), Arc::clone(&opened));
        let start = if self.first { Start::Bootstrap } else { Start::Join };
        runtime.spawn(async move {
            let result = RaftStore::open(config, start, peers).await;
            *slot.lock() = Some(result.map_err(|error| chain(&error)));
        });
        self.running = Some(Running { runtime, begun, since: now, opened });
        self.register(net);
    }

    /// Tells the network how things stand here.
    pub(crate) fn register(&self, net: &Shared) {
        let mut net = net.lock();
        let station = &mut net.stations[self.index];
        station.id = self.id;
        station.up = self.store().is_some();
        station.paused = self.paused;
        station.life = self.life;
    }

    /// Kills the process at this moment. With `power` gone, too, writes that were not made
    /// durable are lost in part; how many sectors.
    pub(crate) fn kill(&mut self, net: &Shared, power: Option<&mut StdRng>) -> usize {
        let Some(running) = self.running.take() else { return 0 };
        self.life += 1;
        self.register(net);
        drop(running);
        let lost = power.map_or(0, |rng| self.disk.crash(rng).unwrap());
        self.disk.restart();
        lost
    }

    /// Lets the member live until `now`.
    pub(crate) fn step(&mut self, now: u64) {
        let Some(running) = self.running.as_mut().filter(|_| !self.paused) else { return };
        let elapsed = now - running.since;
        let drifted = (elapsed as i64 * (1_000 + self.drift) / 1_000) as u64;
        hermetic::set_clock(Duration::from_millis(running.since + drifted), self.wall);
        let until = running.begun + Duration::from_millis(drifted);
        running.runtime.block_on(async {
            let behind = until.saturating_duration_since(tokio::time::Instant::now());
            if behind > A_JUMP {
                // It was stopped: when it goes on, all that was due is due at once.
                tokio::time::advance(behind).await;
            }
            tokio::time::sleep_until(until).await;
        });
        hermetic::set_clock(Duration::from_millis(now), 0);
    }

    /// Runs something on the member.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(running) = &self.running {
            running.runtime.spawn(task);
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
