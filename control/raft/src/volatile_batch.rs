//! Transactions over keys that are kept in memory only, on the leader.
//!
//! The leader evaluates them itself and proposes what they do, one proposal at a time: what is
//! evaluated must not meet what is still on its way. Those that wait share the next proposal as
//! far as they touch different keys, where the group knows batches; else each is one of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use sampan_store::{Answer, Command, Disjoint, Effect, Level, StorageError, Txn, TxnResponse};
use tokio::sync::oneshot;

use crate::store::{Core, LocalError};
use crate::types::{MemberId, Reply};
use crate::wire::WireError;

/// The most transactions of one proposal; fewer than the revisions that are reserved ahead.
const MOST: usize = 256;
/// A proposal takes no more once it has so many bytes.
const MOST_BYTES: usize = 512 << 10;

type Outcome = Result<TxnResponse, LocalError>;

/// Transactions that wait for their turn.
#[derive(Default)]
pub(crate) struct VolatileTurns {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Somebody takes turns.
    running: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    txn: Txn,
    answer: oneshot::Sender<Outcome>,
}

impl VolatileTurns {
    /// Takes a transaction in. True where turns must be started for it.
    fn join(&self, waiting: Waiting) -> bool {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(waiting);
        !std::mem::replace(&mut queue.running, true)
    }

    /// The transactions of the next turn, of which each could be the only one; `None` ends the
    /// turns. Those that do not fit keep their places.
    fn take(&self, most: usize) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        let (mut taken, mut gathered, mut bytes) = (Vec::new(), Disjoint::default(), 0);
        for waiting in std::mem::take(&mut queue.waiting) {
            if waiting.answer.is_closed() {
                // Whoever asked has gone before anything was done.
                continue;
            }
            let fits = taken.len() < most && bytes < MOST_BYTES && gathered.add(&waiting.txn);
            if fits {
                bytes += weight(&waiting.txn);
                taken.push(waiting);
            } else {
                queue.waiting.push_back(waiting);
            }
        }
        queue.running = !taken.is_empty();
        queue.running.then_some(taken)
    }
}

/// About how many bytes a transaction's changes take.
fn weight(txn: &Txn) -> usize {
    Command::Txn { floor: 0, txn: txn.clone() }.weight()
}

/// Runs a prepared transaction, once it is its turn.
pub(crate) async fn run(core: &Core, txn: Txn) -> Outcome {
    let (answer, told) = oneshot::channel();
    if core.volatile_turns.join(Waiting { txn, answer })
        && let Some(core) = core.me.upgrade()
    {
        // Whoever asked may go away; the turn must come to its end.
        tokio::spawn(turns(core));
    }
    let gone = |_| LocalError::Unknown { why: "the store was closed".into() };
    told.await.map_err(gone)?
}

async fn turns(core: Arc<Core>) {
    loop {
        let most = if core.level() >= Level::BATCHES { MOST } else { 1 };
        let Some(turn) = core.volatile_turns.take(most) else { return };
        one(&core, turn).await;
    }
}

/// One that was evaluated.
struct Evaluated {
    waiting: Waiting,
    answer: Answer,
    effects: Vec<Effect>,
}

/// One turn: evaluates, proposes, answers.
async fn one(core: &Core, turn: Vec<Waiting>) {
    let evaluated = evaluate(core, turn);
    let evaluated = match evaluated.iter().any(|one| one.effects.is_empty()) && !core.is_sovereign() {
        false => evaluated,
        // What changes nothing is answered from a state that no newer leader has left behind.
        true => match core.confirm().await {
            Ok(()) => evaluate(core, evaluated.into_iter().map(|one| one.waiting).collect()),
            Err(error) => {
                let error = Shared::of(error);
                return evaluated.into_iter().for_each(|one| tell(one.waiting, Err(error.clone().into())));
            }
        },
    };
    let (idle, changes): (Vec<_>, Vec<_>) = evaluated.into_iter().partition(|one| one.effects.is_empty());
    for Evaluated { waiting, answer, .. } in idle {
        tell(waiting, core.machine.response(answer).map_err(LocalError::from));
    }
    if changes.is_empty() {
        return;
    }
    let (mut asked, mut transactions) = (Vec::new(), Vec::new());
    for Evaluated { waiting, answer, effects } in changes {
        asked.push((waiting, answer));
        transactions.push(effects);
    }
    let last = propose(core, transactions).await.map_err(Shared::of);
    // Each has used up one revision, in order.
    let count = asked.len() as u64;
    for (place, (waiting, answer)) in (1..).zip(asked) {
        let outcome = match &last {
            Ok(last) => core.machine.response(answer.at(last + place - count)).map_err(LocalError::from),
            Err(error) => Err(error.clone().into()),
        };
        tell(waiting, outcome);
    }
}

/// What each does; those that cannot be evaluated are told so.
fn evaluate(core: &Core, turn: Vec<Waiting>) -> Vec<Evaluated> {
    let mut evaluated = Vec::with_capacity(turn.len());
    for waiting in turn {
        match core.machine.evaluate_volatile(&waiting.txn) {
            Ok((answer, effects)) => evaluated.push(Evaluated { waiting, answer, effects }),
            Err(error) => tell(waiting, Err(error.into())),
        }
    }
    evaluated
}

/// Has the effects of some transactions applied; the revision of the last one.
async fn propose(core: &Core, mut transactions: Vec<Vec<Effect>>) -> Result<u64, LocalError> {
    core.reserve().await?;
    let command = match transactions.len() {
        1 => Command::Volatile { effects: transactions.pop().unwrap_or_default() },
        _ => Command::VolatileBatch { transactions },
    };
    let revision = match core.write(command).await? {
        Reply::Revision(revision) => revision,
        other => return Err(LocalError::Unknown { why: format!("an answer of another kind: {other:?}") }),
    };
    if core.log.is_alone() && revision > core.machine.standing().reserved {
        // Nobody may learn of a revision that a crash could make this member give out again.
        core.log.flush().await.map_err(|error| LocalError::Unknown { why: error.to_string() })?;
    }
    Ok(revision)
}

fn tell(waiting: Waiting, outcome: Outcome) {
    // Whoever asked may have gone.
    let _ = waiting.answer.send(outcome);
}

/// A [`LocalError`] for several.
#[derive(Clone)]
enum Shared {
    NotLeader(Option<MemberId>),
    Unknown(String),
    Storage(WireError),
}

impl Shared {
    fn of(error: LocalError) -> Self {
        match error {
            LocalError::NotLeader { leader } => Self::NotLeader(leader),
            LocalError::Unknown { why } => Self::Unknown(why),
            LocalError::Storage(error) => Self::Storage(error.into()),
        }
    }
}

impl From<Shared> for LocalError {
    fn from(error: Shared) -> Self {
        match error {
            Shared::NotLeader(leader) => Self::NotLeader { leader },
            Shared::Unknown(why) => Self::Unknown { why },
            Shared::Storage(error) => Self::Storage(StorageError::from(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_store::Op;

    use super::*;

    fn waiting(key: &'static str) -> (Waiting, oneshot::Receiver<Outcome>) {
        let put = Op::Put { key: key.into(), value: "v".into() };
        let (answer, told) = oneshot::channel();
        (Waiting { txn: Txn { success: vec![put], ..Txn::default() }, answer }, told)
    }

    fn keys(turn: Option<Vec<Waiting>>) -> Option<String> {
        let key = |waiting: &Waiting| match &waiting.txn.success[0] {
            Op::Put { key, .. } => String::from_utf8(key.to_vec()).unwrap(),
            _ => unreachable!(),
        };
        Some(turn?.iter().map(key).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn those_that_touch_different_keys_share_a_turn_and_others_keep_their_order() {
        let turns = VolatileTurns::default();
        let all = ["a", "b", "a", "c", "a"].map(waiting);
        let mut receivers = Vec::new();
        for (number, (waiting, receiver)) in all.into_iter().enumerate() {
            assert_eq!(turns.join(waiting), number == 0, "the first one starts the turns");
            receivers.push(receiver);
        }
        assert_eq!(keys(turns.take(MOST)).as_deref(), Some("a b c"));
        // Whoever has gone is left out.
        drop(receivers.remove(2));
        assert_eq!(keys(turns.take(MOST)).as_deref(), Some("a"));
        assert_eq!(keys(turns.take(MOST)), None);
        assert!(turns.join(waiting("a").0), "turns have to be started again");
    }

    #[test]
    fn without_batches_each_has_a_turn_of_its_own() {
        let turns = VolatileTurns::default();
        let all = ["a", "b"].map(waiting);
        let _receivers = all.map(|(waiting, receiver)| {
            turns.join(waiting);
            receiver
        });
        assert_eq!(keys(turns.take(1)).as_deref(), Some("a"));
        assert_eq!(keys(turns.take(1)).as_deref(), Some("b"));
        assert_eq!(keys(turns.take(1)), None);
    }
}
