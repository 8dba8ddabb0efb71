//! What the command line says when something is wrong: one line, exit code 1, nothing changed.

use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::cluster::{Cluster, sampan};

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("sampan: "), "{text}");
    text
}

fn entries(path: &Path) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

#[test]
fn unknown_flags_are_one_line() {
    let text = refused(&sampan().args(["dev", "--frobnicate"]).output().unwrap());
    assert!(text.contains("--frobnicate"), "{text}");
}

#[test]
fn a_port_in_use_is_said_and_nothing_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output =
        sampan().args(["dev", "--https-listen-port", &port, "--data-dir"]).arg(&data).output().unwrap();
    let text = refused(&output);
    assert!(text.contains(&port) && text.contains("--https-listen-port"), "{text}");
    assert!(!data.exists());
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("letter.txt"), "Dear").unwrap();
    let output = sampan()
        .args(["dev", "--https-listen-port", "0", "--data-dir"])
        .arg(directory.path())
        .output()
        .unwrap();
    let text = refused(&output);
    assert!(text.contains("letter.txt"), "{text}");
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let text = refused(&sampan().args(["server", "--config", "/nowhere/config.yaml"]).output().unwrap());
    assert!(text.contains("/nowhere/config.yaml"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_a_directory_is_refused() {
    let mut cluster = Cluster::start().await;
    let output = sampan()
        .args(["dev", "--https-listen-port", "0", "--data-dir"])
        .arg(cluster.data_dir())
        .output()
        .unwrap();
    let text = refused(&output);
    assert!(text.contains("in use"), "{text}");
    assert_eq!(cluster.stop(), Some(0), "the first goes on and stops cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_file_is_heeded_and_kubeconfig_prints_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.yaml");
    std::fs::write(&config, "node-label: [site=harbour]\n").unwrap();
    let cluster = Cluster::start_with(&["--config", config.to_str().unwrap()]).await;
    let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(cluster.client().await);
    let deadline = std::time::Instant::now() + crate::cluster::PATIENCE;
    let node = loop {
        if let Some(node) = nodes.get_opt("test").await.unwrap() {
            break node;
        }
        assert!(std::time::Instant::now() < deadline, "the node did not register");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(node.metadata.labels.unwrap()["site"], "harbour");
    let printed = sampan().args(["kubeconfig", "--data-dir"]).arg(cluster.data_dir()).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let written = std::fs::read(cluster.data_dir().join("kubeconfig.yaml")).unwrap();
    assert_eq!(printed.stdout, written);
}

#[test]
fn version_and_completions_are_printed() {
    let output = sampan().arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        concat!("sampan ", env!("CARGO_PKG_VERSION"))
    );
    for shell in ["bash", "zsh", "fish"] {
        let output = sampan().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("sampan"));
    }
}

#[test]
fn check_reports_on_this_machine() {
    let directory = tempfile::tempdir().unwrap();
    let output = sampan()
        .args(["check", "--https-listen-port", "0", "--data-dir"])
        .arg(directory.path().join("data"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for what in ["kernel", "memory", "data directory", "API port", "pod addresses", "WebAssembly", "kubectl"]
    {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!directory.path().join("data").exists(), "check changes nothing");
}

#[test]
fn images_are_imported_listed_and_removed_without_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let module = directory.path().join("m.wasm");
    // A module whose start function returns at once.
    std::fs::write(
        &module,
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b",
    )
    .unwrap();
    let image = |arguments: &[&str]| {
        sampan().arg("image").arg("--data-dir").arg(&data).args(arguments).output().unwrap()
    };
    let imported = image(&["import", "my/app:v1", module.to_str().unwrap()]);
    assert!(imported.status.success(), "{imported:?}");
    let listed = String::from_utf8(image(&["ls"]).stdout).unwrap();
    assert!(listed.contains("my/app:v1") && listed.contains("sampan/hello"), "{listed}");
    assert!(image(&["rm", "my/app:v1"]).status.success());
    let listed = String::from_utf8(image(&["ls"]).stdout).unwrap();
    assert!(!listed.contains("my/app:v1"), "{listed}");
    let text = refused(&image(&["rm", "my/app:v1"]));
    assert!(text.contains("my/app:v1"), "{text}");
    let text = refused(&image(&["import", "x", "/nowhere.wasm"]));
    assert!(text.contains("/nowhere.wasm"), "{text}");
}
