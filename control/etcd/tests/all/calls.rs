//! Many calls of one connection, and what becomes of them when the server stops.

use std::sync::Arc;
use std::time::Duration;

use sampan_etcd::proto::etcdserverpb as pb;
use sampan_etcd::proto::etcdserverpb::kv_client::KvClient;
use sampan_etcd::proto::etcdserverpb::request_op::Request;
use sampan_etcd::proto::etcdserverpb::watch_client::WatchClient;
use sampan_etcd::{EtcdServer, Lessor, Listener, Options, Security, Standalone};
use sampan_store::MemoryStore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::support::{PATIENCE, key, ours, prefix};

fn put(number: usize) -> pb::PutRequest {
    // Some take one frame, some take many.
    let size = [10, 1_024, 40_000][number % 3];
    pb::PutRequest {
        key: key(&format!("many/{number:04}")),
        value: vec![1; size].into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_at_once_on_one_connection_are_all_answered() {
    const CALLS: usize = 600;
    let ours = ours().await;
    let channel = Channel::from_shared(format!("http://{}", ours.address)).unwrap().connect().await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut kv = KvClient::new(channel.clone());
        calls.spawn(async move {
            match number % 4 {
                0 => {
                    let op = pb::RequestOp { request: Some(Request::RequestPut(put(number))) };
                    let txn = pb::TxnRequest { success: vec![op], ..Default::default() };
                    assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
                }
                _ => drop(kv.put(put(number)).await.unwrap()),
            }
            let found =
                kv.range(pb::RangeRequest { key: put(number).key, ..Default::default() }).await.unwrap();
            assert_eq!(found.into_inner().kvs[0].value, put(number).value);
        });
        if number % 50 == 0 {
            // One that is given up does the others no harm.
            let mut kv = KvClient::new(channel.clone());
            let given_up = tokio::time::timeout(Duration::from_micros(200), async move {
                kv.put(pb::PutRequest { key: key("given-up"), ..put(number) }).await
            });
            drop(given_up.await);
        }
    }
    while let Some(call) = tokio::time::timeout(PATIENCE, calls.join_next()).await.unwrap() {
        call.unwrap();
    }
    let count = pb::RangeRequest { count_only: true, ..prefix("many/") };
    let all = KvClient::new(channel).range(count).await.unwrap().into_inner();
    assert_eq!(all.count, CALLS as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_what_is_open() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Security::Plaintext).await.unwrap();
    let address = listener.local_address();
    let (storage, view) = (Arc::new(MemoryStore::new()), Arc::new(Standalone));
    let lessor = Lessor::new(storage.clone(), view.clone());
    let stop = CancellationToken::new();
    let server = EtcdServer::new(storage, view, lessor, Options::default());
    let served = tokio::spawn(server.serve(listener, stop.clone()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    KvClient::new(channel.clone()).put(put(0)).await.unwrap();
    let create = pb::WatchCreateRequest { key: key("k"), ..Default::default() };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut events = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);
    stop.cancel();
    let ended = async { while let Ok(Some(_)) = events.message().await {} };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    drop((events, channel));
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
