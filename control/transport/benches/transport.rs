//! What connections and streams cost over loopback, both kinds: time to stand, time of a question and
//! answer on a new stream, throughput of one stream, memory of an idle connection (both of its ends are
//! in this process). `cargo bench -p sampan-transport`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    reason = "a benchmark may fail loudly, and prints"
)]

#[path = "../tests/all/support.rs"]
mod support;

use std::time::{Duration, Instant};

use sampan_transport::{Connection, Purpose, Target};
use support::{Cluster, KINDS, Kind, listen_tcp, target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONNECTIONS: usize = 300;
const QUESTIONS: usize = 2000;
const BULK: usize = 256 << 20;

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn report(kind: Kind, what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{kind:?}: {what}: p50 {:?}, p99 {:?}", at(50), at(99));
}

/// Answers every stream with what was asked.
fn serve(connection: Connection) {
    tokio::spawn(async move {
        while let Ok((_, stream)) = connection.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let mut buffer = vec![0; 256 << 10];
                while let Ok(n @ 1..) = read.read(&mut buffer).await {
                    // Bulk is swallowed, questions are answered.
                    if n <= 64 {
                        let _ = write.write_all(&buffer[..n]).await;
                    }
                }
                let _ = write.shutdown().await;
            });
        }
    });
}

async fn question(connection: &Connection) -> Duration {
    let begun = Instant::now();
    let mut stream = connection.open(Purpose::Control).await.unwrap();
    stream.write_all(&[7; 64]).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    begun.elapsed()
}

async fn bulk(connection: &Connection) -> f64 {
    let begun = Instant::now();
    let mut stream = connection.open(Purpose::Control).await.unwrap();
    let block = vec![7; 256 << 10];
    for _ in 0..BULK / block.len() {
        stream.write_all(&block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    f64::from(u32::try_from(BULK >> 20).unwrap()) / begun.elapsed().as_secs_f64()
}

async fn measure(kind: Kind) {
    let cluster = Cluster::new();
    let target = match kind {
        Kind::Quic => target(cluster.server.local_address()),
        Kind::Tcp => Target { allow_tcp: true, ..target(listen_tcp(&cluster.server).await.0) },
    };
    let accepting = cluster.server.clone();
    tokio::spawn(async move {
        while let Some(connection) = accepting.accept().await {
            serve(connection);
        }
    });
    let first = cluster.node.connect(&target).await.unwrap();
    let before = resident_kib();
    let mut idle = Vec::new();
    if kind == Kind::Quic {
        let mut times = Vec::new();
        for _ in 0..CONNECTIONS {
            let begun = Instant::now();
            idle.push(cluster.node.connect(&target).await.unwrap());
            times.push(begun.elapsed());
        }
        report(kind, "a connection, one after the other", times);
    } else {
        // Each waits a second for QUIC first: its time says nothing, so they are made at once.
        let dialled = (0..CONNECTIONS).map(|_| cluster.node.connect(&target));
        idle.extend(futures::future::join_all(dialled).await.into_iter().map(Result::unwrap));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let grown = resident_kib().saturating_sub(before);
    println!("{kind:?}: an idle connection: {} KiB for both ends", grown / CONNECTIONS);
    drop(idle);
    let mut times = Vec::new();
    for _ in 0..QUESTIONS {
        times.push(question(&first).await);
    }
    report(kind, "64 bytes and back on a new stream", times);
    println!("{kind:?}: one stream: {:.0} MiB/s", bulk(&first).await);
    cluster.node.close("done").await;
    cluster.server.close("done").await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for kind in KINDS {
            measure(kind).await;
        }
    });
}
