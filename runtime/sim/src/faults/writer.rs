//! Writers that never stop: each puts numbered config maps through the API, of its own server
//! first, else of the next, and remembers what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use crate::node::BenchError;

/// How long one request may take.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between writes.
const REST: Duration = Duration::from_millis(40);

/// What was acknowledged, by all writers.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Names and the rounds in which they were written.
    names: Mutex<BTreeMap<String, usize>>,
    /// When requests that were acknowledged had begun, and when they were.
    times: Mutex<Vec<(Instant, Instant)>>,
    pub(crate) round: AtomicUsize,
    stop: AtomicBool,
}

impl Acknowledged {
    fn add(&self, name: String, began: Instant) {
        let round = self.round.load(Ordering::SeqCst);
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name, round);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push((began, Instant::now()));
    }

    pub(crate) fn count(&self) -> usize {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How long after `moment` the first write was acknowledged that began after it.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Duration> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let after = times.iter().filter(|(began, _)| *began >= moment).map(|(_, at)| *at);
        after.min().map(|at| at - moment)
    }

    /// Forgets moments before now: they are of past rounds.
    pub(crate) fn forget_times(&self) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Acknowledged names that are missing from what the server lists: of rounds from `from` on.
    pub(crate) async fn missing(&self, client: kube::Client, from: usize) -> Result<Vec<String>, BenchError> {
        let expected: Vec<String> = {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.iter().filter(|(_, round)| **round >= from).map(|(name, _)| name.clone()).collect()
        };
        let maps: Api<ConfigMap> = Api::default_namespaced(client);
        let all = ListParams::default();
        let listing = tokio::time::timeout(Duration::from_secs(60), maps.list_metadata(&all));
        let listing =
            listing.await.map_err(|_| BenchError::Failed("a list took more than a minute".into()))??;
        let found: std::collections::BTreeSet<String> =
            listing.items.into_iter().filter_map(|item| item.metadata.name).collect();
        Ok(expected.into_iter().filter(|name| !found.contains(name)).collect())
    }
}

/// Writes until it is told to stop.
pub(crate) async fn run(
    writer: usize,
    clients: Vec<Arc<Mutex<kube::Client>>>,
    acknowledged: Arc<Acknowledged>,
) {
    let mut server = writer;
    let mut number = 0_u64;
    while !acknowledged.stop.load(Ordering::SeqCst) {
        let name = format!("w{writer}-{number:06}");
        let began = Instant::now();
        let Some(client) = clients.get(server % clients.len().max(1)) else { return };
        let client = client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(ATTEMPT, create(client, &name, number)).await {
            Ok(Ok(())) => {
                acknowledged.add(name, began);
                number += 1;
                // Back to its own, once that serves again.
                server = writer;
                tokio::time::sleep(REST).await;
            }
            _ => {
                server += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn create(client: kube::Client, name: &str, number: u64) -> Result<(), BenchError> {
    let map = json!({"metadata": {"name": name}, "data": {"number": number.to_string()}});
    let map: ConfigMap =
        serde_json::from_value(map).map_err(|error| BenchError::Failed(error.to_string()))?;
    match Api::default_namespaced(client).create(&PostParams::default(), &map).await {
        // An attempt that nobody answered was made all the same.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
