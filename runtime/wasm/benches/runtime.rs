//! Figures of the runtime, printed: how exactly CPU limits hold, how soon a command runs, what
//! an idle handler costs, and how many requests a handler answers beside a plain server.
//!
//! `cargo bench -p sampan-wasm [-- cpu | start | idle [COUNT] | rps]`, all of them by default.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a program for developers that prints and fails loudly"
)]

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sampan_cri::*;
use sampan_wasm::artifact::{Artifact, ArtifactKind, Flavor, ImageConfig};
use sampan_wasm::engine::Engines;
use sampan_wasm::{ArtifactSource, RuntimeConfig, WasmRuntime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::Module;
use wasmtime::component::Component;

const SPINNER: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#;

struct Images {
    engines: Engines,
    compiled: Mutex<HashMap<String, Arc<Artifact>>>,
}

#[async_trait::async_trait]
impl ArtifactSource for Images {
    async fn artifact(&self, image_id: &str) -> Result<Arc<Artifact>, String> {
        let mut compiled = self.compiled.lock().unwrap();
        Ok(compiled.entry(image_id.to_owned()).or_insert_with(|| self.compile(image_id)).clone())
    }
}

impl Images {
    fn compile(&self, image_id: &str) -> Arc<Artifact> {
        let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../../modules/dist/");
        let read = |name: &str| std::fs::read(format!("{dist}{name}.wasm")).unwrap();
        let (flavor, bytes) = match image_id {
            "spinner" => (Flavor::CoreP1, wat::parse_str(SPINNER).unwrap()),
            "hello" => (Flavor::CommandP2, read("hello")),
            _ => (Flavor::HttpP2, read("hello-http")),
        };
        let engine = self.engines.get(flavor.engine_class());
        let kind = match flavor {
            Flavor::CoreP1 => ArtifactKind::CoreCommand(Module::new(engine, bytes).unwrap()),
            _ => ArtifactKind::Component(Component::new(engine, bytes).unwrap()),
        };
        Arc::new(Artifact { kind, flavor, config: ImageConfig::default() })
    }
}

struct Bench {
    runtime: WasmRuntime,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engines = Engines::new().unwrap();
        let config = RuntimeConfig::new(directory.path().join("runtime"));
        let images = Arc::new(Images { engines: engines.clone(), compiled: Mutex::default() });
        Self { runtime: WasmRuntime::new(config, engines, images).unwrap(), directory }
    }

    async fn pod(&self, number: u32) -> (SandboxId, IpAddr) {
        let address = IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 42, 0, 1)) + number));
        let config = SandboxConfig {
            pod: PodRef {
                namespace: "bench".into(),
                name: format!("pod-{number}"),
                uid: format!("{number}"),
            },
            attempt: 0,
            hostname: format!("pod-{number}"),
            addresses: vec![address],
            host_network: false,
            log_directory: self.directory.path().join(format!("logs/{number}")),
            host_aliases: vec![],
        };
        (self.runtime.run_sandbox(config).await.unwrap(), address)
    }

    async fn start(&self, sandbox: &SandboxId, image: &str, resources: ContainerResources) -> ContainerId {
        let config = ContainerConfig {
            name: "bench".into(),
            attempt: 0,
            image_id: image.into(),
            image: image.into(),
            command: vec![],
            args: vec![],
            env: vec![],
            working_dir: None,
            mounts: vec![],
            resources,
            ports: vec![],
            stdin: false,
            read_only_root: false,
            log_path: "bench/0.log".into(),
            annotations: BTreeMap::new(),
        };
        let id = self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn cpu() {
    println!("\nCPU limits, a busy loop over 10 s (share of a core used / allowed):");
    for millis in [100, 500, 1000] {
        let bench = Bench::new();
        let (sandbox, _) = bench.pod(0).await;
        let resources = ContainerResources { cpu_limit_millis: Some(millis), ..Default::default() };
        let id = bench.start(&sandbox, "spinner", resources).await;
        // The first burst belongs to the start.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = bench.runtime.container_stats(&id).await.unwrap().cpu_nanos;
        let started = Instant::now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let used = bench.runtime.container_stats(&id).await.unwrap().cpu_nanos - before;
        let share = used as f64 / started.elapsed().as_nanos() as f64;
        let allowed = millis as f64 / 1000.0;
        println!("  {millis:>5}m  {share:.4} / {allowed:.4}  ({:+.1} %)", (share / allowed - 1.0) * 100.0);
        bench.runtime.stop_sandbox(&sandbox).await.unwrap();
    }
}

async fn start() {
    let bench = Bench::new();
    let (sandbox, _) = bench.pod(0).await;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for round in 0..520 {
        let begun = Instant::now();
        let id = bench.start(&sandbox, "hello", ContainerResources::default()).await;
        let started = begun.elapsed();
        while !matches!(bench.runtime.container_status(&id).await.unwrap().state, ContainerState::Exited(_)) {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        // The first ones compile and warm up.
        if round >= 20 {
            starts.push(started);
            ends.push(begun.elapsed());
        }
        bench.runtime.remove_container(&id).await.unwrap();
    }
    for (what, mut times) in [("created and running", starts), ("ran to its end", ends)] {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("\ncommand {what}: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    }
}

async fn idle(count: u32) {
    let bench = Bench::new();
    let (sandbox, _) = bench.pod(0).await;
    bench.start(&sandbox, "hello-http", ContainerResources::default()).await;
    let before = resident();
    let begun = Instant::now();
    for number in 1..=count {
        let (sandbox, _) = bench.pod(number).await;
        bench.start(&sandbox, "hello-http", ContainerResources::default()).await;
    }
    let each = (resident() - before) as f64 / f64::from(count);
    println!("\n{count} idle handlers: {each:.1} KiB resident each, started in {:?}", begun.elapsed());
    let facts = bench.runtime.facts();
    println!("  this machine carries {} pods {:?}", facts.max_pods, facts.warnings);
}

/// Sends requests over `connections` for a while; gives how many were answered a second.
async fn load(address: SocketAddr, connections: usize) -> f64 {
    let until = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..connections).map(|_| tokio::spawn(client(address, until))).collect();
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    answered as f64 / 4.0
}

async fn client(address: SocketAddr, until: Instant) -> u64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut answered, mut buffer) = (0, vec![0; 4096]);
    while Instant::now() < until {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n").await.unwrap();
        let mut length = 0;
        while !whole(&buffer[..length]) {
            length += stream.read(&mut buffer[length..]).await.unwrap();
        }
        answered += 1;
    }
    answered
}

/// Whether an answer has arrived to its end.
fn whole(text: &[u8]) -> bool {
    let Some(head) = text.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let fields = std::str::from_utf8(&text[..head]).unwrap();
    let length = fields.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
    });
    match length {
        Some(length) => text.len() >= head + 4 + length,
        None => text.ends_with(b"0\r\n\r\n"),
    }
}

async fn plain_server() -> SocketAddr {
    use http_body_util::Full;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(|_| async {
                    let body = Full::new(bytes::Bytes::from_static(b"Hello, world!\n"));
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
            });
        }
    });
    address
}

async fn rps() {
    let bench = Bench::new();
    let (sandbox, address) = bench.pod(0).await;
    let id = bench.start(&sandbox, "hello-http", ContainerResources::default()).await;
    let handler = SocketAddr::new(address, 8080);
    let plain = plain_server().await;
    load(handler, 16).await;
    let (mut handlers, mut plains) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        handlers.push(load(handler, 16).await);
        plains.push(load(plain, 16).await);
    }
    handlers.sort_by(f64::total_cmp);
    plains.sort_by(f64::total_cmp);
    println!(
        "\nrequests a second, 16 connections, median of 3: handler {:.0}, plain hyper {:.0} ({:.2} of it)",
        handlers[1],
        plains[1],
        handlers[1] / plains[1]
    );
    println!("  {:?}", bench.runtime.container_stats(&id).await.unwrap());
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let count = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1_000);
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        // First, while the heap is small.
        if wanted("idle") {
            idle(count).await;
        }
        if wanted("start") {
            start().await;
        }
        if wanted("rps") {
            rps().await;
        }
        if wanted("cpu") {
            cpu().await;
        }
    });
}
