//! The same against moto, a server that others wrote: where `SAMPAN_MOTO_SERVER` names its program.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sampan_backup::{Bucket, BucketSettings, Place};

use crate::s3;

struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(program: &str) -> (Moto, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let moto = Moto(child);
    let begun = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "moto does not start");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (moto, address)
}

/// Creates the bucket by a request as plain as moto takes it.
async fn make_bucket(address: SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "PUT /backups HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\
                   Authorization: AWS4-HMAC-SHA256 Credential=a/20261121/us-east-1/s3/aws4_request\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
#[ignore = "needs moto's server, named by SAMPAN_MOTO_SERVER: .ci/run has it"]
async fn a_server_of_somebody_else_gives_back_what_the_store_had() {
    let program = std::env::var("SAMPAN_MOTO_SERVER").expect("SAMPAN_MOTO_SERVER names moto_server");
    let (_moto, address) = start(&program).await;
    make_bucket(address).await;
    let dir = tempfile::tempdir().unwrap();
    s3::bucket(address, dir.path());
    let settings = BucketSettings {
        ca: Some(dir.path().join("ca.pem")),
        region: BucketSettings::REGION.into(),
        ..s3::settings(&format!("http://{address}"))
    };
    s3::round_trips(&Place::Bucket(Bucket::new(&settings).unwrap())).await;
}
