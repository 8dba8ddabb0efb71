//! The private files that a sealed backup may carry: without them nobody can be what he was in the
//! restored cluster, nor read its secrets.

use std::collections::BTreeMap;

use crate::BackupError;
use crate::secret::Secret;

/// Files by their names, with their texts. Shown to nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles(BTreeMap<String, Secret>);

/// More than authorities and keys ever are.
pub(crate) const MAX_BYTES: u32 = 1 << 20;

impl KeyFiles {
    /// These files.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(files.into_iter().map(|(name, text)| (name, Secret::new(text))).collect())
    }

    /// Names and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.reveal()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As they stand before the snapshot: JSON.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, BackupError> {
        let map: BTreeMap<&str, &str> = self.iter().collect();
        let text = serde_json::to_vec(&map).map_err(|error| BackupError::setting(error.to_string()))?;
        match u32::try_from(text.len()) {
            Ok(length) if length <= MAX_BYTES => Ok(text),
            _ => Err(BackupError::setting("the cluster's keys are too large for a backup")),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, BackupError> {
        let strange = || BackupError::unsound("the keys within make no sense");
        let map: BTreeMap<String, String> = serde_json::from_slice(bytes).map_err(|_| strange())?;
        if map.keys().all(|name| is_plain(name)) { Ok(Self::new(map)) } else { Err(strange()) }
    }
}

/// Whether a name is that of a file, and leads nowhere else.
fn is_plain(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_through_their_bytes_and_names_lead_nowhere() {
        let files = KeyFiles::new([("a.key".to_owned(), "text".to_owned()), ("b".to_owned(), String::new())]);
        assert_eq!(KeyFiles::from_bytes(&files.to_bytes().unwrap()).unwrap(), files);
        assert!(!format!("{files:?}").contains("text"));
        for bad in [&b"[]"[..], b"{\"../x\":\"\"}", b"{\".x\":\"\"}", b"{\"a/b\":\"\"}", b"{\"\":\"\"}", b"{"]
        {
            assert!(KeyFiles::from_bytes(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        let large = KeyFiles::new([("a".to_owned(), "x".repeat(2 << 20))]);
        assert!(large.to_bytes().is_err());
    }
}
