//! The store in the data directory: what lives in memory only, what is sealed, what is said when
//! it cannot be opened.

use std::path::Path;

use bytes::Bytes;
use sampan_store::{DurableConfig, Level, Machine, Revision};
use tokio::io::AsyncRead;

use crate::cluster_keys;
use crate::error::{CommandError, Doing};

/// Leases of nodes, events, and what keeps the etcd API's leases alive: written often, worth little after a restart.
const VOLATILE: [&str; 3] = [
    "/registry/coordination.k8s.io/leases/kube-node-lease/",
    "/registry/core/events/",
    sampan_etcd::RENEWALS,
];
/// What must not be readable on a disk that was stolen.
const SEALED: [&str; 2] = ["/registry/core/secrets/", sampan_join::SEALED_PREFIX];

/// How the store of a data directory is set up.
pub(crate) fn config(data_dir: &Path) -> DurableConfig {
    let prefixes =
        |texts: &[&'static str]| texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    let mut config = DurableConfig::new(data_dir.join("db"));
    config.volatile_prefixes = prefixes(&VOLATILE);
    config.sealed_prefixes = prefixes(&SEALED);
    config.keys = cluster_keys::sealing_keys(data_dir);
    config
}

/// Puts a snapshot's state in the place of the store's, which is moved aside.
pub(crate) async fn rebuild(
    data_dir: &Path,
    snapshot: &mut (dyn AsyncRead + Send + Unpin),
    name: &str,
) -> Result<Revision, CommandError> {
    let opened = Machine::rebuild_from(config(data_dir), Path::new(name), snapshot).await;
    let opened = opened.map_err(|error| explain(error.into(), data_dir))?;
    let revision = opened.machine.revision();
    let machine = opened.machine;
    machine.finish().await;
    let ended = tokio::task::spawn_blocking(move || machine.halt()).await;
    ended.doing(|| "the database cannot be closed".to_owned())?;
    Ok(revision)
}

/// How to open a directory of a cluster at `found`, where this process takes part up to `known`.
fn newer_format(found: Level, known: Level) -> String {
    if known < Level::NEWEST && found <= Level::NEWEST {
        return format!(
            "its cluster went on to level {found}, and there is no way back: leave out --emulated-version"
        );
    }
    "use the newer sampan that wrote it".to_owned()
}

/// Says in one line why the store cannot be opened, and how to mend it.
pub(crate) fn explain(error: sampan_raft::OpenError, data_dir: &Path) -> CommandError {
    use sampan_store::OpenError as Store;
    let mend = match &error {
        sampan_raft::OpenError::Store(Store::Corrupt { last_good_snapshot: Some(snapshot), .. }) => format!(
            "'sampan snapshot restore {} --data-dir {}' goes back to it",
            snapshot.display(),
            data_dir.display()
        ),
        sampan_raft::OpenError::Store(Store::Corrupt { last_good_snapshot: None, .. }) => {
            format!(
                "'sampan snapshot restore FILE --data-dir {}' goes back to a snapshot",
                data_dir.display()
            )
        }
        sampan_raft::OpenError::Store(Store::Locked { .. }) => {
            "stop it, or name another directory with --data-dir".to_owned()
        }
        sampan_raft::OpenError::Store(Store::NewerFormat { found, supported, .. }) => {
            newer_format(Level::of_format(*found), Level::of_format(*supported))
        }
        sampan_raft::OpenError::Store(Store::NoSpace { .. }) => "make room on the disk".to_owned(),
        _ => "name another directory with --data-dir".to_owned(),
    };
    CommandError::new(format!("{}; {mend}", sampan_client::informer::chain(&error)))
}
