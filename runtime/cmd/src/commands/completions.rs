//! `sampan completions SHELL`.

use std::process::ExitCode;

use crate::error::CommandError;

pub(super) fn run(shell: clap_complete::Shell) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::args::command(), "sampan", &mut script);
    super::print(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
