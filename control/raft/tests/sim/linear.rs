//! Is there an order of the operations, one at a time and each between its call and its return, that
//! gives what the clients saw? The search of Wing and Gong with Lowe's memory of what was tried.
//!
//! It knows nothing of revisions or logs: a history is wrong if no order explains it.

use std::collections::HashSet;
use std::hash::Hash;

/// What one operation does to the state, and whether it may have answered as it did.
pub(crate) trait Model {
    type State: Clone + Eq + Hash;
    type Op;

    /// The state after the operation, or nothing where its answer does not fit the state before.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;
}

/// An operation and when it was called and answered, by one global counter.
#[derive(Clone, Debug)]
pub(crate) struct Timed<O> {
    pub(crate) call: u64,
    /// Nothing where the answer never came: the operation may take place at any time after its
    /// call, or never.
    pub(crate) ret: Option<u64>,
    /// Where the answer never came: when it had taken place, if that is known by other means.
    pub(crate) bound: Option<u64>,
    pub(crate) op: O,
}

impl<O> Timed<O> {
    fn must_happen(&self) -> bool {
        self.ret.is_some() || self.bound.is_some()
    }
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order fits. The longest one that did, by index, and an operation that follows in none.
    Violated {
        longest: Vec<usize>,
        stuck: Option<usize>,
    },
    /// The search was given up after so many steps.
    GaveUp,
}

const END: usize = usize::MAX;

/// One call or return in the order of time; calls and returns form a doubly linked list from
/// which linearized operations are lifted out, and put back on the way back.
#[derive(Clone, Copy, Debug)]
struct Entry {
    op: usize,
    /// The place of the return; [`END`] where this is a return itself.
    returns: usize,
    before: usize,
    after: usize,
}

struct List {
    entries: Vec<Entry>,
    head: usize,
}

impl List {
    fn new<O>(ops: &[Timed<O>]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(ops.len() * 2);
        for (at, op) in ops.iter().enumerate() {
            times.push((op.call, false, at));
            times.push((op.ret.or(op.bound).unwrap_or(u64::MAX), true, at));
        }
        times.sort_unstable();
        let count = times.len();
        let mut returns = vec![END; ops.len()];
        let mut entries = Vec::with_capacity(count);
        for (at, (_, is_return, op)) in times.iter().enumerate() {
            if *is_return {
                returns[*op] = at;
            }
            let after = if at + 1 < count { at + 1 } else { END };
            entries.push(Entry { op: *op, returns: END, before: at.checked_sub(1).unwrap_or(END), after });
        }
        for (at, (_, is_return, op)) in times.iter().enumerate() {
            if !is_return {
                entries[at].returns = returns[*op];
            }
        }
        Self { entries, head: if count == 0 { END } else { 0 } }
    }

    fn unlink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        if before == END {
            self.head = after
        } else {
            self.entries[before].after = after
        }
        if after != END {
            self.entries[after].before = before;
        }
    }

    fn relink(&mut self, at: usize) {
        let Entry { before, after, .. } = self.entries[at];
        if before == END {
            self.head = at
        } else {
            self.entries[before].after = at
        }
        if after != END {
            self.entries[after].before = at;
        }
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        self.unlink(self.entries[call].returns);
    }

    fn put_back(&mut self, call: usize) {
        self.relink(self.entries[call].returns);
        self.relink(call);
    }
}

/// The operations that may come next, the likeliest first.
struct Choice {
    calls: Vec<usize>,
    tried: usize,
    /// The operation that returns first: it must come next, or one that was called before.
    before: Option<usize>,
}

impl Choice {
    fn new(list: &List, hint: &impl Fn(usize) -> u64) -> Self {
        let mut choice = Self { calls: Vec::new(), tried: 0, before: None };
        let mut at = list.head;
        while at != END {
            let entry = list.entries[at];
            if entry.returns == END {
                choice.before = Some(entry.op);
                break;
            }
            choice.calls.push(at);
            at = entry.after;
        }
        choice.calls.sort_by_key(|call| hint(list.entries[*call].op));
        choice
    }

    fn next(&mut self) -> Option<usize> {
        self.tried += 1;
        self.calls.get(self.tried - 1).copied()
    }
}

/// Searches for an order; gives up after `budget` steps. Of operations that may come next, that
/// with the least `hint` is tried first: hints make the search short, and say nothing of the verdict.
pub(crate) fn check<M: Model>(
    model: &M,
    start: M::State,
    ops: &[Timed<M::Op>],
    budget: u64,
    hint: impl Fn(&M::Op) -> u64,
) -> Verdict {
    let hint = |op: usize| hint(&ops[op].op);
    let mut list = List::new(ops);
    let mut left = ops.iter().filter(|op| op.must_happen()).count();
    let mut done = vec![0_u64; ops.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, M::State)> = HashSet::new();
    let mut path: Vec<(usize, M::State)> = Vec::new();
    let mut state = start;
    let mut longest: Vec<usize> = Vec::new();
    let mut stuck = None;
    let mut choices = vec![Choice::new(&list, &hint)];
    let mut steps = 0;
    while left > 0 {
        let Some(choice) = choices.last_mut() else { return Verdict::Violated { longest, stuck } };
        let Some(at) = choice.next() else {
            if path.len() >= longest.len() {
                stuck = choice.before;
            }
            choices.pop();
            if let Some((call, before)) = path.pop() {
                let op = list.entries[call].op;
                state = before;
                done[op / 64] &= !(1 << (op % 64));
                list.put_back(call);
                left += usize::from(ops[op].must_happen());
            }
            continue;
        };
        steps += 1;
        if steps > budget {
            return Verdict::GaveUp;
        }
        let op = list.entries[at].op;
        let Some(next) = model.step(&state, &ops[op].op) else { continue };
        let mut with = done.clone();
        with[op / 64] |= 1 << (op % 64);
        if !tried.insert((with.clone(), next.clone())) {
            continue;
        }
        done = with;
        path.push((at, std::mem::replace(&mut state, next)));
        list.lift(at);
        left -= usize::from(ops[op].must_happen());
        if path.len() > longest.len() {
            longest = path.iter().map(|(at, _)| list.entries[*at].op).collect();
            stuck = None;
        }
        choices.push(Choice::new(&list, &hint));
    }
    Verdict::Linearizable
}

/// Sorts operations into groups that share no key, directly or through others; groups can be
/// checked one by one, since an object built of linearizable objects is linearizable.
pub(crate) fn partition<O>(ops: &[Timed<O>], keys: impl Fn(&O) -> Vec<u32>) -> Vec<Vec<usize>> {
    let mut parent: std::collections::BTreeMap<u32, u32> = std::collections::BTreeMap::new();
    fn root(parent: &mut std::collections::BTreeMap<u32, u32>, key: u32) -> u32 {
        let up = *parent.entry(key).or_insert(key);
        if up == key {
            return key;
        }
        let top = root(parent, up);
        parent.insert(key, top);
        top
    }
    for op in ops {
        let touched = keys(&op.op);
        for pair in touched.windows(2) {
            let (left, right) = (root(&mut parent, pair[0]), root(&mut parent, pair[1]));
            parent.insert(left, right);
        }
    }
    let mut groups: std::collections::BTreeMap<u32, Vec<usize>> = std::collections::BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        if let Some(first) = keys(&op.op).first() {
            groups.entry(root(&mut parent, *first)).or_default().push(at);
        }
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// A register: writes and reads.
    struct Register;

    #[derive(Clone, Copy, Debug)]
    enum Do {
        Write(u32),
        Read(u32),
        /// Swaps if it holds the first; whether it did.
        Swap(u32, u32, bool),
    }

    impl Model for Register {
        type State = u32;
        type Op = Do;

        fn step(&self, state: &u32, op: &Do) -> Option<u32> {
            match op {
                Do::Write(value) => Some(*value),
                Do::Read(value) => (value == state).then_some(*state),
                Do::Swap(from, to, swapped) => {
                    ((from == state) == *swapped).then_some(if *swapped { *to } else { *state })
                }
            }
        }
    }

    fn op(call: u64, ret: impl Into<Option<u64>>, op: Do) -> Timed<Do> {
        Timed { call, ret: ret.into(), bound: None, op }
    }

    fn passes(ops: &[Timed<Do>]) -> bool {
        // Whatever is tried first, the verdict is the same.
        let verdicts = [
            |_: &Do| 0,
            |op: &Do| match op {
                Do::Write(value) | Do::Read(value) | Do::Swap(value, ..) => u64::from(u32::MAX - value),
            },
        ]
        .map(|hint| match check(&Register, 0, ops, 1_000_000, hint) {
            Verdict::Linearizable => true,
            Verdict::Violated { .. } => false,
            Verdict::GaveUp => panic!("gave up"),
        });
        assert_eq!(verdicts[0], verdicts[1]);
        verdicts[0]
    }

    /// Writers that all overlap, and readers who saw them take place in one order.
    #[test]
    fn good_hints_decide_what_would_take_for_ever() {
        let count = 60;
        let mut ops: Vec<Timed<Do>> = (1..=count).map(|at| op(at, None, Do::Write(at as u32))).collect();
        let mut rng = StdRng::seed_from_u64(3);
        let mut order: Vec<u32> = (1..=count as u32).collect();
        rand::seq::SliceRandom::shuffle(order.as_mut_slice(), &mut rng);
        for (place, value) in order.iter().enumerate() {
            let moment = 1_000 + place as u64 * 2;
            ops.push(op(moment, moment + 1, Do::Read(*value)));
        }
        let place = |op: &Do| match op {
            Do::Write(value) | Do::Read(value) => order.iter().position(|at| at == value).unwrap_or(0) as u64,
            Do::Swap(..) => 0,
        };
        let verdict =
            check(&Register, 0, &ops, 10_000, |op| place(op) * 2 + u64::from(matches!(op, Do::Read(_))));
        assert_eq!(verdict, Verdict::Linearizable);
    }

    #[test]
    fn histories_that_an_order_explains_pass() {
        use Do::{Read, Swap, Write};
        assert!(passes(&[]));
        assert!(passes(&[op(1, 2, Read(0))]));
        assert!(passes(&[op(1, 2, Write(1)), op(3, 4, Read(1))]));
        // A read during a write may see either.
        assert!(passes(&[op(1, 6, Write(1)), op(2, 3, Read(0)), op(4, 5, Read(1))]));
        // What nobody heard of may have happened, late, or never.
        assert!(passes(&[op(1, None, Write(1)), op(2, 3, Read(0))]));
        assert!(passes(&[op(1, None, Write(1)), op(2, 3, Read(0)), op(4, 5, Read(1)), op(6, 7, Read(1))]));
        assert!(passes(&[op(1, None, Write(7)), op(2, 3, Swap(7, 8, true)), op(4, 5, Read(8))]));
        // Writes that overlap take place in the order that the reads saw.
        assert!(passes(&[op(1, 9, Write(1)), op(2, 8, Write(2)), op(10, 11, Read(1)), op(12, 13, Read(1))]));
    }

    #[test]
    fn histories_that_no_order_explains_fail() {
        use Do::{Read, Swap, Write};
        assert!(!passes(&[op(1, 2, Read(1))]), "out of nothing");
        assert!(!passes(&[op(1, 2, Write(1)), op(3, 4, Read(0))]), "stale");
        assert!(!passes(&[op(1, 6, Write(1)), op(2, 3, Read(1)), op(4, 5, Read(0))]), "back again");
        assert!(
            !passes(&[op(1, None, Write(1)), op(2, 3, Read(1)), op(4, 5, Read(0))]),
            "an unheard write undone"
        );
        assert!(!passes(&[op(1, 9, Swap(0, 1, true)), op(2, 8, Swap(0, 2, true))]), "both swapped");
        assert!(
            !passes(&[op(1, 9, Write(1)), op(2, 8, Write(2)), op(10, 11, Read(1)), op(12, 13, Read(2))]),
            "two orders"
        );
        assert!(!passes(&[op(2, 3, Read(1)), op(4, None, Write(1))]), "before it was asked for");
        let lost = [op(1, 2, Write(1)), op(3, 4, Write(2)), op(5, 6, Read(1))];
        let Verdict::Violated { longest, stuck } = check(&Register, 0, &lost, 1_000, |_| 0) else { panic!() };
        assert_eq!((longest, stuck), (vec![0, 1], Some(2)));
    }

    /// Runs operations one at a time at random moments between call and return, then checks the
    /// history; a history with one read falsified is compared with trying out every order.
    #[test]
    fn random_histories_get_the_verdict_that_trying_every_order_gives() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut bad = 0;
        for round in 0..600 {
            let mut ops = random_history(&mut rng);
            assert!(passes(&ops), "round {round}: {ops:?}");
            if let Some(read) = ops.iter().position(|op| matches!(op.op, Do::Read(_)) && op.ret.is_some()) {
                ops[read].op = Do::Read(rng.random_range(0..9));
                let expected = by_force(&ops, 0, 0);
                assert_eq!(passes(&ops), expected, "round {round}: {ops:?}");
                bad += u32::from(!expected);
            }
        }
        assert!(bad > 50, "{bad} of the falsified histories were wrong");
    }

    fn random_history(rng: &mut StdRng) -> Vec<Timed<Do>> {
        let mut ops = Vec::new();
        let mut points: Vec<(u64, usize)> = Vec::new();
        for at in 0..7 {
            let call = rng.random_range(0..100);
            let point = call + rng.random_range(1..30);
            let ret = (rng.random_range(0..4) > 0).then(|| point + rng.random_range(1..30));
            // Each time once, so that the order is plain.
            let scale = |time: u64, kind: u64| time * 100 + at as u64 * 3 + kind;
            points.push((scale(point, 1), at));
            let what = if rng.random_range(0..2) == 0 { Do::Write(at as u32 + 1) } else { Do::Read(0) };
            ops.push(op(scale(call, 0), ret.map(|ret| scale(ret, 2)), what));
        }
        points.sort_unstable();
        let mut state = 0;
        for (_, at) in points {
            match &mut ops[at].op {
                Do::Write(value) => state = *value,
                Do::Read(value) => *value = state,
                Do::Swap(..) => {}
            }
        }
        ops
    }

    fn by_force(ops: &[Timed<Do>], done: u32, state: u32) -> bool {
        let open = |at: &usize| done & (1 << at) == 0;
        let first_return = (0..ops.len()).filter(open).filter_map(|at| ops[at].ret).min();
        let Some(first_return) = first_return else { return true };
        (0..ops.len()).filter(open).filter(|at| ops[*at].call < first_return).any(|at| {
            Register.step(&state, &ops[at].op).is_some_and(|next| by_force(ops, done | 1 << at, next))
        })
    }

    #[test]
    fn keys_that_no_operation_joins_are_checked_apart() {
        let ops: Vec<Timed<Vec<u32>>> = [vec![1], vec![2, 3], vec![4], vec![3, 1], vec![4]]
            .into_iter()
            .map(|keys| Timed { call: 0, ret: None, bound: None, op: keys })
            .collect();
        assert_eq!(partition(&ops, Clone::clone), [vec![0, 1, 3], vec![2, 4]]);
    }
}
