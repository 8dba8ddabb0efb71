//! Requests per second of the HTTP pod, beside a plain hyper server in the same run. The path is
//! one for which the guest reads no files: HTTP and the guest are what is measured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::net::{TcpListener, TcpStream};

use crate::node::{BenchError, NodeProcess, create_http_pod};
use crate::report::{millis, percentile, row};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

pub(crate) async fn run(sampan: &Path) -> Result<(), BenchError> {
    let directory = tempfile::tempdir()?;
    let node = NodeProcess::ready(sampan, &directory.path().join("data"), 250).await?;
    let pods: Api<Pod> = Api::default_namespaced(node.client().await?);
    create_http_pod(&pods, "web").await?;
    let pod = wait_for_address(&pods).await?;
    let plain = plain_server().await?;
    let (mut of_pod, mut of_plain, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_plain.push(load(plain).await?.len());
        let round = load(pod).await?;
        of_pod.push(round.len());
        times.extend(round);
    }
    of_pod.sort_unstable();
    of_plain.sort_unstable();
    let per_second =
        |rounds: &[usize]| rounds.get(ROUNDS / 2).copied().unwrap_or(0) as f64 / ROUND.as_secs_f64();
    let (pod, plain) = (per_second(&of_pod), per_second(&of_plain));
    row("HTTP pod, requests per second", format!("{pod:.0}"), "≥ wasmtime serve");
    row("plain hyper in the same run", format!("{plain:.0}"), "—");
    row("HTTP pod / plain hyper", format!("{:.2}", pod / plain), "0.6");
    row("HTTP pod, p50", millis(percentile(&mut times, 0.5)), "—");
    row("HTTP pod, p99", millis(percentile(&mut times, 0.99)), "—");
    node.stop()
}

async fn wait_for_address(pods: &Api<Pod>) -> Result<SocketAddr, BenchError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let status = pods.get("web").await?.status.unwrap_or_default();
        if status.phase.as_deref() == Some("Running")
            && let Some(Ok(address)) = status.pod_ip.map(|ip| ip.parse())
        {
            return Ok(SocketAddr::new(address, 8080));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(BenchError::Failed("the HTTP pod did not run".to_owned()))
}

async fn plain_server() -> Result<SocketAddr, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream.set_nodelay(true));
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|_| async {
                    Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"hello\n"))))
                });
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    });
    Ok(address)
}

/// Sends requests on all connections for a round; returns the time of each.
async fn load(address: SocketAddr) -> Result<Vec<Duration>, BenchError> {
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn(one_connection(address));
    }
    let mut times = Vec::new();
    while let Some(connection) = connections.join_next().await {
        times.extend(connection.map_err(|error| BenchError::Failed(error.to_string()))??);
    }
    Ok(times)
}

async fn one_connection(address: SocketAddr) -> Result<Vec<Duration>, BenchError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut times = Vec::new();
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let request = http::Request::get("/healthz")
            .header("host", "bench")
            .body(Full::<Bytes>::default())
            .map_err(|error| BenchError::Failed(error.to_string()))?;
        let begin = Instant::now();
        let response = sender.send_request(request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(BenchError::Failed(format!("answered {}", response.status())));
        }
        response.into_body().collect().await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}
