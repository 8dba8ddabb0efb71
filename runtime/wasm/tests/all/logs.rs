//! What becomes of guests' output.

use sampan_cri::ContainerRuntime as _;
use sampan_wasm::Rotation;
use sampan_wasm::artifact::Flavor;

use super::node::{Node, container};
use super::text;

#[tokio::test]
async fn both_streams_are_logged_in_the_cri_format_with_an_unfinished_line_at_the_end() {
    let node = Node::new();
    let pod = node.pod("127.42.5.1").await;
    let prints = text::core(
        "out\\nerr\\nrest",
        "(call $print (i32.const 1) (i32.const 1024) (i32.const 4))
         (call $print (i32.const 2) (i32.const 1028) (i32.const 4))
         (call $print (i32.const 1) (i32.const 1032) (i32.const 4))",
    );
    let (id, _) = pod.run(container(&node.image(Flavor::CoreP1, &prints))).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    assert_eq!(path, node.path("logs/guest/0.log"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut ends = Vec::new();
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        time.parse::<jiff::Timestamp>().unwrap();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000000000Z".len());
        ends.push(rest);
    }
    assert_eq!(ends, ["stdout F out", "stderr F err", "stdout F rest"]);
    assert_eq!(node.runtime.container_stats(&id).await.unwrap().log_bytes, text.len() as u64);
}

#[tokio::test]
async fn a_flood_of_output_is_rotated_and_bounded() {
    let node = Node::with(|config| config.rotation = Rotation { max_bytes: 100_000, max_files: 3 });
    let pod = node.pod("127.42.5.1").await;
    let floods = text::core(
        "a line of thirty-two characters!\\n",
        "(local $n i32)
         (loop $again
           (call $print (i32.const 1) (i32.const 1024) (i32.const 33))
           (br_if $again (i32.lt_u
             (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000))))",
    );
    let (id, exit) = pod.run(container(&node.image(Flavor::CoreP1, &floods))).await;
    assert_eq!(exit.code, 0);
    let mut files: Vec<_> = std::fs::read_dir(node.path("logs/guest"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(files[0], "0.log");
    assert!(files[1].ends_with(".gz") && !files[2].ends_with(".gz"), "{files:?}");
    for (stream, line) in node.log(&id).await {
        assert_eq!((stream.as_str(), line.as_str()), ("stdout", "a line of thirty-two characters!"));
    }
}

#[tokio::test]
async fn a_silent_guest_has_an_empty_log() {
    let node = Node::new();
    let pod = node.pod("127.42.5.1").await;
    let (id, _) = pod.run(container(&node.image(Flavor::CoreP1, &text::core("", "")))).await;
    let path = node.runtime.container_status(&id).await.unwrap().log_path;
    assert_eq!(std::fs::read(path).unwrap(), b"");
}
