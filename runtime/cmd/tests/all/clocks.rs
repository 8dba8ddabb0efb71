//! Machines whose wall clocks are wrong by years, where UDP does not get through.

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::agents::until;
use crate::machine::{Machine, first};

/// Where the server says that it is: only TCP gets there, through [`forward`].
const ELSEWHERE: &str = "127.0.0.2";
const YEAR: i64 = 365 * 86_400;

/// Compiles what puts clocks wrong, into a directory.
fn clock_library(directory: &tempfile::TempDir) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/clock.c");
    let library = directory.path().join("clock.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).output();
    let compiled = compiled.expect("a C compiler, which links this test, too");
    assert!(compiled.status.success(), "{compiled:?}");
    library
}

/// Passes on TCP connections to the server.
async fn forward(listener: TcpListener, server: String) {
    loop {
        let (mut from, _) = listener.accept().await.unwrap();
        let server = server.clone();
        tokio::spawn(async move {
            let mut to = TcpStream::connect(server).await.unwrap();
            // Who ends it is the ends' matter.
            drop(copy_bidirectional(&mut from, &mut to).await);
        });
    }
}

/// What the node says of its clock, once it is Ready and says that its clock is wrong.
async fn clock_of(nodes: &Api<Node>, agent: &Machine) -> String {
    until("it is Ready, and says that its clock is wrong", agent, || async {
        let conditions = nodes.get_opt(&agent.name).await.ok()??.status?.conditions?;
        let find = |wanted: &str| -> Option<&NodeCondition> {
            conditions.iter().find(|condition| condition.type_ == wanted && condition.status == "True")
        };
        find("Ready")?;
        find("ClockSkew")?.message.clone()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_clocks_are_wrong_by_years_join_and_return_over_tcp() {
    let directory = tempfile::tempdir().unwrap();
    let library = clock_library(&directory);
    let server = first(&["--advertise-address", ELSEWHERE]).await;
    let here = server.url().trim_start_matches("https://").to_owned();
    let port: u16 = here.rsplit_once(':').unwrap().1.parse().unwrap();
    let listener = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
    let forwarding = tokio::spawn(forward(listener, here));
    let (url, token) = (format!("https://{ELSEWHERE}:{port}"), server.token("agent"));
    let agent =
        |name: &str| Machine::agent(name, &["--node-ip", "127.0.0.1", "--server", &url, "--token", &token]);
    let mut agents = [agent("slow"), agent("fast"), agent("right")];
    let [slow, fast, right] = &mut agents;
    slow.set_clock(&library, -6 * YEAR);
    fast.set_clock(&library, 6 * YEAR);
    for agent in [&mut *slow, fast, right] {
        agent.spawn();
    }
    let nodes = Api::<Node>::all(server.client().await);
    assert_eq!(clock_of(&nodes, slow).await, "the clock is about 6 years behind the servers'");
    assert_eq!(clock_of(&nodes, fast).await, "the clock is about 6 years ahead of the servers'");
    // One that had joined with a clock that was right: by its clock all certificates have expired since.
    crate::agents::node_ready(&server.client().await, right, "True").await;
    right.stop();
    right.set_clock(&library, 20 * YEAR);
    right.spawn();
    assert_eq!(clock_of(&nodes, right).await, "the clock is about 20 years ahead of the servers'");
    for agent in &mut agents {
        agent.assert_runs();
        agent.stop();
        let log = agent.errors();
        assert!(log.contains("quic=false") && !log.contains("quic=true"), "{log}");
    }
    forwarding.abort();
}
