//! Text that must not be seen, and the keys that a passphrase gives.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::BackupError;
use crate::format::hex;

/// Text that never shows in logs, messages and debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What seals a backup; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passphrase(Secret);

impl Passphrase {
    /// Refuses an empty passphrase.
    pub fn new(text: impl Into<String>) -> Result<Self, BackupError> {
        let text = text.into();
        if text.is_empty() {
            return Err(BackupError::setting("the passphrase is empty"));
        }
        Ok(Self(Secret(text)))
    }

    /// The text of a file without the line end that editors add.
    pub fn from_file(path: &std::path::Path) -> Result<Self, BackupError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BackupError::io("reading the passphrase in", &path.display(), source))?;
        Self::new(text.trim_end_matches(['\r', '\n']))
    }
}

/// What it costs to try one passphrase: the parameters of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
}

impl Cost {
    /// 64 MiB and three passes: what RFC 9106 recommends where memory is scarce, in one lane.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3 };
    /// What a file may ask for at most; more is taken for damage or malice.
    const MOST: Self = Self { memory_kib: 1 << 20, passes: 64 };
}

impl Default for Cost {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a passphrase becomes a key; stands in the header of a sealed backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Derivation {
    /// Always `argon2id`.
    pub(crate) function: String,
    pub(crate) cost: Cost,
    /// 16 random bytes, in hexadecimal.
    pub(crate) salt: String,
    /// Tells a wrong passphrase from a damaged file; of half of what was derived, not of the key.
    pub(crate) proof: String,
}

const FUNCTION: &str = "argon2id";
const SALT_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The key that seals the payload.
pub(crate) struct SealingKey(pub(crate) [u8; KEY_BYTES]);

impl Derivation {
    /// A new salt, and the key that it gives. Takes a good part of a second.
    pub(crate) async fn begin(
        passphrase: &Passphrase,
        cost: Cost,
    ) -> Result<(Self, SealingKey), BackupError> {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        let (key, proof) = derive(passphrase.clone(), cost, salt.to_vec()).await?;
        Ok((Self { function: FUNCTION.into(), cost, salt: hex(&salt), proof }, key))
    }

    /// The key of the passphrase that this was begun with; refuses another one.
    pub(crate) async fn repeat(&self, passphrase: &Passphrase) -> Result<SealingKey, BackupError> {
        let strange = || BackupError::unsound("it asks for a key derivation that this program does not do");
        let Cost { memory_kib, passes } = self.cost;
        if self.function != FUNCTION || memory_kib > Cost::MOST.memory_kib || passes > Cost::MOST.passes {
            return Err(strange());
        }
        let salt =
            crate::format::unhex(&self.salt).filter(|salt| salt.len() == SALT_BYTES).ok_or_else(strange)?;
        let (key, proof) = derive(passphrase.clone(), self.cost, salt).await?;
        if proof == self.proof { Ok(key) } else { Err(BackupError::PassphraseWrong) }
    }
}

/// On a thread of its own: it keeps a processor busy.
async fn derive(
    passphrase: Passphrase,
    cost: Cost,
    salt: Vec<u8>,
) -> Result<(SealingKey, String), BackupError> {
    let failed = |why: String| BackupError::Sealing { why };
    let derived = tokio::task::spawn_blocking(move || {
        let params = Params::new(cost.memory_kib, cost.passes, 1, Some(2 * KEY_BYTES))?;
        let mut out = [0; 2 * KEY_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.0.reveal().as_bytes(), &salt, &mut out)
            .map(|()| out)
    });
    let out = derived
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let (key, rest) = out.split_at(KEY_BYTES);
    let key = <[u8; KEY_BYTES]>::try_from(key).map_err(|error| failed(error.to_string()))?;
    Ok((SealingKey(key), hex(&Sha256::digest(rest))))
}

/// Fills `out` with random bytes of the system.
pub(crate) fn random(out: &mut [u8]) -> Result<(), BackupError> {
    getrandom::fill(out)
        .map_err(|error| BackupError::Sealing { why: format!("the system gives no randomness: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[tokio::test]
    async fn the_same_passphrase_gives_the_same_key_and_another_is_refused() {
        let right = Passphrase::new("correct horse").unwrap();
        let (derivation, key) = Derivation::begin(&right, CHEAP).await.unwrap();
        assert_eq!(derivation.repeat(&right).await.unwrap().0, key.0);
        let refusal = derivation.repeat(&Passphrase::new("correct house").unwrap()).await.err().unwrap();
        assert!(matches!(refusal, BackupError::PassphraseWrong), "{refusal}");
        let (other, again) = Derivation::begin(&right, CHEAP).await.unwrap();
        assert_ne!((other.salt, again.0), (derivation.salt.clone(), key.0), "salts differ");
    }

    #[tokio::test]
    async fn a_file_cannot_ask_for_all_of_the_memory() {
        let passphrase = Passphrase::new("p").unwrap();
        let (mut derivation, _) = Derivation::begin(&passphrase, CHEAP).await.unwrap();
        derivation.cost.memory_kib = u32::MAX;
        let refusal = derivation.repeat(&passphrase).await.err().unwrap();
        assert!(matches!(refusal, BackupError::Unsound { .. }), "{refusal}");
    }

    #[test]
    fn nothing_secret_shows() {
        let shown = format!("{:?} {:?}", Secret::new("abc"), Passphrase::new("abc").unwrap());
        assert!(!shown.contains("abc"), "{shown}");
    }

    #[test]
    fn a_passphrase_file_ends_with_a_line_end_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for text in ["a b ", "a b \n", "a b \r\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap(), Passphrase::new("a b ").unwrap());
        }
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(Passphrase::from_file(&path).unwrap_err().to_string(), "the passphrase is empty");
    }
}
