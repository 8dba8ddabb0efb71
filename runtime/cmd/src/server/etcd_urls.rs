//! Where each server's etcd API is, for clients that ask one of them for all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sampan_raft::RaftStore;
use sampan_store::{Op, RangeRequest, Storage, StorageError, Txn};
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
    let key = key(store.id());
    let found = store.range(RangeRequest::key(key.clone())).await?;
    if found.kvs.first().map(|kv| &kv.value) == url.as_ref() {
        return Ok(());
    }
    let change = match url {
        Some(value) => Op::Put { key, value },
        None => Op::Delete { key, end: None },
    };
    store.txn(Txn { success: vec![change], ..Txn::default() }).await.map(drop)
}

/// The URLs of those members that serve the etcd API, by their ids, as this member knows them.
pub(super) async fn all(store: &RaftStore) -> Result<BTreeMap<u64, String>, StorageError> {
    let found = store.range(RangeRequest::prefix(PREFIX).at(store.revision())).await?;
    let member = |key: &Bytes| {
        let id = key.get(PREFIX.len()..).and_then(|id| std::str::from_utf8(id).ok())?;
        u64::from_str_radix(id, 16).ok()
    };
    let url = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    Ok(found.kvs.iter().filter_map(|kv| Some((member(&kv.key)?, url(&kv.value)))).collect())
}
