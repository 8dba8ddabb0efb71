//! Joining with a token, and renewing by key.

use std::path::PathBuf;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use sampan_apiserver::pki::MachineRole;

use super::https::{Https, Proof};
use super::layout::{self, Joined, joined};
use super::trust;
use crate::wire::{Addresses, Authority, EnrollRequest, Membership, RenewRequest, Time};
use crate::{JoinError, JoinToken, MachineKey, Member, TokenRole, files, format_member_id};

const NO_BODY: Option<&()> = None;

/// A machine that wants to join.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// `https://HOST:6443` of any server.
    pub server: String,
    /// The token's text.
    pub token: String,
    /// The machine's name.
    pub name: String,
    /// What it is to be.
    pub roles: Vec<MachineRole>,
    /// `host:port` each, where it is reached (servers).
    pub addresses: Vec<String>,
    /// The directory of its keys and certificates, which appears when it has joined; the one above
    /// it exists. A directory of the same name with `.joining` behind it holds the key until then.
    pub dir: PathBuf,
}

/// Joins. The directory appears whole, or not at all; a second attempt after a failure goes on with
/// the same key.
///
/// Errors: see [`JoinError`]; each is one clear line.
pub async fn enroll(wanted: &Enrollment) -> Result<Joined, JoinError> {
    let token: JoinToken = wanted.token.parse()?;
    if token.role == TokenRole::Agent && wanted.roles.contains(&MachineRole::Server) {
        return Err(JoinError::AgentToken);
    }
    if joined(&wanted.dir)?.is_some() || has_entries(&wanted.dir)? {
        return Err(JoinError::AlreadyJoined(wanted.dir.clone()));
    }
    let server = Https::new(&wanted.server, Proof::None, None)?;
    let authority: Authority = server.json(Method::GET, "/sampan/v1/ca", NO_BODY).await?;
    let trusted = trust::by_fingerprint(&authority, &token.authority);
    if trusted.is_empty() {
        return Err(JoinError::WrongCluster { server: server.url().to_owned() });
    }
    let staging = layout::staging(&wanted.dir);
    files::make_dir(&staging)?;
    let key = MachineKey::load_or_create(&staging)?;
    let request = EnrollRequest {
        token: token.to_string(),
        name: wanted.name.clone(),
        roles: wanted.roles.clone(),
        addresses: wanted.addresses.clone(),
        request: key.request()?,
    };
    let server = Https::new(&wanted.server, Proof::Authority(&trusted), None)?;
    let answer: Membership = server.json(Method::POST, "/sampan/v1/enroll", Some(&request)).await?;
    if wanted.roles.contains(&MachineRole::Server) && answer.shared.is_none() {
        return Err(server.answered("it lacks what servers share".to_owned()));
    }
    layout::settle(&wanted.dir, key, (&wanted.name, &wanted.roles), answer)
}

/// Whether there is a directory that is not empty: somebody's.
fn has_entries(dir: &std::path::Path) -> Result<bool, JoinError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(JoinError::File { path: dir.to_owned(), source }),
    }
}

/// Gets new certificates by proof of the machine's key, from one of `servers` (`https://HOST:6443`
/// each). It does not matter whether the old ones have expired, whether this machine's clock is
/// right, or whether the cluster's authorities were changed in the meantime.
pub async fn renew(joined: &mut Joined, servers: &[String], addresses: &[String]) -> Result<(), JoinError> {
    let request = RenewRequest {
        name: joined.name.clone(),
        roles: joined.roles.clone(),
        addresses: addresses.to_vec(),
        request: joined.key.request()?,
        certificates: joined.certificates.iter().map(|certificate| certificate.pem.clone()).collect(),
    };
    let mut last = None;
    for server in servers {
        match decide(renew_at(server, &joined.server_pem, &request).await, &mut last) {
            Some(outcome) => return joined.update(outcome?),
            None => continue,
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

async fn renew_at(server: &str, known_pem: &str, request: &RenewRequest) -> Result<Membership, JoinError> {
    let authority: Authority =
        Https::new(server, Proof::None, None)?.json(Method::GET, "/sampan/v1/ca", NO_BODY).await?;
    let trusted = trust::by_known(known_pem, &authority.successions);
    let server = Https::new(server, Proof::Authority(&trusted), None)?;
    server.json(Method::POST, "/sampan/v1/renew", Some(request)).await
}

/// Fetches the cluster's authorities as a machine, telling which ones it trusts so far.
pub(crate) async fn fetch_authority(joined: &Joined, servers: &[String]) -> Result<Authority, JoinError> {
    let identity = joined.roles.first().and_then(|role| joined.identity(*role));
    let path = format!("/sampan/v1/ca?holds={}", joined.generation);
    let mut last = None;
    for server in servers {
        let https = Https::new(server, Proof::Authority(&joined.server_pem), identity.as_ref())?;
        if let Some(outcome) = decide(https.json(Method::GET, &path, NO_BODY).await, &mut last) {
            return outcome;
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

/// Whether an answer is one for good; who cannot be reached, or is another, is passed by.
fn decide<T>(outcome: Result<T, JoinError>, last: &mut Option<JoinError>) -> Option<Result<T, JoinError>> {
    match outcome {
        Err(error) if error.may_pass() || matches!(error, JoinError::NotProven { .. }) => {
            *last = Some(error);
            None
        }
        outcome => Some(outcome),
    }
}

/// There is no server to ask.
fn nowhere() -> JoinError {
    JoinError::Address(String::new())
}

/// A server that has enrolled, and whose store is ready to learn, asks to become a member: first a
/// learner, then, once it has caught up, a voter. To be called again while [`JoinError::may_pass`]
/// or the refusal's code is 409 (it lags behind still). The member as it was taken in.
pub async fn join_members(
    joined: &Joined,
    servers: &[String],
    addresses: &[String],
) -> Result<Member, JoinError> {
    let body = Addresses { addresses: addresses.to_vec() };
    let mut last = None;
    for server in servers {
        if let Some(outcome) = decide(join_at(server, joined, &body).await, &mut last) {
            return outcome;
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

async fn join_at(server: &str, joined: &Joined, body: &Addresses) -> Result<Member, JoinError> {
    let identity = joined.identity(MachineRole::Server);
    let server = Https::new(server, Proof::Authority(&joined.server_pem), identity.as_ref())?;
    let member: Member = server.json(Method::POST, "/sampan/v1/members", Some(body)).await?;
    let path = format!("/sampan/v1/members/{}/promote", format_member_id(member.id));
    server.json(Method::POST, &path, NO_BODY).await
}

/// A server that is a member says where it is reached from now on.
pub async fn update_addresses(
    joined: &Joined,
    servers: &[String],
    addresses: &[String],
) -> Result<Member, JoinError> {
    let identity = joined.identity(MachineRole::Server);
    let body = Addresses { addresses: addresses.to_vec() };
    let path = format!("/sampan/v1/members/{}", format_member_id(joined.key.id().member_id()));
    let mut last = None;
    for server in servers {
        let https = Https::new(server, Proof::Authority(&joined.server_pem), identity.as_ref())?;
        if let Some(outcome) = decide(https.json(Method::PUT, &path, Some(&body)).await, &mut last) {
            return outcome;
        }
    }
    Err(last.unwrap_or_else(nowhere))
}

/// How far this machine's clock is ahead of a server's (behind, where it is negative). The server is
/// proven by the authorities (PEM) that are given.
pub async fn measure_skew(server: &str, server_pem: &str) -> Result<SignedDuration, JoinError> {
    let server = Https::new(server, Proof::Authority(server_pem), None)?;
    let before = std::time::Instant::now();
    let time: Time = server.json(Method::GET, "/sampan/v1/time", NO_BODY).await?;
    let half = SignedDuration::try_from(before.elapsed() / 2).unwrap_or_default();
    let there = Timestamp::from_millisecond(time.unix_millis)
        .map_err(|_| server.answered("a time that there is not".to_owned()))?;
    Ok(Timestamp::now().duration_since(there).saturating_sub(half))
}
