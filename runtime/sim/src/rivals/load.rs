//! Clients in a closed loop: each puts, waits, and puts again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::client::Client;
use super::cluster::Cluster;
use crate::node::BenchError;

/// Bytes of a value; they cannot be compressed.
pub(crate) const VALUE: usize = 1024;
/// How many keys are written to, over and over.
pub(crate) const KEYS: u64 = 10_000;
/// Connections are shared by so many clients at most.
const PER_CONNECTION: usize = 64;
/// Before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a load came to.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Per member.
    pub(crate) bytes_per_put: f64,
    /// Of all members; other than the rate, it hardly depends on what else the machine does.
    pub(crate) cpu_per_put: Duration,
    pub(crate) failed: u64,
}

/// Puts through the leader for `time`.
pub(crate) async fn run(cluster: &mut Cluster, clients: usize, time: Duration) -> Result<Load, BenchError> {
    let endpoint = cluster.leader_endpoint().await?;
    let mut connections = Vec::new();
    for _ in 0..clients.div_ceil(PER_CONNECTION) {
        connections.push(Client::connect(&endpoint).await?);
    }
    let next = Arc::new(AtomicU64::new(rand_seed()));
    let written = cluster.written()?;
    let cpu = cluster.cpu()?;
    let begin = Instant::now();
    let (counts, ends) = (begin + WARM_UP, begin + WARM_UP + time);
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let Some(connection) = connections.get(client / PER_CONNECTION) else { continue };
        tasks.spawn(put_until(connection.clone(), Arc::clone(&next), counts, ends));
    }
    let mut all = histogram()?;
    let (mut puts, mut failed) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let tally = done.map_err(|error| BenchError::Failed(error.to_string()))??;
        all.add(&tally.times).map_err(|error| BenchError::Failed(error.to_string()))?;
        puts += tally.puts;
        failed += tally.failed;
    }
    let cpu = cluster.cpu()?.saturating_sub(cpu);
    let bytes = cluster.written()? - written;
    let at = |share: f64| Duration::from_micros(all.value_at_quantile(share));
    Ok(Load {
        per_second: all.len() as f64 / time.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu_per_put: cpu.div_f64(f64::max(puts as f64, 1.0)),
        bytes_per_put: bytes as f64 / puts.max(1) as f64 / cluster.len() as f64,
        failed,
    })
}

struct Tally {
    times: Histogram<u64>,
    puts: u64,
    failed: u64,
}

async fn put_until(
    mut client: Client,
    next: Arc<AtomicU64>,
    counts: Instant,
    ends: Instant,
) -> Result<Tally, BenchError> {
    let mut tally = Tally { times: histogram()?, puts: 0, failed: 0 };
    loop {
        let begin = Instant::now();
        if begin >= ends {
            return Ok(tally);
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = format!("/bench/{:06}", mix(number) % KEYS);
        match client.put(key, noise(number)).await {
            Ok(()) => {
                tally.puts += 1;
                if begin >= counts {
                    let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                    tally.times.saturating_record(micros);
                }
            }
            Err(_) => {
                tally.failed += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// Of times up to a minute, in microseconds.
fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| BenchError::Failed(error.to_string()))
}

fn rand_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// Spreads numbers evenly (SplitMix64's finisher).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes that no compression makes smaller.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(VALUE);
    while bytes.len() < VALUE {
        state = mix(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
