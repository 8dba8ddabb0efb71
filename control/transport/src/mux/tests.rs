//! Streams over one connection of bytes, and what a peer may do wrong.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::identity::Role;
use crate::purpose::Purpose;
use crate::stream::{RawRead, RawWrite, Stream};

fn settings(max_streams: u32) -> Settings {
    Settings::new(Duration::from_secs(2), Duration::from_secs(6), max_streams)
}

fn begin(io: DuplexStream, side: Side, max_streams: u32) -> Handle {
    start(io, side, "127.0.0.1:1".parse().unwrap(), settings(max_streams), &TaskTracker::new())
}

fn pair(max_streams: u32) -> (Handle, Handle) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (begin(a, Side::Dialler, max_streams), begin(b, Side::Acceptor, max_streams))
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_and_a_quiet_one_is_not() {
    let (a, _silent) = tokio::io::duplex(64 * 1024);
    let begun = Instant::now();
    let alone = begin(a, Side::Dialler, 8);
    assert_eq!(alone.closed().await, NO_ANSWER);
    assert!(begun.elapsed() >= Duration::from_secs(6) && begun.elapsed() <= Duration::from_secs(8));
    let (one, other) = pair(8);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((one.close_reason(), other.close_reason()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_dialler_that_says_nothing_is_given_up_by_the_acceptor() {
    let (a, _silent) = tokio::io::duplex(64 * 1024);
    assert_eq!(begin(a, Side::Acceptor, 8).closed().await, NO_ANSWER);
}

#[tokio::test]
async fn a_cut_is_the_end() {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let one = begin(a, Side::Dialler, 8);
    drop(b);
    assert!(!one.closed().await.is_empty());
    assert!(one.open().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn streams_break_with_their_connection_though_the_peer_does_not_answer() {
    let at_once = Duration::from_millis(1);
    let (a, _silent) = tokio::io::duplex(64);
    let one = begin(a, Side::Dialler, 8);
    let (mut read, mut write) = one.open().await.unwrap();
    let (mut full_read, mut full) = one.open().await.unwrap();
    let ended = tokio::spawn(async move { read.read(&mut [0]).await });
    let written = tokio::spawn(async move { full.write_all(&[0; 1 << 20]).await });
    assert!(timeout(at_once, full_read.read(&mut [0])).await.is_err(), "it is open");
    one.close("enough");
    for ended in [
        timeout(at_once, ended).await.unwrap().unwrap().map(drop),
        timeout(at_once, written).await.unwrap().unwrap(),
        timeout(at_once, full_read.read(&mut [0])).await.unwrap().map(drop),
        timeout(at_once, write.write_all(b"late")).await.unwrap(),
    ] {
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

#[tokio::test]
async fn a_stream_for_something_unknown_is_refused_by_name() {
    let (one, other) = pair(8);
    let (mut read, mut write) = one.open().await.unwrap();
    write.write_all(&999_u16.to_be_bytes()).await.unwrap();
    let (r, w) = other.accept().await.unwrap();
    let raw = (RawRead::Tcp(r), RawWrite::Tcp(w));
    let error = Stream::accept(raw, Role::Server, Role::Server).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (io::ErrorKind::Unsupported, "streams of kind 999 are not known")
    );
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [1]);
    // The opener's view of that.
    let (r, w) = one.open().await.unwrap();
    let mut stream = Stream::open((RawRead::Tcp(r), RawWrite::Tcp(w)), Purpose::Relay).await.unwrap();
    let (mut read, mut write) = other.accept().await.unwrap();
    read.read_exact(&mut [0; 2]).await.unwrap();
    write.write_all(&[1]).await.unwrap();
    write.flush().await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.to_string(), "the peer does not know relay streams");
}

#[tokio::test]
async fn no_more_streams_than_allowed_and_the_next_waits() {
    let (one, other) = pair(2);
    let mut open = Vec::new();
    for _ in 0..2 {
        let (read, mut write) = one.open().await.unwrap();
        write.write_all(b"x").await.unwrap();
        open.push((read, write));
    }
    let third = one.open();
    tokio::pin!(third);
    assert!(timeout(Duration::from_millis(50), third.as_mut()).await.is_err());
    let _first = other.accept().await.unwrap();
    open.pop();
    timeout(Duration::from_secs(1), third).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_opens_beyond_measure_is_held_in_bounds() {
    // The peer allows itself more than we do.
    let (a, b) = tokio::io::duplex(64 * 1024);
    let (one, other) = (begin(a, Side::Dialler, 7), begin(b, Side::Acceptor, 2));
    let mut open = Vec::new();
    for _ in 0..7 {
        let (read, mut write) = one.open().await.unwrap();
        write.write_all(b"x").await.unwrap();
        write.flush().await.unwrap();
        open.push((read, write));
    }
    let mut taken = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(100), other.accept()).await {
        taken.push(stream.unwrap());
    }
    assert_eq!(taken.len(), 2);
    let mut refused = 0;
    for (read, _write) in &mut open {
        let read = timeout(Duration::from_millis(20), read.read(&mut [0])).await;
        refused += usize::from(read.is_ok_and(|read| read.is_err()));
    }
    assert!(refused >= 3, "two are taken, two may wait, the others are reset; not {refused}");
    assert_eq!((one.close_reason(), other.close_reason()), (None, None));
}

#[tokio::test]
async fn the_last_word_arrives_even_when_the_handle_is_dropped_at_once() {
    for _ in 0..50 {
        let (one, other) = pair(8);
        one.close("off I go");
        drop(one);
        assert_eq!(timeout(Duration::from_secs(2), other.closed()).await.unwrap(), "off I go");
    }
}
