//! The node's key: what compiled code in the cache is authenticated with. It never leaves the
//! node, and losing it costs no more than compiling again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::durable;

const LENGTH: usize = 32;

/// The key.
pub(super) struct NodeKey([u8; LENGTH]);

/// A message authentication code.
pub(super) type Code = [u8; 32];

impl NodeKey {
    /// Reads the key; makes one where there is none, or none that can be trusted.
    ///
    /// # Errors
    /// Those of the file system and of the source of randomness.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match Self::read(path)? {
            Ok(key) => return Ok(key),
            Err(None) => {}
            Err(Some(why)) => {
                tracing::warn!(path = %path.display(), why, "the node's key is made anew; images are compiled again");
                durable::remove(path)?;
            }
        }
        let mut key = [0; LENGTH];
        getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
        durable::replace(path, &key)?;
        Ok(Self(key))
    }

    /// The key, or why there is none; `None` is that there is no file.
    fn read(path: &Path) -> io::Result<Result<Self, Option<&'static str>>> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(None)),
            Err(error) => return Err(error),
        };
        if !found.is_file() {
            return Ok(Err(Some("it is no regular file")));
        }
        if found.mode() & 0o077 != 0 || found.uid() != rustix::process::geteuid().as_raw() {
            return Ok(Err(Some("others can read or write it")));
        }
        Ok(fs::read(path)?.try_into().map(Self).map_err(|_| Some("its length is wrong")))
    }

    /// The authentication code of `content` under a name.
    ///
    /// # Errors
    /// Those of the reader.
    pub(super) fn authenticate(&self, name: &str, content: &mut impl Read) -> io::Result<Code> {
        Ok(self.feed(name, content)?.finalize().into_bytes().into())
    }

    /// Whether the code is that of `content` under a name.
    ///
    /// # Errors
    /// Those of the reader.
    pub(super) fn verifies(&self, name: &str, content: &mut impl Read, code: &[u8]) -> io::Result<bool> {
        Ok(self.feed(name, content)?.verify_slice(code).is_ok())
    }

    fn feed(&self, name: &str, content: &mut impl Read) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(io::Error::other)?;
        // With its length, so that no other split into name and content has the same code.
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        let mut buffer = vec![0; 128 << 10];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                return Ok(mac);
            }
            mac.update(buffer.get(..read).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_stays_until_it_cannot_be_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let code = |key: &NodeKey| key.authenticate("a", &mut &b"b"[..]).unwrap();
        let first = code(&NodeKey::open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(code(&NodeKey::open(&path).unwrap()), first);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = code(&NodeKey::open(&path).unwrap());
        assert_ne!(second, first);
        fs::write(&path, b"short").unwrap();
        assert_ne!(code(&NodeKey::open(&path).unwrap()), second);
    }

    #[test]
    fn a_code_holds_for_its_name_and_content_alone() {
        let directory = tempfile::tempdir().unwrap();
        let key = NodeKey::open(&directory.path().join("key")).unwrap();
        let code = key.authenticate("ab", &mut &b"cd"[..]).unwrap();
        for (name, content, expected) in
            [("ab", "cd", true), ("ab", "ce", false), ("a", "bcd", false), ("abc", "d", false)]
        {
            assert_eq!(
                key.verifies(name, &mut content.as_bytes(), &code).unwrap(),
                expected,
                "{name} {content}"
            );
        }
        assert!(!key.verifies("ab", &mut &b"cd"[..], b"").unwrap());
    }
}
