//! The commands, a file each.

mod admin;
mod agent;
mod check;
mod completions;
mod etcd_snapshot;
mod image;
mod kubeconfig;
mod snapshot;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::error::CommandError;
use crate::server;
use crate::settings::{AgentSettings, Settings};

/// Runs what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    match cli.command {
        Command::Dev(args) => server::run(Settings::dev(args)?),
        Command::Server(args) => server::run(Settings::server(args)?),
        Command::Agent(args) => agent::run(AgentSettings::new(args)?),
        Command::Token(args) => admin::token(args),
        Command::Member(args) => admin::member(args),
        Command::Node(args) => admin::node(args),
        Command::Certificate(args) => admin::certificate(args),
        Command::Kubeconfig(args) => kubeconfig::run(args),
        Command::Image(args) => image::run(args),
        Command::Snapshot(args) => snapshot::run(args),
        Command::Check(args) => check::run(args),
        Command::Completions { shell } => completions::run(shell),
        Command::Compile { arguments } => Ok(sampan_wasm::compile_child_main(arguments)),
    }
}

/// Writes to standard output; a reader that has gone away is no error.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell if this fails.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
