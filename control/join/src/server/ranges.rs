//! Which part of the range of pod addresses each node has: a number for as long as the node is part
//! of the cluster, so that no two nodes give their pods the same addresses.

use jiff::{SignedDuration, Timestamp};
use sampan_api::status::Status;
use serde::{Deserialize, Serialize};

use super::records::{self, Records};

const PREFIX: &str = "/sampan/node-indexes/";
const NODES: &str = "/registry/core/nodes/";
/// A node that has just got its number has no Node object yet.
const REGISTRATION: SignedDuration = SignedDuration::from_mins(10);
/// Writers that met each other try again so often.
const ATTEMPTS: usize = 64;

/// Whose a number is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The node.
    name: String,
    /// Since when, in seconds since 1970.
    since: i64,
}

/// A number that is held, and what speaks for its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    index: u32,
    holder: Holder,
    /// Whether there is a Node object of the holder's name.
    registered: bool,
}

/// What to do for a node that wants a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// It has one.
    Has(u32),
    /// Nobody has this one.
    Free(u32),
    /// Its holder is gone.
    Inherit(u32),
    /// There is none.
    None,
}

/// Numbers are given in order; one is given again only when there is no other, and only when
/// its node was deleted: a node that was merely off for long comes back to its own.
fn choose(name: &str, held: &[Held], parts: u32, now: Timestamp) -> Choice {
    if let Some(own) = held.iter().find(|held| held.holder.name == name) {
        return Choice::Has(own.index);
    }
    if let Some(free) = (0..parts).find(|index| held.iter().all(|held| held.index != *index)) {
        return Choice::Free(free);
    }
    let gone = |held: &&Held| {
        let age = now.as_second().saturating_sub(held.holder.since);
        !held.registered && age >= REGISTRATION.as_secs()
    };
    let oldest = held.iter().filter(gone).min_by_key(|held| held.holder.since);
    oldest.map_or(Choice::None, |held| Choice::Inherit(held.index))
}

/// The node's number, given now if it has none. There are `parts`.
pub(super) async fn claim(records: &Records, name: &str, parts: u32, now: Timestamp) -> Result<u32, Status> {
    for _ in 0..ATTEMPTS {
        let held = observe(records).await?;
        let index = match choose(name, &held, parts, now) {
            Choice::Has(index) => return Ok(index),
            Choice::Free(index) | Choice::Inherit(index) => index,
            Choice::None => {
                let why = format!(
                    "all {parts} parts of the range of pod addresses are given to nodes; delete nodes that are gone"
                );
                return Err(Status::failure(409, "Conflict", why));
            }
        };
        let record = records.read_one(&format!("{PREFIX}{index}")).await?;
        let before = held.iter().find(|held| held.index == index).map(|held| held.holder.clone());
        if record.get::<Holder>()? != before {
            continue;
        }
        let holder = Holder { name: name.to_owned(), since: now.as_second() };
        let change = records::put(&record.key, &holder)?;
        if records.change(vec![record.unchanged()], vec![change]).await? {
            return Ok(index);
        }
    }
    Err(Status::unavailable(
        "the node's part of the range of pod addresses could not be written down; try again",
    ))
}

async fn observe(records: &Records) -> Result<Vec<Held>, Status> {
    let holders: Vec<(String, Holder)> = records.list(PREFIX).await?;
    let names: Vec<String> = holders.iter().map(|(_, holder)| format!("{NODES}{}", holder.name)).collect();
    let nodes = records.read(&names).await?;
    let held = holders.into_iter().zip(nodes).filter_map(|((index, holder), node)| {
        Some(Held { index: index.parse().ok()?, holder, registered: node.exists() })
    });
    Ok(held.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn held(index: u32, name: &str, since: i64, registered: bool) -> Held {
        Held { index, holder: Holder { name: name.into(), since }, registered }
    }

    #[test]
    fn numbers_are_kept_and_given_again_only_at_need() {
        let now = Timestamp::from_second(100_000).unwrap();
        let all = [held(0, "a", 0, true), held(1, "b", 0, false), held(2, "c", 99_999, false)];
        for (name, held, parts, expected) in [
            ("a", &all[..0], 4, Choice::Free(0)),
            ("a", &all, 3, Choice::Has(0)),
            ("b", &all, 3, Choice::Has(1)),
            ("d", &all, 4, Choice::Free(3)),
            ("d", &all[1..], 4, Choice::Free(0)),
            ("d", &all, 3, Choice::Inherit(1)),
            ("d", &all[..1], 1, Choice::None),
        ] {
            assert_eq!(choose(name, held, parts, now), expected, "{name} of {parts}");
        }
    }

    #[tokio::test]
    async fn nodes_that_come_at_once_get_different_numbers() {
        let records = Records::new(Arc::new(sampan_store::MemoryStore::new()));
        let now = Timestamp::now();
        let names: Vec<String> = (0..8).map(|number| format!("n{number}")).collect();
        let claims = names.iter().map(|name| claim(&records, name, 8, now));
        let mut given: Vec<u32> =
            futures::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
        let again = claim(&records, "n3", 8, now).await.unwrap();
        assert_eq!(again, given[3]);
        given.sort_unstable();
        assert_eq!(given, (0..8).collect::<Vec<_>>());
        assert_eq!(claim(&records, "n8", 8, now).await.unwrap_err().code, 409);
    }
}
