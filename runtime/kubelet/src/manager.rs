//! Pod workers: feeds events to the pure lifecycle and carries its actions out.
//!
//! A pod has no task and no timer of its own. Whoever has news calls [`Manager::poke`]: under
//! the pod's lock the news go into its memory, the plan is made and the status built; the
//! actions are spawned, each pokes again when it ends. What is not in [`crate::pod::plan`] is
//! not decided.

mod perform;
mod slots;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use sampan_client::EventType;
use sampan_cri::ContainerStatus;
use tokio::sync::watch;

use crate::act::{record, remove};
use crate::context::Context;
use crate::env::Wanted;
use crate::orphans::Leftovers;
use crate::pod::event::Event;
use crate::pod::memory::{Memory, Record, Removal, Verdict};
use crate::pod::{admission, plan, spec, status};
use crate::timers::Timers;

pub use slots::{Found, Slot};
use slots::{Inner, Slots};

/// All pods of the node. Shared by reference behind an `Arc`.
#[derive(Debug)]
pub struct Manager {
    context: Arc<Context>,
    slots: Slots,
    timers: Timers,
    /// What the runtime held when the agent started, by pod UID.
    found: Mutex<Found>,
    /// How many pods still run something; who waits for the node's end looks at it.
    busy: watch::Sender<usize>,
}

impl Manager {
    /// A manager that knows no pods, and what the runtime held when the agent started.
    pub fn new(context: Arc<Context>, found: Found) -> Arc<Self> {
        Arc::new(Self {
            context,
            slots: Slots::default(),
            timers: Timers::default(),
            found: Mutex::new(found),
            busy: watch::Sender::new(0),
        })
    }

    /// What the parts of the agent share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// A pod's slot by namespace and name.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<Arc<Slot>> {
        self.slots.by_name(namespace, name)
    }

    /// All pods' slots.
    pub fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.all()
    }

    /// A pod's object is new or changed.
    pub fn upsert(self: &Arc<Self>, pod: Arc<Pod>) {
        self.context.statuses.observe(&pod);
        match self.slots.get(spec::uid(&pod)) {
            Some(slot) => {
                let stale = {
                    let mut inner = slot.inner.lock();
                    let fields = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                    let stale = fields(&inner.pod) != fields(&pod);
                    inner.pod = pod;
                    stale
                };
                let changed = if stale { Event::ReferencesChanged } else { Event::Changed };
                self.poke(&slot, changed);
            }
            None => self.meet(pod),
        }
    }

    /// A pod's object is gone.
    pub fn gone(self: &Arc<Self>, pod: &Pod) {
        if let Some(slot) = self.slots.get(spec::uid(pod)) {
            // The last state known says with how much grace it went.
            slot.inner.lock().pod = Arc::new(pod.clone());
            self.poke(&slot, Event::Gone);
        }
    }

    /// Takes a pod on that the node has not known.
    fn meet(self: &Arc<Self>, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        let now = Timestamp::now();
        let reported = pod.status.as_ref();
        let started_at = reported.and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
        let mut memory = Memory::new(started_at);
        memory.settled = spec::is_terminal(spec::reported_phase(&pod));
        self.remember_counts(&pod, &mut memory);
        let known = self.found.lock().take(&uid, &mut memory, &pod, &self.context.interrupted);
        let mut verdict = None;
        if memory.settled {
            self.release_former_address(&uid);
        } else {
            verdict = self.admit(&pod, known);
            self.context.objects.pin(spec::namespace(&pod), &Wanted::of_pod(&pod), &uid);
        }
        let slot = self.slots.insert(pod, memory);
        match verdict {
            Some(verdict) => self.poke(&slot, Event::Verdict(verdict)),
            None => self.poke(&slot, Event::Changed),
        }
    }

    /// Gives back the address that was kept for a pod.
    fn release_former_address(&self, uid: &str) {
        let former = self.context.former_addresses.lock().remove(uid);
        if let Some(std::net::IpAddr::V4(address)) = former {
            self.context.config.network.release(address);
        }
    }

    /// Counts of restarts go on where the API knows of more than the runtime.
    fn remember_counts(&self, pod: &Pod, memory: &mut Memory) {
        let Some(status) = &pod.status else { return };
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for container in all.filter(|container| container.container_id.is_some()) {
            let next = u32::try_from(container.restart_count).unwrap_or(0).saturating_add(1);
            memory.cell_mut(&container.name).first_attempt = next;
        }
    }

    /// Books the pod, or says why the node will not have it. A pod that was here before is not
    /// asked again.
    fn admit(&self, pod: &Pod, known: bool) -> Option<Verdict> {
        let mut ledger = self.context.ledger.lock();
        if !known && !spec::is_deleted(pod) {
            let node = self.context.node.read();
            if let Err(verdict) = admission::admit(pod, &node, &ledger) {
                let message = verdict.message.trim_start_matches("Pod was rejected: ");
                self.context.tell(pod, None, EventType::Warning, &verdict.reason, message);
                return Some(verdict);
            }
        }
        ledger.add(pod);
        None
    }

    /// The first list of pods is complete: what the runtime and the disk hold of others goes.
    pub fn remove_orphans(self: &Arc<Self>, leftovers: Leftovers) {
        let orphans = self.found.lock().rest();
        let known: HashSet<String> = self.slots.uids();
        let context = self.context.clone();
        let kept: Vec<String> = context.former_addresses.lock().keys().cloned().collect();
        for uid in kept.iter().filter(|uid| !known.contains(*uid)) {
            self.release_former_address(uid);
        }
        tokio::spawn(async move {
            for sandbox in orphans {
                tracing::info!(sandbox = sandbox.0, "removing a sandbox whose pod is gone");
                crate::act::sandbox::remove(&context, &sandbox).await;
            }
            leftovers.remove(&known).await;
        });
    }

    /// What pods refer to has changed.
    pub fn references_changed(self: &Arc<Self>, uids: &HashSet<String>) {
        for uid in uids {
            if let Some(slot) = self.slots.get(uid) {
                self.poke(&slot, Event::ReferencesChanged);
            }
        }
    }

    /// The runtime says that a container changed.
    pub async fn container_changed(self: &Arc<Self>, status: ContainerStatus) {
        let Some(slot) = self.slots.get(&status.pod.uid) else { return };
        let pod = slot.pod();
        let name = status.name.clone();
        let record = record::record(&self.context, &pod, status).await;
        self.poke(&slot, Event::Container { name, record: Box::new(record) });
    }

    /// The node fails a pod.
    pub fn evict(self: &Arc<Self>, slot: &Arc<Slot>, message: String) {
        let pod = slot.pod();
        self.context.tell(&pod, None, EventType::Warning, "Evicted", message.clone());
        self.poke(slot, Event::Verdict(Verdict { reason: "Evicted".into(), message, rejected: false }));
    }

    /// Looks at pods whose time has come, for ever.
    pub async fn run_timers(self: Arc<Self>) {
        loop {
            for uid in self.timers.next().await {
                if let Some(slot) = self.slots.get(&uid) {
                    self.poke(&slot, Event::Tick);
                }
            }
        }
    }

    /// Asks all pods to end because the node stops, and waits until they have.
    pub async fn halt(self: &Arc<Self>, deadline: Timestamp) {
        for slot in self.slots.all() {
            self.poke(&slot, Event::Halt { deadline });
        }
        let mut busy = self.busy.subscribe();
        let left = || self.slots.all().iter().filter(|slot| slot.is_busy()).count();
        while left() > 0 {
            if busy.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes what happened to a pod, and does what follows from it.
    pub fn poke(self: &Arc<Self>, slot: &Arc<Slot>, event: Event) {
        let now = Timestamp::now();
        let (actions, pod) = {
            let mut inner = slot.inner.lock();
            let halting = matches!(event, Event::Halt { .. });
            inner.memory.apply(event, now);
            let pod = inner.pod.clone();
            if halting {
                inner.interrupted = running(&inner.memory);
            }
            let plan = plan(&pod, &mut inner.memory, now);
            debug_assert_eq!(inner.memory.validate(), Ok(()));
            self.timers.set(&slot.uid, plan.wake);
            self.report(slot, &mut inner, now);
            (plan.actions, pod)
        };
        for action in actions {
            self.perform(slot, &pod, action);
        }
        self.settle(slot);
    }

    /// Hands the status on if it changed.
    fn report(&self, slot: &Slot, inner: &mut Inner, now: Timestamp) {
        let Inner { pod, memory, reported, .. } = inner;
        // A pod that ends with the node is not reported as ended: it comes back.
        if memory.settled || memory.gone || (memory.halting.is_some() && !spec::is_deleted(pod)) {
            return;
        }
        let node = self.context.config.network.node_address();
        let status = status::status(pod, memory, reported.as_ref(), node, now);
        if reported.as_ref() != Some(&status) {
            self.context.statuses.set(&slot.uid, &status);
            *reported = Some(status);
        }
    }

    /// Strikes off what an ended pod was promised, and forgets a pod of which nothing is left.
    fn settle(&self, slot: &Arc<Slot>) {
        let (ended, forget, namespace, wanted) = {
            let inner = slot.inner.lock();
            let memory = &inner.memory;
            let ended = (memory.is_ending() || memory.settled) && memory.is_still();
            let forget = memory.removal == Removal::Told && memory.gone;
            let wanted = forget.then(|| Wanted::of_pod(&inner.pod));
            (ended, forget, spec::namespace(&inner.pod).to_owned(), wanted)
        };
        if ended {
            self.context.ledger.lock().remove(&slot.uid);
        }
        if let Some(wanted) = wanted.filter(|_| forget) {
            self.context.objects.unpin(&namespace, &wanted, &slot.uid);
            self.context.statuses.forget(&slot.uid);
            self.timers.set(&slot.uid, None);
            self.slots.remove(slot);
        }
        self.busy.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Removes everything of a pod, then says so.
    async fn remove_pod(self: Arc<Self>, slot: Arc<Slot>, pod: Arc<Pod>) {
        let (records, sandboxes) = slot.holdings();
        remove::pod(&self.context, &pod, &records, &sandboxes).await;
        self.poke(&slot, Event::Removed);
    }
}

/// The containers that run now.
fn running(memory: &Memory) -> Vec<sampan_cri::ContainerId> {
    let newest = memory.cells.values().filter_map(|cell| cell.newest());
    newest.filter(|record: &&Record| record.exit().is_none()).map(|record| record.id.clone()).collect()
}
