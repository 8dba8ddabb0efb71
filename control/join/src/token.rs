//! The text of a join token: who the cluster is (the fingerprint of the authority that signs its
//! servers), what may join with it, and the secret that proves that one may.
//!
//! `K10<64 hex digits>::<server|agent>:<id>.<secret>`

use std::fmt;
use std::str::FromStr;

use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex;

const PREFIX: &str = "K10";
const ID_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const ID_LENGTH: usize = 6;
const SECRET_BYTES: usize = 16;
const SALT_BYTES: usize = 16;

/// What may join with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Servers, and agents as well.
    Server,
    /// Agents only.
    Agent,
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Agent => "agent",
        })
    }
}

impl FromStr for TokenRole {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        match text {
            "server" => Ok(Self::Server),
            "agent" => Ok(Self::Agent),
            _ => Err(TokenError::Role(text.to_owned())),
        }
    }
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text has another form.
    #[error(
        "the token is not of the form K10<64 hex digits>::<server|agent>:<id>.<secret>; 'sampan token create' on a server makes one"
    )]
    Form,
    /// The role is neither of the two.
    #[error("{0:?} is no role of a token; there are server and agent")]
    Role(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A join token as people pass it on.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate, 64 hex digits.
    pub authority: String,
    /// What may join with it.
    pub role: TokenRole,
    /// Its public name.
    pub id: String,
    secret: String,
}

impl JoinToken {
    /// A new token for the cluster with this authority.
    pub fn generate(authority: &str, role: TokenRole) -> Result<Self, TokenError> {
        let mut id = [0; ID_LENGTH];
        random(&mut id)?;
        let letter = |byte: u8| ID_LETTERS.get(usize::from(byte % 32)).copied().map_or('a', char::from);
        let mut secret = [0; SECRET_BYTES];
        random(&mut secret)?;
        Ok(Self {
            authority: authority.to_owned(),
            role,
            id: id.into_iter().map(letter).collect(),
            secret: hex::encode(&secret),
        })
    }

    /// What a server keeps of the token: it proves the secret, and does not tell it.
    pub(crate) fn seal(&self) -> Result<SealedSecret, TokenError> {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        let salt = hex::encode(&salt);
        let hash = digest(&salt, &self.secret);
        Ok(SealedSecret { salt, hash })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("role", &self.role).field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}::{}:{}.{}", self.authority, self.role, self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts = || {
            let (authority, rest) = text.trim().strip_prefix(PREFIX)?.split_once("::")?;
            let (role, rest) = rest.split_once(':')?;
            let (id, secret) = rest.split_once('.')?;
            Some((authority, role, id, secret))
        };
        let (authority, role, id, secret) = parts().ok_or(TokenError::Form)?;
        let good = authority.len() == 64
            && hex::decode(authority).is_some()
            && is_id(id)
            && secret.len() == 2 * SECRET_BYTES
            && hex::decode(secret).is_some();
        if !good {
            return Err(TokenError::Form);
        }
        Ok(Self {
            authority: authority.to_ascii_lowercase(),
            role: role.parse()?,
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// Whether a text may name a token.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A secret at rest: a salted hash. The secret has 128 random bits, so that a fast hash is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedSecret {
    salt: String,
    hash: String,
}

impl SealedSecret {
    /// Whether a token carries the secret, in constant time.
    pub(crate) fn opens(&self, token: &JoinToken) -> bool {
        let given = digest(&self.salt, &token.secret);
        let (given, kept) = (given.as_bytes(), self.hash.as_bytes());
        let differing = given.iter().zip(kept).fold(0_u8, |differing, (a, b)| differing | (a ^ b));
        given.len() == kept.len() && std::hint::black_box(differing) == 0
    }
}

fn digest(salt: &str, secret: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(b":");
    hasher.update(secret);
    hex::encode(&hasher.finalize())
}

fn random(bytes: &mut [u8]) -> Result<(), TokenError> {
    OsRng.try_fill_bytes(bytes).map_err(|_| TokenError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHORITY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn a_token_is_read_back_from_its_text() {
        let token = JoinToken::generate(AUTHORITY, TokenRole::Agent).unwrap();
        let text = token.to_string();
        assert!(text.starts_with(&format!("K10{AUTHORITY}::agent:")), "{text}");
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn other_texts_are_refused() {
        let good = JoinToken::generate(AUTHORITY, TokenRole::Server).unwrap().to_string();
        for (text, expected) in [
            (String::new(), TokenError::Form),
            ("secret".into(), TokenError::Form),
            (good.replace("K10", "K11"), TokenError::Form),
            (good.replace("K1000", "K10"), TokenError::Form),
            (good.replace("K10001", "K1000g"), TokenError::Form),
            (good.replace("server", "master"), TokenError::Role("master".into())),
            (good.replace('.', ""), TokenError::Form),
            (good[..good.len() - 1].to_owned(), TokenError::Form),
        ] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn a_sealed_secret_is_opened_by_its_token_only() {
        let token = JoinToken::generate(AUTHORITY, TokenRole::Server).unwrap();
        let other = JoinToken::generate(AUTHORITY, TokenRole::Server).unwrap();
        let sealed = token.seal().unwrap();
        assert!(sealed.opens(&token));
        assert!(!sealed.opens(&other));
        assert!(!serde_json::to_string(&sealed).unwrap().contains(&token.secret));
        assert_ne!(token.seal().unwrap(), sealed);
        assert!(!SealedSecret { hash: String::new(), ..sealed }.opens(&token));
    }
}
