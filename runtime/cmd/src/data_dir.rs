//! The data directory: where it is, and what lies in it.
//!
//! ```text
//! db/          the store                    tls/       certificates and keys, the cluster joined
//! images/      imported images              cache/     compiled code
//! kubelet/     pods: volumes                logs/      containers' logs
//! runtime/     containers: records          server     the API's URL
//! agent/       what a node starts from      snapshots/ scheduled snapshots
//! replaced-…/  keys and a database that a restored snapshot's took the place of
//! ```

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cluster_keys;
use crate::error::{CommandError, Doing};
use crate::settings::Mode;

/// Entries that a data directory may hold; a directory with others is somebody else's.
const OURS: [&str; 14] = [
    "db",
    "tls",
    "tls.joining",
    cluster_keys::RESTORING,
    "images",
    "cache",
    "runtime",
    "kubelet",
    "logs",
    "agent",
    "snapshots",
    "server",
    "kubeconfig.yaml",
    "lost+found",
];

/// The directory given, or the mode's default.
pub(crate) fn choose(mode: Mode, given: Option<PathBuf>) -> Result<PathBuf, CommandError> {
    let path = match (given, mode) {
        (Some(path), _) => path,
        (None, Mode::Server | Mode::Agent) => PathBuf::from("/var/lib/sampan"),
        (None, Mode::Dev) => user_data_home()?.join("sampan"),
    };
    std::path::absolute(&path).doing(|| format!("data directory {}", path.display()))
}

/// For commands that look at whatever is there: the directory given, or the first default that exists.
pub(crate) fn existing(given: Option<PathBuf>) -> Result<PathBuf, CommandError> {
    let candidates = match given {
        Some(path) => vec![path],
        None => vec![choose(Mode::Server, None)?, choose(Mode::Dev, None)?],
    };
    let readable = |path: &&PathBuf| std::fs::read_dir(path).is_ok();
    candidates.iter().find(readable).cloned().ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        CommandError::new(format!(
            "no readable data directory at {}; name one with --data-dir",
            tried.join(" or ")
        ))
    })
}

fn user_data_home() -> Result<PathBuf, CommandError> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share"))).ok_or_else(|| {
        CommandError::new("neither XDG_DATA_HOME nor HOME is set; name a directory with --data-dir")
    })
}

/// Makes the directory if it is not there; refuses one that is not ours. Changes nothing else.
pub(crate) fn prepare(path: &Path) -> Result<(), CommandError> {
    if !path.exists() {
        return std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).doing(|| {
            format!("data directory {} cannot be made; name another with --data-dir", path.display())
        });
    }
    let entries = std::fs::read_dir(path).doing(|| {
        format!("data directory {} cannot be read; name another with --data-dir", path.display())
    })?;
    let names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let ours = |name: &str| OURS.contains(&name) || name.starts_with(cluster_keys::REPLACED);
    if let Some(foreign) = names.iter().find(|name| !ours(name)) {
        return Err(CommandError::new(format!(
            "data directory {} holds {foreign:?}, which is not sampan's; name an empty directory with --data-dir",
            path.display()
        )));
    }
    let mode =
        std::fs::metadata(path).doing(|| format!("data directory {}", path.display()))?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(CommandError::new(format!(
            "data directory {} can be written by others; 'chmod go-w {}' mends it",
            path.display(),
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_made_for_us_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        prepare(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(path.join("db")).unwrap();
        prepare(&path).unwrap();
    }

    #[test]
    fn a_foreign_directory_is_refused_untouched() {
        let path = tempfile::tempdir().unwrap();
        std::fs::write(path.path().join("thesis.tex"), "x").unwrap();
        let text = prepare(path.path()).unwrap_err().to_string();
        assert!(text.contains("thesis.tex"), "{text}");
        assert_eq!(std::fs::read_dir(path.path()).unwrap().count(), 1);
    }
}
