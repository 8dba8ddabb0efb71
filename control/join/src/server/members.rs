//! The group of servers: who is in it, who comes, who goes. Administrators may do everything; a
//! server may bring itself in and say where it is reached.

use jiff::Timestamp;
use sampan_api::status::Status;
use sampan_apiserver::UserInfo;
use sampan_apiserver::pki::MachineRole;

use super::Inner;
use crate::wire::{Addresses, RemovedNode};
use crate::{KeyId, Member, MemberState, MembershipError, format_member_id};

const MASTERS: &str = "system:masters";
const SERVER_USER: &str = "sampan:server:";

pub(super) async fn list(inner: &Inner) -> Result<Vec<MemberState>, Status> {
    inner.config.membership.list().await.map_err(status)
}

/// A server that has enrolled becomes a learner, under the name and the key that it enrolled with.
pub(super) async fn add(inner: &Inner, user: &UserInfo, wanted: Addresses) -> Result<Member, Status> {
    let Some(name) = server_name(user) else {
        return Err(forbidden(
            "only a server that has enrolled becomes a member: 'sampan server --server URL --token TOKEN' on it",
        ));
    };
    if let Some(shown) = presented(user).and_then(|shown| shown.parse().ok()) {
        // What became of its key says more than that its name is free.
        inner.identities.check_not_removed(shown).await?;
    }
    let owner = inner.identities.owner(MachineRole::Server, name).await?;
    let key = owner.map(|owner| owner.key).ok_or_else(|| not_its_name(name))?;
    check_presented(user, key)?;
    inner.identities.check_not_removed(key).await?;
    check_addresses(&wanted.addresses)?;
    let member = Member { id: key.member_id(), name: name.to_owned(), addresses: wanted.addresses, key };
    let others = list(inner).await?;
    if others.iter().any(|other| other.member.id == member.id && other.member.key != member.key) {
        return Err(Status::failure(
            409,
            "Conflict",
            "another member has the same number; make a new key: delete the data directory of this machine",
        ));
    }
    inner.config.membership.add_learner(member.clone()).await.map_err(status)?;
    Ok(member)
}

pub(super) async fn update(
    inner: &Inner,
    user: &UserInfo,
    wanted: &str,
    new: Addresses,
) -> Result<Member, Status> {
    let found = find(&list(inner).await?, wanted)?;
    own(inner, user, &found).await?;
    check_addresses(&new.addresses)?;
    inner.config.membership.update(found.id, new.addresses.clone()).await.map_err(status)?;
    Ok(Member { addresses: new.addresses, ..found })
}

pub(super) async fn promote(inner: &Inner, user: &UserInfo, wanted: &str) -> Result<Member, Status> {
    let found = find(&list(inner).await?, wanted)?;
    own(inner, user, &found).await?;
    inner.config.membership.promote(found.id).await.map_err(status)?;
    Ok(found)
}

/// Takes a member out, turns its key away from now on, and frees its name. What an earlier call left
/// half done (the member is out, its key is not turned away) is finished.
pub(super) async fn remove(inner: &Inner, user: &UserInfo, wanted: &str) -> Result<Member, Status> {
    if !user.in_group(MASTERS) {
        return Err(forbidden("only an administrator removes a member"));
    }
    let members = list(inner).await?;
    let found = match find(&members, wanted) {
        Ok(found) => {
            let voters = members.iter().filter(|state| state.voter);
            if voters.clone().count() == 1 && voters.clone().any(|state| state.member.id == found.id) {
                let message =
                    format!("{} is the only voting member; without it there is no cluster", found.name);
                return Err(Status::failure(409, "Conflict", message));
            }
            inner.config.membership.remove(found.id).await.map_err(status)?;
            found
        }
        Err(missing) => match inner.identities.owner(MachineRole::Server, wanted).await? {
            Some(owner) => Member {
                id: owner.key.member_id(),
                name: wanted.to_owned(),
                addresses: owner.addresses,
                key: owner.key,
            },
            None => return Err(missing),
        },
    };
    inner.identities.remove(MachineRole::Server, &found.name, found.key, Timestamp::now()).await?;
    tracing::info!(name = found.name, "a member was removed");
    Ok(found)
}

/// Turns a node's key away from now on, and frees its name. Its Node object is Kubernetes' to delete.
pub(super) async fn remove_node(inner: &Inner, user: &UserInfo, name: &str) -> Result<RemovedNode, Status> {
    if !user.in_group(MASTERS) {
        return Err(forbidden("only an administrator removes a node"));
    }
    let Some(owner) = inner.identities.owner(MachineRole::Node, name).await? else {
        let message = format!("no machine has joined as the node {name:?}; 'kubectl get nodes' shows them");
        return Err(Status::failure(404, "NotFound", message));
    };
    if list(inner).await?.iter().any(|state| state.member.key == owner.key) {
        let message = format!("{name:?} is a server; remove it with 'sampan member remove {name}'");
        return Err(Status::failure(409, "Conflict", message));
    }
    inner.identities.remove(MachineRole::Node, name, owner.key, Timestamp::now()).await?;
    tracing::info!(name, key = %owner.key, "a node's key was removed");
    Ok(RemovedNode { name: name.to_owned(), key: owner.key })
}

/// A member by its name or its number.
fn find(members: &[MemberState], wanted: &str) -> Result<Member, Status> {
    let mut fitting = members
        .iter()
        .map(|state| &state.member)
        .filter(|member| member.name == wanted || format_member_id(member.id) == wanted);
    match (fitting.next(), fitting.next()) {
        (Some(member), None) => Ok(member.clone()),
        (None, _) => {
            let message = format!("there is no member {wanted:?}; 'sampan member list' shows them");
            Err(Status::failure(404, "NotFound", message))
        }
        (Some(_), Some(_)) => {
            let message = format!("several members are called {wanted:?}; name one by its number");
            Err(Status::failure(409, "Conflict", message))
        }
    }
}

/// Administrators may do it to everyone, a server to itself.
async fn own(inner: &Inner, user: &UserInfo, member: &Member) -> Result<(), Status> {
    if user.in_group(MASTERS) {
        return Ok(());
    }
    if server_name(user) != Some(member.name.as_str()) {
        return Err(forbidden("a server may change no other member than itself"));
    }
    check_presented(user, member.key)?;
    inner.identities.check_not_removed(member.key).await
}

fn server_name(user: &UserInfo) -> Option<&str> {
    user.in_group(sampan_apiserver::SERVERS).then(|| user.name.strip_prefix(SERVER_USER)).flatten()
}

/// The key that the connection proved, where it says.
fn presented(user: &UserInfo) -> Option<&String> {
    user.extra.get(sampan_apiserver::KEY_EXTRA).and_then(|values| values.first())
}

/// Where the connection says which key it proved, that it is the one that owns the name.
fn check_presented(user: &UserInfo, owner: KeyId) -> Result<(), Status> {
    match presented(user) {
        Some(shown) if *shown != owner.to_string() => {
            Err(not_its_name(user.name.strip_prefix(SERVER_USER).unwrap_or(&user.name)))
        }
        _ => Ok(()),
    }
}

fn not_its_name(name: &str) -> Status {
    forbidden(&format!("the server name {name:?} is not this machine's any more; join with a new token"))
}

/// Every address is `host:port`.
pub(super) fn check_addresses(addresses: &[String]) -> Result<(), Status> {
    let good = |address: &String| {
        address.len() <= 300
            && address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
    };
    match addresses.iter().find(|address| !good(address)) {
        Some(bad) => Err(Status::bad_request(format!("{bad:?} is no address of the form host:port"))),
        None if addresses.len() > 32 => Err(Status::bad_request("a machine has 32 addresses at most")),
        None => Ok(()),
    }
}

fn forbidden(message: &str) -> Status {
    Status::failure(403, "Forbidden", message)
}

fn status(error: MembershipError) -> Status {
    let message = error.to_string();
    match error {
        MembershipError::NotFound(_) => Status::failure(404, "NotFound", message),
        MembershipError::Refused(_) => Status::failure(409, "Conflict", message),
        // Asking again is of no use until it is upgraded.
        MembershipError::TooOld(_) => Status::failure(403, "Forbidden", message),
        MembershipError::Unavailable(_) => Status::unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let check = |text: &str| check_addresses(&[text.to_owned()]).map_err(|status| status.message);
        for good in ["10.0.0.1:6443", "[2001:db8::1]:6443", "server.example:1"] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in ["", "host", ":6443", "host:0", "host:65536", "host:x"] {
            assert_eq!(check(bad), Err(format!("{bad:?} is no address of the form host:port")));
        }
    }
}
