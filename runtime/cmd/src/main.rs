//! The `sampan` binary: parse, configure, run, drain.

mod args;
mod cluster_facts;
mod cluster_keys;
mod commands;
mod components;
mod config_file;
mod data_dir;
mod error;
mod kubeconfig_file;
mod leading;
mod listen;
mod logging;
mod machine;
mod node;
mod node_name;
mod server;
mod settings;
mod snapshot_text;
mod store;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().collect()).and_then(commands::run) {
        Ok(code) => code,
        Err(error) => {
            error.print();
            ExitCode::FAILURE
        }
    }
}
