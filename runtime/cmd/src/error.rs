//! How the command line says no: one line with what, where and how to mend it.

use std::fmt;

/// An error for the person at the terminal.
#[derive(Debug)]
pub(crate) struct CommandError {
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CommandError {
    /// An error that is all said in `text`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    /// An error with its cause.
    pub(crate) fn caused(
        text: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { text: text.into(), source: Some(source.into()) }
    }

    /// Prints the error and its causes on one line of standard error.
    #[allow(clippy::print_stderr, reason = "the command line's own voice")]
    pub(crate) fn print(&self) {
        let chain = sampan_client::informer::chain(self);
        eprintln!("sampan: {}", chain.replace('\n', " "));
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Attaches what was being done to an error.
pub(crate) trait Doing<T> {
    /// Names what was being done.
    fn doing(self, text: impl FnOnce() -> String) -> Result<T, CommandError>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, text: impl FnOnce() -> String) -> Result<T, CommandError> {
        self.map_err(|source| CommandError::caused(text(), source))
    }
}
