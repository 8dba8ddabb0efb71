//! `sampan snapshot`: saved from the running server, looked at, restored with the server stopped.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::Timestamp;
use sampan_backup::{BackupError, Existing, Passphrase, SaveOptions, Seal, Summary};
use sampan_store::Revision;

use super::etcd_snapshot;
use crate::args::{OnOtherKeys, S3Args, SnapshotArgs, SnapshotCommand};
use crate::error::{CommandError, Doing};
use crate::settings::Mode;
use crate::{cluster_keys, data_dir, snapshot_text, store};

pub(super) fn run(args: SnapshotArgs) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .doing(|| "threads cannot be started".to_owned())?;
    let text = runtime.block_on(async {
        match args.command {
            SnapshotCommand::Save { destination, force, passphrase_file, without_keys, s3, data } => {
                let one = One::new(&destination, &s3, passphrase_file)?;
                save(&one, force, !without_keys, data.data_dir).await
            }
            SnapshotCommand::Status { source, passphrase_file, s3 } => {
                let one = One::new(&source, &s3, passphrase_file)?;
                if let Some(path) = one.of_etcd().await? {
                    return etcd_snapshot::describe(path).await;
                }
                let summary = sampan_backup::status(&one.location, one.passphrase.as_ref()).await;
                summary.map(|summary| describe(&summary)).map_err(|error| one.refuse(error, "cannot be used"))
            }
            SnapshotCommand::Restore { source, passphrase_file, on_other_keys, s3, data } => {
                let one = One::new(&source, &s3, passphrase_file)?;
                restore(&one, on_other_keys, data.data_dir).await
            }
        }
    })?;
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}

/// The snapshot that a command is about.
struct One {
    text: String,
    location: sampan_backup::Location,
    passphrase: Option<Passphrase>,
}

impl One {
    fn new(text: &str, s3: &S3Args, passphrase_file: Option<PathBuf>) -> Result<Self, CommandError> {
        check_s3(text, s3)?;
        let given = snapshot_text::of_command(s3, passphrase_file);
        let unusable = || "the snapshot cannot be named".to_owned();
        let location = given.location(text, &|name| std::env::var(name).ok()).doing(unusable)?;
        let passphrase = given.passphrase().doing(|| "--passphrase-file".to_owned())?;
        Ok(Self { text: text.to_owned(), location, passphrase })
    }

    /// The file, where it is one that etcdctl saved.
    async fn of_etcd(&self) -> Result<Option<PathBuf>, CommandError> {
        let found = etcd_snapshot::find(&self.text).await;
        if found.is_some() && self.passphrase.is_some() {
            let why = "is one of etcd's, which are never sealed; leave out --passphrase-file";
            return Err(CommandError::new(format!("the snapshot {} {why}", self.text)));
        }
        Ok(found)
    }

    fn refuse(&self, error: BackupError, what: &str) -> CommandError {
        let mend = match &error {
            BackupError::Exists { .. } => "; --force replaces it",
            BackupError::PassphraseNeeded => "; name the passphrase's file with --passphrase-file",
            _ => "",
        };
        CommandError::new(format!(
            "the snapshot {} {what}: {}{mend}",
            self.text,
            sampan_client::informer::chain(&error)
        ))
    }
}

/// What is said of S3 must be about this snapshot: nothing that is given is left aside.
fn check_s3(text: &str, s3: &S3Args) -> Result<(), CommandError> {
    if !text.starts_with("s3://") && *s3 != S3Args::default() {
        return Err(CommandError::new(format!(
            "{text} is a file; --snapshot-s3-… options are for s3://BUCKET/NAME"
        )));
    }
    if s3.snapshot_s3_bucket.is_some() || s3.snapshot_s3_folder.is_some() {
        return Err(CommandError::new(
            "bucket and folder of one snapshot stand in its name: s3://BUCKET/FOLDER/NAME",
        ));
    }
    Ok(())
}

async fn save(
    one: &One,
    force: bool,
    with_keys: bool,
    given: Option<PathBuf>,
) -> Result<String, CommandError> {
    let (client, data_dir) = super::admin::client(given)?;
    let snapshot = client.snapshot().await.doing(|| "the server gives no snapshot".to_owned())?;
    let known = sampan_join::joined(&data_dir.join("tls")).ok().flatten();
    let (cluster, name) = known.map(|known| (known.cluster_id, known.name)).unwrap_or_default();
    // Only a sealed one carries them.
    let private = match one.passphrase.is_some() && with_keys {
        true => Some(
            cluster_keys::read(&data_dir)
                .doing(|| format!("the cluster's keys in {} cannot be read", data_dir.display()))?,
        ),
        false => None,
    };
    let options = SaveOptions {
        origin: snapshot_text::origin(cluster, &name),
        created: Timestamp::now(),
        seal: one.passphrase.clone().map(Seal::new),
        private,
        existing: if force { Existing::Replace } else { Existing::Refuse },
    };
    let saved = sampan_backup::save_stream(snapshot, &one.location, &options).await;
    saved.map(|summary| describe(&summary)).map_err(|error| one.refuse(error, "cannot be saved"))
}

async fn restore(
    one: &One,
    on_other: Option<OnOtherKeys>,
    given: Option<PathBuf>,
) -> Result<String, CommandError> {
    let no_keys = || {
        let why = "carries no keys; --on-other-keys is for those that do";
        CommandError::new(format!("the snapshot {} {why}", one.text))
    };
    if let Some(path) = one.of_etcd().await? {
        if on_other.is_some() {
            return Err(no_keys());
        }
        let data_dir = data_dir::existing(given)?;
        let mut contents = etcd_snapshot::contents(path).await?;
        let revision = store::rebuild(&data_dir, &mut contents, &one.text).await?;
        return Ok(restored(&data_dir, one, revision));
    }
    let unusable = |error| one.refuse(error, "cannot be used");
    let mut contents = sampan_backup::open(&one.location, one.passphrase.as_ref()).await.map_err(unusable)?;
    let (data_dir, said) = match contents.private().cloned() {
        None if on_other.is_some() => return Err(no_keys()),
        None => (data_dir::existing(given)?, String::new()),
        Some(keys) => {
            // All of it is sound before anything is touched.
            sampan_backup::status(&one.location, one.passphrase.as_ref()).await.map_err(unusable)?;
            let data_dir = match given {
                Some(given) => {
                    let data_dir = data_dir::choose(Mode::Server, Some(given))?;
                    data_dir::prepare(&data_dir)?;
                    data_dir
                }
                None => data_dir::existing(None)?,
            };
            let said = cluster_keys::put(&data_dir, &keys, on_other)?;
            (data_dir, said)
        }
    };
    let revision = store::rebuild(&data_dir, &mut contents, &one.text).await?;
    Ok(format!("{said}{}", restored(&data_dir, one, revision)))
}

fn restored(data_dir: &Path, one: &One, revision: Revision) -> String {
    format!(
        "{} now holds the state of {} (revision {revision}), as a new cluster of this server alone; what it held before was moved aside within it\n",
        data_dir.join("db").display(),
        one.text
    )
}

fn describe(summary: &Summary) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let created = summary.created.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
    format!(
        "created   {created}\ncluster   {}\nnode      {}\nversion   {}\nrevision  {}\nkeys      {}\nsize      {}\nsha256    {}\nsealed    {}\nidentity  {}\n",
        or(&summary.cluster),
        or(&summary.node),
        or(&summary.version),
        summary.revision,
        summary.keys,
        summary.size,
        summary.sha256,
        if summary.sealed { "yes" } else { "no" },
        if summary.private { "inside: authorities, token key, sealing keys" } else { "not inside" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_about_s3_are_never_left_aside() {
        let bucket = S3Args { snapshot_s3_bucket: Some("b".into()), ..S3Args::default() };
        let region = S3Args { snapshot_s3_region: Some("r".into()), ..S3Args::default() };
        for (text, s3, good) in [
            ("file", S3Args::default(), true),
            ("file", region.clone(), false),
            ("s3://b/n", S3Args::default(), true),
            ("s3://b/n", region, true),
            ("s3://b/n", bucket, false),
        ] {
            assert_eq!(check_s3(text, &s3).is_ok(), good, "{text} {s3:?}");
        }
    }
}
