//! Changing the cluster's authorities without downtime, as a pure plan.
//!
//! 1. New authorities are *handed out*: everyone trusts the old and the new ones, the old ones sign.
//! 2. Once everyone has them, the new ones *sign*; certificates are renewed.
//! 3. Once the last certificate of the old ones has expired, they are *retired*.
//!
//! Each step is one change of one record; between steps everything works, for as long as one likes.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use sampan_apiserver::pki::{Authorities, MachineRole, Stage};

/// A machine that trusts the cluster's authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is.
    pub role: MachineRole,
    /// Its name.
    pub name: String,
    /// Which generation of authorities it trusts, as far as it told.
    pub generation: u64,
}

/// What a step is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The authorities now.
    pub authorities: &'a Authorities,
    /// Everyone who must trust the new ones before they sign.
    pub holders: &'a [Holder],
    /// The time.
    pub now: Timestamp,
    /// How long certificates live.
    pub life: SignedDuration,
    /// For how long to wait for nodes that do not show up. (One that comes back later finds its way
    /// by the old authority's word for the new one.)
    pub patience: SignedDuration,
}

/// Where a change stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No change is under way.
    Settled,
    /// New authorities are handed out; these machines do not have them yet.
    HandingOut(Vec<String>),
    /// New authorities sign; the old ones are trusted until then.
    Renewing(Timestamp),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled => f.write_str("no change of authorities is under way"),
            Self::HandingOut(missing) if missing.is_empty() => {
                f.write_str("new authorities were handed out to everyone, and sign next")
            }
            Self::HandingOut(missing) => {
                write!(
                    f,
                    "new authorities are handed out; these have not fetched them yet: {}",
                    missing.join(", ")
                )
            }
            Self::Renewing(until) => {
                write!(f, "new authorities sign; the old ones are trusted until {until}")
            }
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// The new authorities sign from now on.
    Switch,
    /// The old authorities are trusted no more.
    Retire,
}

/// Where the change stands, and the step that it is time for. A server is always waited for (without
/// the new authorities it could not take part any more: start it, or remove it), a node for so long.
pub fn plan(observed: &Observed<'_>) -> (Phase, Step) {
    let Observed { authorities, holders, now, life, patience } = observed;
    let in_stage = |stage| {
        let all = authorities.server.iter().chain(&authorities.client);
        all.filter(move |root| root.stage == stage).map(|root| root.since).max()
    };
    if let Some(since) = in_stage(Stage::Staged) {
        let waited = now.as_second().saturating_sub(since);
        let missing: Vec<String> = holders
            .iter()
            .filter(|holder| holder.generation < authorities.generation)
            .filter(|holder| holder.role == MachineRole::Server || waited < patience.as_secs())
            .map(|holder| holder.role.user(&holder.name))
            .collect();
        let step = if missing.is_empty() { Step::Switch } else { Step::Wait };
        return (Phase::HandingOut(missing), step);
    }
    if let Some(since) = in_stage(Stage::Retiring) {
        // Whoever signed last did so a moment after the switch at most.
        let end = since.saturating_add(life.as_secs()).saturating_add(life.as_secs() / 24).saturating_add(1);
        let until = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
        let step = if *now >= until { Step::Retire } else { Step::Wait };
        return (Phase::Renewing(until), step);
    }
    (Phase::Settled, Step::Wait)
}

#[cfg(test)]
mod tests {
    use sampan_apiserver::pki::{Pki, ServingNames};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn decide(authorities: &Authorities, holders: &[Holder], now: i64) -> (Phase, Step) {
        plan(&Observed {
            authorities,
            holders,
            now: at(now),
            life: SignedDuration::from_secs(2400),
            patience: SignedDuration::from_secs(100),
        })
    }

    fn holder(role: MachineRole, name: &str, generation: u64) -> Holder {
        Holder { role, name: name.into(), generation }
    }

    #[test]
    fn a_change_waits_for_those_who_must_know() {
        let first = Pki::in_memory(ServingNames::new([], [])).unwrap().authorities();
        let (server, node) = (MachineRole::Server, MachineRole::Node);
        assert_eq!(decide(&first, &[holder(node, "n", 0)], 1000), (Phase::Settled, Step::Wait));

        let staged = first.staged(at(1000)).unwrap().unwrap();
        let missing = |names: &[&str]| Phase::HandingOut(names.iter().map(|n| (*n).to_owned()).collect());
        let nobody = [holder(server, "s", 0), holder(node, "n", 0)];
        let names = ["sampan:server:s", "system:node:n"];
        assert_eq!(decide(&staged, &nobody, 1000), (missing(&names), Step::Wait));
        assert_eq!(decide(&staged, &nobody, 1099), (missing(&names), Step::Wait));
        assert_eq!(decide(&staged, &nobody, 1100), (missing(&names[..1]), Step::Wait));
        let servers = [holder(server, "s", 1), holder(node, "n", 0)];
        assert_eq!(decide(&staged, &servers, 1000), (missing(&names[1..]), Step::Wait));
        assert_eq!(decide(&staged, &servers, 1100), (missing(&[]), Step::Switch));
        let all = [holder(server, "s", 1), holder(node, "n", 1)];
        assert_eq!(decide(&staged, &all, 1000), (missing(&[]), Step::Switch));

        let switched = staged.switched(at(2000));
        let until = Phase::Renewing(at(2000 + 2400 + 100 + 1));
        assert_eq!(decide(&switched, &all, 4500), (until.clone(), Step::Wait));
        assert_eq!(decide(&switched, &all, 4501), (until, Step::Retire));
        assert_eq!(decide(&switched.retired(), &all, 4501), (Phase::Settled, Step::Wait));
    }
}
