//! Streams, over both kinds of connection.

use std::io::ErrorKind;
use std::time::Duration;

use sampan_transport::{Connection, PROTOCOL, Purpose, Role, Stream, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Cluster, KINDS};

/// Sends back everything on every stream.
fn echo(connection: Connection) {
    tokio::spawn(async move {
        while let Ok((_, stream)) = connection.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

async fn ask(mut stream: Stream, question: &[u8]) -> Vec<u8> {
    stream.write_all(question).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn both_sides_open_streams_and_know_who_the_other_is() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        assert_eq!((node.peer().name.as_str(), node.peer().role), ("one", Role::Server));
        assert_eq!(node.peer().key, cluster.server_key);
        assert_eq!((server.peer().name.as_str(), server.peer().role), ("edge", Role::Node));
        assert_eq!((node.protocol(), server.protocol()), (PROTOCOL, PROTOCOL));
        assert_eq!(node.build(), env!("CARGO_PKG_VERSION"));
        let there = node.open(Purpose::Api).await.unwrap();
        let back = server.open(Purpose::Node).await.unwrap();
        let (purpose, mut taken) = server.accept().await.unwrap();
        assert_eq!(purpose, Purpose::Api);
        let answering = tokio::spawn(async move {
            let mut question = String::new();
            taken.read_to_string(&mut question).await.unwrap();
            taken.write_all(format!("{question}?").as_bytes()).await.unwrap();
            taken.shutdown().await.unwrap();
        });
        // The asker has ended its direction, and still hears the answer.
        assert_eq!(ask(there, b"pods").await, b"pods?");
        answering.await.unwrap();
        let (purpose, taken) = node.accept().await.unwrap();
        assert_eq!(purpose, Purpose::Node);
        drop(taken);
        drop(back);
    }
}

#[tokio::test]
async fn many_streams_wait_for_their_turn() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        echo(server);
        let tasks: Vec<_> = (0..500_u32)
            .map(|n| {
                let node = node.clone();
                tokio::spawn(async move {
                    let stream = node.open(Purpose::Control).await.unwrap();
                    assert_eq!(ask(stream, &n.to_be_bytes()).await, n.to_be_bytes());
                })
            })
            .collect();
        for task in tasks {
            timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader_and_nothing_is_lost() {
    const TOTAL: usize = 24 << 20;
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        let mut out = node.open(Purpose::Control).await.unwrap();
        let (written, so_far) = tokio::sync::watch::channel(0);
        let writing = tokio::spawn(async move {
            let block: Vec<u8> = (0..=255).collect();
            for n in 0..TOTAL / 256 {
                out.write_all(&block).await.unwrap();
                written.send_replace(n * 256);
            }
            out.shutdown().await.unwrap();
            out
        });
        let (_, mut inn) = server.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let held = *so_far.borrow();
        assert!(held < 8 << 20, "{kind:?}: {held} bytes were taken from the writer, and nobody read");
        // Another stream is not held up.
        let small = node.open(Purpose::Control).await.unwrap();
        let (_, other) = server.accept().await.unwrap();
        let (mut read, mut write) = other.split();
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let answer = timeout(Duration::from_secs(2), ask(small, b"quick")).await.unwrap();
        assert_eq!(answer, b"quick");
        let mut buffer = vec![0; 60_000];
        let mut total = 0;
        loop {
            let n = inn.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            assert!(buffer[..n].iter().enumerate().all(|(i, byte)| usize::from(*byte) == (total + i) % 256));
            total += n;
        }
        assert_eq!(total, TOTAL);
        drop(writing.await.unwrap());
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_unfinished_never_looks_complete() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        let mut out = node.open(Purpose::Control).await.unwrap();
        let (_, mut inn) = server.accept().await.unwrap();
        frame::write(&mut out, "whole", 100).await.unwrap();
        assert_eq!(frame::read::<String, _>(&mut inn, 100).await.unwrap().unwrap(), "whole");
        let (_read, write) = out.split();
        drop(write);
        let error = timeout(Duration::from_secs(2), inn.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{kind:?}: {error}");
        // The same when the connection goes under it.
        let mut out = node.open(Purpose::Control).await.unwrap();
        let (_, mut inn) = server.accept().await.unwrap();
        out.write_all(b"half").await.unwrap();
        inn.read_exact(&mut [0; 4]).await.unwrap();
        node.close("enough");
        let read = timeout(Duration::from_secs(2), inn.read(&mut [0])).await.unwrap();
        assert!(read.is_err(), "{kind:?}: {read:?}");
    }
}

#[tokio::test]
async fn a_writer_hears_that_the_other_side_dropped_the_stream() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        let mut out = node.open(Purpose::Control).await.unwrap();
        let (_, inn) = server.accept().await.unwrap();
        drop(inn);
        let writing = async {
            let block = [0; 4096];
            while out.write_all(&block).await.is_ok() && out.flush().await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), writing).await.unwrap_or_else(|_| panic!("{kind:?}: never"));
    }
}

#[tokio::test]
async fn a_purpose_that_the_role_does_not_permit_is_refused_by_name() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        let accepting = tokio::spawn(async move { server.accept().await.map(|(purpose, _)| purpose) });
        let mut stream = node.open(Purpose::Raft).await.unwrap();
        let error = timeout(Duration::from_secs(2), stream.read(&mut [0])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "the peer does not permit us raft streams");
        // And goes unseen.
        let _stream = node.open(Purpose::Control).await.unwrap();
        assert_eq!(accepting.await.unwrap().unwrap(), Purpose::Control);
    }
}

#[tokio::test]
async fn words_of_parting_reach_the_other_side() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        assert_eq!(server.close_reason(), None);
        node.close("the machine is moving");
        let why = timeout(Duration::from_secs(2), server.closed()).await.unwrap();
        assert_eq!(why, "the machine is moving");
        assert_eq!(server.close_reason().unwrap(), why);
        let error = server.open(Purpose::Node).await.unwrap_err();
        assert_eq!(error.to_string(), "the connection is closed: the machine is moving");
        assert!(server.accept().await.is_err());
        assert_eq!(node.closed().await, "closed on this side");

        let (node, _server) = cluster.pair(kind).await;
        cluster.server.close("upgrade").await;
        assert_eq!(timeout(Duration::from_secs(2), node.closed()).await.unwrap(), "upgrade");
        assert!(cluster.server.accept().await.is_none());
    }
}

#[tokio::test]
async fn a_connection_lasts_as_long_as_its_last_stream() {
    for kind in KINDS {
        let cluster = Cluster::new();
        let (node, server) = cluster.pair(kind).await;
        let stream = node.open(Purpose::Control).await.unwrap();
        let (_, mut taken) = server.accept().await.unwrap();
        drop(node);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let answering = tokio::spawn(async move {
            let mut question = Vec::new();
            taken.read_to_end(&mut question).await.unwrap();
            taken.write_all(&question).await.unwrap();
            taken.shutdown().await.unwrap();
        });
        assert_eq!(ask(stream, b"alone").await, b"alone");
        answering.await.unwrap();
        let why = timeout(Duration::from_secs(2), server.closed()).await.unwrap();
        assert_eq!(why, "the peer closed it", "{kind:?}");
    }
}
