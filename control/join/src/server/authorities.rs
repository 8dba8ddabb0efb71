//! The cluster's authorities, shared between servers through the store, and their change in steps
//! (see `rotation`). Any server may take a step, and each step is one compare-and-swap: it is taken
//! once, and a server that stops in the middle of it leaves it to another.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use sampan_api::status::Status;
use sampan_apiserver::UserInfo;
use sampan_apiserver::pki::{Authorities, MachineRole, PkiError, Stage, fingerprint};
use sampan_store::{Revision, WatchRequest};
use tokio_util::sync::CancellationToken;

use super::records::{self, Record};
use super::{Inner, SEALED_PREFIX};
use crate::rotation::{Holder, Observed, Phase, Step, plan};
use crate::wire::{Authority, RotationStatus};

const PAUSE: Duration = Duration::from_secs(1);
const NODE_USER: &str = "system:node:";
const SERVER_USER: &str = "sampan:server:";

fn key() -> String {
    format!("{SEALED_PREFIX}authorities")
}

/// What everybody may know.
pub(super) fn public(inner: &Inner) -> Authority {
    let authorities = inner.config.pki.authorities();
    Authority {
        cluster_id: inner.config.cluster_id.clone(),
        generation: authorities.generation,
        server_pem: authorities.server_pem(),
        client_pem: authorities.client_pem(),
        successions: authorities.successions,
    }
}

/// Writes down that a machine trusts a generation of authorities, and with it those before.
pub(super) async fn acknowledge(inner: &Inner, user: &UserInfo, generation: u64) -> Result<(), Status> {
    let node = user.in_group("system:nodes").then(|| user.name.strip_prefix(NODE_USER)).flatten();
    let server =
        user.in_group(sampan_apiserver::SERVERS).then(|| user.name.strip_prefix(SERVER_USER)).flatten();
    for (role, name) in [(MachineRole::Node, node), (MachineRole::Server, server)] {
        if let Some(name) = name {
            inner.identities.acknowledge(role, name, generation).await?;
        }
    }
    Ok(())
}

/// Whose authorities count when a server's and the store's differ.
#[derive(Debug, PartialEq, Eq)]
enum Newer {
    Same,
    Stored,
    Ours,
}

/// The store's count, unless ours came after them (the store was restored from before).
fn compare(ours: &Authorities, stored: &Authorities) -> Newer {
    if ours == stored {
        return Newer::Same;
    }
    let descend = stored.signing_server().is_ok_and(|signer| {
        ours.server.iter().any(|root| root.certificate_pem == signer.certificate_pem)
            || ours.successions.iter().any(|step| step.elder_pem == signer.certificate_pem)
    });
    if ours.generation > stored.generation && descend { Newer::Ours } else { Newer::Stored }
}

/// Brings this server's and the store's together; the revision that this is of.
pub(super) async fn reconcile(inner: &Inner) -> Result<Revision, Status> {
    loop {
        let record = inner.records.read_one(&key()).await?;
        let ours = inner.config.pki.authorities();
        let newer = match record.get::<Authorities>()? {
            None => Newer::Ours,
            Some(stored) => {
                let newer = compare(&ours, &stored);
                if newer == Newer::Stored {
                    inner.config.pki.adopt(stored).map_err(internal)?;
                    tracing::info!("the cluster's authorities have changed; this server follows");
                }
                newer
            }
        };
        if newer != Newer::Ours || write(inner, &record, &ours).await? {
            let generation = inner.config.pki.authorities().generation;
            inner.identities.acknowledge_server(&inner.config.name, generation).await?;
            return Ok(record.revision);
        }
    }
}

async fn write(inner: &Inner, record: &Record, next: &Authorities) -> Result<bool, Status> {
    inner.records.change(vec![record.unchanged()], vec![records::put(&record.key, next)?]).await
}

/// Follows what other servers write, until `shutdown`.
pub(super) async fn follow(inner: &Inner, shutdown: CancellationToken) {
    let followed = async {
        loop {
            let outcome = follow_once(inner).await;
            if let Err(status) = outcome {
                tracing::debug!(why = status.message, "the cluster's authorities cannot be followed now");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = followed => {}
        () = shutdown.cancelled() => {}
    }
}

async fn follow_once(inner: &Inner) -> Result<(), Status> {
    let from = Revision(reconcile(inner).await?.0.saturating_add(1));
    let request = WatchRequest { start: key().into(), end: None, from };
    let mut watch = inner.records.storage().watch(request).await.map_err(records::unavailable)?;
    while let Some(batch) = watch.next().await {
        if !batch.map_err(records::unavailable)?.events.is_empty() {
            reconcile(inner).await?;
        }
    }
    Ok(())
}

/// Begins a change of authorities.
pub(super) async fn rotate(inner: &Inner) -> Result<RotationStatus, Status> {
    reconcile(inner).await?;
    let record = inner.records.read_one(&key()).await?;
    let current = record.get::<Authorities>()?.ok_or_else(|| Status::internal("there are no authorities"))?;
    let Some(next) = current.staged(Timestamp::now()).map_err(internal)? else {
        let message = "a change of authorities is under way; 'sampan certificate status' shows how far it is";
        return Err(Status::failure(409, "Conflict", message));
    };
    if !write(inner, &record, &next).await? {
        return Err(Status::failure(409, "Conflict", "somebody else has just changed the authorities"));
    }
    tracing::info!(generation = next.generation, "new authorities are handed out");
    reconcile(inner).await?;
    status(inner).await
}

/// Where a change of authorities stands.
pub(super) async fn status(inner: &Inner) -> Result<RotationStatus, Status> {
    let record = inner.records.read_one(&key()).await?;
    let current = record.get::<Authorities>()?.unwrap_or_else(|| inner.config.pki.authorities());
    let (phase, _) = decide(inner, &current).await?;
    let of = |root: &sampan_apiserver::pki::Root| {
        let does = match root.stage {
            Stage::Staged => "is being handed out",
            Stage::Signing => "signs",
            Stage::Retiring => "signs no more, and is still trusted",
        };
        Ok((fingerprint(&root.certificate_pem).map_err(internal)?, does.to_owned()))
    };
    Ok(RotationStatus {
        generation: current.generation,
        settled: phase == Phase::Settled,
        phase: phase.to_string(),
        server_authorities: current.server.iter().map(of).collect::<Result<_, Status>>()?,
    })
}

async fn decide(inner: &Inner, authorities: &Authorities) -> Result<(Phase, Step), Status> {
    let mut holders = Vec::new();
    for role in [MachineRole::Server, MachineRole::Node] {
        let known = inner.identities.all(role).await?;
        holders.extend(known.into_iter().map(|(name, known)| Holder {
            role,
            name,
            generation: known.generation,
        }));
    }
    Ok(plan(&Observed {
        authorities,
        holders: &holders,
        now: Timestamp::now(),
        life: inner.config.pki.life(),
        patience: inner.config.patience,
    }))
}

/// Takes steps when it is time, until `shutdown`.
pub(super) async fn step_by_step(inner: &Inner, shutdown: CancellationToken) {
    while tokio::time::timeout(inner.config.step_every, shutdown.cancelled()).await.is_err() {
        if let Err(status) = step(inner).await {
            tracing::debug!(why = status.message, "the change of authorities waits");
        }
    }
}

/// One step, if it is time for one.
async fn step(inner: &Inner) -> Result<(), Status> {
    // Nothing is under way nearly always: then nobody is asked anything.
    let ours = inner.config.pki.authorities();
    if ours.server.iter().chain(&ours.client).all(|root| root.stage == Stage::Signing) {
        return Ok(());
    }
    let record = inner.records.read_one(&key()).await?;
    let Some(current) = record.get::<Authorities>()? else { return Ok(()) };
    let next = match decide(inner, &current).await? {
        (_, Step::Wait) => return Ok(()),
        (_, Step::Switch) => current.switched(Timestamp::now()),
        (_, Step::Retire) => current.retired(),
    };
    if write(inner, &record, &next).await? {
        tracing::info!(generation = next.generation, "a step of the change of authorities is taken");
        reconcile(inner).await?;
    }
    Ok(())
}

fn internal(error: PkiError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use sampan_apiserver::pki::{Pki, ServingNames};

    use super::*;

    #[test]
    fn the_stores_authorities_count_unless_ours_came_after_them() {
        let fresh = || Pki::in_memory(ServingNames::new([], [])).unwrap().authorities();
        let first = fresh();
        let staged = first.staged(Timestamp::now()).unwrap().unwrap();
        let retired = staged.switched(Timestamp::now()).retired();
        let foreign = fresh().staged(Timestamp::now()).unwrap().unwrap();
        assert_eq!(compare(&first, &first), Newer::Same);
        assert_eq!(compare(&first, &staged), Newer::Stored);
        assert_eq!(compare(&staged, &first), Newer::Ours);
        assert_eq!(compare(&retired, &first), Newer::Ours);
        assert_eq!(compare(&first, &fresh()), Newer::Stored);
        assert_eq!(compare(&foreign, &first), Newer::Stored);
    }
}
