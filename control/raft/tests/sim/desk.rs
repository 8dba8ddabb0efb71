//! What clients and watchers ask for, and what becomes of it.

use rand::Rng;

use crate::clients::{self, Failure, Note, Purpose};
use crate::committed::Home;
use crate::counts::Happened;
use crate::history::{Action, Outcome, State};
use crate::oracle::Listing;
use crate::sim::{Op, PATIENCE, Sim};

impl Sim {
    pub(crate) fn clients_ask(&mut self) {
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

    pub(crate) fn ask(&mut self, op: usize, host: usize, action: Action) {
        let Some(store) = self.hosts[host].store() else { return };
        let call = self.mailbox.moment();
        self.note(format_args!("operation {op} asks {host}: {action:?}"));
        clients::ask(&self.hosts[host], store, op, &action, &self.mailbox);
        self.ops.push(Op { action, call, answer: None, void: false });
    }

    pub(crate) fn give_up_waiting(&mut self) {
        for client in &mut self.clients {
            let Some((op, since, _)) = client.waits else { continue };
            if self.now > since + PATIENCE {
                client.waits = None;
                client.rests_until = self.now;
                self.net.lock().trace.add(self.now, format_args!("operation {op} is given up"));
            }
        }
    }

    pub(crate) fn watchers_watch(&mut self) {
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

    pub(crate) fn take(&mut self, moment: u64, note: Note) -> Result<(), String> {
        match note {
            Note::Answer { op, result } => self.take_answer(moment, op, result),
            Note::Watch { watcher, session, result } => self.take_watch(watcher, session, result),
            Note::Listing { host, home, watcher, result } => self.take_listing(host, home, watcher, result),
            Note::Backup { host, result } => self.take_backup(host, result),
            Note::Admin { purpose, result } => {
                self.note(format_args!("{purpose:?}: {result:?}"));
                if let (Some(done), Ok(())) = (purpose.counts(), &result) {
                    self.counts.note(done);
                }
                match purpose {
                    Purpose::Script(number) => self.script.answered(number),
                    // Its process ends.
                    Purpose::Close(host) => self.kill(host, false),
                    Purpose::Transfer | Purpose::Compact => {}
                }
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
                let events = batch.events.iter().map(crate::committed::brief).collect::<Vec<_>>();
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
                self.counts.note(Happened::WatchEnded);
                Ok(())
            }
        }
    }

    fn take_listing(
        &mut self,
        host: usize,
        home: Home,
        watcher: Option<(usize, u64)>,
        result: Result<(u64, State), Failure>,
    ) -> Result<(), String> {
        let (revision, state) = match result {
            Ok(found) => found,
            Err(Failure::Wrong(why)) => return Err(format!("a list on member {host}: {why}")),
            Err(failure) => {
                self.note(format_args!("a list on member {host} of {home:?} keys: {failure:?}"));
                match watcher {
                    Some((at, _)) => {
                        self.watchers[at].at = None;
                        self.watchers[at].rests_until = self.now + 40;
                    }
                    None => self.refused_listings += 1,
                }
                return Ok(());
            }
        };
        self.note(format_args!("member {host} lists {home:?} keys at {revision}: {}", state.len()));
        match watcher {
            Some((at, session)) if self.watchers[at].session == session => {
                self.watchers[at].at = None;
                self.watchers[at].lists = false;
                self.watchers[at].follower.restart(revision + 1, &state);
                self.counts.note(Happened::WatchRelisted);
            }
            Some(_) => {}
            None => self.final_listings += 1,
        }
        self.listings.push(Listing { who: format!("member {host}"), home, revision, state });
        Ok(())
    }

    fn take_backup(&mut self, host: usize, result: Result<(u64, State), Failure>) -> Result<(), String> {
        match result {
            Ok((revision, state)) => {
                self.note(format_args!("a backup of member {host} at {revision}: {}", state.len()));
                self.counts.note(Happened::Backup);
                let who = format!("a backup of member {host}");
                self.listings.push(Listing { who, home: Home::Durable, revision, state });
            }
            Err(Failure::Wrong(why)) => return Err(format!("a backup of member {host}: {why}")),
            Err(failure) => self.note(format_args!("a backup of member {host}: {failure:?}")),
        }
        Ok(())
    }
}
