//! The log of committed writes, pieced together from what watchers and writers saw.

use std::collections::BTreeMap;

use sampan_store::{WatchBatch, WatchEvent};

use crate::history::{self, Cell, Key, State};

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Put(Cell),
    Deleted,
}

/// What one revision changed.
pub(crate) type Changes = BTreeMap<Key, Change>;

/// Which keyspaces: one revision never changes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Home {
    #[default]
    Durable,
    Volatile,
}

impl Home {
    pub(crate) const BOTH: [Self; 2] = [Self::Durable, Self::Volatile];

    pub(crate) fn of(key: Key) -> Self {
        if history::is_volatile(key) { Self::Volatile } else { Self::Durable }
    }

    pub(crate) fn of_all(changes: &Changes) -> Self {
        changes.keys().next().map_or(Self::Durable, |key| Self::of(*key))
    }
}

/// The log so far.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) entries: BTreeMap<u64, (Changes, String)>,
}

impl Log {
    /// Adds what `who` saw at `revision`; an error where it differs from what others saw.
    pub(crate) fn add(&mut self, revision: u64, changes: Changes, who: &str) -> Result<(), String> {
        match self.entries.get(&revision) {
            None => {
                self.entries.insert(revision, (changes, who.to_owned()));
                Ok(())
            }
            Some((known, _)) if *known == changes => Ok(()),
            Some((known, first)) => Err(format!(
                "revision {revision} is not the same everywhere: {first} saw {known:?}, {who} saw {changes:?}"
            )),
        }
    }

    /// The revision at which a value was written.
    pub(crate) fn written_at(&self) -> Result<BTreeMap<u64, u64>, String> {
        let mut found = BTreeMap::new();
        for (revision, (changes, _)) in &self.entries {
            for (key, change) in changes {
                let Change::Put(cell) = change else { continue };
                if let Some(before) = found.insert(cell.value, *revision) {
                    return Err(format!(
                        "value {} of key {key} was written twice, at {before} and at {revision}",
                        cell.value
                    ));
                }
            }
        }
        Ok(found)
    }

    /// The newest revision that anybody saw.
    pub(crate) fn newest(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// A stretch of revisions that one watch delivered without interruption by a list.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) who: String,
    pub(crate) home: Home,
    /// Delivered from here on...
    pub(crate) from: u64,
    /// ...up to here.
    pub(crate) upto: u64,
    /// The revisions that had events.
    pub(crate) seen: Vec<u64>,
}

/// Follows what one watcher is delivered.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) stretches: Vec<Stretch>,
    name: String,
    home: Home,
    /// The keys as it has them by what it listed and was delivered.
    view: BTreeMap<Key, Cell>,
}

impl Follower {
    pub(crate) fn new(name: String, home: Home, from: u64) -> Self {
        let mut follower = Self { stretches: Vec::new(), name, home, view: BTreeMap::new() };
        follower.restart(from, &State::new());
        follower
    }

    /// The first revision not yet delivered.
    pub(crate) fn next(&self) -> u64 {
        self.stretches.last().map_or(1, |stretch| stretch.upto + 1)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All keys as whoever watched has them.
    pub(crate) fn view(&self) -> State {
        self.view.iter().map(|(key, cell)| (*key, *cell)).collect()
    }

    /// After a list, the watch goes on from `from`.
    pub(crate) fn restart(&mut self, from: u64, listed: &State) {
        self.view = listed.iter().copied().collect();
        let (who, home) = (self.name.clone(), self.home);
        self.stretches.push(Stretch { who, home, from, upto: from.saturating_sub(1), seen: Vec::new() });
    }

    /// Takes one batch of a watch of all keys of its home.
    pub(crate) fn take(&mut self, batch: &WatchBatch, log: &mut Log) -> Result<(), String> {
        let Some(stretch) = self.stretches.last_mut() else { return Ok(()) };
        let who = &stretch.who;
        let mut by_revision: BTreeMap<u64, Changes> = BTreeMap::new();
        let mut last = stretch.upto;
        for event in &batch.events {
            let (revision, key, change) = change(event)?;
            if revision <= stretch.upto {
                return Err(format!("{who} was delivered revision {revision} again, after {}", stretch.upto));
            }
            if revision < last {
                return Err(format!("{who} was delivered revision {revision} after {last}"));
            }
            last = revision;
            if by_revision.entry(revision).or_default().insert(key, change).is_some() {
                return Err(format!("{who} was delivered key {key} twice at revision {revision}"));
            }
        }
        if batch.revision.0 < last {
            return Err(format!("{who}: a batch up to {} has revision {last}", batch.revision));
        }
        for (revision, changes) in by_revision {
            stretch.seen.push(revision);
            for (key, change) in &changes {
                match change {
                    Change::Put(cell) => self.view.insert(*key, *cell),
                    Change::Deleted => self.view.remove(key),
                };
            }
            log.add(revision, changes, who)?;
        }
        // A progress mark may repeat what is known.
        stretch.upto = stretch.upto.max(batch.revision.0);
        Ok(())
    }
}

fn change(event: &WatchEvent) -> Result<(u64, Key, Change), String> {
    match event {
        WatchEvent::Put { kv, .. } => {
            let (key, cell) = history::cell(kv)?;
            Ok((kv.mod_revision.0, key, Change::Put(cell)))
        }
        WatchEvent::Delete { key, revision, .. } => {
            let key = history::parse_key(key).ok_or_else(|| format!("a foreign key {key:?}"))?;
            Ok((revision.0, key, Change::Deleted))
        }
    }
}

/// An event in few letters.
pub(crate) fn brief(event: &WatchEvent) -> String {
    match change(event) {
        Ok((revision, key, Change::Put(cell))) => format!("{revision}:{key}={}v{}", cell.value, cell.version),
        Ok((revision, key, Change::Deleted)) => format!("{revision}:{key}-"),
        Err(why) => why,
    }
}
