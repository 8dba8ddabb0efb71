//! What a put, a start and a watch cost. Prints figures and asserts none.
//!
//! `cargo bench -p sampan-raft [-- DIRECTORY]`; the directory decides which disk is measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark prints, and fails loudly"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use rand::RngCore;
use sampan_raft::{Member, NoPeers, RaftConfig, RaftStore, Start};
use sampan_store::{
    DurableConfig, MemoryStore, Op, RangeRequest, Revision, Storage, Txn, WatchRequest, prefix_end,
};

const KEYS: u64 = 10_000;
const RUN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    // Cargo passes `--bench`.
    let base = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with("--"))
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(&base).unwrap();
    println!("store benchmark in {}, values of 1 KiB that do not compress, {KEYS} keys", base.display());
    puts(&dir.path().join("puts")).await;
    start(&dir.path().join("start")).await;
    reads(&dir.path().join("start")).await;
    println!("\nwatch: one put until the last of 1,000 watchers has it");
    for (name, groups) in [("in one group", 1), ("in 40 groups", 40)] {
        fan_out(name, groups).await;
    }
}

async fn open(config: DurableConfig) -> Arc<RaftStore> {
    let member = Member { id: 1, name: "bench".into(), addresses: Vec::new(), key: [1; 32] };
    RaftStore::open(RaftConfig::new(config, member), Start::Bootstrap, Arc::new(NoPeers)).await.unwrap()
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/core/configmaps/default/key-{:05}", number % KEYS))
}

fn noise(len: usize) -> Bytes {
    let mut value = vec![0; len];
    rand::rng().fill_bytes(&mut value);
    value.into()
}

async fn put(store: &dyn Storage, key: Bytes, value: Bytes) -> Revision {
    let txn = Txn { success: vec![Op::Put { key, value }], ..Txn::default() };
    store.txn(txn).await.unwrap().revision
}

async fn puts(dir: &Path) {
    println!(
        "\n{:>8} {:>9} {:>9} {:>9} {:>10} {:>12} {:>14}",
        "writers", "puts/s", "p50 ms", "p99 ms", "syncs/put", "log B/put", "tables B/put"
    );
    for writers in [1_u64, 10, 64, 1_000] {
        let store = open(DurableConfig::new(dir.join(writers.to_string()))).await;
        // The first segments and the first generation are made only once.
        write(&store, 64, Duration::from_secs(2)).await;
        let before = store.stats();
        let begin = Instant::now();
        let mut times = write(&store, writers, RUN).await;
        let elapsed = begin.elapsed().as_secs_f64();
        store.checkpoint().await.unwrap();
        let after = store.stats();
        times.sort_unstable();
        let count = times.len() as f64;
        let per_put = |after: u64, before: u64| (after - before) as f64 / count;
        let at = |part: f64| times[((count - 1.0) * part) as usize].as_secs_f64() * 1e3;
        println!(
            "{writers:>8} {:>9.0} {:>9.2} {:>9.2} {:>10.3} {:>12.0} {:>14.0}",
            count / elapsed,
            at(0.5),
            at(0.99),
            per_put(after.fsyncs, before.fsyncs),
            per_put(after.log_written, before.log_written),
            per_put(after.tables_written, before.tables_written),
        );
        store.close().await.unwrap();
    }
    println!("(bytes as handed to the file system; a sync of less than a page writes the whole page)");
}

async fn write(store: &Arc<RaftStore>, writers: u64, run: Duration) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + run;
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next) = (Arc::clone(store), Arc::clone(&next));
            tokio::spawn(async move {
                let mut times = Vec::new();
                let value = noise(1_024);
                while Instant::now() < end {
                    let key = key(next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919));
                    let begin = Instant::now();
                    put(&*store, key, value.clone()).await;
                    times.push(begin.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times
}

async fn start(dir: &Path) {
    let config = DurableConfig::new(dir);
    let begin = Instant::now();
    let store = open(config.clone()).await;
    println!("\nopen an empty directory: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    let fill = (0..KEYS).map(|number| put(&*store, key(number), noise(1_024)));
    futures::stream::iter(fill).buffer_unordered(100).collect::<Vec<_>>().await;
    drop(store);
    let begin = Instant::now();
    let store = open(config.clone()).await;
    println!("open {KEYS} keys after a crash: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    store.close().await.unwrap();
    let begin = Instant::now();
    let store = open(config).await;
    println!("open {KEYS} keys after a clean end: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    store.close().await.unwrap();
}

async fn reads(dir: &Path) {
    let store = open(DurableConfig::new(dir)).await;
    let begin = Instant::now();
    const GETS: u64 = 20_000;
    for number in 0..GETS {
        let found = store.range(RangeRequest::key(key(number * 7_919))).await.unwrap();
        assert_eq!(found.count, 1);
    }
    println!("get: {:.1} us", begin.elapsed().as_secs_f64() * 1e6 / GETS as f64);
    let begin = Instant::now();
    let found = store.range(RangeRequest::prefix(Bytes::from_static(b"/registry/"))).await.unwrap();
    println!("list of {}: {:.1} ms", found.count, begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    let mut snapshot = Vec::new();
    store.snapshot(&mut snapshot).await.unwrap();
    println!("snapshot of {} bytes: {:.1} ms", snapshot.len(), begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    store.restore(&mut &snapshot[..]).await.unwrap();
    println!("restore: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    store.close().await.unwrap();
}

async fn fan_out(name: &str, groups: usize) {
    const WATCHERS: usize = 1_000;
    const PUTS: usize = 200;
    let store = Arc::new(MemoryStore::new());
    let (done, mut all_done) = tokio::sync::mpsc::unbounded_channel();
    let prefix = |group: usize| format!("/registry/core/kind{group}/");
    for watcher in 0..WATCHERS {
        let start = Bytes::from(prefix(watcher % groups));
        let end = Some(prefix_end(&start));
        let mut watch = store.watch(WatchRequest { start, end, from: Revision(1) }).await.unwrap();
        let done = done.clone();
        tokio::spawn(async move {
            while let Some(Ok(batch)) = watch.next().await {
                if !batch.events.is_empty() && done.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    let mut times = Vec::new();
    for _ in 0..PUTS {
        let begin = Instant::now();
        put(&*store, Bytes::from(format!("{}a", prefix(0))), noise(2_048)).await;
        let mut last = begin;
        for _ in 0..WATCHERS.div_ceil(groups) {
            last = last.max(all_done.recv().await.unwrap());
        }
        times.push(last - begin);
    }
    times.sort_unstable();
    let at = |part: f64| times[((PUTS - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!("{name}: p50 {:.3} ms, p99 {:.3} ms", at(0.5), at(0.99));
}
