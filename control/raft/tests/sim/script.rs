//! Trouble as it is applied to the cluster, and the administrator who changes its membership.

use std::sync::Arc;

use rand::Rng;
use sampan_raft::{Member, MemberId, RaftStore};
use sampan_store::{Revision, Storage};

use crate::clients::{self, Purpose};
use crate::counts::Happened;
use crate::member::{Host, chain, member};
use crate::nemesis::{Event, Who};
use crate::sim::{PEACE, Sim};

/// How long an administrator waits for an answer, and before the next attempt.
const PATIENCE: u64 = 10_000;
const PAUSE: u64 = 150;

/// What an administrator does, one task after the other, each until it is done.
#[derive(Debug, Default)]
pub(crate) struct Script {
    tasks: Vec<Task>,
    /// The attempt under way: its number and when it began.
    attempt: Option<(u64, u64)>,
    number: u64,
    rests_until: u64,
}

#[derive(Clone, Debug)]
enum Task {
    /// Removes a member for good; then its machine comes back as another.
    Remove { host: usize, id: MemberId },
    /// Makes a member a voter.
    Add { host: usize, id: MemberId },
}

impl Script {
    /// Makes all but the first members.
    pub(crate) fn joining(hosts: &[Host]) -> Self {
        let tasks = hosts.iter().skip(1).rev().map(|host| Task::Add { host: host.index, id: host.id });
        Self { tasks: tasks.collect(), ..Self::default() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Whether a host's member is being removed.
    pub(crate) fn removes(&self, index: usize) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Remove { host, .. } if *host == index))
    }

    /// An attempt came to an end; whether it did its work shows in the membership.
    pub(crate) fn answered(&mut self, number: u64) {
        if self.attempt.is_some_and(|(attempt, _)| attempt == number) {
            self.attempt = None;
        }
    }
}

fn is_member(store: &RaftStore, id: MemberId) -> bool {
    store.members().iter().any(|status| status.member.id == id)
}

fn is_voter(store: &RaftStore, id: MemberId) -> bool {
    store.members().iter().any(|status| status.member.id == id && status.voter)
}

/// Goes on with the script.
pub(crate) fn step(sim: &mut Sim) {
    let Some(task) = sim.script.tasks.last().cloned() else { return };
    if let Some((_, since)) = sim.script.attempt
        && sim.now < since + PATIENCE
    {
        return;
    }
    if sim.script.rests_until > sim.now {
        return;
    }
    sim.script.rests_until = sim.now + PAUSE;
    let (Task::Remove { host: target, id } | Task::Add { host: target, id }) = task;
    // The leader knows best; what it knows of the membership is what holds.
    let Some(leader) = sim.leader().filter(|leader| sim.serving().contains(leader)) else { return };
    let Some(store) = sim.hosts[leader].store() else { return };
    let done = match task {
        Task::Remove { .. } => !is_member(&store, id),
        Task::Add { .. } => is_voter(&store, id),
    };
    if done {
        sim.note(format_args!("done: {task:?}"));
        sim.script.tasks.pop();
        sim.script.attempt = None;
        sim.counts.note(match task {
            Task::Remove { .. } => Happened::Removed,
            Task::Add { .. } => Happened::Added,
        });
        if let Task::Remove { .. } = task {
            sim.kill(target, false);
            let id = sim.rng.random_range(1..u64::MAX);
            sim.hosts[target].replace(id);
            sim.start(target);
            sim.script.tasks.push(Task::Add { host: target, id });
        }
        return;
    }
    // Asked through any member: calls find the leader by themselves.
    // One that has not joined knows no leader.
    let joined = |host: &usize| sim.hosts[*host].store().is_some_and(|store| !store.members().is_empty());
    let others = sim.serving().into_iter().filter(|host| *host != target && joined(host));
    let others: Vec<usize> = others.collect();
    if others.is_empty() {
        return;
    }
    let through = others[sim.rng.random_range(0..others.len())];
    let Some(store) = sim.hosts[through].store() else { return };
    sim.script.number += 1;
    let number = sim.script.number;
    sim.script.attempt = Some((number, sim.now));
    sim.note(format_args!("script {number} through {through}: {task:?}"));
    let node = member(id, target);
    clients::administer(
        &sim.hosts[through],
        Purpose::Script(number),
        attempt(store, task, node),
        &sim.mailbox,
    );
}

async fn attempt(store: Arc<RaftStore>, task: Task, node: Member) -> Result<(), String> {
    match task {
        Task::Remove { id, .. } => store.remove(id).await.map_err(|error| chain(&error)),
        Task::Add { id, .. } => {
            if !is_member(&store, id) {
                store.add_learner(node).await.map_err(|error| chain(&error))?;
            }
            store.promote(id).await.map_err(|error| chain(&error))
        }
    }
}

/// Whether a gentle run may have this now: one restart at a time, and nothing else meanwhile.
fn too_rough(sim: &Sim, event: &Event) -> bool {
    if !sim.plan.gentle {
        return false;
    }
    let at_peace = sim.now > sim.last_trouble + PEACE && sim.serving().len() == sim.hosts.len();
    match event {
        Event::KillAll { .. } => true,
        Event::Kill { .. }
        | Event::Close(_)
        | Event::Replace(_)
        | Event::DiskBreaks(..)
        | Event::PowerCut(..) => !at_peace || !sim.net.lock().cuts.is_empty() || !sim.script.is_done(),
        Event::Split(_) | Event::OneWay(..) | Event::Isolate(_) | Event::Pause(..) | Event::DiskFull(..) => {
            !at_peace
        }
        _ => false,
    }
}

/// Applies an event.
pub(crate) fn apply(sim: &mut Sim, event: Event) {
    if too_rough(sim, &event) {
        return;
    }
    sim.note(format_args!("{event:?}"));
    match event {
        Event::Weather(weather) => sim.net.lock().weather = weather,
        Event::Heal => {
            sim.net.lock().cuts.clear();
            for host in &sim.hosts {
                host.disk.set_full(false);
            }
        }
        Event::Split(sides) => split(sim, &sides),
        Event::OneWay(from, to) => {
            sim.counts.add(Happened::OneWay, u64::from(from != to));
            cut(sim, from, to);
        }
        Event::Isolate(who) => isolate(sim, who),
        Event::Kill { who, power } => {
            if let Some(host) = find(sim, who) {
                sim.kill(host, power);
            }
        }
        Event::KillAll { power } => (0..sim.hosts.len()).for_each(|host| sim.kill(host, power)),
        Event::Start(host) => {
            if sim.hosts[host].disk.has_failed() {
                sim.kill(host, false);
            }
            sim.start(host);
        }
        Event::Pause(who, length) => {
            if let Some(host) = find(sim, who) {
                pause(sim, host, length);
            }
        }
        Event::DiskFull(host, full) => {
            sim.last_trouble = sim.now;
            sim.hosts[host].disk.set_full(full);
        }
        Event::DiskBreaks(host, after) => {
            sim.last_trouble = sim.now;
            if sim.hosts[host].is_running() {
                sim.hosts[host].disk.fail_in(after);
            }
        }
        Event::ClockJump(host, seconds) => {
            sim.counts.note(Happened::ClockJump);
            sim.hosts[host].wall = seconds;
        }
        Event::PowerCut(host, after) => {
            sim.last_trouble = sim.now;
            if sim.hosts[host].is_running() {
                sim.hosts[host].disk.cut_in(after);
            }
        }
        Event::DiskSlow(host, most) => sim.hosts[host].disk.set_slow(most),
        Event::Transfer(to) => administer(sim, Purpose::Transfer, move |store, ids| async move {
            let to = to.and_then(|to| ids.get(to).copied());
            store.transfer_leadership(to).await.map_err(|error| chain(&error))
        }),
        Event::Compact(keep) => administer(sim, Purpose::Compact, move |store, _| async move {
            let revision = Revision(store.revision().0.saturating_sub(keep));
            store.compact(revision).await.map_err(|error| chain(&error))
        }),
        Event::Backup(host) => backup(sim, host),
        Event::Replace(host) => replace(sim, host),
        Event::Close(host) => close(sim, host),
    }
}

fn cut(sim: &mut Sim, from: usize, to: usize) {
    if from != to {
        sim.last_trouble = sim.now;
        sim.net.lock().cuts.insert((from, to));
    }
}

fn split(sim: &mut Sim, sides: &[bool]) {
    sim.counts.note(Happened::Split);
    for from in 0..sides.len() {
        for to in 0..sides.len() {
            if sides[from] != sides[to] {
                cut(sim, from, to);
            }
        }
    }
}

fn isolate(sim: &mut Sim, who: Who) {
    let Some(alone) = find(sim, who) else { return };
    sim.counts.note(Happened::Isolated);
    for other in 0..sim.hosts.len() {
        cut(sim, alone, other);
        cut(sim, other, alone);
    }
}

fn backup(sim: &Sim, host: usize) {
    if let Some(store) = sim.hosts[host].store() {
        clients::backup(&sim.hosts[host], store, &sim.mailbox);
    }
}

fn find(sim: &Sim, who: Who) -> Option<usize> {
    match who {
        Who::Leader => sim.leader(),
        Who::Host(host) => Some(host),
    }
}

fn pause(sim: &mut Sim, host: usize, length: u64) {
    if sim.hosts[host].is_running() && !sim.hosts[host].paused {
        sim.last_trouble = sim.now;
        sim.hosts[host].paused = true;
        sim.counts.note(Happened::Paused);
        sim.hosts[host].register(&sim.net);
        sim.wakes.push((sim.now + length, host, sim.hosts[host].life));
    }
}

/// Lets those go on whose pause is over.
pub(crate) fn wake(sim: &mut Sim) {
    let now = sim.now;
    let due: Vec<_> = sim.wakes.extract_if(.., |(at, ..)| *at <= now).collect();
    for (_, host, life) in due {
        if sim.hosts[host].life == life && sim.hosts[host].paused {
            sim.note(format_args!("member {host} goes on"));
            sim.last_trouble = now;
            sim.hosts[host].paused = false;
            sim.hosts[host].register(&sim.net);
        }
    }
}

fn administer<F, R>(sim: &mut Sim, purpose: Purpose, call: F)
where
    F: FnOnce(Arc<RaftStore>, Vec<MemberId>) -> R,
    R: Future<Output = Result<(), String>> + Send + 'static,
{
    let serving = sim.serving();
    if serving.is_empty() {
        return;
    }
    let host = serving[sim.rng.random_range(0..serving.len())];
    let ids = sim.hosts.iter().map(|host| host.id).collect();
    if let Some(store) = sim.hosts[host].store() {
        clients::administer(&sim.hosts[host], purpose, call(store, ids), &sim.mailbox);
    }
}

fn replace(sim: &mut Sim, host: usize) {
    if sim.script.is_done() && sim.hosts.len() > 1 {
        sim.last_trouble = sim.now;
        let id = sim.hosts[host].id;
        sim.script.tasks.push(Task::Remove { host, id });
    }
}

/// A clean stop: the process ends once the store is closed.
fn close(sim: &mut Sim, host: usize) {
    sim.last_trouble = sim.now;
    let Some(store) = sim.hosts[host].store() else { return };
    let closing = async move { store.close().await.map_err(|error| chain(&error)) };
    clients::administer(&sim.hosts[host], Purpose::Close(host), closing, &sim.mailbox);
}
