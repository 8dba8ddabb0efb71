//! The benchmarks are run by hand; that they start and say what they do is tested.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::process::Command;

#[test]
fn help_names_every_benchmark() {
    let output = Command::new(env!("CARGO_BIN_EXE_sampan-bench")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for command in ["start", "idle", "pods", "http", "density", "store", "faults"] {
        assert!(text.contains(&format!("- {command}")), "{command} is missing: {text}");
    }
}
