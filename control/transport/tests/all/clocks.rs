//! Certificates' ends, and clocks that are wrong by years.

use std::sync::Arc;
use std::time::Duration;

use sampan_transport::{Clock, Endpoint, FloorFile, Role, SystemClock, Target, TransportError};

use crate::support::{Authority, KINDS, Kind, Machine, TODAY, TestClock, config, day, listen_tcp, target};

const YEAR: u64 = 365;

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Connected,
    /// The server says that the node's certificate has expired.
    NodeExpired,
    /// The node says that the server's certificate has expired.
    ServerExpired,
}

struct Case {
    what: &'static str,
    /// When the server's certificate ends, its clock, its floor; days.
    server: (u64, u64, u64),
    /// The same of the node.
    node: (u64, u64, u64),
    expected: Outcome,
}

fn endpoint(
    authority: &Authority,
    role: Role,
    name: &'static str,
    of: (u64, u64, u64),
) -> (Endpoint, TestClock) {
    let (not_after, now, floor) = of;
    let machine = Machine { valid: (not_after - YEAR, not_after), ..Machine::new(role, name) };
    let mut config = config(machine.credentials(authority, &[authority]));
    let clock = TestClock::new(now, floor);
    config.clock = Arc::new(clock.clone());
    (Endpoint::bind(config).unwrap(), clock)
}

#[tokio::test]
async fn wrong_clocks_lock_nobody_out_and_the_floor_keeps_the_dead_out() {
    let good = (TODAY + 300, TODAY, TODAY);
    let cases = [
        Case { what: "all well", server: good, node: good, expected: Outcome::Connected },
        Case {
            what: "the node's clock starts in 1970, it has no floor",
            server: good,
            node: (TODAY + 300, 0, 0),
            expected: Outcome::Connected,
        },
        Case {
            what: "the node's clock is ten years ahead",
            server: good,
            node: (TODAY + 300, TODAY + 10 * YEAR, TODAY),
            expected: Outcome::Connected,
        },
        Case {
            what: "the server's clock starts in 1970, before any certificate",
            server: (TODAY + 300, 0, TODAY),
            node: good,
            expected: Outcome::Connected,
        },
        Case {
            what: "the server's clock is ten years ahead",
            server: (TODAY + 300, TODAY + 10 * YEAR, TODAY),
            node: good,
            expected: Outcome::Connected,
        },
        Case {
            what: "a node slept past its certificate",
            server: good,
            node: (TODAY - 5, TODAY, TODAY - 100),
            expected: Outcome::NodeExpired,
        },
        Case {
            what: "a stolen dead node claims that it is long ago",
            server: good,
            node: (TODAY - 5, TODAY - 100, 0),
            expected: Outcome::NodeExpired,
        },
        Case {
            what: "the same, and the server's clock is back in 1970",
            server: (TODAY + 300, 0, TODAY),
            node: (TODAY - 5, TODAY - 100, 0),
            expected: Outcome::NodeExpired,
        },
        Case {
            what: "a stolen dead server meets a node that knows the time",
            server: (TODAY - 5, TODAY - 100, 0),
            node: good,
            expected: Outcome::ServerExpired,
        },
    ];
    let authority = Authority::new("machines");
    let tried = KINDS.iter().flat_map(|kind| cases.iter().map(move |case| (*kind, case)));
    futures::future::join_all(tried.map(|(kind, Case { what, server, node, expected })| {
        let authority = &authority;
        async move {
            let (server, _) = endpoint(authority, Role::Server, "one", *server);
            let (node, _) = endpoint(authority, Role::Node, "edge", *node);
            let address = match kind {
                Kind::Quic => server.local_address(),
                Kind::Tcp => listen_tcp(&server).await.0,
            };
            let target = Target { allow_tcp: kind == Kind::Tcp, ..target(address) };
            let outcome = match node.connect(&target).await {
                Ok(_) => Outcome::Connected,
                Err(TransportError::Expired { .. }) => Outcome::ServerExpired,
                Err(error) if error.is_expired_here() => Outcome::NodeExpired,
                Err(error) => panic!("{kind:?}: {what}: {error:?}"),
            };
            assert_eq!(outcome, *expected, "{kind:?}: {what}");
        }
    }))
    .await;
}

#[tokio::test]
async fn what_a_peer_says_about_the_time_is_heard_only_if_its_certificate_holds() {
    let authority = Authority::new("machines");
    let (server, server_clock) = endpoint(&authority, Role::Server, "one", (TODAY + 9, TODAY, TODAY));
    let (node, node_clock) = endpoint(&authority, Role::Node, "edge", (TODAY + 9, TODAY - 400, 0));
    let (dead, _) = endpoint(&authority, Role::Node, "dead", (TODAY - 9, TODAY - 20, 0));
    assert!(dead.connect(&target(server.local_address())).await.is_err());
    let target = target(server.local_address());
    let (dialled, accepted) = tokio::join!(node.connect(&target), server.accept());
    let (_dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    let heard = |clock: &TestClock| clock.heard.lock().iter().map(|t| (t.role, t.time)).collect::<Vec<_>>();
    for _ in 0..100 {
        if !heard(&node_clock).is_empty() && !heard(&server_clock).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(heard(&node_clock), [(Role::Server, day(TODAY))]);
    assert_eq!(heard(&server_clock), [(Role::Node, day(TODAY - 400))]);
    assert_eq!(accepted.peer().name, "edge");
}

#[tokio::test]
async fn a_floor_learned_from_a_server_refuses_a_dead_server_after_a_restart() {
    let authority = Authority::new("machines");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floor");
    let (live, _) = endpoint(&authority, Role::Server, "one", (TODAY + 900, TODAY + 800, TODAY));
    let (dead, _) = endpoint(&authority, Role::Server, "two", (TODAY + 300, TODAY + 10, 0));
    let node = |now: u64| {
        let machine = Machine { valid: (TODAY, TODAY + 1000), ..Machine::new(Role::Node, "edge") };
        let mut config = config(machine.credentials(&authority, &[&authority]));
        config.clock = Arc::new(FloorFile::with_system(&path, move || day(now)).unwrap());
        Endpoint::bind(config).unwrap()
    };
    let before = node(TODAY + 800);
    before.connect(&target(live.local_address())).await.unwrap();
    for _ in 0..100 {
        if path.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    before.close("off").await;
    // The clock's battery has died meanwhile.
    let after = node(0);
    let error = after.connect(&target(dead.local_address())).await.unwrap_err();
    assert!(matches!(error, TransportError::Expired { .. }), "{error:?}");
    after.connect(&target(live.local_address())).await.unwrap();
    assert!(after.clock().best() >= day(TODAY + 800));
    assert!(SystemClock.best() >= SystemClock.floor());
}
