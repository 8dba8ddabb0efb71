//! The key by which a machine is known for as long as it is part of the cluster. It is made by the
//! machine itself and never leaves it; addresses and names may change.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::files;
use crate::{JoinError, hex};

/// The file of the machine's key, in the directory of keys and certificates.
pub const KEY_FILE: &str = "machine.key";

/// Who a machine is: SHA-256 of the public key (its `SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 32]);

impl KeyId {
    /// The id of a public key (`SubjectPublicKeyInfo`, DER).
    pub fn of(public_key: &[u8]) -> Self {
        Self(Sha256::digest(public_key).into())
    }

    /// The number of this machine as a member of the group of servers; never 0.
    pub fn member_id(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A text is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's id has 64 hexadecimal digits")]
pub struct KeyIdError;

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let bytes = hex::decode(text).ok_or(KeyIdError)?;
        bytes.try_into().map(Self).map_err(|_| KeyIdError)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A machine's private key, ECDSA P-256.
pub struct MachineKey {
    key: KeyPair,
}

impl MachineKey {
    /// The key in `dir` (which exists), or a new one that is written there, 0600.
    pub fn load_or_create(dir: &Path) -> Result<Self, JoinError> {
        let path = dir.join(KEY_FILE);
        if let Some(pem) = files::read(&path)? {
            return Self::from_pem(&pem, &path);
        }
        let key = KeyPair::generate().map_err(|source| JoinError::Key { path: path.clone(), source })?;
        files::write(&path, &key.serialize_pem())?;
        Ok(Self { key })
    }

    fn from_pem(pem: &str, path: &Path) -> Result<Self, JoinError> {
        let key =
            KeyPair::from_pem(pem).map_err(|source| JoinError::Key { path: path.to_owned(), source })?;
        Ok(Self { key })
    }

    /// Who the machine is.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.key.subject_public_key_info())
    }

    /// The private key, PKCS #8 PEM.
    pub fn pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// A request (PKCS #10, PEM) that proves possession of the key and asks for nothing else.
    pub fn request(&self) -> Result<String, JoinError> {
        let bad = |source| JoinError::Key { path: KEY_FILE.into(), source };
        let mut params = CertificateParams::new(Vec::new()).map_err(bad)?;
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.key).and_then(|request| request.pem()).map_err(bad)
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Whose key a request proves; `None` where it proves none, or one of another kind than ours.
pub(crate) fn proven(request: &str) -> Option<KeyId> {
    let request = rcgen::CertificateSigningRequestParams::from_pem(request).ok()?;
    let key = &request.public_key;
    let p256 = PublicKeyData::algorithm(key) == &rcgen::PKCS_ECDSA_P256_SHA256;
    p256.then(|| KeyId::of(&key.subject_public_key_info()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_machine_keeps_its_key_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let first = MachineKey::load_or_create(dir.path()).unwrap();
        let again = MachineKey::load_or_create(dir.path()).unwrap();
        assert_eq!(first.id(), again.id());
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains("PRIVATE"));
        assert_eq!(first.id().to_string().parse::<KeyId>().unwrap(), first.id());
    }

    #[test]
    fn a_request_proves_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let key = MachineKey::load_or_create(dir.path()).unwrap();
        let request = key.request().unwrap();
        assert_eq!(proven(&request), Some(key.id()));
        assert_eq!(proven("rubbish"), None);
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let request = CertificateParams::default().serialize_request(&other).unwrap().pem().unwrap();
        assert_eq!(proven(&request), None);
    }

    #[test]
    fn a_damaged_key_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY_FILE), "rubbish").unwrap();
        let error = MachineKey::load_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains(KEY_FILE), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(), "rubbish");
    }

    #[test]
    fn a_members_number_is_the_beginning_of_its_key() {
        let mut bytes = [0; 32];
        bytes[7] = 5;
        bytes[8] = 9;
        assert_eq!(KeyId(bytes).member_id(), 5);
        assert_eq!(KeyId([0; 32]).member_id(), 1);
    }
}
