//! Logs: to standard error, one line each.

use tracing_subscriber::EnvFilter;

use crate::error::{CommandError, Doing};

/// Sends logs of `level` (or what `RUST_LOG` says) to standard error.
pub(crate) fn init(level: &str) -> Result<(), CommandError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => filter,
        // A level says how much to tell of what we do; openraft's own inner life is more than that.
        _ if ["error", "warn", "info", "debug"].contains(&level) => format!("{level},openraft=error"),
        _ => level.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).doing(|| format!("log level {filter:?} is not understood"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init()
        .map_err(|error| CommandError::new(format!("logging cannot start: {error}")))
}
