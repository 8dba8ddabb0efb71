//! What must hold of what clients and watchers saw: one log of committed writes, the same everywhere,
//! complete, in order, and at the times when clients were told; and an order of all operations
//! that explains every answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::committed::{Change, Changes, Follower, Home, Log};
use crate::history::{self, Action, Cell, Done, Got, Key, Outcome, State, Step, group_of};
use crate::linear::Timed;

/// No revision is as large: numbers from here on stand for that of what never happened.
const NEVER: u64 = 1 << 60;

/// All keys as they were read at one revision, and by whom.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) who: String,
    pub(crate) home: Home,
    pub(crate) revision: u64,
    pub(crate) state: State,
}

/// Everything that was seen in a run.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) log: Log,
    pub(crate) followers: Vec<Follower>,
    pub(crate) listings: Vec<Listing>,
    pub(crate) ops: Vec<Timed<Done>>,
    /// The revisions at which the group gave up its keys in memory.
    pub(crate) losses: BTreeSet<u64>,
}

/// What a run showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) revisions: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) histories: u64,
    pub(crate) undecided: u64,
    /// Lists and backups that were compared with the log.
    pub(crate) listings: u64,
    /// Watchers whose view was compared with a list.
    pub(crate) views: u64,
}

impl Summary {
    pub(crate) fn of(numbers: [u64; 7]) -> Self {
        let [revisions, acknowledged, unknown, histories, undecided, listings, views] = numbers;
        Self { revisions, acknowledged, unknown, histories, undecided, listings, views }
    }

    pub(crate) fn numbers(&self) -> [u64; 7] {
        let Self { revisions, acknowledged, unknown, histories, undecided, listings, views } = *self;
        [revisions, acknowledged, unknown, histories, undecided, listings, views]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let (mut sum, more) = (self.numbers(), other.numbers());
        sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        *self = Self::of(sum);
    }
}

impl Seen {
    /// Checks everything; the first thing that does not hold.
    pub(crate) fn verify(&mut self) -> Result<Summary, String> {
        self.add_acknowledged()?;
        let mut written = self.log.written_at()?;
        self.add_seen(&mut written)?;
        self.find_unknown(&written)?;
        self.find_unknown_deletions();
        self.check_real_time()?;
        self.check_stretches()?;
        self.add_losses();
        let listings = self.check_listings()?;
        let hidden = self.hidden_creations();
        let (histories, undecided) = self.check_history(&hidden)?;
        let unknown = self.ops.iter().filter(|op| op.ret.is_none()).count() as u64;
        Ok(Summary {
            revisions: self.log.len() as u64,
            acknowledged: self.ops.len() as u64 - unknown,
            unknown,
            histories,
            undecided,
            listings,
            views: self.followers.len() as u64,
        })
    }

    /// What writers were told belongs to the log, too.
    fn add_acknowledged(&mut self) -> Result<(), String> {
        for (at, op) in self.ops.iter().enumerate() {
            let Outcome::Txn { revision, succeeded, got } = &op.op.outcome else { continue };
            let Action::Txn { success, failure, .. } = &op.op.action else { continue };
            let steps = if *succeeded { success } else { failure };
            let changes = changes(steps, got, *revision);
            if !changes.is_empty() {
                self.log.add(*revision, changes, &format!("the client of operation {at}"))?;
            }
        }
        Ok(())
    }

    /// Values that were read tell when they were written, too, even where no watcher was told.
    fn add_seen(&self, written: &mut BTreeMap<u64, u64>) -> Result<(), String> {
        let answers = self.ops.iter().flat_map(|op| op.op.outcome.cells());
        let listed = self.listings.iter().flat_map(|listing| &listing.state).map(|(_, cell)| *cell);
        for cell in answers.chain(listed) {
            let known = *written.entry(cell.value).or_insert(cell.modified);
            if known != cell.modified {
                return Err(format!("{cell:?} was read, but the value was written at {known}"));
            }
        }
        Ok(())
    }

    /// Gives operations without an answer the revision at which their values turned up.
    fn find_unknown(&mut self, written: &BTreeMap<u64, u64>) -> Result<(), String> {
        for (at, op) in self.ops.iter_mut().enumerate() {
            if op.op.outcome != Outcome::Unknown {
                continue;
            }
            let mut found = op.op.action.values().into_iter().filter_map(|value| written.get(&value));
            // No key can have this revision.
            op.op.written_at = found.next().copied().unwrap_or(NEVER | at as u64);
            if found.any(|revision| *revision != op.op.written_at) {
                return Err(format!("operation {at} is torn: {:?}", op.op.action));
            }
        }
        Ok(())
    }

    /// Deletions leave no value by which to know them: in a complete log, one that nobody answers
    /// for is that of the first operation without an answer that would have done it.
    fn find_unknown_deletions(&mut self) {
        let newest = self.log.newest();
        for home in Home::BOTH {
            if !self.covered(home, 1, newest) {
                continue;
            }
            let known: BTreeSet<u64> = self
                .ops
                .iter()
                .filter(|op| op.op.wrote() || op.ret.is_none())
                .map(|op| op.op.written_at)
                .collect();
            let mut state: BTreeMap<Key, Cell> = BTreeMap::new();
            let mut before = 0;
            for (revision, (entry, _)) in &self.log.entries {
                if Home::of_all(entry) != home {
                    continue;
                }
                if self.loses(home, before, *revision) {
                    state.clear();
                }
                before = *revision;
                if !known.contains(revision) {
                    let present: State = state.iter().map(|(key, cell)| (*key, *cell)).collect();
                    let would = |op: &&mut Timed<Done>| {
                        let (steps, got) = history::try_out(&present, &op.op.action, *revision);
                        op.op.written_at >= NEVER && changes(steps, &got, *revision) == *entry
                    };
                    if let Some(op) = self.ops.iter_mut().find(would) {
                        op.op.written_at = *revision;
                    }
                }
                for (key, change) in entry {
                    match change {
                        Change::Put(cell) => state.insert(*key, *cell),
                        Change::Deleted => state.remove(key),
                    };
                }
            }
        }
    }

    /// Revisions that are known only as those at which a key that was seen came to be: what wrote it
    /// then got no answer, and was written over before anybody saw it. With each the operations
    /// that can have been it.
    fn hidden_creations(&self) -> Vec<(u64, Vec<usize>)> {
        let known: BTreeSet<u64> =
            self.ops.iter().map(|op| op.op.written_at).chain(self.log.entries.keys().copied()).collect();
        let mut hidden: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let answers = self.ops.iter().flat_map(|op| op.op.outcome.keyed_cells(&op.op.action));
        let listed = self.listings.iter().flat_map(|listing| listing.state.iter().copied());
        for (key, cell) in answers.chain(listed).filter(|(_, cell)| !known.contains(&cell.created)) {
            hidden.entry(cell.created).or_insert_with(|| {
                let wrote = |op: &Timed<Done>| op.op.written_at >= NEVER && op.op.action.puts(key);
                self.ops.iter().enumerate().filter(|(_, op)| wrote(op)).map(|(at, _)| at).collect()
            });
        }
        hidden.into_iter().filter(|(_, candidates)| !candidates.is_empty()).collect()
    }

    /// Looks for an order, with each of the operations that can have been a hidden one.
    fn check_history(&mut self, hidden: &[(u64, Vec<usize>)]) -> Result<(u64, u64), String> {
        let Some(((revision, candidates), rest)) = hidden.split_first() else {
            return history::check(&self.history());
        };
        let mut result = Err(String::new());
        for at in candidates {
            let before = self.ops[*at].op.written_at;
            if before < NEVER {
                // It was another one.
                continue;
            }
            self.ops[*at].op.written_at = *revision;
            result = self.check_history(rest);
            if result.is_ok() {
                return result;
            }
            self.ops[*at].op.written_at = before;
        }
        match result {
            Err(why) if why.is_empty() => self.check_history(rest),
            other => other,
        }
    }

    /// Whether the keys of a home were given up after one revision and up to another.
    fn loses(&self, home: Home, after: u64, upto: u64) -> bool {
        home == Home::Volatile && after < upto && self.losses.range(after + 1..=upto).next().is_some()
    }

    /// Makes the losses operations that nobody was told of: each deletes everything at its
    /// revision, which lies after all writes of lower ones were asked for.
    fn add_losses(&mut self) {
        let groups: BTreeSet<u32> =
            self.ops.iter().flat_map(|op| op.op.action.keys()).map(group_of).collect();
        for (loss, group) in
            self.losses.iter().flat_map(|loss| groups.iter().map(move |group| (*loss, *group)))
        {
            if group < history::VOLATILE {
                continue;
            }
            let before = self.ops.iter().filter(|op| op.op.written_at < loss && op.op.wrote());
            let call = before.map(|op| op.call).max().unwrap_or(0);
            let action =
                Action::Txn { tests: vec![], success: vec![Step::DeleteGroup(group)], failure: vec![] };
            let op = Done { action, outcome: Outcome::Unknown, written_at: loss };
            self.ops.push(Timed { call, ret: None, bound: None, op });
        }
    }

    /// The history that an order must explain. Operations without an answer would be tried at
    /// every moment after their call, so they are held to what the log says of them, which is
    /// checked for itself: what is in no complete log never happened, and what is in it happened
    /// before anything with a later revision was answered.
    fn history(&self) -> Vec<Timed<Done>> {
        let mut answered: Vec<(u64, u64)> = Vec::new();
        for op in &self.ops {
            if let (Some(ret), Outcome::Txn { revision, .. } | Outcome::Range { revision, .. }) =
                (op.ret, &op.op.outcome)
            {
                answered.push((*revision, ret));
            }
        }
        answered.sort_unstable();
        // From each revision on, the first moment at which it was told of.
        let mut first = u64::MAX;
        for (_, ret) in answered.iter_mut().rev() {
            first = first.min(*ret);
            *ret = first;
        }
        let newest = self.log.newest();
        let complete = Home::BOTH.map(|home| self.covered(home, 1, newest));
        let newest = newest.max(self.losses.last().copied().unwrap_or(0));
        let mut history = Vec::new();
        for op in &self.ops {
            let mut op = op.clone();
            let home = op.op.action.home();
            if op.ret.is_none() {
                let happened = op.op.written_at <= newest;
                if !happened && complete[home as usize] {
                    // Or it changed nothing, and nobody heard of it.
                    continue;
                }
                if happened {
                    let at = answered.partition_point(|(revision, _)| *revision < op.op.written_at);
                    op.bound = answered.get(at).map(|(_, ret)| *ret).filter(|ret| *ret > op.call);
                }
            }
            history.push(op);
        }
        history
    }

    /// Whoever began after another was told of a revision sees it, and writes after it.
    fn check_real_time(&self) -> Result<(), String> {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (at, op) in self.ops.iter().enumerate() {
            if let Some(ret) = op.ret {
                moments.push((op.call, false, at));
                moments.push((ret, true, at));
            }
        }
        moments.sort_unstable();
        let mut newest = (0, 0);
        let mut floors = BTreeMap::new();
        for (_, is_return, at) in moments {
            if !is_return {
                floors.insert(at, newest);
                continue;
            }
            let (revision, writes) = match &self.ops[at].op.outcome {
                Outcome::Txn { revision, .. } => (*revision, self.ops[at].op.wrote()),
                Outcome::Range { revision, .. } => (*revision, false),
                Outcome::Unknown => continue,
            };
            let (floor, by) = floors.get(&at).copied().unwrap_or_default();
            if revision < floor || writes && revision == floor {
                return Err(format!(
                    "operation {at} ({:?}) was answered at revision {revision}, but operation {by} had been told of {floor} before it began",
                    self.ops[at].op
                ));
            }
            newest = newest.max((revision, at));
        }
        Ok(())
    }

    /// No watch left out a revision that it passed.
    fn check_stretches(&self) -> Result<(), String> {
        let stretches = self.followers.iter().flat_map(|follower| &follower.stretches);
        for stretch in stretches {
            if self.loses(stretch.home, stretch.from.saturating_sub(1), stretch.upto) {
                return Err(format!(
                    "{} was delivered {}..={} as if nothing were lost: {:?}",
                    stretch.who, stretch.from, stretch.upto, self.losses
                ));
            }
            let passed = self.log.entries.range(stretch.from..stretch.upto.max(stretch.from - 1) + 1);
            let passed = passed.filter(|(_, (changes, _))| Home::of_all(changes) == stretch.home);
            let mut seen = stretch.seen.iter().copied().peekable();
            for (revision, entry) in passed {
                if seen.next_if_eq(revision).is_none() {
                    return Err(format!(
                        "{} was delivered {}..={} without revision {revision} ({entry:?})",
                        stretch.who, stretch.from, stretch.upto
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether watches delivered every revision in `from..=upto`, together.
    fn covered(&self, home: Home, from: u64, upto: u64) -> bool {
        let mut stretches: Vec<(u64, u64)> = self
            .followers
            .iter()
            .flat_map(|follower| &follower.stretches)
            .filter(|stretch| stretch.home == home)
            .map(|stretch| (stretch.from, stretch.upto))
            .collect();
        if home == Home::Volatile {
            // Nothing else happened at these revisions.
            stretches.extend(self.losses.iter().map(|loss| (*loss, *loss)));
        }
        stretches.sort_unstable();
        let mut next = from;
        for (begin, end) in stretches {
            if begin <= next && end >= next {
                next = end + 1;
            }
        }
        next > upto
    }

    /// Lists show what the log gives at their revisions. Returns how many could be checked.
    fn check_listings(&self) -> Result<u64, String> {
        let mut checked = 0;
        for home in Home::BOTH {
            let mut listings: Vec<_> = self.listings.iter().filter(|listing| listing.home == home).collect();
            listings.sort_by_key(|listing| listing.revision);
            let mut base = (0, State::new());
            for listing in listings {
                if !self.covered(home, base.0 + 1, listing.revision) {
                    base = (listing.revision, listing.state.clone());
                    continue;
                }
                let state = self.replay(home, &base.1, base.0 + 1, listing.revision)?;
                if state != listing.state {
                    return Err(format!(
                        "{} at revision {} lists\n  {:?}\nbut the log gives\n  {:?}",
                        listing.who, listing.revision, listing.state, state
                    ));
                }
                checked += 1;
                base = (listing.revision, state);
            }
        }
        Ok(checked)
    }

    fn replay(&self, home: Home, from: &State, first: u64, last: u64) -> Result<State, String> {
        let mut state: BTreeMap<Key, Cell> = from.iter().copied().collect();
        if first > last {
            return Ok(from.clone());
        }
        let mut before = first - 1;
        for (revision, (changes, who)) in self.log.entries.range(first..=last) {
            if self.loses(home, before, *revision) {
                state.clear();
            }
            before = *revision;
            for (key, change) in changes.iter().filter(|(key, _)| Home::of(**key) == home) {
                let before = match change {
                    Change::Put(cell) => state.insert(*key, *cell),
                    Change::Deleted => state.remove(key),
                };
                let fits = match change {
                    Change::Put(cell) => {
                        let version = before.map_or(1, |before| before.version + 1);
                        let created = before.map_or(*revision, |before| before.created);
                        (cell.version, cell.created, cell.modified) == (version, created, *revision)
                    }
                    Change::Deleted => before.is_some(),
                };
                if !fits {
                    return Err(format!(
                        "{who} saw {change:?} of key {key} at revision {revision}, after {before:?}"
                    ));
                }
            }
        }
        if self.loses(home, before, last) {
            state.clear();
        }
        Ok(state.into_iter().collect())
    }
}

/// What a transaction's steps changed, as its answer tells.
fn changes(steps: &[Step], got: &[Got], revision: u64) -> Changes {
    let mut changes = Changes::new();
    for (step, got) in steps.iter().zip(got) {
        match (step, got) {
            (Step::Put(key, value), Got::Put(before)) => {
                let cell = Cell {
                    value: *value,
                    version: before.map_or(0, |cell| cell.version) + 1,
                    created: before.map_or(revision, |cell| cell.created),
                    modified: revision,
                };
                changes.insert(*key, Change::Put(cell));
            }
            (Step::Delete(_) | Step::DeleteGroup(_), Got::Deleted(gone)) => {
                changes.extend(gone.iter().map(|(key, _)| (*key, Change::Deleted)));
            }
            _ => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use sampan_store::{KeyValue, Revision, WatchBatch, WatchEvent};

    use super::*;

    fn put(key: Key, value: u64, version: u64, created: u64, revision: u64) -> WatchEvent {
        let kv = KeyValue {
            key: history::key_bytes(key),
            value: history::value_bytes(value),
            create_revision: Revision(created),
            mod_revision: Revision(revision),
            version,
            lease: sampan_store::LeaseId(0),
        };
        WatchEvent::Put { kv, previous: None }
    }

    fn delete(key: Key, revision: u64) -> WatchEvent {
        WatchEvent::Delete { key: history::key_bytes(key), revision: Revision(revision), previous: None }
    }

    fn batch(revision: u64, events: Vec<WatchEvent>) -> WatchBatch {
        WatchBatch { revision: Revision(revision), events }
    }

    fn follow(seen: &mut Seen, name: &str, batches: &[WatchBatch]) -> Result<(), String> {
        let mut follower = Follower::new(name.into(), Home::Durable, 1);
        for batch in batches {
            follower.take(batch, &mut seen.log)?;
        }
        seen.followers.push(follower);
        Ok(())
    }

    fn good() -> [WatchBatch; 3] {
        [
            batch(1, vec![put(256, 1, 1, 1, 1)]),
            batch(4, vec![put(256, 2, 2, 1, 2), put(257, 3, 1, 3, 3)]),
            batch(5, vec![delete(256, 5)]),
        ]
    }

    fn list(seen: &mut Seen, revision: u64, state: &[(Key, Cell)]) {
        seen.listings.push(Listing {
            who: "a list".into(),
            home: Home::Durable,
            revision,
            state: state.to_vec(),
        });
    }

    #[test]
    fn what_is_whole_passes() {
        let mut seen = Seen::default();
        follow(&mut seen, "one", &good()).unwrap();
        follow(&mut seen, "two", &good()).unwrap();
        list(&mut seen, 5, &[(257, Cell { value: 3, version: 1, created: 3, modified: 3 })]);
        list(
            &mut seen,
            4,
            &[
                (256, Cell { value: 2, version: 2, created: 1, modified: 2 }),
                (257, Cell { value: 3, version: 1, created: 3, modified: 3 }),
            ],
        );
        let summary = seen.verify().unwrap();
        assert_eq!((summary.revisions, summary.listings), (4, 2));
    }

    #[test]
    fn a_gap_is_found() {
        let mut seen = Seen::default();
        follow(&mut seen, "one", &good()).unwrap();
        follow(&mut seen, "two", &[good()[0].clone(), good()[2].clone()]).unwrap();
        assert!(seen.verify().unwrap_err().contains("without revision 2"));
    }

    #[test]
    fn repeats_disorder_and_differences_are_found() {
        let [first, second, third] = good();
        let mut again = Seen::default();
        assert!(follow(&mut again, "one", &[first.clone(), first.clone()]).is_err());
        let mut disorder = Seen::default();
        assert!(follow(&mut disorder, "one", &[first.clone(), third, second]).is_err());
        let mut differs = Seen::default();
        follow(&mut differs, "one", &[first]).unwrap();
        assert!(follow(&mut differs, "two", &[batch(1, vec![put(256, 9, 1, 1, 1)])]).is_err());
        let mut ahead = Seen::default();
        assert!(follow(&mut ahead, "one", &[batch(1, vec![put(256, 1, 1, 2, 2)])]).is_err());
    }

    #[test]
    fn writes_done_twice_and_wrong_lists_are_found() {
        let mut twice = Seen::default();
        let batches = [batch(2, vec![put(256, 1, 1, 1, 1), put(256, 1, 2, 1, 2)])];
        follow(&mut twice, "one", &batches).unwrap();
        assert!(twice.verify().unwrap_err().contains("twice"));
        let mut wrong = Seen::default();
        follow(&mut wrong, "one", &good()).unwrap();
        list(&mut wrong, 5, &[]);
        assert!(wrong.verify().unwrap_err().contains("the log gives"));
    }

    /// Nobody was told of the write at 3, and nobody saw its value: only when the key came to be.
    #[test]
    fn a_creation_that_nobody_saw_is_explained_by_who_may_have_been_it() {
        let op = |call, ret, key, value, outcome| {
            let action = Action::Txn { tests: vec![], success: vec![Step::Put(key, value)], failure: vec![] };
            Timed { call, ret, bound: None, op: Done { action, outcome, written_at: 0 } }
        };
        let unknown = |key, value| op(1, None, key, value, Outcome::Unknown);
        let before = Cell { value: 24, version: 2, created: 3, modified: 4 };
        let told = Outcome::Txn { revision: 5, succeeded: true, got: vec![Got::Put(Some(before))] };
        let mut last = op(5, Some(6), 256, 32, told);
        last.op.written_at = 5;
        let ops = vec![unknown(257, 8), unknown(256, 16), unknown(256, 24), last];
        Seen { ops: ops.clone(), ..Seen::default() }.verify().unwrap();
        let mut nobody = Seen { ops: [&ops[..1], &ops[2..]].concat(), ..Seen::default() };
        assert!(nobody.verify().is_err(), "nobody can have been it");
    }

    #[test]
    fn an_answer_older_than_what_others_were_told_is_found() {
        let op = |call, ret, revision| {
            let action = Action::Range { group: 1 };
            let outcome = Outcome::Range { revision, cells: vec![] };
            Timed { call, ret: Some(ret), bound: None, op: Done { action, outcome, written_at: 0 } }
        };
        let mut fine = Seen { ops: vec![op(1, 4, 7), op(2, 3, 8), op(5, 6, 8)], ..Seen::default() };
        fine.verify().unwrap();
        let mut stale = Seen { ops: vec![op(1, 2, 8), op(3, 4, 7)], ..Seen::default() };
        assert!(stale.verify().unwrap_err().contains("had been told of 8"));
    }
}
