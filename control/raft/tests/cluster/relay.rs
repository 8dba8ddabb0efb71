//! A way between machines that is long: datagrams to one address reach another one later.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The largest datagram.
const LARGEST: usize = 64 << 10;

/// Forwards until it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// What is sent to its address reaches `to` after `delay`, and so do answers.
    pub(crate) async fn to(to: SocketAddr, delay: Duration) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(front, to, delay));
        Self { address, _tasks: tasks }
    }
}

async fn forward(front: Arc<UdpSocket>, to: SocketAddr, delay: Duration) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        // An address that nobody listens at any more is told as an error of the socket.
        let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
        if let std::collections::btree_map::Entry::Vacant(vacant) = backs.entry(from) {
            let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
            tasks.spawn(answers(Arc::clone(&back), Arc::clone(&front), from, delay));
            vacant.insert(back);
        }
        send_later(&mut tasks, Arc::clone(&backs[&from]), buffer[..length].to_vec(), to, delay);
    }
}

async fn answers(back: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, delay: Duration) {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
        send_later(&mut tasks, Arc::clone(&front), buffer[..length].to_vec(), to, delay);
    }
}

fn send_later(
    tasks: &mut JoinSet<()>,
    by: Arc<UdpSocket>,
    datagram: Vec<u8>,
    to: SocketAddr,
    delay: Duration,
) {
    while tasks.try_join_next().is_some() {}
    tasks.spawn(async move {
        sleep(delay).await;
        // As on any network, what cannot be delivered is lost.
        let _ = by.send_to(&datagram, to).await;
    });
}
