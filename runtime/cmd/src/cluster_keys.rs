//! The private files that make a cluster what it is: its authorities, the key of service account
//! tokens, the keys that the database seals values with. A sealed snapshot carries them; restoring puts
//! them in place.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sampan_backup::KeyFiles;

use crate::args::OnOtherKeys;
use crate::error::{CommandError, Doing};

/// In `tls/`; those that sign without the rest of them are what older versions read.
const IN_TLS: [&str; 6] = [
    "authorities.json",
    "server-ca.crt",
    "server-ca.key",
    "client-ca.crt",
    "client-ca.key",
    "service-account.key",
];
/// The database's keys.
const SEALING: &str = "seal.keys";
/// Where what is replaced goes, with the time behind it.
pub(crate) const REPLACED: &str = "replaced-";
/// Where files are written before they appear.
pub(crate) const RESTORING: &str = "tls.restoring";

/// The file with the database's keys: beside the others where this server got them as it joined.
pub(crate) fn sealing_keys(data_dir: &Path) -> PathBuf {
    let joined = data_dir.join("tls").join(SEALING);
    if joined.exists() { joined } else { data_dir.join("db").join(SEALING) }
}

/// Reads them all; those that there are not are left out.
pub(crate) fn read(data_dir: &Path) -> std::io::Result<KeyFiles> {
    let tls = data_dir.join("tls");
    let mut files = Vec::new();
    for (name, path) in IN_TLS
        .iter()
        .map(|name| (*name, tls.join(name)))
        .chain(std::iter::once((SEALING, sealing_keys(data_dir))))
    {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push((name.to_owned(), text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(KeyFiles::new(files))
}

/// What a directory holds, compared with what is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// All of it.
    Same,
    /// None of it that is another, and not all.
    Lacks,
    /// This file is another one.
    Other(String),
}

fn compare(held: &KeyFiles, wanted: &KeyFiles) -> Finding {
    let of = |name: &str| held.iter().find(|(held, _)| *held == name).map(|(_, text)| text);
    let mut lacks = false;
    for (name, text) in wanted.iter() {
        match of(name) {
            None => lacks = true,
            Some(held) if held == text || (name == SEALING && holds_all(held, text)) => {}
            Some(_) => return Finding::Other(name.to_owned()),
        }
    }
    if lacks { Finding::Lacks } else { Finding::Same }
}

/// Whether a key file has all keys of another one, and perhaps newer ones.
fn holds_all(held: &str, wanted: &str) -> bool {
    let keys = |text| -> BTreeSet<&str> {
        let lines = str::lines(text).map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    };
    keys(wanted).is_subset(&keys(held))
}

/// Puts the files of a snapshot in place, before its state is. What was done, to be told; nothing
/// where nothing was.
pub(crate) fn put(
    data_dir: &Path,
    wanted: &KeyFiles,
    on_other: Option<OnOtherKeys>,
) -> Result<String, CommandError> {
    let unusable = || format!("the keys in {} cannot be used", data_dir.display());
    let known = |name: &str| IN_TLS.contains(&name) || name == SEALING;
    if let Some((name, _)) = wanted.iter().find(|(name, _)| !known(name)) {
        return Err(CommandError::new(format!(
            "the snapshot carries {name:?}, which this version does not know; use the newer sampan that saved it"
        )));
    }
    let held = read(data_dir).doing(unusable)?;
    match (compare(&held, wanted), on_other) {
        (Finding::Same, _) => Ok(String::new()),
        (Finding::Other(_), Some(OnOtherKeys::Keep)) => {
            Ok("the cluster's keys that were here stay; those of the snapshot are left aside\n".to_owned())
        }
        (Finding::Other(name), None) => Err(CommandError::new(format!(
            "{} holds keys of a cluster already, and {name} is another one than in the snapshot: \
             --on-other-keys replace moves them and the database aside, --on-other-keys keep goes on with them",
            data_dir.display()
        ))),
        (Finding::Other(_), Some(OnOtherKeys::Replace)) => {
            check_stopped(data_dir)?;
            let aside = move_aside(data_dir).doing(unusable)?;
            place(data_dir, wanted).doing(unusable)?;
            Ok(format!(
                "the cluster's keys are those of the snapshot; the others, and their database, were moved to {}\n",
                aside.display()
            ))
        }
        (Finding::Lacks, _) => {
            check_stopped(data_dir)?;
            place(data_dir, wanted).doing(unusable)?;
            Ok("the cluster's keys are in place\n".to_owned())
        }
    }
}

/// A running server's files are not touched.
fn check_stopped(data_dir: &Path) -> Result<(), CommandError> {
    let lock = match File::options().read(true).write(true).open(data_dir.join("db/lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).doing(|| format!("{} cannot be used", data_dir.display())),
    };
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(CommandError::new(format!("a server runs on {}; stop it first", data_dir.display())))
        }
        Err(TryLockError::Error(error)) => {
            Err(error).doing(|| format!("{} cannot be used", data_dir.display()))
        }
    }
}

/// What was here goes together: a database can only be read with its keys.
fn move_aside(data_dir: &Path) -> std::io::Result<PathBuf> {
    let aside = data_dir.join(format!("{REPLACED}{}", Timestamp::now().as_second()));
    DirBuilder::new().mode(0o700).create(&aside)?;
    for name in ["tls", "db"] {
        match std::fs::rename(data_dir.join(name), aside.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Writes the files that are not there. A new directory appears whole.
fn place(data_dir: &Path, wanted: &KeyFiles) -> std::io::Result<()> {
    let (tls, staging, db) = (data_dir.join("tls"), data_dir.join(RESTORING), data_dir.join("db"));
    let sealing = sealing_keys(data_dir);
    if let Some((_, text)) = wanted.iter().find(|(name, _)| *name == SEALING)
        && !sealing.exists()
    {
        DirBuilder::new().recursive(true).mode(0o700).create(&db)?;
        write(&sealing, text)?;
        File::open(&db)?.sync_all()?;
    }
    let fresh = !tls.exists();
    let into = if fresh { &staging } else { &tls };
    if fresh {
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).create(&staging)?,
        }
    }
    for (name, text) in wanted.iter().filter(|(name, _)| *name != SEALING) {
        let path = into.join(name);
        if !path.exists() {
            write(&path, text)?;
        }
    }
    File::open(into)?.sync_all()?;
    if fresh {
        std::fs::rename(&staging, &tls)?;
    }
    File::open(data_dir)?.sync_all()
}

/// A private file, whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files(texts: &[(&str, &str)]) -> KeyFiles {
        KeyFiles::new(texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
    }

    #[test]
    fn newer_sealing_keys_are_the_same_and_other_files_are_not() {
        let wanted = files(&[("server-ca.key", "a"), (SEALING, "# c\n1 aa\n")]);
        assert_eq!(compare(&files(&[]), &wanted), Finding::Lacks);
        assert_eq!(compare(&wanted, &wanted), Finding::Same);
        let newer = files(&[("server-ca.key", "a"), (SEALING, "1 aa\n2 bb\n"), ("client-ca.key", "x")]);
        assert_eq!(compare(&newer, &wanted), Finding::Same);
        let other = files(&[("server-ca.key", "a"), (SEALING, "1 ab\n")]);
        assert_eq!(compare(&other, &wanted), Finding::Other(SEALING.to_owned()));
        assert_eq!(
            compare(&files(&[("server-ca.key", "b")]), &wanted),
            Finding::Other("server-ca.key".into())
        );
    }

    #[test]
    fn files_are_put_privately_and_others_only_replaced_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        let wanted = files(&[("server-ca.key", "a"), ("client-ca.key", "b"), (SEALING, "1 aa\n")]);
        assert!(put(data_dir, &wanted, None).unwrap().contains("in place"));
        assert_eq!(read(data_dir).unwrap(), wanted);
        for path in ["tls/server-ca.key", "tls/client-ca.key", "db/seal.keys"] {
            let mode = std::fs::metadata(data_dir.join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{path}");
        }
        let mode = std::fs::metadata(data_dir.join("tls")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        assert_eq!(put(data_dir, &wanted, None).unwrap(), "");
        std::fs::remove_file(data_dir.join("tls/client-ca.key")).unwrap();
        put(data_dir, &wanted, None).unwrap();
        assert_eq!(read(data_dir).unwrap(), wanted);

        let other = files(&[("server-ca.key", "other")]);
        let refusal = put(data_dir, &other, None).unwrap_err().to_string();
        assert!(refusal.contains("server-ca.key") && refusal.contains("--on-other-keys"), "{refusal}");
        put(data_dir, &other, Some(OnOtherKeys::Keep)).unwrap();
        assert_eq!(read(data_dir).unwrap(), wanted);
        std::fs::write(data_dir.join("db/lock"), "").unwrap();
        let lock = File::options().write(true).open(data_dir.join("db/lock")).unwrap();
        lock.lock().unwrap();
        let refusal = put(data_dir, &other, Some(OnOtherKeys::Replace)).unwrap_err().to_string();
        assert!(refusal.contains("stop it first"), "{refusal}");
        drop(lock);
        let said = put(data_dir, &other, Some(OnOtherKeys::Replace)).unwrap();
        assert!(said.contains(REPLACED), "{said}");
        assert_eq!(read(data_dir).unwrap(), other);
        let aside = std::fs::read_dir(data_dir).unwrap().flatten().map(|entry| entry.path());
        let aside = aside.into_iter().find(|path| path.to_string_lossy().contains(REPLACED)).unwrap();
        assert_eq!(read(&aside).unwrap(), wanted);

        let strange = files(&[("machine.key", "x")]);
        assert!(put(data_dir, &strange, None).unwrap_err().to_string().contains("newer sampan"));
    }
}
