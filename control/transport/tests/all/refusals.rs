//! Whom one does not connect to, and what is said about it.

use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use sampan_transport::{
    Credentials, Endpoint, Identity, ProtocolRange, RefusalCode, Role, Target, TransportError,
};
use tokio::time::timeout;

use crate::support::{Authority, Cluster, KINDS, Kind, Machine, config, listen_tcp, target};

/// Connects a machine with these credentials to the cluster's server, over the given kind.
async fn try_with(cluster: &Cluster, credentials: Credentials, kind: Kind) -> TransportError {
    let endpoint = Endpoint::bind(config(credentials)).unwrap();
    try_from(cluster, &endpoint, kind, None).await
}

async fn try_from(
    cluster: &Cluster,
    from: &Endpoint,
    kind: Kind,
    key: Option<sampan_transport::KeyId>,
) -> TransportError {
    let (address, allow_tcp) = match kind {
        Kind::Quic => (cluster.server.local_address(), false),
        Kind::Tcp => (listen_tcp(&cluster.server).await.0, true),
    };
    let target = Target { key, allow_tcp, ..target(address) };
    from.connect(&target).await.unwrap_err()
}

#[tokio::test]
async fn another_cluster_is_told_apart_from_both_sides() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let other = Authority::new("machines");
        let machine = Machine::new(Role::Node, "edge");
        // We do not know the server's authority.
        let error = try_with(&cluster, machine.credentials(&other, &[&other]), kind).await;
        assert!(matches!(error, TransportError::UnknownAuthority(_)), "{kind:?}: {error:?}");
        assert!(error.to_string().contains("belongs to another cluster"), "{error}");
        // The server does not know ours.
        let both = machine.credentials(&other, &[&other, &cluster.authority]);
        let error = try_with(&cluster, both, kind).await;
        assert!(matches!(error, TransportError::UnknownToPeer(_)), "{kind:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_machine_of_the_wrong_role_is_not_what_was_asked_for() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (address, allow_tcp) = match kind {
            Kind::Quic => (cluster.server.local_address(), false),
            Kind::Tcp => (listen_tcp(&cluster.server).await.0, true),
        };
        let wanted = Target { role: Role::Node, allow_tcp, ..target(address) };
        let error = cluster.node.connect(&wanted).await.unwrap_err();
        assert!(
            matches!(&error, TransportError::WrongRole { expected: Role::Node, found: Role::Server, name, .. } if name == "one"),
            "{kind:?}: {error:?}"
        );
        assert!(error.to_string().ends_with("is a server (one), not a node"), "{error}");
    }
}

#[tokio::test]
async fn another_key_is_another_machine() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let wanted = Machine::new(Role::Server, "one").key_id();
        let error = try_from(&cluster, &cluster.node, kind, Some(wanted)).await;
        assert!(
            matches!(error, TransportError::WrongKey { expected, found, .. } if expected == wanted && found == cluster.server_key),
            "{kind:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn the_right_key_is_accepted() {
    let cluster = Cluster::new();
    let target = Target { key: Some(cluster.server_key), ..cluster.target() };
    assert_eq!(cluster.node.connect(&target).await.unwrap().peer().key, cluster.server_key);
}

#[tokio::test]
async fn no_common_protocol_is_one_clear_line_and_n_speaks_with_n_minus_1() {
    let range = |min, max| ProtocolRange { min, max };
    let cases = [
        (range(1, 1), range(1, 1), Some(1)),
        (range(1, 2), range(1, 1), Some(1)),
        (range(1, 1), range(1, 2), Some(1)),
        (range(2, 3), range(1, 2), Some(2)),
        (range(3, 4), range(1, 2), None),
    ];
    for kind in KINDS {
        for (server, node, agreed) in cases {
            let cluster = Cluster::with(|c| c.protocols = server, |c| c.protocols = node);
            match agreed {
                Some(agreed) => {
                    let (dialled, accepted) = cluster.pair(kind).await;
                    assert_eq!((dialled.protocol(), accepted.protocol()), (agreed, agreed));
                }
                None => {
                    let error = try_from(&cluster, &cluster.node, kind, None).await;
                    assert!(
                        error.to_string().ends_with(
                            "speaks protocol 3 to 4, this build speaks 1 to 2: upgrade the older one first"
                        ),
                        "{kind:?}: {error}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_judges_later_refuses_with_its_own_words() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        server.close("the name edge belongs to another key");
        let why = timeout(Duration::from_secs(2), node.closed()).await.unwrap();
        assert_eq!(why, "the name edge belongs to another key");
    }
}

#[tokio::test]
async fn silence_is_unreachable_and_says_where() {
    let cluster = Cluster::with(|_| {}, |c| c.handshake_timeout = Duration::from_millis(700));
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = deaf.local_addr().unwrap();
    let error = cluster.node.connect(&target(address)).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(error.to_string(), format!("no answer from {address} ({address})"));
    let error = cluster.node.connect(&Target { addresses: vec![], ..target(address) }).await.unwrap_err();
    assert_eq!(error.to_string(), "transport settings: no address to connect to");
}

#[tokio::test]
async fn credentials_that_cannot_be_are_refused_at_once() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let machine = Machine::new(Role::Node, "edge");
    let refused = |credentials: Credentials| Identity::new(credentials).unwrap_err().to_string();
    let stranger = refused(machine.credentials(&other, &[&authority]));
    assert!(stranger.ends_with("none of the known authorities signed it"), "{stranger}");
    for name in ["admin", "system:node:", "sampan:server:edge", "system:node:a b", "system:node:a/b"] {
        let text = refused(machine.credentials_as(&authority, &[&authority], name));
        assert!(text.contains("is not that of a machine"), "{name}: {text}");
    }
    let mut credentials = machine.credentials(&authority, &[&authority]);
    credentials.key = Machine::new(Role::Node, "edge").credentials(&authority, &[&authority]).key;
    assert!(refused(credentials).contains("key"));
    let clients_only =
        Machine { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Machine::new(Role::Node, "edge") };
    let text = refused(clients_only.credentials(&authority, &[&authority]));
    assert!(text.ends_with("not made for server authentication"), "{text}");
    let none = Machine { usages: vec![], ..Machine::new(Role::Node, "edge") };
    let text = refused(none.credentials(&authority, &[&authority]));
    assert!(text.ends_with("not made for client authentication"), "{text}");
    assert!(Credentials::from_pem("", "", &authority.pem()).is_err());
}

#[tokio::test]
async fn a_machine_cannot_become_another_one() {
    let authority = Authority::new("a");
    let machine = Machine::new(Role::Node, "edge");
    let identity = Identity::new(machine.credentials(&authority, &[&authority])).unwrap();
    let other = Machine::new(Role::Node, "edge").credentials(&authority, &[&authority]);
    let error = identity.replace(other).unwrap_err().to_string();
    assert!(error.contains("cannot take the place of"), "{error}");
    assert_eq!(identity.own().key, machine.key_id());
}

#[tokio::test]
async fn a_handed_over_connection_of_a_stranger_is_not_adopted() {
    let cluster = Cluster::new();
    let other = Authority::new("machines");
    let chain = Machine::new(Role::Node, "edge").credentials(&other, &[&other]).chain;
    let (one, _other) = tokio::io::duplex(64);
    let error = cluster.server.adopt(one, chain, "127.0.0.1:1".parse().unwrap()).unwrap_err();
    assert!(matches!(error, TransportError::UnknownAuthority(_)), "{error:?}");
    let (one, _other) = tokio::io::duplex(64);
    let error = cluster.server.adopt(one, vec![], "127.0.0.1:1".parse().unwrap()).unwrap_err();
    assert!(matches!(error, TransportError::Certificate { .. }), "{error:?}");
}

#[tokio::test]
async fn refusal_codes_survive_the_wire() {
    for code in [RefusalCode::Protocol, RefusalCode::Expired, RefusalCode::Closing, RefusalCode::Other] {
        assert_eq!(RefusalCode::from(u16::from(code)), code);
    }
    assert_eq!(RefusalCode::from(999), RefusalCode::Other);
}
