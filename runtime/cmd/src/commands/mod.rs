//! The commands, a file each.

mod check;
mod cluster;
mod completions;
mod image;
mod kubeconfig;
mod snapshot;

pub(crate) use cluster::SERVER_FILE;

use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::error::CommandError;
use crate::settings::{Mode, Settings};

/// Runs what the command line asks for.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, CommandError> {
    match cli.command {
        Command::Dev(args) => cluster::run(Settings::new(Mode::Dev, args)?),
        Command::Server(args) => cluster::run(Settings::new(Mode::Server, args)?),
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
