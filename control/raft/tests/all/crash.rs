//! A writer process killed at random, again and again: what it was told is there, whole.
//!
//! The test runs itself as the process to be killed. That process writes from several tasks at
//! once, each write a transaction over two keys, and says so for each that was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use sampan_raft::RaftStore;
use sampan_store::{DurableConfig, KeyValue, Op, Revision, Storage, Txn};

use crate::support::{all, bytes, delete, noise, open, put, small};

const ROUNDS: usize = 200;
const WRITERS: u64 = 6;
const DIR: &str = "SAMPAN_STORE_CRASH_DIR";

fn config(dir: &Path) -> DurableConfig {
    let mut config = small(dir);
    config.volatile_prefixes = vec!["/volatile/".into()];
    config.sealed_prefixes = vec!["/pair/1/".into()];
    config.compaction.interval = Duration::from_millis(30);
    config.compaction.keep_revisions = 10;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_killed_at_any_moment_loses_nothing_it_was_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let patience = rand::rng().random_range(0..120);
        let heard = kill_after(dir.path(), patience).await;
        told.add(&heard);
        let store = open(&config(dir.path())).await;
        told.check(&store, round).await;
        if round % 10 == 0 {
            store.close().await.unwrap();
        }
    }
    assert!(told.acknowledged > ROUNDS as u64, "the rounds were too short to show anything");
    println!("{ROUNDS} kills, {} acknowledged transactions", told.acknowledged);
}

/// Runs the writer until it said so many lines, and a moment longer; returns the whole lines.
async fn kill_after(dir: &Path, lines: usize) -> Vec<String> {
    let mut child = spawn(dir);
    let out = child.stdout.take().unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let reader = std::thread::spawn(move || {
        let mut out = BufReader::new(out);
        let mut line = String::new();
        // A line without its end was cut by the kill: the writer was not told yet, or it was;
        // either way nobody heard.
        while out.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            let _ = sender.send(std::mem::take(&mut line));
        }
    });
    let mut all_heard = Vec::new();
    while all_heard.len() < lines {
        match tokio::time::timeout(Duration::from_secs(60), heard.recv()).await {
            Ok(Some(line)) => all_heard.push(line),
            Ok(None) => panic!("the writer ended by itself, having said {all_heard:?}"),
            Err(_) => panic!("the writer says nothing"),
        }
    }
    let longer = rand::rng().random_range(0..15);
    tokio::time::sleep(Duration::from_millis(longer)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    while let Ok(line) = heard.try_recv() {
        all_heard.push(line);
    }
    all_heard
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crash::the_writer_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the writers were told, and what they may have begun beyond it.
#[derive(Default)]
struct Told {
    /// Per writer, the last acknowledged write and its revision.
    last: BTreeMap<u64, (u64, u64)>,
    newest: u64,
    acknowledged: u64,
}

impl Told {
    fn add(&mut self, lines: &[String]) {
        for line in lines {
            let Some(line) = line.strip_prefix("told ") else { continue };
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap());
            let (writer, write, revision) =
                (numbers.next().unwrap(), numbers.next().unwrap(), numbers.next().unwrap());
            self.acknowledged += 1;
            self.newest = self.newest.max(revision);
            if writer < WRITERS {
                self.last.insert(writer, (write, revision));
            }
        }
    }

    async fn check(&mut self, store: &RaftStore, round: usize) {
        assert!(store.revision().0 >= self.newest, "round {round}: revisions go back");
        let found = all(store).await;
        for writer in 0..WRITERS {
            let left = one(&found, &format!("/pair/0/{writer}"));
            let right = one(&found, &format!("/pair/1/{writer}"));
            assert_eq!(
                left.map(|kv| (number(kv), kv.mod_revision)),
                right.map(|kv| (number(kv), kv.mod_revision)),
                "round {round}: a torn transaction of writer {writer}"
            );
            let stands = left.map_or(0, number);
            let (told, revision) = self.last.get(&writer).copied().unwrap_or((0, 0));
            assert!(
                stands == told || stands == told + 1,
                "round {round}: writer {writer} was told of {told}, and {stands} stands"
            );
            if let Some(kv) = left.filter(|_| stands == told) {
                assert_eq!(kv.mod_revision, Revision(revision), "round {round}: at another revision");
            }
            if let Some(kv) = left {
                assert_eq!(kv.value[8..], noise(stands, size(stands)), "round {round}: another value");
                // What stands although nobody was told is as good as told from now on.
                self.last.insert(writer, (stands, kv.mod_revision.0));
            }
        }
    }
}

fn one<'a>(found: &'a [KeyValue], key: &str) -> Option<&'a KeyValue> {
    found.iter().find(|kv| kv.key == bytes(key))
}

fn number(kv: &KeyValue) -> u64 {
    u64::from_le_bytes(kv.value[..8].try_into().unwrap())
}

fn size(write: u64) -> usize {
    (write as usize * 389) % 3_000
}

fn value(write: u64) -> Vec<u8> {
    let mut value = write.to_le_bytes().to_vec();
    value.extend(noise(write, size(write)));
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not a test: the process that the test above kills"]
async fn the_writer_that_is_killed() {
    let dir = std::env::var(DIR).expect("a directory to write to");
    let store = Arc::new(open(&config(Path::new(&dir))).await);
    let found = all(&*store).await;
    let writers = (0..WRITERS).map(|writer| {
        let from = one(&found, &format!("/pair/0/{writer}")).map_or(0, number);
        tokio::spawn(write_on(Arc::clone(&store), writer, from))
    });
    let mut tasks: Vec<_> = writers.collect();
    tasks.push(tokio::spawn(write_in_memory(Arc::clone(&store))));
    tasks.push(tokio::spawn(write_elsewhere(Arc::clone(&store))));
    for task in tasks {
        task.await.unwrap();
    }
}

fn tell(writer: u64, write: u64, revision: Revision) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "told {writer} {write} {revision}").unwrap();
    out.flush().unwrap();
}

async fn write_on(store: Arc<RaftStore>, writer: u64, from: u64) {
    for write in from + 1.. {
        let op = |side| Op::Put { key: bytes(format!("/pair/{side}/{writer}")), value: value(write).into() };
        let txn = Txn { success: vec![op(0), op(1)], ..Txn::default() };
        let response = store.txn(txn).await.unwrap();
        tell(writer, write, response.revision);
    }
}

/// Revisions used in memory must not be used again either.
async fn write_in_memory(store: Arc<RaftStore>) {
    for write in 0.. {
        let revision = put(&*store, "/volatile/x", "x").await;
        tell(WRITERS, write, revision);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Keys that come and go, checkpoints in between.
async fn write_elsewhere(store: Arc<RaftStore>) {
    for write in 0_u64.. {
        let key = format!("/other/{}", write % 13);
        put(&*store, &key, noise(write, 700)).await;
        if write % 3 == 0 {
            delete(&*store, &key).await;
        }
        if write % 29 == 0 {
            store.checkpoint().await.unwrap();
        }
    }
}
