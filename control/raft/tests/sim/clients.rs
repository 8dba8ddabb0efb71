//! Clients: what they ask for, of whom, and what they heard. Watchers, that go on elsewhere after
//! an error. They run on the members, as the API server does.

use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use sampan_raft::RaftStore;
use sampan_store::{
    MemoryStore, RangeRequest, Revision, Storage, StorageError, WatchBatch, WatchRequest, prefix_end,
};

use crate::committed::Home;
use crate::counts::Happened;
use crate::history::{self, Action, Cell, KEYS_PER_GROUP, Key, Outcome, Step, Test, VOLATILE, key};
use crate::member::{Host, chain};

/// What came of something that ran on a member.
pub(crate) enum Note {
    /// An operation's answer.
    Answer { op: usize, result: Result<Outcome, Failure> },
    /// A watch's next batch, or why it ended.
    Watch { watcher: usize, session: u64, result: Result<WatchBatch, StorageError> },
    /// What a member lists of a home.
    Listing {
        host: usize,
        home: Home,
        watcher: Option<(usize, u64)>,
        result: Result<(u64, history::State), Failure>,
    },
    /// What a backup holds, and its revision.
    Backup { host: usize, result: Result<(u64, history::State), Failure> },
    /// What an administrator's call came to.
    Admin { purpose: Purpose, result: Result<(), String> },
}

/// What an administrator calls for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// An attempt of the script, by number.
    Script(u64),
    Transfer,
    Compact,
    /// The host whose store is closed.
    Close(usize),
}

impl Purpose {
    /// What happened where the call did its work.
    pub(crate) fn counts(self) -> Option<Happened> {
        match self {
            Self::Script(_) => None,
            Self::Transfer => Some(Happened::Transfer),
            Self::Compact => Some(Happened::Compaction),
            Self::Close(_) => Some(Happened::Closed),
        }
    }
}

/// Why an operation has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It did not happen and will not.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
    /// The store gave what cannot be.
    Wrong(String),
}

/// Where members put what came of things, in the order in which it happened.
#[derive(Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    clock: u64,
    notes: Vec<(u64, Note)>,
}

impl Mailbox {
    /// The next moment of the one clock that orders calls and answers.
    pub(crate) fn moment(&self) -> u64 {
        let mut inner = self.0.lock();
        inner.clock += 1;
        inner.clock
    }

    fn put(&self, note: Note) {
        let mut inner = self.0.lock();
        inner.clock += 1;
        let clock = inner.clock;
        inner.notes.push((clock, note));
    }

    pub(crate) fn take(&self) -> Vec<(u64, Note)> {
        std::mem::take(&mut self.0.lock().notes)
    }
}

fn failure(error: &StorageError, writes: bool) -> Failure {
    match error {
        StorageError::Corrupt { .. } => Failure::Wrong(chain(error)),
        StorageError::Unavailable { .. } | StorageError::Io(_) if writes => Failure::Unknown,
        _ => Failure::Refused,
    }
}

/// Asks a member for something; the answer goes to the mailbox.
pub(crate) fn ask(host: &Host, store: Arc<RaftStore>, op: usize, action: &Action, mailbox: &Mailbox) {
    let mailbox = mailbox.clone();
    let (txn, range) = (action.txn(), action.range());
    host.spawn(async move {
        let result = match range {
            Some(range) => {
                list(&store, range).await.map(|(revision, cells)| Outcome::Range { revision, cells })
            }
            None => match store.txn(txn).await {
                Ok(response) => history::outcome(&response).map_err(Failure::Wrong),
                Err(error) => Err(failure(&error, true)),
            },
        };
        mailbox.put(Note::Answer { op, result });
    });
}

async fn list(store: &RaftStore, range: RangeRequest) -> Result<(u64, history::State), Failure> {
    let response = store.range(range).await.map_err(|error| failure(&error, false))?;
    let cells: Result<history::State, String> = response.kvs.iter().map(history::cell).collect();
    Ok((response.revision.0, cells.map_err(Failure::Wrong)?))
}

fn home_prefix(home: Home) -> &'static str {
    match home {
        Home::Durable => "/registry/",
        Home::Volatile => history::VOLATILE_PREFIX,
    }
}

/// Lists all keys of a home on a member.
pub(crate) fn list_all(
    host: &Host,
    store: Arc<RaftStore>,
    home: Home,
    watcher: Option<(usize, u64)>,
    mailbox: &Mailbox,
) {
    let (mailbox, index) = (mailbox.clone(), host.index);
    host.spawn(async move {
        let result = list(&store, RangeRequest::prefix(home_prefix(home))).await;
        mailbox.put(Note::Listing { host: index, home, watcher, result });
    });
}

/// Watches all keys of a home on a member, from a revision on.
pub(crate) fn watch(
    host: &Host,
    store: Arc<RaftStore>,
    (watcher, session): (usize, u64),
    home: Home,
    from: u64,
    mailbox: &Mailbox,
) {
    let mailbox = mailbox.clone();
    host.spawn(async move {
        let start = bytes::Bytes::from(home_prefix(home));
        let end = Some(prefix_end(&start));
        let put = |result| mailbox.put(Note::Watch { watcher, session, result });
        match store.watch(WatchRequest { start, end, from: Revision(from) }).await {
            Err(error) => put(Err(error)),
            Ok(mut stream) => {
                while let Some(result) = stream.next().await {
                    put(result);
                }
            }
        }
    });
}

/// Takes a backup through a member, and reads it into a store in memory.
pub(crate) fn backup(host: &Host, store: Arc<RaftStore>, mailbox: &Mailbox) {
    let (mailbox, index) = (mailbox.clone(), host.index);
    host.spawn(async move {
        let mut bytes = Vec::new();
        let result = match store.snapshot(&mut bytes).await {
            Ok(revision) => unpack(&bytes).await.map(|state| (revision.0, state)),
            Err(error) => Err(failure(&error, false)),
        };
        mailbox.put(Note::Backup { host: index, result });
    });
}

async fn unpack(bytes: &[u8]) -> Result<history::State, Failure> {
    let wrong = |error: StorageError| Failure::Wrong(chain(&error));
    let store = MemoryStore::new();
    store.restore(&mut &*bytes).await.map_err(wrong)?;
    let found = store.range(RangeRequest::prefix(home_prefix(Home::Durable))).await.map_err(wrong)?;
    found.kvs.iter().map(history::cell).collect::<Result<_, _>>().map_err(Failure::Wrong)
}

/// Runs an administrator's call on a member.
pub(crate) fn administer<F>(host: &Host, purpose: Purpose, call: F, mailbox: &Mailbox)
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mailbox = mailbox.clone();
    host.spawn(async move {
        let result = call.await;
        mailbox.put(Note::Admin { purpose, result });
    });
}

/// How many groups of durable keys there are.
const GROUPS: u32 = 3;

/// One client: does one thing at a time.
pub(crate) struct Client {
    /// The operation that it waits for, since when, and where.
    pub(crate) waits: Option<(usize, u64, usize)>,
    pub(crate) rests_until: u64,
    /// The member that it speaks to.
    pub(crate) host: usize,
    /// What it last saw of each key.
    known: std::collections::BTreeMap<Key, Option<Cell>>,
}

impl Client {
    pub(crate) fn new(host: usize) -> Self {
        Self { waits: None, rests_until: 0, host, known: std::collections::BTreeMap::new() }
    }

    /// What the client wants next; operation `op` writes values that nobody else writes.
    pub(crate) fn wants(&self, op: usize, volatile: u32, rng: &mut StdRng) -> Action {
        let group = if rng.random_range(0..100) < volatile { VOLATILE } else { rng.random_range(0..GROUPS) };
        let pick = |rng: &mut StdRng| key(group, rng.random_range(0..KEYS_PER_GROUP));
        let one = pick(rng);
        let value = |step: u64| op as u64 * 8 + step;
        let plain = |steps| Action::Txn { tests: vec![], success: steps, failure: vec![] };
        match rng.random_range(0..100) {
            0..30 => plain(vec![Step::Put(one, value(0))]),
            30..38 => plain(vec![Step::Delete(one)]),
            38..40 => plain(vec![Step::DeleteGroup(group)]),
            40..62 => Action::Txn {
                tests: vec![(one, self.guess(one, rng))],
                success: vec![Step::Put(one, value(0))],
                failure: vec![Step::Get(one)],
            },
            62..76 => {
                let other = key(group, (one + 1) % 256 % KEYS_PER_GROUP);
                let tests =
                    if rng.random_range(0..2) == 0 { vec![] } else { vec![(one, self.guess(one, rng))] };
                Action::Txn {
                    tests,
                    success: vec![Step::Get(other), Step::Put(one, value(0)), Step::Put(other, value(1))],
                    failure: vec![Step::Get(one), Step::Delete(other)],
                }
            }
            _ => Action::Range { group },
        }
    }

    /// A condition that holds if nobody changed the key since this client saw it.
    fn guess(&self, key: Key, rng: &mut StdRng) -> Test {
        match self.known.get(&key).copied().flatten() {
            None => [Test::Modified(0), Test::Version(0), Test::Created(0)][rng.random_range(0..3)],
            Some(cell) => [
                Test::Modified(cell.modified),
                Test::Value(cell.value),
                Test::Version(cell.version),
                Test::Created(cell.created),
            ][rng.random_range(0..4)],
        }
    }

    /// Learns from an answer.
    pub(crate) fn learns(&mut self, action: &Action, outcome: &Outcome) {
        match (action, outcome) {
            (Action::Range { group }, Outcome::Range { cells, .. }) => {
                for number in 0..KEYS_PER_GROUP {
                    let key = key(*group, number);
                    let cell = cells.iter().find(|(found, _)| *found == key).map(|(_, cell)| *cell);
                    self.known.insert(key, cell);
                }
            }
            (Action::Txn { success, failure, .. }, Outcome::Txn { revision, succeeded, got }) => {
                let mut state: history::State = Vec::new();
                for (step, got) in (if *succeeded { success } else { failure }).iter().zip(got) {
                    match (step, got) {
                        (Step::Get(key), history::Got::Cell(cell)) => {
                            self.known.insert(*key, *cell);
                        }
                        (Step::Put(key, _), history::Got::Put(before)) => {
                            state.clear();
                            state.extend(before.map(|cell| (*key, cell)));
                            history::run(&mut state, &[*step], *revision);
                            self.known.insert(*key, state.first().map(|(_, cell)| *cell));
                        }
                        (Step::Delete(key), _) => {
                            self.known.insert(*key, None);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
