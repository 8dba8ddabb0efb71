//! What servers and agents have in common as machines of a cluster: key, certificate, clock.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use sampan_apiserver::pki::{MachineRole, Moment, Time};
use sampan_join::{JoinError, Joined, Renewal};
use sampan_transport::{Clock, Credentials, FloorFile, Identity};

use crate::error::{CommandError, Doing};

/// The machine's identity towards other machines.
pub(crate) fn identity(joined: &Joined, role: MachineRole) -> Result<Identity, CommandError> {
    let unusable = || "this machine's certificate cannot be used".to_owned();
    let own = joined.identity(role).ok_or_else(|| CommandError::new(unusable()))?;
    let credentials = Credentials::from_pem(&own.certificate_pem, &own.key_pem, &joined.client_pem);
    credentials.and_then(Identity::new).doing(unusable)
}

/// Puts renewed certificates and authorities to use; connections from now on see them.
pub(crate) fn install(identity: &Identity, role: MachineRole, renewal: &Renewal) {
    let Some((_, own)) = renewal.identities.iter().find(|(of, _)| *of == role) else { return };
    let credentials = Credentials::from_pem(&own.certificate_pem, &own.key_pem, &renewal.client_pem);
    match credentials.and_then(|credentials| identity.replace(credentials)) {
        Ok(()) => tracing::info!("this machine's certificate or the cluster's authorities are new"),
        Err(error) => {
            tracing::error!(error = %sampan_client::informer::chain(&error), "a renewed certificate cannot be used");
        }
    }
}

/// The newest time that was proven to this machine, kept in a file.
pub(crate) fn clock(data_dir: &Path) -> Result<Arc<FloorFile>, CommandError> {
    let path = data_dir.join("tls/time");
    FloorFile::open(&path).map(Arc::new).doing(|| format!("{} cannot be read", path.display()))
}

/// The same, as certificates of clients are judged by it.
pub(crate) fn time(clock: &Arc<FloorFile>) -> Time {
    let clock = Arc::clone(clock);
    let timestamp = |time| Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    Arc::new(move || Moment { floor: timestamp(clock.floor()), likely: timestamp(clock.likely()) })
}

/// The secret by which peers learn at once that this machine was started again.
pub(crate) fn reset_key(data_dir: &Path) -> Result<[u8; 64], CommandError> {
    let path = data_dir.join("tls/reset.key");
    let unusable = || format!("{} cannot be used", path.display());
    if let Ok(held) = std::fs::read(&path)
        && let Ok(key) = <[u8; 64]>::try_from(held)
    {
        return Ok(key);
    }
    let mut key = [0; 64];
    getrandom::fill(&mut key).map_err(std::io::Error::other).doing(unusable)?;
    write_private(&path, &key).doing(unusable)?;
    Ok(key)
}

fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// After an attempt to join that failed for good nothing is left, not even the key.
pub(crate) fn tidy_after(outcome: &Result<Joined, JoinError>, data_dir: &Path) {
    if matches!(outcome, Err(error) if !error.may_pass()) {
        let staging = data_dir.join("tls.joining");
        if let Err(error) = std::fs::remove_dir_all(&staging)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %staging.display(), "what an attempt to join left stays");
        }
    }
}

/// Whether the cluster refused for now: this server lacks too much of the log.
pub(crate) fn lags_behind(error: &JoinError) -> bool {
    matches!(error, JoinError::Refused { code: 409, .. })
}
