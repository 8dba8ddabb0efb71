//! Grants, keeps and ends leases. One runs on every server; the leader's is the one that ends them.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use sampan_store::{
    Compare, LeaseId, Op, OpResult, Operand, RangeRequest, Relation, Revision, Storage, StorageError, Txn,
    WatchBatch, WatchEvent, WatchRequest, WatchStream, prefix_end,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::table::Table;
use crate::view::{ClusterView, LeadershipStream};

/// What the keys begin with that are written to keep leases alive. The store should keep them in
/// memory only.
pub const RENEWALS: &str = "/sampan/renewals/";

/// How long after its end a lease is ended: who keeps it alive in its last moment, through a
/// server that is not the leader, is heard.
const SLACK: Duration = Duration::from_millis(500);
/// How long until a lease that could not be ended is tried again, or the store is followed again.
const RETRY: Duration = Duration::from_secs(1);
/// How long after a lease's end its traces are looked for again: a key in memory may have been
/// attached at that very moment.
const TIDY: Duration = Duration::from_secs(2);
/// How many keys one transaction deletes of those that live in memory only.
const CHUNK: usize = 64;

/// Keeps the time of all leases, and ends those whose time is over.
pub struct Lessor {
    storage: Arc<dyn Storage>,
    view: Arc<dyn ClusterView>,
    table: Mutex<Table>,
}

impl std::fmt::Debug for Lessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lessor").field("table", &self.table).finish_non_exhaustive()
    }
}

/// What became of a request to end a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Revoked {
    Gone(Revision),
    NotFound,
}

impl Lessor {
    /// A lessor over a store; it does nothing by itself until it runs.
    pub fn new(storage: Arc<dyn Storage>, view: Arc<dyn ClusterView>) -> Arc<Self> {
        Arc::new(Self { storage, view, table: Mutex::default() })
    }

    /// Keeps time until `stop`. Costs nothing while there are no leases.
    pub async fn run(&self, stop: CancellationToken) {
        let mut leading = Leading { changes: self.view.leadership_changes(), mine: false };
        loop {
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                error = self.follow(&mut leading) => match error {
                    Ok(never) => match never {},
                    Err(error) => error,
                },
            };
            tracing::debug!(%error, "leases are listed anew");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Follows grants, renewals and leadership, and ends what is over, until the store's watch ends.
    async fn follow(&self, leading: &mut Leading) -> Result<Infallible, StorageError> {
        let (mut grants, mut renewals) = self.list().await?;
        let mut tidy = BTreeSet::new();
        if leading.mine {
            self.begin_reign(&mut tidy).await?;
        }
        loop {
            let ends = leading.mine.then(|| self.table.lock().next()).flatten().map(|end| end + SLACK);
            let tidies: Option<Instant> = tidy.first().map(|(at, _): &(Instant, LeaseId)| *at);
            let wake = [ends, tidies].into_iter().flatten().min();
            tokio::select! {
                biased;
                Some(now) = leading.changes.next() => {
                    let begins = now.mine && !leading.mine;
                    leading.mine = now.mine;
                    if begins {
                        self.begin_reign(&mut tidy).await?;
                    }
                }
                batch = grants.next() => self.granted(batch.unwrap_or_else(|| Err(ended()))?, leading.mine, &mut tidy),
                batch = renewals.next() => self.renewed(&batch.unwrap_or_else(|| Err(ended()))?),
                () = until(wake), if wake.is_some() => {
                    self.end_expired().await;
                    self.tidy_due(&mut tidy).await?;
                }
            }
        }
    }

    /// Reads all leases and begins to watch from there.
    async fn list(&self) -> Result<(WatchStream, WatchStream), StorageError> {
        let at = self.storage.revision();
        let found = self.storage.range(RangeRequest::prefix(LeaseId::PREFIX).at(at)).await?;
        let now = Instant::now();
        {
            let mut table = self.table.lock();
            table.clear();
            for kv in &found.kvs {
                if let Some(lease) = LeaseId::of_key(&kv.key) {
                    table.grant(lease, Duration::from_secs(seconds(&kv.value)), now);
                }
            }
        }
        let watch = |prefix: &'static [u8]| WatchRequest {
            start: Bytes::from_static(prefix),
            end: Some(prefix_end(prefix)),
            from: Revision(at.0 + 1),
        };
        let grants = self.storage.watch(watch(LeaseId::PREFIX)).await?;
        let renewals = self.storage.watch(watch(RENEWALS.as_bytes())).await?;
        Ok((grants, renewals))
    }

    /// The leader before knew the ends of leases better: all get their whole time again.
    async fn begin_reign(&self, tidy: &mut BTreeSet<(Instant, LeaseId)>) -> Result<(), StorageError> {
        let now = Instant::now();
        self.table.lock().restart(now);
        let at = self.storage.revision();
        let renewals = RangeRequest::prefix(RENEWALS.as_bytes()).at(at);
        let found = self.storage.range(RangeRequest { keys_only: true, ..renewals }).await?;
        let table = self.table.lock();
        for lease in found.kvs.iter().filter_map(|kv| renewed_lease(&kv.key)) {
            if !table.contains(lease) {
                tidy.insert((now + TIDY, lease));
            }
        }
        Ok(())
    }

    fn granted(&self, batch: WatchBatch, leading: bool, tidy: &mut BTreeSet<(Instant, LeaseId)>) {
        let now = Instant::now();
        let mut table = self.table.lock();
        for event in batch.events {
            match event {
                WatchEvent::Put { kv, .. } => {
                    if let Some(lease) = LeaseId::of_key(&kv.key) {
                        table.grant(lease, Duration::from_secs(seconds(&kv.value)), now);
                    }
                }
                WatchEvent::Delete { key, .. } => {
                    if let Some(lease) = LeaseId::of_key(&key) {
                        table.end(lease);
                        if leading {
                            tidy.insert((now + TIDY, lease));
                        }
                    }
                }
            }
        }
    }

    fn renewed(&self, batch: &WatchBatch) {
        let now = Instant::now();
        let mut table = self.table.lock();
        for event in &batch.events {
            if let WatchEvent::Put { kv, .. } = event
                && let Some(lease) = renewed_lease(&kv.key)
            {
                table.renew(lease, now);
            }
        }
    }

    async fn end_expired(&self) {
        let expired = {
            let now = Instant::now();
            now.checked_sub(SLACK).map(|now| self.table.lock().expired(now)).unwrap_or_default()
        };
        for lease in expired {
            match self.revoke(lease).await {
                Ok(_) => {
                    tracing::debug!(lease = format_args!("{:x}", lease.0), "a lease is over");
                    self.table.lock().end(lease);
                }
                Err(error) => {
                    tracing::debug!(%error, "a lease that is over could not be ended yet");
                    self.table.lock().postpone(lease, Instant::now() + RETRY);
                }
            }
        }
    }

    async fn tidy_due(&self, tidy: &mut BTreeSet<(Instant, LeaseId)>) -> Result<(), StorageError> {
        let now = Instant::now();
        while let Some(&(at, lease)) = tidy.first() {
            if at > now {
                break;
            }
            tidy.remove(&(at, lease));
            // Granted anew meanwhile?
            if !self.table.lock().contains(lease) {
                self.delete_left(lease).await?;
                let forget = Op::Delete { key: renewal_key(lease), end: None };
                self.storage.txn(Txn { success: vec![forget], ..Txn::default() }).await?;
            }
        }
        Ok(())
    }

    /// Grants a lease of so many seconds; `None`: there is one of this name.
    pub(crate) async fn grant(&self, lease: LeaseId, ttl: i64) -> Result<Option<Revision>, StorageError> {
        let key = lease.key();
        let response = self
            .storage
            .txn(Txn {
                compares: vec![Compare::Version { key: key.clone(), version: 0 }],
                success: vec![Op::Put { key, value: ttl.to_string().into() }],
                failure: Vec::new(),
            })
            .await?;
        Ok(response.succeeded.then_some(response.revision))
    }

    /// Ends a lease and all keys attached to it.
    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<Revoked, StorageError> {
        let revoke = Txn { success: vec![Op::Revoke { lease }], ..Txn::default() };
        let response = self.storage.txn(revoke).await?;
        match &*response.results {
            [OpResult::Deleted { previous }] if !previous.is_empty() => {}
            _ => return Ok(Revoked::NotFound),
        }
        let last = self.delete_left(lease).await?;
        Ok(Revoked::Gone(last.unwrap_or(response.revision)))
    }

    /// Deletes the keys that live in memory only: the log cannot do it together with the others.
    async fn delete_left(&self, lease: LeaseId) -> Result<Option<Revision>, StorageError> {
        let mut last = None;
        for keys in self.keys(lease).await?.chunks(CHUNK) {
            let delete = |key: &Bytes| {
                let attached = Compare::Each {
                    key: key.clone(),
                    end: None,
                    relation: Relation::Equal,
                    operand: Operand::Lease(lease.0),
                };
                let delete = Op::Delete { key: key.clone(), end: None };
                let inner = Txn { compares: vec![attached], success: vec![delete], failure: Vec::new() };
                Op::Txn(Box::new(inner))
            };
            let txn = Txn { success: keys.iter().map(delete).collect(), ..Txn::default() };
            last = Some(self.storage.txn(txn).await?.revision);
        }
        Ok(last)
    }

    /// The seconds that a lease was granted, if there is one of this name.
    pub(crate) async fn granted_seconds(&self, lease: LeaseId) -> Result<Option<i64>, StorageError> {
        let found = self.storage.range(RangeRequest::key(lease.key())).await?;
        let granted = found.kvs.first().map(|kv| seconds(&kv.value));
        Ok(granted.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)))
    }

    /// Gives a lease its whole time again, which is returned; `None`: there is none of this name.
    pub(crate) async fn keep_alive(&self, lease: LeaseId) -> Result<Option<i64>, StorageError> {
        if self.granted_seconds(lease).await?.is_none() {
            return Ok(None);
        }
        let renew = Op::Put { key: renewal_key(lease), value: Bytes::new() };
        self.storage.txn(Txn { success: vec![renew], ..Txn::default() }).await?;
        // It may have ended before the renewal was heard.
        self.granted_seconds(lease).await
    }

    /// The time that a lease has left; its whole time where this server just learns of it.
    pub(crate) fn remaining(&self, lease: LeaseId) -> Option<Duration> {
        self.table.lock().remaining(lease, Instant::now())
    }

    /// The keys attached to a lease, in order.
    pub(crate) async fn keys(&self, lease: LeaseId) -> Result<Vec<Bytes>, StorageError> {
        let ask = Txn { success: vec![Op::Attached { lease }], ..Txn::default() };
        match self.storage.txn(ask).await?.results.into_iter().next() {
            Some(OpResult::Attached { keys }) => Ok(keys),
            _ => Ok(Vec::new()),
        }
    }

    /// All leases, those that end first first.
    pub(crate) async fn leases(&self) -> Result<(Vec<LeaseId>, Revision), StorageError> {
        let prefix = RangeRequest::prefix(LeaseId::PREFIX);
        let found = self.storage.range(RangeRequest { keys_only: true, ..prefix }).await?;
        let mut left: BTreeSet<LeaseId> =
            found.kvs.iter().filter_map(|kv| LeaseId::of_key(&kv.key)).collect();
        let mut leases = self.table.lock().all();
        leases.retain(|lease| left.remove(lease));
        // Those of which this server has not heard yet are the newest.
        leases.extend(left);
        Ok((leases, found.revision))
    }
}

/// Whether this server leads.
struct Leading {
    changes: LeadershipStream,
    mine: bool,
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

fn renewal_key(lease: LeaseId) -> Bytes {
    format!("{RENEWALS}{:016x}", lease.0).into()
}

fn renewed_lease(key: &[u8]) -> Option<LeaseId> {
    let digits = std::str::from_utf8(key.strip_prefix(RENEWALS.as_bytes())?).ok()?;
    u64::from_str_radix(digits, 16).ok().map(|id| LeaseId(id.cast_signed()))
}

/// A lease's value. Nothing but a grant writes it.
fn seconds(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn ended() -> StorageError {
    StorageError::Unavailable { why: "the watch of the leases ended".to_owned() }
}
