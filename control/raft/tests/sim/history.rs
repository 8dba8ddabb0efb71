//! What clients did and saw, and the model of a key-value store that must explain it.

use bytes::Bytes;
use sampan_store::{Compare, KeyValue, Op, OpResult, RangeRequest, Revision, Txn, TxnResponse};

use crate::committed::Home;
use crate::linear::{self, Model, Timed, Verdict};

/// A key: `group * 256 + number`. Transactions and ranges stay in one group.
pub(crate) type Key = u32;

/// Groups from here on are kept in memory only.
pub(crate) const VOLATILE: u32 = 100;
/// The prefix of the keyspaces kept in memory only.
pub(crate) const VOLATILE_PREFIX: &str = "/volatile/";
const DURABLE_PREFIX: &str = "/registry/";

pub(crate) fn key(group: u32, number: u32) -> Key {
    group * 256 + number
}

pub(crate) fn group_of(key: Key) -> u32 {
    key / 256
}

pub(crate) fn is_volatile(key: Key) -> bool {
    group_of(key) >= VOLATILE
}

pub(crate) fn group_prefix(group: u32) -> String {
    let home = if group >= VOLATILE { VOLATILE_PREFIX } else { DURABLE_PREFIX };
    format!("{home}{group:03}/")
}

pub(crate) fn key_bytes(key: Key) -> Bytes {
    format!("{}{:03}", group_prefix(group_of(key)), key % 256).into()
}

/// The key that `bytes` name, if they are of ours.
pub(crate) fn parse_key(bytes: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(bytes).ok()?;
    let rest = text.strip_prefix(DURABLE_PREFIX).or_else(|| text.strip_prefix(VOLATILE_PREFIX))?;
    let (group, number) = rest.split_once('/')?;
    Some(key(group.parse().ok()?, number.parse().ok()?))
}

/// The value that operation `op` writes as its `step`-th step: never written by another.
/// Values differ in size, so that segments and generations fill at different moments.
pub(crate) fn value_bytes(value: u64) -> Bytes {
    let size = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.extend((0..size).map(|at| (value.wrapping_mul(at as u64 + 11) >> 3) as u8));
    bytes.into()
}

/// The number of a value, if all of it is as [`value_bytes`] made it.
pub(crate) fn parse_value(bytes: &[u8]) -> Option<u64> {
    let value = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (value_bytes(value) == bytes).then_some(value)
}

/// A condition on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Value(u64),
    Version(u64),
    Modified(u64),
    Created(u64),
}

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Put(Key, u64),
    Delete(Key),
    /// The whole group.
    DeleteGroup(u32),
    Get(Key),
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Txn {
        tests: Vec<(Key, Test)>,
        success: Vec<Step>,
        failure: Vec<Step>,
    },
    /// All keys of a group.
    Range {
        group: u32,
    },
}

/// A key as a client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cell {
    pub(crate) value: u64,
    pub(crate) version: u64,
    pub(crate) created: u64,
    pub(crate) modified: u64,
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Put(Option<Cell>),
    Deleted(Vec<(Key, Cell)>),
    Cell(Option<Cell>),
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Txn {
        revision: u64,
        succeeded: bool,
        got: Vec<Got>,
    },
    Range {
        revision: u64,
        cells: Vec<(Key, Cell)>,
    },
    /// Nothing, or nothing that says whether it happened.
    Unknown,
}

impl Outcome {
    /// The same with their keys.
    pub(crate) fn keyed_cells(&self, action: &Action) -> Vec<(Key, Cell)> {
        let Self::Txn { succeeded, got, .. } = self else {
            return if let Self::Range { cells, .. } = self { cells.clone() } else { Vec::new() };
        };
        let Action::Txn { success, failure, .. } = action else { return Vec::new() };
        let steps = if *succeeded { success } else { failure };
        let keyed = steps.iter().zip(got).flat_map(|(step, got)| match (step, got) {
            (
                Step::Put(key, _) | Step::Delete(key) | Step::Get(key),
                Got::Put(Some(cell)) | Got::Cell(Some(cell)),
            ) => {
                vec![(*key, *cell)]
            }
            (_, Got::Deleted(gone)) => gone.clone(),
            _ => Vec::new(),
        });
        keyed.collect()
    }

    /// Every key's state that the client was told of.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        match self {
            Self::Txn { got, .. } => got.iter().flat_map(Got::cells).collect(),
            Self::Range { cells, .. } => cells.iter().map(|(_, cell)| *cell).collect(),
            Self::Unknown => Vec::new(),
        }
    }
}

impl Got {
    fn cells(&self) -> Vec<Cell> {
        match self {
            Self::Put(cell) | Self::Cell(cell) => cell.iter().copied().collect(),
            Self::Deleted(gone) => gone.iter().map(|(_, cell)| *cell).collect(),
        }
    }
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    /// The revision of an operation's writes: told to the client, or found in the log of
    /// committed writes by the value; else a number that no key can have.
    pub(crate) written_at: u64,
}

impl Done {
    /// Whether the answer tells of a change.
    pub(crate) fn wrote(&self) -> bool {
        let Outcome::Txn { got, .. } = &self.outcome else { return false };
        got.iter().any(|got| match got {
            Got::Put(_) => true,
            Got::Deleted(gone) => !gone.is_empty(),
            Got::Cell(_) => false,
        })
    }
}

impl Action {
    pub(crate) fn txn(&self) -> Txn {
        let Self::Txn { tests, success, failure } = self else { return Txn::default() };
        let compare = |(key, test): &(Key, Test)| {
            let key = key_bytes(*key);
            match *test {
                Test::Value(value) => Compare::Value { key, value: value_bytes(value) },
                Test::Version(version) => Compare::Version { key, version },
                Test::Modified(revision) => Compare::ModRevision { key, revision: Revision(revision) },
                Test::Created(revision) => Compare::CreateRevision { key, revision: Revision(revision) },
            }
        };
        let steps = |steps: &[Step]| steps.iter().map(|step| op(*step)).collect();
        Txn {
            compares: tests.iter().map(compare).collect(),
            success: steps(success),
            failure: steps(failure),
        }
    }

    pub(crate) fn range(&self) -> Option<RangeRequest> {
        match self {
            Self::Range { group } => Some(RangeRequest::prefix(group_prefix(*group))),
            Self::Txn { .. } => None,
        }
    }

    /// Every key that the operation may look at or change.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let whole = |group: u32| (0..KEYS_PER_GROUP).map(move |number| key(group, number));
        match self {
            Self::Range { group } => whole(*group).collect(),
            Self::Txn { tests, success, failure } => {
                let mut keys: Vec<Key> = tests.iter().map(|(key, _)| *key).collect();
                for step in success.iter().chain(failure) {
                    match step {
                        Step::Put(key, _) | Step::Delete(key) | Step::Get(key) => keys.push(*key),
                        Step::DeleteGroup(group) => keys.extend(whole(*group)),
                    }
                }
                keys
            }
        }
    }

    /// Which keyspaces it is about.
    pub(crate) fn home(&self) -> Home {
        match self.keys().first() {
            Some(key) if is_volatile(*key) => Home::Volatile,
            _ => Home::Durable,
        }
    }

    /// Whether it may write a key.
    pub(crate) fn puts(&self, key: Key) -> bool {
        let Self::Txn { success, failure, .. } = self else { return false };
        success.iter().chain(failure).any(|step| matches!(step, Step::Put(put, _) if *put == key))
    }

    /// The values that it may write.
    pub(crate) fn values(&self) -> Vec<u64> {
        let Self::Txn { success, failure, .. } = self else { return Vec::new() };
        let put = |step: &Step| if let Step::Put(_, value) = step { Some(*value) } else { None };
        success.iter().chain(failure).filter_map(put).collect()
    }
}

/// How many keys a group has.
pub(crate) const KEYS_PER_GROUP: u32 = 3;

fn op(step: Step) -> Op {
    match step {
        Step::Put(key, value) => Op::Put { key: key_bytes(key), value: value_bytes(value) },
        Step::Delete(key) => Op::Delete { key: key_bytes(key), end: None },
        Step::DeleteGroup(group) => {
            let range = RangeRequest::prefix(group_prefix(group));
            Op::Delete { key: range.start, end: range.end }
        }
        Step::Get(key) => Op::Get { key: key_bytes(key) },
    }
}

/// A key as the store gave it; an error where it gave what nobody ever wrote.
pub(crate) fn cell(kv: &KeyValue) -> Result<(Key, Cell), String> {
    let key = parse_key(&kv.key).ok_or_else(|| format!("a foreign key {:?}", kv.key))?;
    let value = parse_value(&kv.value).ok_or_else(|| format!("a garbled value at {:?}", kv.key))?;
    let cell =
        Cell { value, version: kv.version, created: kv.create_revision.0, modified: kv.mod_revision.0 };
    Ok((key, cell))
}

/// A transaction's answer in the terms of a history.
pub(crate) fn outcome(response: &TxnResponse) -> Result<Outcome, String> {
    let only = |kv: &Option<KeyValue>| kv.as_ref().map(|kv| cell(kv).map(|(_, cell)| cell)).transpose();
    let mut got = Vec::new();
    for result in &response.results {
        got.push(match result {
            OpResult::Put { previous } => Got::Put(only(previous)?),
            OpResult::Deleted { previous } => {
                Got::Deleted(previous.iter().map(cell).collect::<Result<_, _>>()?)
            }
            OpResult::Got { kv } => Got::Cell(only(kv)?),
            other => return Err(format!("an answer to nothing that was asked: {other:?}")),
        });
    }
    Ok(Outcome::Txn { revision: response.revision.0, succeeded: response.succeeded, got })
}

/// What an operation would do in a state, and what it would be told.
pub(crate) fn try_out<'a>(state: &State, action: &'a Action, revision: u64) -> (&'a [Step], Vec<Got>) {
    let Action::Txn { tests, success, failure } = action else { return (&[], Vec::new()) };
    let steps = if tests.iter().all(|test| holds(state, *test)) { success } else { failure };
    (steps, run(&mut state.clone(), steps, revision))
}

/// A group of keys as one object: transactions over it, and reads of all of it.
pub(crate) struct Store;

/// The keys that exist, in order.
pub(crate) type State = Vec<(Key, Cell)>;

fn find(state: &State, key: Key) -> Option<Cell> {
    state.iter().find(|(k, _)| *k == key).map(|(_, cell)| *cell)
}

fn holds(state: &State, (key, test): (Key, Test)) -> bool {
    let cell = find(state, key);
    match test {
        Test::Value(value) => cell.is_some_and(|cell| cell.value == value),
        Test::Version(version) => cell.map_or(0, |cell| cell.version) == version,
        Test::Modified(revision) => cell.map_or(0, |cell| cell.modified) == revision,
        Test::Created(revision) => cell.map_or(0, |cell| cell.created) == revision,
    }
}

/// Runs steps at `revision`; what they gave.
pub(crate) fn run(state: &mut State, steps: &[Step], revision: u64) -> Vec<Got> {
    let mut got = Vec::new();
    for step in steps {
        got.push(match *step {
            Step::Put(key, value) => {
                let before = find(state, key);
                let cell = Cell {
                    value,
                    version: before.map_or(0, |cell| cell.version) + 1,
                    created: before.map_or(revision, |cell| cell.created),
                    modified: revision,
                };
                state.retain(|(k, _)| *k != key);
                let at = state.partition_point(|(k, _)| *k < key);
                state.insert(at, (key, cell));
                Got::Put(before)
            }
            Step::Delete(key) => {
                let before = find(state, key);
                state.retain(|(k, _)| *k != key);
                Got::Deleted(before.map(|cell| (key, cell)).into_iter().collect())
            }
            Step::DeleteGroup(group) => {
                let (gone, left) = state.drain(..).partition(|(key, _)| group_of(*key) == group);
                *state = left;
                Got::Deleted(gone)
            }
            Step::Get(key) => Got::Cell(find(state, key)),
        });
    }
    got
}

impl Model for Store {
    type State = State;
    type Op = Done;

    fn step(&self, state: &State, done: &Done) -> Option<State> {
        match (&done.action, &done.outcome) {
            (Action::Range { group }, Outcome::Range { cells, .. }) => {
                let here = state.iter().filter(|(key, _)| group_of(*key) == *group);
                here.eq(cells.iter()).then(|| state.clone())
            }
            (Action::Range { .. }, _) => Some(state.clone()),
            (Action::Txn { tests, success, failure }, outcome) => {
                let held = tests.iter().all(|test| holds(state, *test));
                let mut next = state.clone();
                let gave = run(&mut next, if held { success } else { failure }, done.written_at);
                match outcome {
                    Outcome::Txn { succeeded, got, .. } => {
                        (*succeeded == held && *got == gave).then_some(next)
                    }
                    Outcome::Unknown => Some(next),
                    Outcome::Range { .. } => None,
                }
            }
        }
    }
}

/// How many steps one group's search may take.
const BUDGET: u64 = 1_000_000;

/// Checks a whole history, group by group; the first group that no order explains is told of.
/// Returns how many groups there are, and how many were too hard to decide.
pub(crate) fn check(ops: &[Timed<Done>]) -> Result<(u64, u64), String> {
    let (mut histories, mut undecided) = (0, 0);
    for group in linear::partition(ops, |done| done.action.keys()) {
        // A read that nobody heard of says nothing.
        let group: Vec<Timed<Done>> = group
            .into_iter()
            .map(|at| ops[at].clone())
            .filter(|op| op.ret.is_some() || matches!(op.op.action, Action::Txn { .. }))
            .collect();
        histories += 1;
        match linear::check(&Store, State::new(), &group, BUDGET, likely_place) {
            Verdict::Linearizable => {}
            Verdict::GaveUp => undecided += 1,
            Verdict::Violated { longest, stuck } => return Err(explain(&group, &longest, stuck)),
        }
    }
    Ok((histories, undecided))
}

/// Where in the order an operation stands if the store is right.
fn likely_place(done: &Done) -> u64 {
    match done.outcome {
        Outcome::Range { revision, .. } => revision * 2 + 1,
        Outcome::Txn { revision, .. } => revision * 2 + u64::from(!done.wrote()),
        Outcome::Unknown => done.written_at * 2,
    }
}

fn explain(ops: &[Timed<Done>], longest: &[usize], stuck: Option<usize>) -> String {
    use std::fmt::Write;
    let mut text = String::from("not linearizable; the longest order that fits ends with:\n");
    let tail = longest.len().saturating_sub(12);
    let line = |at: usize| {
        let Timed { call, ret, op, .. } = &ops[at];
        format!(
            "  [{call}..{}] {:?} -> {:?} (written at {})",
            ret.map_or("?".into(), |ret| ret.to_string()),
            op.action,
            op.outcome,
            op.written_at
        )
    };
    for at in &longest[tail..] {
        let _ = writeln!(text, "{}", line(*at));
    }
    if let Some(stuck) = stuck {
        let _ = writeln!(text, "after which this fits nowhere:\n{}", line(stuck));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Key = 256;
    const B: Key = 257;

    fn put(call: u64, ret: Option<u64>, key: Key, value: u64, at: u64, before: Option<Cell>) -> Timed<Done> {
        txn(call, ret, vec![], vec![Step::Put(key, value)], at, true, vec![Got::Put(before)])
    }

    fn txn(
        call: u64,
        ret: Option<u64>,
        tests: Vec<(Key, Test)>,
        success: Vec<Step>,
        at: u64,
        succeeded: bool,
        got: Vec<Got>,
    ) -> Timed<Done> {
        let outcome = match ret {
            Some(_) => Outcome::Txn { revision: at, succeeded, got },
            None => Outcome::Unknown,
        };
        let action = Action::Txn { tests, success, failure: vec![] };
        Timed { call, ret, bound: None, op: Done { action, outcome, written_at: at } }
    }

    fn read(call: u64, ret: u64, cells: Vec<(Key, Cell)>) -> Timed<Done> {
        let outcome = Outcome::Range { revision: 0, cells };
        Timed {
            call,
            ret: Some(ret),
            bound: None,
            op: Done { action: Action::Range { group: 1 }, outcome, written_at: 0 },
        }
    }

    fn seen(value: u64, version: u64, created: u64, modified: u64) -> Cell {
        Cell { value, version, created, modified }
    }

    #[test]
    fn names_and_values_come_back_whole() {
        for key in [key(1, 2), key(VOLATILE, 0)] {
            assert_eq!(parse_key(&key_bytes(key)), Some(key));
        }
        let mut bytes = value_bytes(77).to_vec();
        assert_eq!(parse_value(&bytes), Some(77));
        bytes[3] ^= 1;
        assert_eq!(parse_value(&bytes), None);
    }

    #[test]
    fn histories_of_a_correct_store_pass() {
        let first = seen(1, 1, 5, 5);
        let second = seen(2, 2, 5, 6);
        let history = vec![
            put(1, Some(2), A, 1, 5, None),
            txn(
                3,
                Some(4),
                vec![(A, Test::Modified(5))],
                vec![Step::Put(A, 2), Step::Get(B)],
                6,
                true,
                vec![Got::Put(Some(first)), Got::Cell(None)],
            ),
            txn(3, Some(8), vec![(A, Test::Modified(5))], vec![Step::Put(A, 3)], 6, false, vec![]),
            read(5, 9, vec![(A, second)]),
            txn(
                10,
                None,
                vec![(A, Test::Version(2))],
                vec![Step::Delete(A), Step::Put(B, 4)],
                7,
                true,
                vec![],
            ),
            read(11, 12, vec![(A, second)]),
            read(13, 14, vec![(B, seen(4, 1, 7, 7))]),
        ];
        assert_eq!(check(&history), Ok((1, 0)));
    }

    #[test]
    fn cells_come_with_their_keys() {
        let done = txn(
            1,
            Some(2),
            vec![],
            vec![Step::Get(A), Step::Put(B, 9)],
            8,
            true,
            vec![Got::Cell(Some(seen(1, 1, 5, 5))), Got::Put(Some(seen(2, 1, 6, 6)))],
        );
        let keys = done.op.outcome.keyed_cells(&done.op.action);
        assert_eq!(keys, [(A, seen(1, 1, 5, 5)), (B, seen(2, 1, 6, 6))]);
        assert!(done.op.action.puts(B) && !done.op.action.puts(A));
    }

    #[test]
    fn a_store_that_errs_is_found_out() {
        let first = seen(1, 1, 5, 5);
        let write = put(1, Some(2), A, 1, 5, None);
        let cases: Vec<(&str, Vec<Timed<Done>>)> = vec![
            ("a lost write", vec![write.clone(), read(3, 4, vec![])]),
            ("a write at another revision", vec![write.clone(), read(3, 4, vec![(A, seen(1, 1, 6, 6))])]),
            ("a write done twice", vec![write.clone(), read(3, 4, vec![(A, seen(1, 2, 5, 5))])]),
            ("a wrong state before", vec![write.clone(), put(3, Some(4), A, 2, 6, None)]),
            (
                "half a transaction",
                vec![
                    txn(1, None, vec![], vec![Step::Put(A, 1), Step::Put(B, 2)], 5, true, vec![]),
                    read(3, 4, vec![(A, first)]),
                ],
            ),
            (
                "two winners of a race",
                vec![
                    write.clone(),
                    txn(
                        3,
                        Some(9),
                        vec![(A, Test::Value(1))],
                        vec![Step::Put(A, 2)],
                        6,
                        true,
                        vec![Got::Put(Some(first))],
                    ),
                    txn(
                        4,
                        Some(8),
                        vec![(A, Test::Value(1))],
                        vec![Step::Put(A, 3)],
                        7,
                        true,
                        vec![Got::Put(Some(first))],
                    ),
                ],
            ),
            (
                "a stale read after a newer one",
                vec![
                    write.clone(),
                    put(3, None, A, 2, 6, None),
                    read(4, 5, vec![(A, seen(2, 2, 5, 6))]),
                    read(6, 7, vec![(A, first)]),
                ],
            ),
        ];
        for (what, history) in cases {
            assert!(check(&history).is_err(), "{what} went unnoticed");
        }
    }
}
