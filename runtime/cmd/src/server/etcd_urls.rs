//! Where each server's etcd API is, for clients that ask one of them for all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_raft::RaftStore;
use sampan_store::{KeyValue, Op, RangeRequest, Storage, StorageError, Txn};
use tokio_util::sync::CancellationToken;

use super::names;
use crate::settings::Settings;

/// In the store, outside of what the APIs serve: a member's id, and the URL of its etcd API.
const PREFIX: &str = "/sampan/etcd-urls/";
/// How often this server looks whether it has moved.
const LOOK: Duration = Duration::from_secs(5);
/// How soon it is tried again where no server leads.
const AGAIN: Duration = Duration::from_secs(1);

fn key(member: u64) -> Bytes {
    format!("{PREFIX}{member:016x}").into()
}

/// Under which URL others reach what listens on `address`.
pub(super) fn url(settings: &Settings, address: SocketAddr) -> String {
    let ip = address.ip().to_canonical();
    let scheme = if ip.is_loopback() { "http" } else { "https" };
    let ip = if ip.is_unspecified() { names::advertised(settings) } else { ip };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

/// Has all members know where this one's etcd API is, or that it has none; its address may change.
/// Forgets where those of removed members were.
pub(super) async fn tell(
    store: Arc<RaftStore>,
    url: impl Fn() -> Option<String>,
    shutdown: CancellationToken,
) {
    let mut known = None;
    let mut pause = Duration::ZERO;
    while tokio::time::timeout(pause, shutdown.cancelled()).await.is_err() {
        pause = LOOK;
        let url = url();
        if known.as_ref() == Some(&url) {
            continue;
        }
        match shutdown.run_until_cancelled(told(&store, url.clone().map(Bytes::from))).await {
            None => return,
            // Where there is no API it cannot move.
            Some(Ok(())) if url.is_none() => return shutdown.cancelled().await,
            Some(Ok(())) => known = Some(url),
            Some(Err(error)) => {
                tracing::debug!(error = %sampan_client::informer::chain(&error), "not told yet where the etcd API is");
                pause = AGAIN;
            }
        }
    }
}

async fn told(store: &RaftStore, url: Option<Bytes>) -> Result<(), StorageError> {
    let found = store.range(RangeRequest::prefix(PREFIX)).await?;
    // Asked later than the keys were read: whoever wrote one is a member by now, or was removed
    // since. Where nobody leads, nothing is forgotten.
    let standings = store.standings().await.ok();
    let members = standings.map(|all| all.iter().map(|standing| standing.member.id).collect());
    let changes = changes(store.id(), url, &found.kvs, members.as_ref());
    if changes.is_empty() {
        return Ok(());
    }
    store.txn(Txn { success: changes, ..Txn::default() }).await.map(drop)
}

/// What makes the store say where this member's etcd API is, and nothing of those who were removed,
/// as far as it is known who the members are.
fn changes(own: u64, url: Option<Bytes>, found: &[KeyValue], members: Option<&BTreeSet<u64>>) -> Vec<Op> {
    let own = key(own);
    let known = found.iter().find(|kv| kv.key == own).map(|kv| &kv.value);
    let said = match url {
        url if known == url.as_ref() => None,
        Some(value) => Some(Op::Put { key: own.clone(), value }),
        None => Some(Op::Delete { key: own.clone(), end: None }),
    };
    let removed =
        |key: &Bytes| members.is_some_and(|members| member(key).is_none_or(|id| !members.contains(&id)));
    let gone = |kv: &&KeyValue| kv.key != own && removed(&kv.key);
    let forgotten = found.iter().filter(gone).map(|kv| Op::Delete { key: kv.key.clone(), end: None });
    said.into_iter().chain(forgotten).collect()
}

/// Forgets where the etcd API of a member was that is none any more. Where that fails, whoever
/// starts next does it.
pub(super) async fn forget(store: &RaftStore, member: u64) {
    let delete = Op::Delete { key: key(member), end: None };
    let forgotten = store.txn(Txn { success: vec![delete], ..Txn::default() });
    let why = match tokio::time::timeout(AGAIN, forgotten).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => sampan_client::informer::chain(&error),
        Err(_) => "no answer in time".into(),
    };
    tracing::debug!(why, "not forgotten yet where an etcd API was");
}

/// The URLs of those members that serve the etcd API, by their ids, as this member knows them.
pub(super) async fn all(store: &RaftStore) -> Result<BTreeMap<u64, String>, StorageError> {
    let found = store.range(RangeRequest::prefix(PREFIX).at(store.revision())).await?;
    let url = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    Ok(found.kvs.iter().filter_map(|kv| Some((member(&kv.key)?, url(&kv.value)))).collect())
}

/// The member that a key is about.
fn member(key: &Bytes) -> Option<u64> {
    let id = key.get(PREFIX.len()..).and_then(|id| std::str::from_utf8(id).ok())?;
    u64::from_str_radix(id, 16).ok()
}

#[cfg(test)]
mod tests {
    use sampan_store::Revision;

    use super::*;

    fn known(member: u64, url: &'static str) -> KeyValue {
        KeyValue {
            key: key(member),
            value: url.into(),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: sampan_store::LeaseId::default(),
        }
    }

    #[test]
    fn a_member_says_what_is_new_and_forgets_those_who_were_removed() {
        let found = [known(1, "http://old"), known(2, "http://two"), known(3, "http://gone")];
        let members = BTreeSet::from([1, 2, 4]);
        let members = Some(&members);
        let put = Op::Put { key: key(1), value: "http://new".into() };
        let forget = Op::Delete { key: key(3), end: None };
        assert_eq!(changes(1, Some("http://new".into()), &found, members), [put, forget.clone()]);
        let silent = Op::Delete { key: key(2), end: None };
        assert_eq!(changes(2, None, &found, members), [silent, forget.clone()]);
        assert_eq!(changes(4, None, &found, members), [forget]);
        assert!(changes(2, Some("http://two".into()), &found[..2], members).is_empty());
        assert!(changes(4, None, &found, None).is_empty(), "nobody knows who was removed");
    }

    #[test]
    fn a_member_is_found_again_by_its_key() {
        assert_eq!(member(&key(u64::MAX)), Some(u64::MAX));
        assert_eq!(member(&key(7)), Some(7));
        assert_eq!(member(&Bytes::from_static(b"/sampan/etcd-urls/x")), None);
    }
}
