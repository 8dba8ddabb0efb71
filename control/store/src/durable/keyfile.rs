//! The file with the keys that values are sealed with, and the proof that it is the right one.
//!
//! One line a key: its number and 64 hex digits. The data directory keeps, under `sealed`, a
//! value sealed with each key that was ever used there, so that a lost or foreign key file is
//! noticed before anything is written with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::BytesMut;

use super::dir::{DataDir, write_durably};
use super::error::OpenError;
use crate::seal::{Keyring, Secret};

const COMMENT: &str =
    "# Keys that a sampan store seals values with. Whoever reads this file reads the secrets.\n";
const PROOF: &[u8] = b"sampan store key";

/// The keys for a data directory: made if neither file nor use of any is on record, `None` where
/// there are none and none are `wanted`.
pub(super) fn load_or_make(dir: &DataDir, path: &Path, wanted: Wanted) -> Result<Option<Keyring>, OpenError> {
    let problem = |why: String| OpenError::Keys { path: path.to_owned(), why };
    let proofs = read_proofs(dir)?;
    let ring = match read(path) {
        Ok(text) => {
            let secrets = parse(&text).ok_or_else(|| problem("is not a key file".into()))?;
            let mode =
                std::fs::metadata(path).map_err(|source| OpenError::io(path, source))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(problem(format!(
                    "can be read by others (mode {:03o}; it should be 600)",
                    mode & 0o777
                )));
            }
            Keyring::from_secrets(secrets)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(OpenError::io(path, source)),
    };
    match (ring, proofs.is_empty(), wanted) {
        (Some(ring), _, _) => {
            check_proofs(&ring, &proofs).map_err(problem)?;
            if wanted == Wanted::Yes {
                prove(dir, &ring)?;
            }
            Ok(Some(ring))
        }
        (None, false, _) => Err(problem("is missing, but values are sealed with its keys".into())),
        (None, true, Wanted::No) => Ok(None),
        (None, true, Wanted::Yes) => {
            let ring = Keyring::generate().map_err(|error| problem(error.to_string()))?;
            save(path, &ring).map_err(|source| OpenError::io(path, source))?;
            prove(dir, &ring)?;
            Ok(Some(ring))
        }
    }
}

/// Whether values are to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Yes,
    No,
}

/// Writes the key file.
pub(super) fn save(path: &Path, ring: &Keyring) -> io::Result<()> {
    let mut text = COMMENT.to_owned();
    for (id, secret) in ring.secrets() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{id} {}", to_hex(secret));
    }
    write_durably(path, text.as_bytes())
}

/// Records that the ring's keys are in use in this directory.
pub(super) fn prove(dir: &DataDir, ring: &Keyring) -> Result<(), OpenError> {
    let path = dir.sealed();
    let known = read_proofs(dir)?;
    if ring.secrets().all(|(id, _)| known.contains_key(&id)) {
        return Ok(());
    }
    let mut text = String::new();
    for (id, _) in ring.secrets() {
        let mut sealed = BytesMut::new();
        ring.seal_with(id, PROOF, PROOF, &mut sealed)
            .map_err(|error| OpenError::Keys { path: path.clone(), why: error.to_string() })?;
        let _ = writeln!(text, "{id} {}", to_hex(&sealed));
    }
    write_durably(&path, text.as_bytes()).map_err(|source| OpenError::io(&path, source))
}

fn check_proofs(ring: &Keyring, proofs: &BTreeMap<u32, Vec<u8>>) -> Result<(), String> {
    for (id, proof) in proofs {
        if !ring.holds(*id) {
            return Err(format!("lacks key {id}, which values are sealed with"));
        }
        if ring.open(PROOF, proof).is_err() {
            return Err(format!("has another key {id} than values are sealed with"));
        }
    }
    Ok(())
}

fn read_proofs(dir: &DataDir) -> Result<BTreeMap<u32, Vec<u8>>, OpenError> {
    let path = dir.sealed();
    match std::fs::read_to_string(&path) {
        Ok(text) => lines(&text)
            .ok_or_else(|| OpenError::corrupt(&path, "it has a line of unknown form", dir.kept_snapshot())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(OpenError::io(&path, source)),
    }
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

fn parse(text: &str) -> Option<BTreeMap<u32, Secret>> {
    let keys: BTreeMap<u32, Secret> = lines(text)?
        .into_iter()
        .map(|(id, bytes)| Some((id, bytes.try_into().ok()?)))
        .collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

/// Lines of a number and hex digits; each number once.
fn lines(text: &str) -> Option<BTreeMap<u32, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (id, hex) = line.split_once(' ')?;
        if found.insert(id.parse().ok()?, from_hex(hex.trim())?).is_some() {
            return None;
        }
    }
    Some(found)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_reads_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let ring = Keyring::generate().unwrap().with_new_key().unwrap();
        save(&path, &ring).unwrap();
        let secrets = parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expected: BTreeMap<u32, Secret> = ring.secrets().map(|(id, secret)| (id, *secret)).collect();
        assert_eq!(secrets, expected);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_a_key_file_is_refused() {
        let key = "ab".repeat(32);
        let table = [
            (String::new(), false),
            (format!("1 {key}\n"), true),
            (format!("# comment\n\n2 {key}\n1 {key}\n"), true),
            (format!("1 {key}\n1 {key}\n"), false),
            (format!("x {key}\n"), false),
            (format!("1 {}\n", "ab".repeat(31)), false),
            (format!("1 {}é\n", "ab".repeat(31)), false),
            ("1\n".to_owned(), false),
        ];
        for (text, good) in table {
            assert_eq!(parse(&text).is_some(), good, "{text:?}");
        }
    }
}
