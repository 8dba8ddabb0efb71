//! Enrolment by token, and renewal by key: a machine's request is checked, its names are written
//! down, and certificates over its key are issued.

use jiff::Timestamp;
use sampan_api::names::is_dns1123_subdomain;
use sampan_api::status::Status;
use sampan_apiserver::pki::{MachineRole, PkiError};

use super::identities::{Applicant, Proof};
use super::{Inner, authorities, members};
use crate::token::JoinToken;
use crate::wire::{EnrollRequest, Membership, RenewRequest, RoleCertificate, Shared};
use crate::{KeyId, key};

/// A machine with a token becomes part of the cluster.
pub(super) async fn enroll(inner: &Inner, wanted: EnrollRequest) -> Result<Membership, Status> {
    let token: JoinToken =
        wanted.token.parse().map_err(|error: crate::TokenError| Status::bad_request(error.to_string()))?;
    let now = Timestamp::now();
    if !inner.tokens.is_known(&token).await? {
        inner.strangers.take()?;
    }
    let unchanged = inner.tokens.check(&token, &wanted.roles, now).await?;
    let key = check(&wanted.name, &wanted.roles, &wanted.addresses, &wanted.request)?;
    let machine = Applicant {
        name: &wanted.name,
        roles: &wanted.roles,
        key,
        addresses: &wanted.addresses,
        // The answer carries them.
        holds: inner.config.pki.authorities().generation,
    };
    let certificates = issue(inner, &machine, &wanted.request)?;
    let shared = wanted.roles.contains(&MachineRole::Server).then(|| shared(inner)).transpose()?;
    inner.identities.admit(&machine, Proof::Token(unchanged), now).await?;
    tracing::info!(name = wanted.name, roles = ?wanted.roles, token = token.id, key = %key, "a machine enrolled");
    membership(inner, &machine, certificates, shared).await
}

/// A machine that is part of the cluster gets new certificates: its key is known under its name, or
/// it shows certificates of ours over the same key (in a cluster that was restored from before).
pub(super) async fn renew(inner: &Inner, wanted: RenewRequest) -> Result<Membership, Status> {
    let key = check(&wanted.name, &wanted.roles, &wanted.addresses, &wanted.request)?;
    let machine = Applicant {
        name: &wanted.name,
        roles: &wanted.roles,
        key,
        addresses: &wanted.addresses,
        // It tells when it has them.
        holds: 0,
    };
    if !inner.identities.is_known(&machine).await? {
        inner.strangers.take()?;
    }
    let proof = if shows_own(inner, &machine, &wanted.certificates) { Proof::Key } else { Proof::Known };
    let certificates = issue(inner, &machine, &wanted.request)?;
    inner.identities.admit(&machine, proof, Timestamp::now()).await?;
    membership(inner, &machine, certificates, None).await
}

/// Whether a request is well formed; whose key it proves.
fn check(name: &str, roles: &[MachineRole], addresses: &[String], request: &str) -> Result<KeyId, Status> {
    if let Some(problem) = is_dns1123_subdomain(name).first() {
        return Err(Status::bad_request(format!(
            "{name:?} cannot be a machine's name: {problem}; choose another --node-name"
        )));
    }
    match roles {
        [_] => {}
        [first, second] if first != second => {}
        _ => return Err(Status::bad_request("a machine is a server, a node, or both")),
    }
    members::check_addresses(addresses)?;
    key::proven(request)
        .ok_or_else(|| Status::bad_request("the certificate request does not prove an ECDSA P-256 key"))
}

/// Whether a machine shows, for each role, a certificate of ours over its key and with its name.
fn shows_own(inner: &Inner, machine: &Applicant<'_>, shown: &[String]) -> bool {
    machine.roles.iter().all(|role| {
        let user = role.user(machine.name);
        shown.iter().any(|pem| {
            crate::client::certificate_subject(pem)
                .is_some_and(|(name, key)| name == user && key == machine.key)
                && inner.config.pki.has_signed(pem).unwrap_or(false)
        })
    })
}

fn issue(inner: &Inner, machine: &Applicant<'_>, request: &str) -> Result<Vec<RoleCertificate>, Status> {
    let issue = |role: &MachineRole| {
        let pem = inner.config.pki.issue_machine(*role, machine.name, request).map_err(internal)?;
        Ok(RoleCertificate { role: *role, pem })
    };
    machine.roles.iter().map(issue).collect()
}

fn shared(inner: &Inner) -> Result<Shared, Status> {
    let pki = &inner.config.pki;
    let files =
        sampan_apiserver::pki::shared_files(&pki.authorities(), &pki.token_key_pem()).map_err(internal)?;
    let read = |keys: &super::SealingKeys| {
        keys().map_err(|error| Status::internal(format!("the store's keys cannot be read: {error}")))
    };
    Ok(Shared { files, sealing_keys: inner.config.sealing_keys.as_ref().map(read).transpose()? })
}

async fn membership(
    inner: &Inner,
    machine: &Applicant<'_>,
    certificates: Vec<RoleCertificate>,
    shared: Option<Shared>,
) -> Result<Membership, Status> {
    let servers = members::list(inner).await?.into_iter().map(|state| state.member).collect();
    let mut settings = inner.config.settings.clone();
    if machine.roles.contains(&MachineRole::Node) {
        let index = inner.node_index(machine.name).await?;
        settings.insert(crate::NODE_INDEX.to_owned(), index.to_string());
    }
    Ok(Membership {
        certificates,
        life_seconds: inner.config.pki.life().as_secs(),
        authority: authorities::public(inner),
        servers,
        settings,
        shared,
    })
}

fn internal(error: PkiError) -> Status {
    Status::internal(error.to_string())
}
