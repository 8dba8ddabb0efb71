//! Compiled code on disk. An entry is a directory that is renamed into its place when it is
//! complete and never changed after that:
//!
//! ```text
//! <cache>/key                            the node's key
//! <cache>/code/<engine>/<module>/code    compiled code, mapped into the process
//! <cache>/code/<engine>/<module>/mac     its authentication code
//! <cache>/tmp/…                          entries in the making
//! ```
//!
//! `<engine>` stands for everything that compiled code depends on: version and settings of the
//! engine, processor. Entries of other engines are of no use and are removed.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wasmtime::Engine;

use super::digest::Digest;
use super::durable;
use super::key::NodeKey;
use super::native::Verified;

const CODE: &str = "code";
const MAC: &str = "mac";

/// The entries for one engine.
pub(super) struct Entries {
    directory: PathBuf,
    tmp: PathBuf,
    engine: String,
    key: NodeKey,
}

/// An entry in the making: removed unless it is put in its place.
pub(super) struct Draft(TempDir);

impl Draft {
    /// Where the compiled code goes.
    pub(super) fn code(&self) -> PathBuf {
        self.0.path().join(CODE)
    }
}

/// What compiled code has to fit, as a file name.
pub(super) fn engine_name(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Entries {
    /// Opens the cache and removes what is of no use: entries of other engines, entries that
    /// were never completed.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(cache: &Path, engine: String) -> io::Result<Self> {
        durable::private_directory(cache)?;
        let tmp = cache.join("tmp");
        durable::remove(&tmp)?;
        durable::private_directory(&tmp)?;
        let all = cache.join(CODE);
        for name in durable::names(&all)? {
            if name != engine.as_str() {
                durable::remove(&all.join(&name))?;
            }
        }
        let directory = all.join(&engine);
        durable::private_directory(&directory)?;
        Ok(Self { directory, tmp, engine, key: NodeKey::open(&cache.join("key"))? })
    }

    /// The compiled code of a module, if it is there and authentic. Code that is not is removed.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn find(&self, module: &Digest) -> io::Result<Option<Verified>> {
        let entry = self.directory.join(module.hex());
        let mut code = match File::open(entry.join(CODE)) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Half an entry is none, and would be in the way of a whole one.
                durable::remove(&entry)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mac = fs::read(entry.join(MAC)).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        if !self.key.verifies(&self.name(module), &mut code, &mac)? {
            tracing::warn!(%module, "compiled code was changed or belongs to another key: compiled again");
            durable::remove(&entry)?;
            return Ok(None);
        }
        code.rewind()?;
        Ok(Some(Verified::vouch(code)))
    }

    /// A place for an entry in the making.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        tempfile::Builder::new().tempdir_in(&self.tmp).map(Draft)
    }

    /// Completes an entry and puts it in its place.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn complete(&self, draft: Draft, module: &Digest) -> io::Result<()> {
        let mut code = File::open(draft.code())?;
        let mac = self.key.authenticate(&self.name(module), &mut code)?;
        code.sync_all()?;
        durable::replace(&draft.0.path().join(MAC), &mac)?;
        let entry = self.directory.join(module.hex());
        // Whatever is there was found to be of no use.
        durable::remove(&entry)?;
        fs::rename(draft.0.path(), &entry)?;
        // It is no longer where it would be removed from.
        let _ = draft.0.keep();
        durable::sync_directory(&self.directory)
    }

    /// Removes the code of a module.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn remove(&self, module: &Digest) -> io::Result<()> {
        durable::remove(&self.directory.join(module.hex()))
    }

    /// Removes the code of all modules but these.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn retain(&self, modules: &HashSet<Digest>) -> io::Result<()> {
        let wanted: HashSet<OsString> = modules.iter().map(|module| module.hex().into()).collect();
        for name in durable::names(&self.directory)? {
            if !wanted.contains(&name) {
                durable::remove(&self.directory.join(&name))?;
            }
        }
        Ok(())
    }

    fn name(&self, module: &Digest) -> String {
        format!("{}/{}", self.engine, module.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(entries: &Entries, module: &Digest, code: &[u8]) {
        let draft = entries.draft().unwrap();
        fs::write(draft.code(), code).unwrap();
        entries.complete(draft, module).unwrap();
    }

    #[test]
    fn an_entry_is_found_until_it_is_tampered_with() {
        let cache = tempfile::tempdir().unwrap();
        let entries = Entries::open(cache.path(), "e".into()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert!(entries.find(&one).unwrap().is_none());
        add(&entries, &one, b"code of one");
        add(&entries, &two, b"code of two");
        assert!(entries.find(&one).unwrap().is_some());

        // One module's code, authentic as it is, is not another's.
        let path = |module: &Digest, file: &str| cache.path().join("code/e").join(module.hex()).join(file);
        for file in [CODE, MAC] {
            fs::copy(path(&two, file), path(&one, file)).unwrap();
        }
        assert!(entries.find(&one).unwrap().is_none());
        assert!(!path(&one, CODE).exists());

        fs::write(path(&two, CODE), b"code of twO").unwrap();
        assert!(entries.find(&two).unwrap().is_none());
    }

    #[test]
    fn half_an_entry_is_none_and_makes_room() {
        let cache = tempfile::tempdir().unwrap();
        let entries = Entries::open(cache.path(), "e".into()).unwrap();
        let module = Digest::of(b"1");
        for half in [CODE, MAC] {
            let entry = cache.path().join("code/e").join(module.hex());
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join(half), b"x").unwrap();
            assert!(entries.find(&module).unwrap().is_none(), "{half}");
            assert!(!entry.exists());
        }
        add(&entries, &module, b"code");
        assert!(entries.find(&module).unwrap().is_some());
    }

    #[test]
    fn opening_removes_drafts_and_entries_of_other_engines() {
        let cache = tempfile::tempdir().unwrap();
        let old = Entries::open(cache.path(), "old".into()).unwrap();
        add(&old, &Digest::of(b"1"), b"code");
        let draft = old.draft().unwrap();
        fs::write(draft.code(), b"half").unwrap();
        let left = draft.0.keep();
        let new = Entries::open(cache.path(), "new".into()).unwrap();
        assert!(!left.exists());
        assert!(!cache.path().join("code/old").exists());
        assert!(new.find(&Digest::of(b"1")).unwrap().is_none());
    }

    #[test]
    fn what_no_image_needs_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let entries = Entries::open(cache.path(), "e".into()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        add(&entries, &one, b"code");
        add(&entries, &two, b"code");
        entries.retain(&HashSet::from([two])).unwrap();
        assert!(entries.find(&one).unwrap().is_none());
        assert!(entries.find(&two).unwrap().is_some());
        entries.remove(&two).unwrap();
        assert!(entries.find(&two).unwrap().is_none());
    }
}
