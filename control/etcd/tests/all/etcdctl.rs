//! etcdctl against our server: what it prints is what it prints of a real etcd.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::{ours, restored, run, theirs};

struct Ctl {
    dir: tempfile::TempDir,
    endpoint: String,
}

impl Ctl {
    /// With a scheme: etcdctl 3.4 sends it to single members as part of the host's name.
    fn new(address: SocketAddr) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), endpoint: format!("--endpoints=http://{address}") }
    }

    fn run(&self, args: &[&str]) -> (bool, String) {
        let args: Vec<&str> = std::iter::once(&*self.endpoint).chain(args.iter().copied()).collect();
        run("etcdctl", &args, self.dir.path())
    }

    fn txn(&self, text: &str) -> String {
        let mut child = Command::new("etcdctl")
            .args([&*self.endpoint, "txn"])
            .env("ETCDCTL_API", "3")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn commands_print_what_they_print_of_etcd() {
    let (ours, theirs) = (ours().await, theirs().await);
    let (ours, theirs) = (Ctl::new(ours.address), Ctl::new(theirs.address));
    let table: &[&[&str]] = &[
        &["put", "/registry/a", "one"],
        &["put", "/registry/b", "two"],
        &["put", "--prev-kv", "/registry/b", "three"],
        &["put", "--ignore-value", "/registry/b"],
        &["put", "--ignore-value", "/registry/none"],
        &["get", "/registry/a"],
        &["get", "--prefix", "/registry/", "--keys-only"],
        &["get", "--prefix", "/registry/", "--sort-by=MODIFY", "--order=DESCEND", "--limit=1"],
        &["get", "--from-key", "/registry/b", "--print-value-only"],
        &["get", "--prefix", "", "--count-only", "-w", "fields", "--rev=99"],
        &["lease", "grant", "100", "-w", "simple"],
        &["lease", "revoke", "1234"],
        &["put", "--lease=1234", "/registry/a", "x"],
        &["del", "--prefix", "--prev-kv", "/registry/a"],
        &["del", "--prefix", "/registry/a"],
        &["compaction", "9999"],
        &["alarm", "list"],
        &["alarm", "disarm"],
        &["endpoint", "health", "--write-out=simple"],
    ];
    for args in table {
        let (our, their) = (ours.run(args), theirs.run(args));
        let same = |said: (bool, String), ctl: &Ctl| {
            // Names, times and lease ids differ.
            let said = (said.0, said.1.replace(ctl.endpoint.trim_start_matches("--endpoints="), "ENDPOINT"));
            let cut = said.1.split("took =").next().unwrap_or_default().to_owned();
            // What its client logs is no answer.
            let lines = cut.lines().filter(|line| !line.starts_with('{'));
            let words = lines.flat_map(str::split_whitespace).filter(|word| word.len() != 16);
            (said.0, words.map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(same(our, &ours), same(their, &theirs), "etcdctl {}", args.join(" "));
    }
    let txn = "value(\"/registry/b\") = \"three\"\nmod(\"/registry/none\") = \"0\"\n\nput /registry/c made\nget /registry/b\n\ndel /registry/b\n\n";
    assert_eq!(ours.txn(txn), theirs.txn(txn));
    assert!(ours.txn(txn).starts_with("SUCCESS"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn etcdctl_watches_and_keeps_leases() {
    let ours = ours().await;
    let ctl = Ctl::new(ours.address);
    let mut watch = Command::new("etcdctl")
        .args([&*ctl.endpoint, "watch", "--prefix", "/registry/", "--prev-kv"])
        .env("ETCDCTL_API", "3")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    // The watch is there once it sees something.
    let seen = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        while !seen.iter().any(|line| line == "DELETE") {
            seen.push(lines.next().unwrap().unwrap());
        }
        seen
    });
    for number in 0..200 {
        assert!(ctl.run(&["put", "/registry/w", &number.to_string()]).0);
        assert!(ctl.run(&["del", "/registry/w"]).0);
        if seen.is_finished() {
            break;
        }
    }
    let seen = seen.await.unwrap();
    assert!(seen.iter().any(|line| line == "/registry/w" || line == "DELETE"), "{seen:?}");
    watch.kill().unwrap();
    watch.wait().unwrap();

    let (_, granted) = ctl.run(&["lease", "grant", "2"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert!(ctl.run(&["put", "--lease", &id, "/registry/leased", "v"]).0);
    let (_, kept) = ctl.run(&["lease", "keep-alive", "--once", &id]);
    assert_eq!(kept, format!("lease {id} keepalived with TTL(2)\n"));
    let (_, shown) = ctl.run(&["lease", "timetolive", "--keys", &id]);
    assert!(shown.contains("granted with TTL(2s)") && shown.contains("[/registry/leased]"), "{shown}");
    let (_, listed) = ctl.run(&["lease", "list"]);
    assert_eq!(listed, format!("found 1 leases\n{id}\n"));
    assert!(ctl.run(&["lease", "revoke", &id]).0);
    assert_eq!(ctl.run(&["get", "/registry/leased"]).1, "");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn etcdctl_looks_after_the_store() {
    let ours = ours().await;
    let ctl = Ctl::new(ours.address);
    assert!(ctl.run(&["put", "/registry/a", "one"]).0);
    assert!(ctl.run(&["put", "/registry/a", "two"]).0);
    let (ok, status) = ctl.run(&["endpoint", "status", "-w", "json"]);
    assert!(ok && status.contains(&format!("\"version\":\"{}\"", sampan_etcd::ETCD_VERSION)), "{status}");
    let (ok, hash) = ctl.run(&["endpoint", "hashkv"]);
    assert!(ok && hash.contains(", "), "{hash}");
    let (ok, members) = ctl.run(&["member", "list"]);
    assert!(ok && members.contains("standalone"), "{members}");
    let (ok, refused) = ctl.run(&["member", "remove", "1"]);
    assert!(!ok && refused.contains("use 'sampan member remove'"), "{refused}");
    assert_eq!(ctl.run(&["compaction", "2", "--physical"]), (true, "compacted revision 2\n".to_owned()));
    let (ok, said) = ctl.run(&["compaction", "2"]);
    assert!(!ok && said.contains("required revision has been compacted"), "{said}");
    let (ok, said) = ctl.run(&["defrag"]);
    assert!(ok && said.starts_with("Finished defragmenting"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's etcd-server and etcd-client: .ci/run has them"]
async fn a_real_etcd_goes_on_from_our_snapshot_and_we_from_its() {
    let ours = ours().await;
    let ctl = Ctl::new(ours.address);
    let (_, granted) = ctl.run(&["lease", "grant", "600"]);
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert!(ctl.run(&["put", "--lease", &lease, "/registry/leased", "v"]).0);
    for number in 0..300 {
        assert!(ctl.run(&["put", &format!("/registry/{}", number % 100), &"x".repeat(number * 7)]).0);
    }
    assert!(ctl.run(&["del", "/registry/7"]).0);
    let everything = ["get", "/registry/", "--prefix", "-w", "fields"];
    let (_, before) = ctl.run(&everything);

    let (ok, said) = ctl.run(&["snapshot", "save", "snap.db"]);
    assert!(ok, "{said}");
    let file = ctl.dir.path().join("snap.db");
    let (ok, status) = run("etcdctl", &["snapshot", "status", "snap.db", "-w", "fields"], ctl.dir.path());
    assert!(ok && status.contains("\"Keys\" : 10"), "{status}");

    let theirs = restored(&file).await;
    let ctl = Ctl::new(theirs.address);
    let rows = |text: &str| -> Vec<String> {
        // The header is of another cluster.
        text.lines().skip_while(|line| !line.starts_with("\"Key\"")).map(str::to_owned).collect()
    };
    let (_, after) = ctl.run(&everything);
    assert_eq!(rows(&after), rows(&before), "keys, values, revisions, versions and leases");
    assert!(rows(&before).len() > 99 * 5, "{before}");
    assert!(ctl.run(&["lease", "revoke", &lease]).0, "the lease came along");
    assert_eq!(ctl.run(&["get", "/registry/leased"]).1, "");
    assert!(ctl.run(&["put", "/registry/7", "again"]).0);

    // And back: what etcd saved, history and deleted keys in it, is a snapshot for us.
    let (ok, said) = ctl.run(&["snapshot", "save", "theirs.db"]);
    assert!(ok, "{said}");
    let saved = std::fs::File::open(ctl.dir.path().join("theirs.db")).unwrap();
    let mut converted = Vec::new();
    let snapshot = sampan_etcd::EtcdSnapshot::open(saved).unwrap();
    snapshot
        .convert(|bytes| {
            converted.extend(bytes);
            Ok(())
        })
        .unwrap();
    let fresh = sampan_store::MemoryStore::new();
    sampan_store::Storage::restore(&fresh, &mut &*converted).await.unwrap();
    let all = sampan_store::RangeRequest::prefix("/registry/");
    let found = sampan_store::Storage::range(&fresh, all).await.unwrap();
    let (_, listed) = ctl.run(&["get", "/registry/", "--prefix", "--keys-only"]);
    let listed: Vec<&str> = listed.split_whitespace().collect();
    let keys: Vec<_> = found.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect();
    assert_eq!((keys.len(), &keys), (100, &listed));
    let again = found.kvs.iter().find(|kv| kv.key == "/registry/7").unwrap();
    assert_eq!(again.value, "again");
}
