//! The store in the data directory: what lives in memory only, what is sealed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sampan_store::{DurableConfig, DurableStore, OpenError};

use crate::error::CommandError;

/// Leases of nodes and events: written often, worth little after a restart.
const VOLATILE: [&str; 2] =
    ["/registry/coordination.k8s.io/leases/kube-node-lease/", "/registry/core/events/"];
/// What must not be readable on a disk that was stolen.
const SEALED: [&str; 1] = ["/registry/core/secrets/"];

fn config(data_dir: &Path) -> DurableConfig {
    let prefixes =
        |texts: &[&'static str]| texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
    let mut config = DurableConfig::new(data_dir.join("db"));
    config.volatile_prefixes = prefixes(&VOLATILE);
    config.sealed_prefixes = prefixes(&SEALED);
    config
}

/// Opens the store, or says in one line why not and how to mend it.
pub(crate) async fn open(data_dir: &Path) -> Result<Arc<DurableStore>, CommandError> {
    DurableStore::open(config(data_dir)).await.map(Arc::new).map_err(|error| explain(error, data_dir))
}

/// Opens the store anew from a snapshot; what was there is moved aside.
pub(crate) async fn rebuild(data_dir: &Path, snapshot: &Path) -> Result<DurableStore, CommandError> {
    DurableStore::rebuild(config(data_dir), snapshot).await.map_err(|error| explain(error, data_dir))
}

fn explain(error: OpenError, data_dir: &Path) -> CommandError {
    let mend = match &error {
        OpenError::Corrupt { last_good_snapshot: Some(snapshot), .. } => format!(
            "'sampan snapshot restore {} --data-dir {}' goes back to it",
            snapshot.display(),
            data_dir.display()
        ),
        OpenError::Corrupt { last_good_snapshot: None, .. } => {
            format!(
                "'sampan snapshot restore FILE --data-dir {}' goes back to a snapshot",
                data_dir.display()
            )
        }
        OpenError::Locked { .. } => "stop it, or name another directory with --data-dir".to_owned(),
        OpenError::NewerFormat { .. } => "use the newer sampan that wrote it".to_owned(),
        OpenError::NoSpace { .. } => "make room on the disk".to_owned(),
        _ => "name another directory with --data-dir".to_owned(),
    };
    CommandError::new(format!("{}; {mend}", sampan_client::informer::chain(&error)))
}
