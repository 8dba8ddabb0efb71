//! What guests see of the node's files.

use std::fs;
use std::path::PathBuf;

use sampan_cri::{ContainerConfig, ContainerRuntime as _, Mount, RuntimeError};
use sampan_wasm::artifact::Flavor;

use super::node::{Node, container};
use super::text;

/// `ENOENT`, `EPERM`, `EROFS` and `ENOTCAPABLE` in preview 1.
const NO_ENTRY: i32 = 44;
const REFUSED: [i32; 3] = [63, 69, 76];

/// Opens `name` under preopened directory `fd` (3 is the root); with `write`, creates it and
/// writes its own name into it. Exits with the error number.
fn opens(fd: u32, name: &str, write: bool) -> String {
    let (create, rights) = if write { (1, 64 | 2) } else { (0, 2) };
    text::core(
        name,
        &format!(
            "(local $error i32)
             (local.set $error (call $open (i32.const {fd}) (i32.const 1) (i32.const 1024)
               (i32.const {len}) (i32.const {create}) (i64.const {rights}) (i64.const 0)
               (i32.const 0) (i32.const 16)))
             (if (local.get $error) (then (call $exit (local.get $error))))
             (if (i32.const {create})
               (then (call $print (i32.load (i32.const 16)) (i32.const 1024) (i32.const {len}))))",
            len = name.len()
        ),
    )
}

struct Files {
    node: Node,
}

impl Files {
    fn new() -> Self {
        let node = Node::new();
        fs::create_dir(node.path("volume")).unwrap();
        fs::write(node.path("volume/key"), "value").unwrap();
        Self { node }
    }

    fn mount(&self, container_path: &str, host: &str, read_only: bool) -> Mount {
        Mount { container_path: container_path.into(), host_path: self.node.path(host), read_only }
    }

    fn config(&self, text: &str, mounts: Vec<Mount>) -> ContainerConfig {
        let mut config = container(&self.node.image(Flavor::CoreP1, text));
        config.mounts = mounts;
        config
    }

    async fn code(&self, config: ContainerConfig) -> i32 {
        self.node.pod("127.42.4.1").await.run(config).await.1.code
    }

    fn host(&self, name: &str) -> PathBuf {
        self.node.path(name)
    }
}

#[tokio::test]
async fn volumes_are_read_and_written_as_mounted() {
    let files = Files::new();
    let both = || vec![files.mount("/rw", "volume", false)];
    assert_eq!(files.code(files.config(&opens(4, "key", false), both())).await, 0);
    assert_eq!(files.code(files.config(&opens(4, "none", false), both())).await, NO_ENTRY);
    assert_eq!(files.code(files.config(&opens(4, "made", true), both())).await, 0);
    assert_eq!(fs::read_to_string(files.host("volume/made")).unwrap(), "made");

    let read_only = || vec![files.mount("/ro", "volume", true)];
    assert_eq!(files.code(files.config(&opens(4, "key", false), read_only())).await, 0);
    let refused = files.code(files.config(&opens(4, "more", true), read_only())).await;
    assert!(REFUSED.contains(&refused), "{refused}");
    assert!(!files.host("volume/more").exists());
}

#[tokio::test]
async fn a_guest_cannot_climb_out_of_its_directories() {
    let files = Files::new();
    let mounts = vec![files.mount("/rw", "volume", false)];
    let code = files.code(files.config(&opens(4, "../volume/key", false), mounts)).await;
    assert!(REFUSED.contains(&code), "{code}");
}

#[tokio::test]
async fn the_root_directory_is_the_containers_own() {
    let files = Files::new();
    assert_eq!(files.code(files.config(&opens(3, "scratch", true), vec![])).await, 0);
    assert_eq!(files.code(files.config(&opens(3, "scratch", false), vec![])).await, NO_ENTRY);
    let mut config = files.config(&opens(3, "scratch", true), vec![]);
    config.read_only_root = true;
    let refused = files.code(config).await;
    assert!(REFUSED.contains(&refused), "{refused}");
}

#[tokio::test]
async fn a_single_file_is_written_through_to_the_host() {
    let files = Files::new();
    fs::write(files.host("termination-log"), "").unwrap();
    let mounts = vec![files.mount("/dev/termination-log", "termination-log", false)];
    assert_eq!(files.code(files.config(&opens(4, "termination-log", true), mounts)).await, 0);
    assert_eq!(fs::read_to_string(files.host("termination-log")).unwrap(), "termination-log");
}

#[tokio::test]
async fn removing_a_container_leaves_volumes_and_nothing_else() {
    let files = Files::new();
    let pod = files.node.pod("127.42.4.1").await;
    let mounts = vec![files.mount("/rw", "volume", false)];
    let (id, _) = pod.run(files.config(&opens(3, "scratch", true), mounts)).await;
    let own = files.host("runtime/files").join(&id.0);
    assert!(own.join("root/scratch").exists());
    files.node.runtime.remove_container(&id).await.unwrap();
    assert!(!own.exists() && files.host("volume/key").exists());
}

#[tokio::test]
async fn mounts_that_cannot_be_are_refused_with_the_path() {
    let files = Files::new();
    let pod = files.node.pod("127.42.4.1").await;
    let cases = [
        (vec![files.mount("/x", "nowhere", false)], "nowhere"),
        (vec![files.mount("x", "volume", false)], "\"x\""),
        (vec![files.mount("/x", "volume", false), files.mount("/x/key", "volume/key", true)], "/x/key"),
    ];
    for (mounts, named) in cases {
        let config = files.config(&text::core("", ""), mounts);
        let error = files.node.runtime.create_container(&pod.sandbox, config).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::Invalid { why } if why.contains(named)), "{error}");
    }
}
