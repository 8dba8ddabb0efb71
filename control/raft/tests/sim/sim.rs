//! One run: a cluster, clients, watchers and trouble, all from one seed, on one thread.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sampan_raft::RaftStore;

use crate::clients::{self, Client, Failure, Mailbox, Note};
use crate::history::{Action, Outcome, Step};
use crate::linear::Timed;
use crate::member::Host;
use crate::nemesis::Plan;
use crate::net::{Net, Serve, Shared, Station};
use crate::oracle::{Follower, Home, Listing, Log, Seen, Summary};
use crate::script::{self, Script};
use crate::trace::Trace;

/// How far time moves at once, in milliseconds.
const STEP: u64 = 2;
/// How long a client waits for an answer.
const PATIENCE: u64 = 2_500;
/// How long the cluster may take to be whole: at the beginning, and after the trouble.
const WHOLE_WITHIN: u64 = 40_000;
/// How long a member that restarted, or a network that healed, is left in peace in a gentle run.
pub(crate) const PEACE: u64 = 3_000;

/// What a run gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) fingerprint: u64,
    pub(crate) lines: u64,
    pub(crate) simulated: u64,
    pub(crate) summary: Summary,
}

impl Report {
    /// The report as one line, for the process that counts.
    pub(crate) fn to_line(&self) -> String {
        let Summary { revisions, acknowledged, unknown, undecided, listings_checked } = self.summary;
        let (fingerprint, lines, simulated) = (self.fingerprint, self.lines, self.simulated);
        format!(
            "{fingerprint} {lines} {simulated} {revisions} {acknowledged} {unknown} {undecided} {listings_checked}"
        )
    }

    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let numbers: Vec<u64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
        let [fingerprint, lines, simulated, rest @ ..] = numbers.as_slice() else { return None };
        let [revisions, acknowledged, unknown, undecided, listings_checked] = *rest else { return None };
        let summary = Summary {
            revisions: revisions as usize,
            acknowledged: acknowledged as usize,
            unknown: unknown as usize,
            undecided: undecided as usize,
            listings_checked: listings_checked as usize,
        };
        Some(Self { fingerprint: *fingerprint, lines: *lines, simulated: *simulated, summary })
    }

    /// Counts another run in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.simulated += other.simulated;
        let (sum, more) = (&mut self.summary, &other.summary);
        sum.revisions += more.revisions;
        sum.acknowledged += more.acknowledged;
        sum.unknown += more.unknown;
        sum.undecided += more.undecided;
        sum.listings_checked += more.listings_checked;
    }
}

pub(crate) struct Watcher {
    home: Home,
    pub(crate) follower: Follower,
    /// Where it watches, and which of its attempts this is.
    at: Option<(usize, u32)>,
    session: u64,
    rests_until: u64,
    lists: bool,
}

/// See the module's description.
pub(crate) struct Sim {
    pub(crate) plan: Plan,
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) net: Shared,
    pub(crate) hosts: Vec<Host>,
    pub(crate) mailbox: Mailbox,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    ops: Vec<Op>,
    listings: Vec<Listing>,
    log: Log,
    pub(crate) script: Script,
    /// When a member was last stopped or started, a direction cut, or the like.
    pub(crate) last_trouble: u64,
    /// Members that are paused, until when, and in which life.
    pub(crate) wakes: Vec<(u64, usize, u32)>,
    next_event: u64,
    /// Whether clients ask for more.
    busy: bool,
    final_listings: usize,
    /// Whether the trouble is over: whoever ends now is started again.
    healed: bool,
}

/// An operation under way, or done.
struct Op {
    action: Action,
    call: u64,
    answer: Option<(u64, Outcome)>,
    /// It did not happen.
    void: bool,
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
        let hosts: Vec<Host> = (0..plan.members)
            .map(|index| Host::new(index, rng.random_range(1..u64::MAX), dir, rng.random_range(-30..30)))
            .collect();
        let stations = hosts.iter().map(|host| Station { id: host.id, ..Station::default() }).collect();
        let net = Arc::new(Mutex::new(Net::new(StdRng::seed_from_u64(rng.random()), stations, trace)));
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
            net,
            hosts,
            mailbox: Mailbox::default(),
            clients,
            watchers,
            ops: Vec::new(),
            listings: Vec::new(),
            log: Log::default(),
            script: Script::default(),
            last_trouble: 0,
            wakes: Vec::new(),
            next_event: 0,
            busy: false,
            final_listings: 0,
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
    fn until(&mut self, within: u64, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = self.now + within;
        while !done(self) {
            if self.now > deadline {
                return Err(format!("{what} within {within} ms; {}", self.standing()));
            }
            self.step()?;
        }
        Ok(())
    }

    /// How the members are, for people.
    pub(crate) fn standing(&self) -> String {
        let mut text = format!("script: {:?}", self.script);
        for host in &self.hosts {
            let state = match host.store() {
                Some(store) => {
                    let members = store.members();
                    let members = members.iter().map(|of| (self.index_of(of.member.id), of.voter, of.lag));
                    let leadership = *store.leadership().borrow();
                    let leader = leadership.leader.map(|id| self.index_of(id));
                    format!(
                        "{:x} leader {leader:?} term {} mine {} full {}, members (voter, lag) {:?}",
                        host.id,
                        leadership.term,
                        leadership.mine,
                        leadership.full,
                        members.collect::<Vec<_>>()
                    )
                }
                None => host.failure().unwrap_or_else(|| "not open".into()),
            };
            text += &format!(
                "\n  member {}: running {} paused {} {state}",
                host.index,
                host.is_running(),
                host.paused
            );
        }
        text
    }

    /// The host that a member is, or was; its id in any case.
    fn index_of(&self, id: u64) -> String {
        match self.hosts.iter().find(|host| host.id == id) {
            Some(host) => host.index.to_string(),
            None => format!("{id:x}"),
        }
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
        self.note(format_args!("member {index} is killed, {lost} sectors are lost"));
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

    /// Ends all trouble.
    fn heal(&mut self) {
        {
            let mut net = self.net.lock();
            net.cuts.clear();
            net.weather = crate::net::Weather::FAIR;
        }
        self.note(format_args!("all is healed"));
        self.healed = true;
        for index in 0..self.hosts.len() {
            self.hosts[index].disk.calm();
            self.hosts[index].paused = false;
            self.hosts[index].register(&self.net);
            if self.hosts[index].disk.has_failed() {
                self.kill(index, false);
            }
            self.start(index);
        }
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
        }
        for (moment, note) in self.mailbox.take() {
            self.take(moment, note)?;
        }
        self.give_up_waiting();
        Ok(())
    }

    /// Notices that a member has opened, or failed to.
    fn look_after(&mut self, index: usize) -> Result<(), String> {
        if self.healed && !self.hosts[index].is_running() {
            self.start(index);
        }
        let up = self.net.lock().stations[index].up;
        let host = &self.hosts[index];
        if !up && host.store().is_some() {
            host.register(&self.net);
            self.note(format_args!("member {index} serves"));
            self.last_trouble = self.now;
        }
        if let Some(why) = self.hosts[index].failure() {
            if !self.hosts[index].disk.is_in_trouble() {
                return Err(format!("member {index} does not open: {why}"));
            }
            self.note(format_args!("member {index} does not open: {why}"));
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

    fn clients_ask(&mut self) {
        let serving = self.serving();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.waits.is_some() || client.rests_until > self.now || serving.is_empty() {
                continue;
            }
            if !serving.contains(&client.host) || self.rng.random_range(0..20) == 0 {
                client.host = serving[self.rng.random_range(0..serving.len())];
            }
            let (op, host) = (self.ops.len(), client.host);
            let action = client.wants(op, self.plan.volatile, &mut self.rng);
            client.waits = Some((op, self.now, host));
            self.ask(op, host, action);
        }
    }

    fn ask(&mut self, op: usize, host: usize, action: Action) {
        let Some(store) = self.hosts[host].store() else { return };
        let call = self.mailbox.moment();
        self.note(format_args!("operation {op} asks {host}: {action:?}"));
        clients::ask(&self.hosts[host], store, op, &action, &self.mailbox);
        self.ops.push(Op { action, call, answer: None, void: false });
    }

    fn give_up_waiting(&mut self) {
        for client in &mut self.clients {
            let Some((op, since, _)) = client.waits else { continue };
            if self.now > since + PATIENCE {
                client.waits = None;
                client.rests_until = self.now;
                self.net.lock().trace.add(self.now, format_args!("operation {op} is given up"));
            }
        }
    }

    fn watchers_watch(&mut self) {
        let serving = self.serving();
        for at in 0..self.watchers.len() {
            let lives: Vec<u32> = self.hosts.iter().map(|host| host.life).collect();
            let watcher = &mut self.watchers[at];
            if watcher.at.is_some_and(|(host, life)| lives[host] != life) {
                watcher.at = None;
            }
            if watcher.at.is_some() || watcher.rests_until > self.now || serving.is_empty() {
                continue;
            }
            let host = serving[self.rng.random_range(0..serving.len())];
            let Some(store) = self.hosts[host].store() else { continue };
            watcher.at = Some((host, lives[host]));
            watcher.session += 1;
            let (session, home, from) = (watcher.session, watcher.home, watcher.follower.next());
            if watcher.lists {
                clients::list_all(&self.hosts[host], store, home, Some((at, session)), &self.mailbox);
            } else {
                clients::watch(&self.hosts[host], store, (at, session), home, from, &self.mailbox);
            }
        }
    }

    fn take(&mut self, moment: u64, note: Note) -> Result<(), String> {
        match note {
            Note::Answer { op, result } => self.take_answer(moment, op, result),
            Note::Watch { watcher, session, result } => self.take_watch(watcher, session, result),
            Note::Listing { host, home, watcher, result } => self.take_listing(host, home, watcher, result),
            Note::Admin { script, result } => {
                self.note(format_args!("script {script}: {result:?}"));
                self.script.answered(script, result);
                crate::script::closed(self, script);
                Ok(())
            }
        }
    }

    fn take_answer(
        &mut self,
        moment: u64,
        op: usize,
        result: Result<Outcome, Failure>,
    ) -> Result<(), String> {
        self.note(format_args!("operation {op} is answered: {result:?}"));
        match result {
            Ok(outcome) => {
                let done = &mut self.ops[op];
                done.answer = Some((moment, outcome.clone()));
                let action = done.action.clone();
                if let Some(client) =
                    self.clients.iter_mut().find(|client| client.waits.is_some_and(|w| w.0 == op))
                {
                    client.learns(&action, &outcome);
                }
            }
            Err(Failure::Refused) => self.ops[op].void = true,
            Err(Failure::Unknown) => {}
            Err(Failure::Wrong(why)) => return Err(format!("operation {op}: {why}")),
        }
        let rest = self.rng.random_range(0..=self.plan.rest);
        for client in &mut self.clients {
            if client.waits.is_some_and(|waits| waits.0 == op) {
                client.waits = None;
                client.rests_until = self.now + rest;
            }
        }
        Ok(())
    }

    fn take_watch(
        &mut self,
        at: usize,
        session: u64,
        result: Result<sampan_store::WatchBatch, sampan_store::StorageError>,
    ) -> Result<(), String> {
        let watcher = &mut self.watchers[at];
        if watcher.session != session {
            return Ok(());
        }
        match result {
            Ok(batch) => {
                let host = watcher.at.map_or(0, |(host, _)| host);
                let events = batch.events.iter().map(crate::oracle::brief).collect::<Vec<_>>();
                let upto = batch.revision.0;
                let what = format_args!("watcher {at} on {host} is up to {upto}: {}", events.join(" "));
                self.net.lock().trace.add(self.now, what);
                watcher.follower.take(&batch, &mut self.log)
            }
            Err(error) => {
                watcher.at = None;
                watcher.rests_until = self.now + 40;
                watcher.lists = matches!(error, sampan_store::StorageError::Compacted { .. });
                if matches!(error, sampan_store::StorageError::Corrupt { .. }) {
                    return Err(format!("watcher {at}: {error}"));
                }
                self.note(format_args!("watcher {at} ends: {error}"));
                Ok(())
            }
        }
    }

    fn take_listing(
        &mut self,
        host: usize,
        home: Home,
        watcher: Option<(usize, u64)>,
        result: Result<(u64, crate::history::State), Failure>,
    ) -> Result<(), String> {
        let (revision, state) = match result {
            Ok(found) => found,
            Err(Failure::Wrong(why)) => return Err(format!("a list on member {host}: {why}")),
            Err(failure) => {
                self.note(format_args!("a list on member {host} of {home:?} keys: {failure:?}"));
                if let Some((at, _)) = watcher {
                    self.watchers[at].at = None;
                    self.watchers[at].rests_until = self.now + 40;
                }
                return Ok(());
            }
        };
        self.note(format_args!("member {host} lists {home:?} keys at {revision}: {}", state.len()));
        match watcher {
            Some((at, session)) if self.watchers[at].session == session => {
                self.watchers[at].at = None;
                self.watchers[at].lists = false;
                self.watchers[at].follower.restart(revision + 1);
            }
            Some(_) => {}
            None => self.final_listings += 1,
        }
        self.listings.push(Listing { who: format!("member {host}"), home, revision, state });
        Ok(())
    }

    /// Every member takes a write now.
    fn probe(&mut self) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            let deadline = self.now + WHOLE_WITHIN;
            loop {
                let op = self.ops.len();
                let step = Step::Put(crate::history::key(0, 0), op as u64 * 8);
                let action = Action::Txn { tests: vec![], success: vec![step], failure: vec![] };
                if self.hosts[host].store().is_some() {
                    self.ask(op, host, action);
                    let patience = self.now + PATIENCE;
                    while self.ops[op].answer.is_none() && !self.ops[op].void && self.now < patience {
                        self.step()?;
                    }
                    if self.ops[op].answer.is_some() {
                        break;
                    }
                }
                self.step()?;
                if self.now > deadline {
                    return Err(format!(
                        "member {host} takes no writes after all was healed; {}",
                        self.standing()
                    ));
                }
            }
        }
        Ok(())
    }

    /// All members, asked when nothing happens any more, list the same.
    fn last_lists(&mut self) -> Result<(), String> {
        let before = self.listings.len();
        for home in Home::BOTH {
            for host in &self.hosts {
                if let Some(store) = host.store() {
                    clients::list_all(host, store, home, None, &self.mailbox);
                }
            }
        }
        let wanted = self.hosts.len() * 2;
        self.until(WHOLE_WITHIN, "members do not list", |sim| sim.final_listings == wanted)?;
        for home in Home::BOTH {
            let last = self.listings[before..].iter().filter(|listing| listing.home == home);
            let last: Vec<&Listing> = last.filter(|listing| listing.who.starts_with("member")).collect();
            // Rows in memory are whole everywhere only where a majority kept them.
            let alike = home == Home::Durable || self.plan.gentle;
            for pair in last.windows(2) {
                if alike && pair[0].state != pair[1].state {
                    return Err(format!("members differ at the end:\n  {:?}\n  {:?}", pair[0], pair[1]));
                }
            }
        }
        Ok(())
    }

    fn watchers_catch_up(&mut self) -> Result<(), String> {
        let newest = |home| move |listing: &&Listing| listing.home == home;
        let last = Home::BOTH.map(|home| {
            let modified = self.listings.iter().filter(newest(home)).flat_map(|listing| &listing.state);
            modified.map(|(_, cell)| cell.modified).max().unwrap_or(0)
        });
        self.until(WHOLE_WITHIN, "a watcher stands still", |sim| {
            sim.watchers.iter().all(|watcher| watcher.follower.next() > last[watcher.home as usize])
        })
    }
}

impl Sim {
    fn verify(&mut self) -> Result<Summary, String> {
        let ops = std::mem::take(&mut self.ops);
        let ops = ops.into_iter().filter(|op| !op.void).map(|op| {
            let (ret, outcome) = match op.answer {
                Some((moment, outcome)) => (Some(moment), outcome),
                None => (None, Outcome::Unknown),
            };
            let written_at = if let Outcome::Txn { revision, .. } = &outcome { *revision } else { 0 };
            let done = crate::history::Done { action: op.action, outcome, written_at };
            Timed { call: op.call, ret, bound: None, op: done }
        });
        let mut seen = Seen {
            ops: ops.collect(),
            listings: std::mem::take(&mut self.listings),
            followers: self.watchers.drain(..).map(|watcher| watcher.follower).collect(),
            volatile_lost: !self.plan.gentle,
            log: std::mem::take(&mut self.log),
        };
        seen.verify()
    }
}
