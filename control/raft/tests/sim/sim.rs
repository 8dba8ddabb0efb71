//! One run: a cluster, clients, watchers and trouble, all from one seed, on one thread.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampan_raft::RaftStore;

use crate::clients::{Client, Mailbox};
use crate::committed::{Follower, Home, Log};
use crate::counts::{Counts, Happened};
use crate::disk::SimDisk;
use crate::history::{Action, Outcome};
use crate::member::Host;
use crate::nemesis::Plan;
use crate::net::{Net, Serve, Shared, Station};
use crate::oracle::{Listing, Summary};
use crate::report::Report;
use crate::script::{self, Script};
use crate::trace::Trace;

/// How far time moves at once, in milliseconds.
const STEP: u64 = 2;
/// Of so many steps, one looks who leads.
const LOOK: u64 = 5;
/// How long a client waits for an answer.
pub(crate) const PATIENCE: u64 = 2_500;
/// How long the cluster may take to be whole: at the beginning, and after the trouble.
pub(crate) const WHOLE_WITHIN: u64 = 40_000;
/// How long a member that restarted, or a network that healed, is left in peace in a gentle run.
pub(crate) const PEACE: u64 = 3_000;

pub(crate) struct Watcher {
    pub(crate) home: Home,
    pub(crate) follower: Follower,
    /// Where it watches, and which of its attempts this is.
    pub(crate) at: Option<(usize, u32)>,
    pub(crate) session: u64,
    pub(crate) rests_until: u64,
    pub(crate) lists: bool,
}

/// See the module's description.
pub(crate) struct Sim {
    pub(crate) plan: Plan,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) net: Shared,
    pub(crate) hosts: Vec<Host>,
    pub(crate) mailbox: Mailbox,
    pub(crate) counts: Counts,
    pub(crate) clients: Vec<Client>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) ops: Vec<Op>,
    pub(crate) listings: Vec<Listing>,
    pub(crate) log: Log,
    /// The revisions at which the group gave up its keys in memory.
    pub(crate) losses: BTreeSet<u64>,
    pub(crate) script: Script,
    /// When a member was last stopped or started, a direction cut, or the like.
    pub(crate) last_trouble: u64,
    /// Members that are paused, until when, and in which life.
    pub(crate) wakes: Vec<(u64, usize, u32)>,
    next_event: u64,
    /// The newest term of which a leader was seen.
    term: u64,
    /// Whether clients ask for more.
    busy: bool,
    pub(crate) final_listings: usize,
    pub(crate) refused_listings: usize,
    /// Whether the trouble is over: whoever ends now is started again.
    pub(crate) healed: bool,
}

/// An operation under way, or done.
pub(crate) struct Op {
    pub(crate) action: Action,
    pub(crate) call: u64,
    pub(crate) answer: Option<(u64, Outcome)>,
    /// It did not happen.
    pub(crate) void: bool,
}

/// Runs a seed in `dir`; what went wrong comes with the trace's tail.
pub(crate) fn run(seed: u64, dir: &Path, aloud: bool) -> Result<Report, (String, String)> {
    let mut sim = Sim::new(seed, dir, aloud);
    let result = sim.run();
    let net = sim.net.lock();
    match result {
        Ok(summary) => Ok(Report {
            fingerprint: net.trace.fingerprint(),
            lines: net.trace.lines(),
            simulated: sim.now,
            summary,
            counts: sim.counts.values(),
        }),
        Err(why) => Err((why, net.trace.tail())),
    }
}

impl Sim {
    fn new(seed: u64, dir: &Path, aloud: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::draw(&mut rng);
        let mut trace = Trace::new(aloud);
        trace.add(0, format_args!("seed {seed}: {plan:?}"));
        let counts = Counts::default();
        let mut host = |index| {
            let (id, drift) = (rng.random_range(1..u64::MAX), rng.random_range(-30..30));
            let disk = SimDisk::new(counts.clone(), rng.random());
            Host::new(index, id, dir, drift, plan.sizes, disk)
        };
        let hosts: Vec<Host> = (0..plan.members).map(&mut host).collect();
        let stations = hosts.iter().map(|host| Station { id: host.id, ..Station::default() }).collect();
        let net = Net::new(StdRng::seed_from_u64(rng.random()), stations, trace, counts.clone());
        let clients = (0..plan.clients).map(|_| Client::new(rng.random_range(0..plan.members))).collect();
        let watchers = (0..plan.watchers * 2)
            .map(|index| {
                let home = Home::BOTH[index % 2];
                let follower = Follower::new(format!("watcher {index} of {home:?} keys"), home, 1);
                Watcher { home, follower, at: None, session: 0, rests_until: 0, lists: false }
            })
            .collect();
        Self {
            plan,
            rng,
            now: 0,
            net: Arc::new(Mutex::new(net)),
            hosts,
            mailbox: Mailbox::default(),
            counts,
            clients,
            watchers,
            ops: Vec::new(),
            listings: Vec::new(),
            log: Log::default(),
            losses: BTreeSet::new(),
            script: Script::default(),
            last_trouble: 0,
            wakes: Vec::new(),
            next_event: 0,
            term: 0,
            busy: false,
            final_listings: 0,
            refused_listings: 0,
            healed: false,
        }
    }

    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.net.lock().trace.add(self.now, what);
    }

    fn run(&mut self) -> Result<Summary, String> {
        for index in 0..self.hosts.len() {
            self.start(index);
        }
        self.script = Script::joining(&self.hosts);
        self.until(WHOLE_WITHIN, "the cluster did not come up", |sim| sim.script.is_done())?;
        self.note(format_args!("the cluster is up"));
        self.busy = true;
        self.next_event = self.now + 200;
        let end = self.now + self.plan.trouble;
        while self.now < end {
            if self.now >= self.next_event {
                let (event, pause) = self.plan.next(&mut self.rng);
                self.next_event = self.now + pause;
                script::apply(self, event);
            }
            self.step()?;
        }
        self.heal();
        self.until(WHOLE_WITHIN, "the membership did not become whole", |sim| sim.script.is_done())?;
        self.until(WHOLE_WITHIN, "a change of voters stays half done", |sim| {
            !sim.hosts.iter().any(|host| host.store().is_some_and(|store| store.is_changing()))
        })?;
        let calm = self.now + 300;
        self.until(WHOLE_WITHIN, "time stood still", |sim| sim.now > calm)?;
        self.busy = false;
        self.until(WHOLE_WITHIN, "clients wait", |sim| {
            sim.clients.iter().all(|client| client.waits.is_none())
        })?;
        self.probe()?;
        self.last_lists()?;
        self.watchers_catch_up()?;
        self.verify()
    }

    /// Moves on until `done`.
    pub(crate) fn until(
        &mut self,
        within: u64,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let deadline = self.now + within;
        while !done(self) {
            if self.now > deadline {
                return Err(format!("{what} within {within} ms; {}", self.standing()));
            }
            self.step()?;
        }
        Ok(())
    }

    pub(crate) fn start(&mut self, index: usize) {
        if self.hosts[index].is_running() {
            return;
        }
        self.note(format_args!("member {index} starts"));
        self.last_trouble = self.now;
        self.hosts[index].start(self.now, &self.net);
    }

    pub(crate) fn kill(&mut self, index: usize, power: bool) {
        if !self.hosts[index].is_running() {
            return;
        }
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let lost = self.hosts[index].kill(&self.net, power.then_some(&mut rng));
        self.last_trouble = self.now;
        self.counts.note(if power { Happened::PowerLoss } else { Happened::Crash });
        self.note(format_args!("member {index} is killed, {lost} sectors are lost"));
        let running = self.hosts.iter().filter(|host| host.is_running()).count();
        if running == self.hosts.len() / 2 {
            self.counts.note(Happened::MajorityDown);
        }
    }

    /// The members that serve.
    pub(crate) fn serving(&self) -> Vec<usize> {
        let serves = |host: &&Host| host.store().is_some() && !host.paused;
        self.hosts.iter().filter(serves).map(|host| host.index).collect()
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |store: Arc<RaftStore>| {
            let leadership = store.leadership();
            let standing = leadership.borrow();
            standing.mine.then_some(standing.term)
        };
        let terms = self.hosts.iter().filter_map(|host| Some((leads(host.store()?)?, host.index)));
        terms.max().map(|(_, index)| index)
    }

    /// One step of time for everybody.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.now += STEP;
        let serve = self.net.lock().pump(self.now);
        serve.into_iter().for_each(|serve| self.serve(serve));
        script::wake(self);
        script::step(self);
        if self.busy {
            self.clients_ask();
        }
        self.watchers_watch();
        for index in 0..self.hosts.len() {
            self.hosts[index].step(self.now);
            if let Some(why) = crate::panicked() {
                return Err(format!("member {index} panicked: {why}"));
            }
            self.look_after(index)?;
            self.look_for_losses(index)?;
        }
        for (moment, note) in self.mailbox.take() {
            self.take(moment, note)?;
        }
        self.give_up_waiting();
        if self.now.is_multiple_of(LOOK * STEP) {
            self.look_who_leads();
        }
        Ok(())
    }

    /// Notices that a member gave up its keys in memory, with the others; never for so little as a
    /// minority that restarts.
    fn look_for_losses(&mut self, index: usize) -> Result<(), String> {
        let lost = self.hosts[index].store().map_or(0, |store| store.stats().volatile_lost);
        if lost == 0 || !self.losses.insert(lost) {
            return Ok(());
        }
        self.note(format_args!("keys in memory are given up at {lost}"));
        self.counts.note(Happened::VolatileLoss);
        if self.plan.gentle {
            return Err(format!("member {index} gave up keys in memory at {lost} in a gentle run"));
        }
        Ok(())
    }

    fn look_who_leads(&mut self) {
        let newest = self.hosts.iter().filter_map(|host| {
            let standing = *host.store()?.leadership().borrow();
            standing.mine.then_some(standing.term)
        });
        let newest = newest.max().unwrap_or(0);
        if newest > self.term {
            self.term = newest;
            self.counts.note(Happened::Election);
        }
    }

    /// Notices that a member has opened, or failed to.
    fn look_after(&mut self, index: usize) -> Result<(), String> {
        if self.healed && !self.hosts[index].is_running() {
            self.start(index);
        }
        if self.hosts[index].disk.is_cut() {
            self.kill(index, true);
        }
        let up = self.net.lock().stations[index].up;
        let host = &self.hosts[index];
        if !up && host.store().is_some() {
            host.register(&self.net);
            self.note(format_args!("member {index} serves"));
            self.last_trouble = self.now;
        }
        if let Some(why) = self.hosts[index].failure() {
            // One that was removed meanwhile is told so when it comes back, until it is another.
            let was_removed = self.script.removes(index) && why.contains("is that of member");
            if !self.hosts[index].disk.is_in_trouble() && !was_removed {
                return Err(format!("member {index} does not open: {why}"));
            }
            self.note(format_args!("member {index} does not open: {why}"));
            self.counts.note(Happened::FailedOpen);
            self.kill(index, false);
        }
        Ok(())
    }

    fn serve(&self, serve: Serve) {
        match serve {
            Serve::Link { host, from, open, link } => {
                if let Some(store) = self.hosts[host].store() {
                    self.hosts[host].spawn(async move { store.serve_link(from, open, link).await });
                }
            }
            Serve::Call { host, from, from_id, call, open, message } => {
                if let Some(store) = self.hosts[host].store() {
                    let net = Arc::clone(&self.net);
                    self.hosts[host].spawn(async move {
                        let answer = store.serve_call(from_id, &open, message).await;
                        net.lock().answer(host, from, call, answer);
                    });
                }
            }
        }
    }
}
