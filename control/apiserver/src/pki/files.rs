//! Where keys and certificates are kept: a private directory, or memory.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{Identity, PkiError};

/// A place for named PEM texts.
pub(super) enum Vault {
    Directory(PathBuf),
    Memory(Mutex<BTreeMap<String, String>>),
}

impl Vault {
    /// A directory, made (0700) if it does not exist, and made private if it does.
    pub(super) fn directory(dir: &Path) -> Result<Self, PkiError> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)));
        made.map_err(|source| file_error(dir, source))?;
        Ok(Self::Directory(dir.to_owned()))
    }

    /// A directory to read from, as it is.
    pub(super) fn existing(dir: &Path) -> Self {
        Self::Directory(dir.to_owned())
    }

    pub(super) fn memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// A text, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, PkiError> {
        match self {
            Self::Memory(texts) => Ok(texts.lock().get(name).cloned()),
            Self::Directory(dir) => {
                let path = dir.join(name);
                match std::fs::read_to_string(&path) {
                    Ok(text) => Ok(Some(text)),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(file_error(&path, source)),
                }
            }
        }
    }

    /// The names and texts of a vault in memory.
    pub(super) fn contents(&self) -> Vec<(String, String)> {
        match self {
            Self::Memory(texts) => texts.lock().clone().into_iter().collect(),
            Self::Directory(_) => Vec::new(),
        }
    }

    /// Writes a text that only its owner may read: the old text or the new one is there at any time.
    pub(super) fn write_private(&self, name: &str, text: &str) -> Result<(), PkiError> {
        match self {
            Self::Memory(texts) => {
                texts.lock().insert(name.to_owned(), text.to_owned());
                Ok(())
            }
            Self::Directory(dir) => {
                let path = dir.join(name);
                replace(&path, text).map_err(|source| file_error(&path, source))
            }
        }
    }

    /// A certificate with its key, if both are there.
    pub(super) fn read_identity(&self, name: &str) -> Result<Option<Identity>, PkiError> {
        let certificate = self.read(&format!("{name}.crt"))?;
        let key = self.read(&format!("{name}.key"))?;
        Ok(certificate.zip(key).map(|(certificate_pem, key_pem)| Identity { certificate_pem, key_pem }))
    }

    /// Writes a certificate and its key. A crash between the two leaves a pair that does not fit,
    /// which the next start notices and replaces.
    pub(super) fn write_identity(&self, name: &str, identity: &Identity) -> Result<(), PkiError> {
        self.write_private(&format!("{name}.key"), &identity.key_pem)?;
        self.write_private(&format!("{name}.crt"), &identity.certificate_pem)
    }
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn file_error(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.display().to_string(), source }
}
