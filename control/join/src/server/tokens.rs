//! Tokens at rest: a salted hash each, what may join with it, and until when.

use jiff::{SignedDuration, Timestamp};
use sampan_api::status::Status;
use sampan_apiserver::pki::MachineRole;
use sampan_store::Compare;
use serde::{Deserialize, Serialize};

use super::records::{self, Records};
use crate::token::{JoinToken, SealedSecret, TokenRole};
use crate::wire::{CreatedToken, NewToken, TokenInfo};

const PREFIX: &str = "/sampan/tokens/";
const DEFAULT_TTL: u64 = 24 * 3600;
/// A century: what is meant by more is "for ever", which is 0.
const MAX_TTL: u64 = 100 * 365 * 24 * 3600;
const MAX_DESCRIPTION: usize = 256;
/// For so long after its end a token is still told from one that never was.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    role: TokenRole,
    #[serde(flatten)]
    secret: SealedSecret,
    description: String,
    created: i64,
    expires: Option<i64>,
}

impl Stored {
    fn info(&self, id: &str) -> TokenInfo {
        TokenInfo {
            id: id.to_owned(),
            role: self.role,
            description: self.description.clone(),
            created: self.created,
            expires: self.expires,
        }
    }
}

/// Why a token does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the token is not known: it was revoked, or is of another cluster; 'sampan token create' on a server makes a new one"
    )]
    Unknown,
    #[error("the token expired at {0}; 'sampan token create' on a server makes a new one")]
    Expired(Timestamp),
    #[error("the token is for agents; a server joins with one of 'sampan token create --role server'")]
    AgentsOnly,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::AgentsOnly => Status::failure(403, "Forbidden", refusal.to_string()),
            _ => Status::failure(401, "Unauthorized", refusal.to_string()),
        }
    }
}

/// Whether a token that was shown does for these roles. Nothing is told about a token whose secret
/// the caller does not have.
fn judge(
    stored: Option<&Stored>,
    shown: &JoinToken,
    roles: &[MachineRole],
    now: Timestamp,
) -> Result<(), Refusal> {
    let stored = stored.filter(|stored| stored.secret.opens(shown)).ok_or(Refusal::Unknown)?;
    if let Some(end) = stored.expires
        && now.as_second() >= end
    {
        return Err(Refusal::Expired(Timestamp::from_second(end).unwrap_or(Timestamp::MAX)));
    }
    // What counts is the role on file: the text's is for people.
    if stored.role == TokenRole::Agent && roles.contains(&MachineRole::Server) {
        return Err(Refusal::AgentsOnly);
    }
    Ok(())
}

/// Keeps tokens.
pub(crate) struct Tokens {
    records: Records,
}

impl Tokens {
    pub(crate) fn new(records: Records) -> Self {
        Self { records }
    }

    /// Makes a token for the cluster with this authority.
    pub(crate) async fn create(
        &self,
        authority: &str,
        wanted: &NewToken,
        now: Timestamp,
    ) -> Result<CreatedToken, Status> {
        let ttl = wanted.ttl_seconds.unwrap_or(DEFAULT_TTL);
        if ttl > MAX_TTL {
            return Err(Status::bad_request(
                "a token holds for a hundred years at most, or for ever with --ttl 0",
            ));
        }
        if wanted.description.len() > MAX_DESCRIPTION {
            return Err(Status::bad_request(format!("a description has {MAX_DESCRIPTION} bytes at most")));
        }
        let internal = |error: crate::TokenError| Status::internal(error.to_string());
        loop {
            let token = JoinToken::generate(authority, wanted.role).map_err(internal)?;
            let stored = Stored {
                role: wanted.role,
                secret: token.seal().map_err(internal)?,
                description: wanted.description.clone(),
                created: now.as_second(),
                expires: (ttl > 0).then(|| now.as_second().saturating_add_unsigned(ttl)),
            };
            // Another token may have the same id: then again.
            if self.records.create(&key(&token.id), &stored).await? {
                return Ok(CreatedToken { token: token.to_string(), info: stored.info(&token.id) });
            }
        }
    }

    /// All tokens that hold.
    pub(crate) async fn list(&self, now: Timestamp) -> Result<Vec<TokenInfo>, Status> {
        let all = self.records.list::<Stored>(PREFIX).await?;
        let holds = |stored: &Stored| stored.expires.is_none_or(|end| now.as_second() < end);
        Ok(all.iter().filter(|(_, stored)| holds(stored)).map(|(id, stored)| stored.info(id)).collect())
    }

    /// Makes a token worthless.
    pub(crate) async fn revoke(&self, id: &str) -> Result<TokenInfo, Status> {
        let missing = || {
            Status::failure(
                404,
                "NotFound",
                format!("there is no token {id:?}; 'sampan token list' shows them"),
            )
        };
        if !crate::token::is_id(id) {
            return Err(missing());
        }
        loop {
            let record = self.records.read_one(&key(id)).await?;
            let stored: Stored = record.get()?.ok_or_else(missing)?;
            if self.records.change(vec![record.unchanged()], vec![records::delete(&record.key)]).await? {
                return Ok(stored.info(id));
            }
        }
    }

    /// Whether this server knows a token by its id. One that comes with a wrong secret is refused here.
    pub(crate) async fn is_known(&self, shown: &JoinToken) -> Result<bool, Status> {
        match self.records.peek::<Stored>(&key(&shown.id)).await? {
            Some(stored) if !stored.secret.opens(shown) => Err(Refusal::Unknown.into()),
            found => Ok(found.is_some()),
        }
    }

    /// Whether a token does for these roles; what a change that rests on it must compare.
    pub(crate) async fn check(
        &self,
        shown: &JoinToken,
        roles: &[MachineRole],
        now: Timestamp,
    ) -> Result<Compare, Status> {
        let record = self.records.read_one(&key(&shown.id)).await?;
        let stored: Option<Stored> = record.get()?;
        judge(stored.as_ref(), shown, roles, now)?;
        Ok(record.unchanged())
    }

    /// Forgets tokens that ended a day ago and more; says how many.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<usize, Status> {
        let mut swept = 0;
        for (id, stored) in self.records.list::<Stored>(PREFIX).await? {
            let old =
                stored.expires.is_some_and(|end| now.as_second() >= end.saturating_add(REMEMBERED.as_secs()));
            if old {
                let record = self.records.read_one(&key(&id)).await?;
                let gone =
                    self.records.change(vec![record.unchanged()], vec![records::delete(&record.key)]).await?;
                swept += usize::from(gone && record.exists());
            }
        }
        Ok(swept)
    }
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sampan_store::{MemoryStore, RangeRequest, Storage};

    use super::*;

    const AUTHORITY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn wanted(role: TokenRole, ttl_seconds: Option<u64>) -> NewToken {
        NewToken { role, ttl_seconds, description: "for a test".into() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[tokio::test]
    async fn a_token_holds_for_its_roles_until_its_end() {
        let storage = Arc::new(MemoryStore::new());
        let tokens = Tokens::new(Records::new(storage.clone()));
        let made = tokens.create(AUTHORITY, &wanted(TokenRole::Agent, Some(60)), at(1000)).await.unwrap();
        let token: JoinToken = made.token.parse().unwrap();
        assert_eq!(made.info.expires, Some(1060));
        let (node, server) = ([MachineRole::Node], [MachineRole::Server, MachineRole::Node]);
        tokens.check(&token, &node, at(1059)).await.unwrap();
        let refusal = tokens.check(&token, &server, at(1059)).await.unwrap_err();
        assert_eq!((refusal.code, refusal.message), (403, Refusal::AgentsOnly.to_string()));
        let refusal = tokens.check(&token, &node, at(1060)).await.unwrap_err();
        assert_eq!((refusal.code, refusal.message), (401, Refusal::Expired(at(1060)).to_string()));
        let text = made.token.replace("::agent:", "::server:");
        let refusal = tokens.check(&text.parse().unwrap(), &server, at(1059)).await.unwrap_err();
        assert_eq!(refusal.message, Refusal::AgentsOnly.to_string());
        let secret = made.token.rsplit('.').next().unwrap();
        let all = storage.range(RangeRequest::prefix("")).await.unwrap();
        assert!(all.kvs.iter().all(|kv| !String::from_utf8_lossy(&kv.value).contains(secret)));
    }

    #[tokio::test]
    async fn a_wrong_secret_learns_nothing() {
        let tokens = Tokens::new(Records::new(Arc::new(MemoryStore::new())));
        let made = tokens.create(AUTHORITY, &wanted(TokenRole::Agent, Some(60)), at(1000)).await.unwrap();
        let other = tokens.create(AUTHORITY, &wanted(TokenRole::Agent, Some(60)), at(1000)).await.unwrap();
        let (head, _) = made.token.rsplit_once('.').unwrap();
        let (_, secret) = other.token.rsplit_once('.').unwrap();
        let mixed: JoinToken = format!("{head}.{secret}").parse().unwrap();
        for now in [1001, 2000] {
            let refusal = tokens.check(&mixed, &[MachineRole::Server], at(now)).await.unwrap_err();
            assert_eq!(refusal.message, Refusal::Unknown.to_string());
        }
    }

    #[tokio::test]
    async fn tokens_are_listed_revoked_and_swept() {
        let tokens = Tokens::new(Records::new(Arc::new(MemoryStore::new())));
        let short = tokens.create(AUTHORITY, &wanted(TokenRole::Agent, Some(60)), at(1000)).await.unwrap();
        let day = tokens.create(AUTHORITY, &wanted(TokenRole::Server, None), at(1000)).await.unwrap();
        let ever = tokens.create(AUTHORITY, &wanted(TokenRole::Server, Some(0)), at(1000)).await.unwrap();
        assert_eq!(day.info.expires, Some(1000 + 24 * 3600));
        assert_eq!(ever.info.expires, None);
        assert_eq!(tokens.list(at(1000)).await.unwrap().len(), 3);
        assert_eq!(tokens.list(at(1060)).await.unwrap().len(), 2);
        assert_eq!(tokens.sweep(at(1060)).await.unwrap(), 0);
        assert_eq!(tokens.sweep(at(1060 + 24 * 3600)).await.unwrap(), 1);
        tokens.revoke(&day.info.id).await.unwrap();
        assert_eq!(tokens.list(at(1000)).await.unwrap(), [ever.info]);
        for gone in [&short.info.id, &day.info.id, "../x"] {
            assert_eq!(tokens.revoke(gone).await.unwrap_err().code, 404);
        }
        let token: JoinToken = day.token.parse().unwrap();
        let refusal = tokens.check(&token, &[MachineRole::Node], at(1000)).await.unwrap_err();
        assert_eq!(refusal.message, Refusal::Unknown.to_string());
        let refusal = tokens.create(AUTHORITY, &wanted(TokenRole::Agent, Some(u64::MAX)), at(0)).await.err();
        assert_eq!(refusal.unwrap().code, 400);
    }
}
