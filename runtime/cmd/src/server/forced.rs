//! `--force-new-cluster` acts once. Left in a unit or a configuration file it would throw the other
//! members out again at each start, with whatever they have that this one lacks. So what was done is
//! noted beside the database, and the next start with the option leaves it aside; a start without it
//! takes the note away, for the next time that it is needed.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{CommandError, Doing};
use crate::kubeconfig_file::replace;

const FILE: &str = "forced.json";
/// What every database has.
const MADE: &str = "format";

/// What a start with the option left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    /// When it began.
    at: Timestamp,
    /// The cluster that went on, once it does. Until then nobody can have joined it, and what was
    /// begun is done again.
    cluster: Option<String>,
}

/// What a start does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    /// The option is not there.
    Nothing,
    /// It acts.
    Force,
    /// It was done.
    Done { at: Timestamp, cluster: String },
}

fn plan(asked: bool, note: Option<Note>) -> Plan {
    match (asked, note) {
        (false, _) => Plan::Nothing,
        (true, Some(Note { at, cluster: Some(cluster) })) => Plan::Done { at, cluster },
        (true, Some(Note { cluster: None, .. }) | None) => Plan::Force,
    }
}

/// The note of one database.
pub(super) struct Forced {
    file: PathBuf,
    plan: Plan,
}

impl Forced {
    /// Finds out whether to act, and notes that it begins.
    pub(super) fn begin(data_dir: &Path, asked: bool) -> Result<Self, CommandError> {
        let directory = data_dir.join("db");
        let file = directory.join(FILE);
        let unusable = || format!("{} cannot be used", file.display());
        let note = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice::<Note>(&text)
                .map(Some)
                .doing(|| format!("{}; remove it to force anew", unusable()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).doing(unusable),
        };
        let plan = plan(asked, note);
        match &plan {
            Plan::Nothing => {}
            Plan::Force if !directory.join(MADE).exists() => {
                return Err(CommandError::new(format!(
                    "--force-new-cluster: {} holds no database to go on from; name the survivor's with --data-dir, \
                     or begin a new cluster with --cluster-init",
                    data_dir.display()
                )));
            }
            Plan::Force => write(&file, None).doing(unusable)?,
            Plan::Done { at, cluster } => tracing::warn!(
                "--force-new-cluster was done on {at} (cluster {cluster}) and is left aside now; remove it from \
                 the command line, the unit or the configuration file"
            ),
        }
        Ok(Self { file, plan })
    }

    /// Whether this start forces.
    pub(super) fn acts(&self) -> bool {
        self.plan == Plan::Force
    }

    /// The database is open, as this start wanted it.
    pub(super) fn opened(self, cluster: &str) -> Result<(), CommandError> {
        let unusable = || format!("{} cannot be written", self.file.display());
        match self.plan {
            Plan::Nothing => match std::fs::remove_file(&self.file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).doing(unusable),
                _ => Ok(()),
            },
            Plan::Force => {
                tracing::warn!(
                    cluster,
                    "this server goes on alone, by force: the others can only join anew, with empty directories"
                );
                write(&self.file, Some(cluster)).doing(unusable)
            }
            Plan::Done { .. } => Ok(()),
        }
    }
}

fn write(file: &Path, cluster: Option<&str>) -> std::io::Result<()> {
    let note = Note { at: Timestamp::now(), cluster: cluster.map(str::to_owned) };
    replace(file, &serde_json::to_string(&note)?, 0o600)?;
    // What must not be done twice must not be forgotten by a power cut either.
    std::fs::File::open(file)?.sync_all()?;
    match file.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_acts_once_until_a_start_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        let refusal = Forced::begin(data_dir, true).err().unwrap().to_string();
        assert!(refusal.contains("holds no database"), "{refusal}");
        std::fs::create_dir(data_dir.join("db")).unwrap();
        assert!(Forced::begin(data_dir, true).is_err(), "an empty directory is no database");
        std::fs::write(data_dir.join("db").join(MADE), "").unwrap();
        let start = |asked| Forced::begin(data_dir, asked).unwrap();
        // One that did not come to its end is no reason to leave it aside.
        assert!(start(true).acts());
        let forced = start(true);
        assert!(forced.acts());
        forced.opened("c1").unwrap();
        for _ in 0..2 {
            let again = start(true);
            assert!(!again.acts());
            again.opened("c1").unwrap();
        }
        let without = start(false);
        assert!(!without.acts());
        without.opened("c1").unwrap();
        assert!(start(true).acts());
        std::fs::write(data_dir.join("db").join(FILE), "{").unwrap();
        let refusal = Forced::begin(data_dir, true).err().unwrap().to_string();
        assert!(refusal.contains("forced.json"), "{refusal}");
    }
}
