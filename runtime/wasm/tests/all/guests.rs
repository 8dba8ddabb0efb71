//! The guests of `modules/`: what lies in `modules/dist`, or where `SAMPAN_MODULES_DIST` says.

use std::fs;

use sampan_cri::{
    ContainerConfig, ContainerPort, ContainerResources, ContainerRuntime as _, ImageService as _, Mount,
};
use sampan_wasm::artifact::{Compiler, Flavor, detect};
use sampan_wasm::images::ImageStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::node::{Node, PATIENCE, container, modules};

/// The test guest as a component and as a core module.
const BOTH: [&str; 2] = ["testguest.wasm", "testguest-core.wasm"];

fn running(image: &str, arguments: &str) -> ContainerConfig {
    let mut config = container(image);
    config.args = arguments.split_whitespace().map(str::to_owned).collect();
    config
}

/// Runs the test guest on a node of its own: exit code, reason, standard output, standard error.
async fn run(file: &str, arguments: &str) -> (i32, String, Vec<String>, Vec<String>) {
    let node = Node::new();
    let pod = node.pod("127.42.30.1").await;
    let (id, exit) = pod.run(running(&node.guest(file), arguments)).await;
    let log = node.log(&id).await;
    let of = |stream: &str| {
        log.iter().filter(|(from, _)| from == stream).map(|(_, line)| line.clone()).collect::<Vec<_>>()
    };
    (exit.code, exit.reason, of("stdout"), of("stderr"))
}

/// A directory with configuration as a volume has it.
fn configuration(node: &Node) -> Mount {
    let directory = node.path("config");
    fs::create_dir_all(directory.join("..data_1")).unwrap();
    fs::write(directory.join("..data_1/greeting"), "Ahoy\n").unwrap();
    fs::write(directory.join("..data_1/crew.txt"), "captain\ncook\n").unwrap();
    std::os::unix::fs::symlink("..data_1", directory.join("..data")).unwrap();
    for name in ["greeting", "crew.txt"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), directory.join(name)).unwrap();
    }
    Mount { container_path: "/etc/config".into(), host_path: directory, read_only: true }
}

/// What every pod has of its service account.
fn credentials(node: &Node) -> Mount {
    let directory = node.path("credentials");
    fs::create_dir_all(&directory).unwrap();
    for name in ["ca.crt", "token"] {
        fs::write(directory.join(name), "under-the-deck").unwrap();
    }
    let container_path = "/var/run/secrets/kubernetes.io/serviceaccount".into();
    Mount { container_path, host_path: directory, read_only: true }
}

async fn get(address: &str, request: &str) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("an answer")
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
}

#[test]
fn guests_are_what_their_names_say() {
    for (file, flavor) in [
        ("hello.wasm", Flavor::CommandP2),
        ("hello-http.wasm", Flavor::HttpP2),
        ("testguest.wasm", Flavor::CommandP2),
        ("testguest-core.wasm", Flavor::CoreP1),
    ] {
        assert_eq!(detect(&fs::read(modules().join(file)).unwrap()), Ok(flavor), "{file}");
    }
}

#[tokio::test]
async fn hello_prints_what_it_was_given_but_no_secrets_and_ends_well() {
    let node = Node::new();
    let pod = node.pod("127.42.30.2").await;
    let mut config = running(&node.guest("hello.wasm"), "from me");
    config.env = [("GREETING", "Ahoy"), ("POD_NAME", "hello"), ("PASSWORD", "under-the-deck")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    config.mounts = vec![configuration(&node), credentials(&node)];
    let (id, exit) = pod.run(config).await;
    assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"), "{exit:?}");
    let text: Vec<_> = node.log(&id).await.into_iter().map(|(_, line)| line).collect();
    let text = text.join("\n");
    for part in [
        "Ahoy from hello\n",
        "  1: from\n  2: me\n",
        "  GREETING=Ahoy\n",
        "  PASSWORD: 14 bytes, not shown\n",
        "  /var/run/secrets/kubernetes.io/serviceaccount/ca.crt: 14 bytes, not shown\n",
        "  /var/run/secrets/kubernetes.io/serviceaccount/token: 14 bytes, not shown",
        "  /etc/config/crew.txt\n    captain\n    cook\n  /etc/config/greeting\n    Ahoy",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("under-the-deck") && !text.contains("..data"), "{text}");
}

#[tokio::test]
async fn hello_http_answers_with_its_configuration() {
    let node = Node::new();
    let pod = node.pod("127.42.30.3").await;
    let mut config = container(&node.guest("hello-http.wasm"));
    config.env = vec![("POD_NAME".into(), "web-0".into())];
    config.mounts = vec![configuration(&node)];
    config.ports =
        vec![ContainerPort { name: None, container_port: 18_080, host_port: None, protocol: "TCP".into() }];
    pod.start(config).await;
    let address = "127.42.30.3:18080";
    let answer = get(address, &request("/some/path?a=b")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for part in [
        "Ahoy from WebAssembly\n",
        "pod: web-0\n",
        "request: GET /some/path?a=b\n",
        "config crew.txt: captain, cook\n",
        "content-type: text/plain; charset=utf-8\r\n",
    ] {
        assert!(answer.contains(part), "{part:?} in {answer}");
    }
    assert!(get(address, &request("/healthz")).await.ends_with("\r\n\r\nok\n"));
    let echo = "POST /echo HTTP/1.1\r\nHost: pod\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert!(get(address, echo).await.ends_with("\r\n\r\nhello"));
}

#[tokio::test]
async fn the_test_guest_ends_as_it_is_told() {
    for file in BOTH {
        for (arguments, code, reason) in [
            ("ok", 0, "Completed"),
            ("fail", 1, "Error"),
            ("exit-with-code 42", 42, "Error"),
            ("panic at the disco", 134, "Error"),
            ("abort", 134, "Error"),
            ("overflow", 139, "Error"),
            ("no-such-thing", 1, "Error"),
            ("print one then exit-with-code 7", 7, "Error"),
        ] {
            let (found, why, _, stderr) = run(file, arguments).await;
            assert_eq!((found, why.as_str()), (code, reason), "{file} {arguments}: {stderr:?}");
        }
    }
}

#[tokio::test]
async fn the_test_guest_prints_what_it_is_asked_for() {
    for file in BOTH {
        let (_, _, stdout, stderr) = run(file, "print a b then complain c then args").await;
        assert_eq!(stdout.first().map(String::as_str), Some("a b"), "{file}");
        assert_eq!(stdout.last().map(String::as_str), Some("args"), "{file}");
        assert_eq!(stderr, ["c"], "{file}");
        let (code, _, stdout, _) = run(file, "flood 1000 10 then sleep 1").await;
        assert_eq!((code, stdout.len()), (0, 1000), "{file}");
        assert_eq!(stdout.last().map(String::as_str), Some("0000000999"), "{file}");
    }
}

#[tokio::test]
async fn the_test_guest_burdens_cpu_and_memory() {
    let node = Node::new();
    let pod = node.pod("127.42.30.4").await;
    for (attempt, file) in BOTH.into_iter().enumerate() {
        let mut config = running(&node.guest(file), "alloc 24 then spin 20 then clock 20");
        config.log_path = format!("guest/{attempt}.log").into();
        let (id, exit) = pod.run(config.clone()).await;
        assert_eq!(exit.code, 0, "{exit:?}");
        let lines = node.log(&id).await;
        assert_eq!(lines.first().unwrap().1, "24 MiB");
        assert!(lines[1].1.ends_with(" rounds") && lines[2].1.ends_with(" calls"), "{lines:?}");
        let stats = node.runtime.container_stats(&id).await.unwrap();
        assert!(stats.memory_peak_bytes > 24 << 20, "{stats:?}");

        config.resources = ContainerResources { memory_limit_bytes: Some(16 << 20), ..Default::default() };
        config.log_path = format!("guest/{}.log", attempt + 10).into();
        let (_, exit) = pod.run(config).await;
        assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"), "{file}");
    }
}

#[tokio::test]
async fn the_test_guest_works_with_files() {
    let script = "mkdir /data/a/b then write /data/a/one 1 then append /data/a/one 2 then fill /data/a/two 3 \
                  then rename /data/a/two /data/a/three then list /data/a then read /data/a/one \
                  then remove /data/a/three then remove /data/a/b then list /data/a then await /data/a/one 2";
    for file in BOTH {
        let node = Node::new();
        let pod = node.pod("127.42.30.5").await;
        fs::create_dir_all(node.path("data")).unwrap();
        let mut config = running(&node.guest(file), script);
        config.mounts =
            vec![Mount { container_path: "/data".into(), host_path: node.path("data"), read_only: false }];
        let (id, exit) = pod.run(config).await;
        let lines: Vec<_> = node.log(&id).await.into_iter().map(|(_, line)| line).collect();
        assert_eq!(exit.code, 0, "{file}: {lines:?}");
        assert_eq!(lines, ["b/", "one", "three", "1", "2", "one", "/data/a/one contains 2"], "{file}");
    }
}

#[tokio::test]
async fn the_test_guest_reads_its_input_to_the_end() {
    for file in BOTH {
        let node = Node::new();
        let pod = node.pod("127.42.30.6").await;
        let mut config = running(&node.guest(file), "print ready then cat");
        config.stdin = true;
        let id = pod.start(config).await;
        node.logged(&id, "ready").await;
        node.runtime.stop_container(&id, PATIENCE).await.unwrap();
        assert_eq!(node.log(&id).await.last().unwrap().1, "input ended", "{file}");
    }
}

#[tokio::test]
async fn the_test_guest_talks_over_tcp_and_udp() {
    let node = Node::new();
    let image = node.guest("testguest.wasm");
    let (serves, asks) = (node.pod("127.42.30.7").await, node.pod("127.42.30.8").await);
    for (number, (server, client)) in [
        ("tcp-echo 0.0.0.0:18091 1", "tcp-send 127.42.30.7:18091 hello"),
        ("udp-echo 0.0.0.0:18092 1", "udp-send 127.42.30.7:18092 hello"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut config = running(&image, server);
        config.log_path = format!("server/{number}.log").into();
        let id = serves.start(config).await;
        node.logs(&id, |line| line.starts_with("listening on ")).await;
        let mut config = running(&image, client);
        config.log_path = format!("client/{number}.log").into();
        let (asked, exit) = asks.run(config).await;
        assert_eq!((exit.code, node.log(&asked).await), (0, vec![("stdout".into(), "hello".into())]));
        assert_eq!(node.ended(&id).await.code, 0);
    }
    let (code, _, _, stderr) = run("testguest-core.wasm", "tcp-echo 0.0.0.0:18091").await;
    assert_eq!(code, 1, "preview 1 has no sockets: {stderr:?}");
}

#[tokio::test]
async fn embedded_images_run_from_the_image_store() {
    let images = tempfile::tempdir().unwrap();
    let engines = sampan_wasm::engine::Engines::new().unwrap();
    let store = ImageStore::open(images.path(), engines.clone(), Compiler::InProcess).unwrap();
    let info = store.pull("sampan/hello", &[]).await.unwrap();
    let config = sampan_wasm::RuntimeConfig {
        tune_host: false,
        ..sampan_wasm::RuntimeConfig::new(images.path().join("runtime"))
    };
    let runtime = sampan_wasm::WasmRuntime::new(config, engines, std::sync::Arc::new(store)).unwrap();
    let node = Node::around(runtime);
    let pod = node.pod("127.42.30.9").await;
    let (id, exit) = pod.run(running(&info.id, "aboard")).await;
    assert_eq!(exit.code, 0, "{exit:?}");
    assert!(node.log(&id).await.iter().any(|(_, line)| line == "  1: aboard"));
}
