//! The end of a run: all trouble ends, members and watchers come to the same state, and the oracle judges.

use std::collections::BTreeSet;

use crate::clients;
use crate::committed::Home;
use crate::history::{Action, Done, Outcome, Step, key};
use crate::linear::Timed;
use crate::oracle::{Listing, Seen, Summary};
use crate::sim::{PATIENCE, Sim, WHOLE_WITHIN, Watcher};

impl Sim {
    /// Ends all trouble.
    pub(crate) fn heal(&mut self) {
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

    /// Every member takes a write now.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            let deadline = self.now + WHOLE_WITHIN;
            loop {
                let op = self.ops.len();
                let step = Step::Put(key(0, 0), op as u64 * 8);
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
    pub(crate) fn last_lists(&mut self) -> Result<(), String> {
        let deadline = self.now + WHOLE_WITHIN;
        let before = loop {
            let before = self.listings.len();
            if self.all_list()? {
                break before;
            }
            // A device that failed before all was healed may show only now: its member starts again.
            let again = self.now + PATIENCE;
            self.until(WHOLE_WITHIN, "time does not pass", |sim| sim.now >= again)?;
            if self.now > deadline {
                return Err(format!("members do not list; {}", self.standing()));
            }
        };
        for home in Home::BOTH {
            let last = self.listings[before..].iter().filter(|listing| listing.home == home);
            let last: Vec<&Listing> = last.collect();
            for pair in last.windows(2) {
                if pair[0].state != pair[1].state {
                    return Err(format!("members differ at the end:\n  {:?}\n  {:?}", pair[0], pair[1]));
                }
            }
        }
        Ok(())
    }

    /// Asks all members for lists; whether they gave them, of one revision.
    fn all_list(&mut self) -> Result<bool, String> {
        (self.final_listings, self.refused_listings) = (0, 0);
        let before = self.listings.len();
        let mut asked = 0;
        for home in Home::BOTH {
            for host in &self.hosts {
                if let Some(store) = host.store() {
                    clients::list_all(host, store, home, None, &self.mailbox);
                    asked += 1;
                }
            }
        }
        self.until(WHOLE_WITHIN, "members do not answer lists", |sim| {
            sim.final_listings + sim.refused_listings == asked
        })?;
        // What nobody waits for any more may still take place meanwhile.
        let revisions: BTreeSet<u64> =
            self.listings[before..].iter().map(|listing| listing.revision).collect();
        Ok(self.final_listings == self.hosts.len() * 2 && revisions.len() == 1)
    }

    /// Whoever watched has in the end what a list shows.
    pub(crate) fn watchers_catch_up(&mut self) -> Result<(), String> {
        let last = Home::BOTH.map(|home| {
            let last = self.listings.iter().rev().find(|listing| listing.home == home);
            last.map(|listing| listing.state.clone()).unwrap_or_default()
        });
        let behind = |sim: &Self| {
            let behind = |watcher: &&Watcher| watcher.follower.view() != last[watcher.home as usize];
            sim.watchers.iter().find(behind).map(|watcher| watcher.follower.name().to_owned())
        };
        let result = self
            .until(WHOLE_WITHIN, "a watcher does not come to the last state", |sim| behind(sim).is_none());
        result.map_err(|why| {
            match self
                .watchers
                .iter()
                .find(|watcher| Some(watcher.follower.name()) == behind(self).as_deref())
            {
                Some(watcher) => format!(
                    "{why}\n{} has\n  {:?}\ninstead of\n  {:?}",
                    watcher.follower.name(),
                    watcher.follower.view(),
                    last[watcher.home as usize]
                ),
                None => why,
            }
        })
    }

    pub(crate) fn verify(&mut self) -> Result<Summary, String> {
        let ops = std::mem::take(&mut self.ops);
        let ops = ops.into_iter().filter(|op| !op.void).map(|op| {
            let (ret, outcome) = match op.answer {
                Some((moment, outcome)) => (Some(moment), outcome),
                None => (None, Outcome::Unknown),
            };
            let written_at = if let Outcome::Txn { revision, .. } = &outcome { *revision } else { 0 };
            let done = Done { action: op.action, outcome, written_at };
            Timed { call: op.call, ret, bound: None, op: done }
        });
        let mut seen = Seen {
            ops: ops.collect(),
            listings: std::mem::take(&mut self.listings),
            followers: self.watchers.drain(..).map(|watcher| watcher.follower).collect(),
            losses: std::mem::take(&mut self.losses),
            log: std::mem::take(&mut self.log),
        };
        seen.verify()
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
}
