//! Why the table cannot be generated.

use std::io;
use std::path::PathBuf;

/// Why the table cannot be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Wrong arguments.
    #[error("usage: sampan-api-gen [--check]")]
    Usage,
    /// A file cannot be read or written.
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// `cargo metadata` does not say where the sources are.
    #[error("cargo metadata: {0}")]
    Cargo(String),
    /// A source file is not Rust.
    #[error("{}: {}", .0.display(), .1)]
    Syntax(PathBuf, syn::Error),
    /// The sources are not shaped as this program knows them.
    #[error("{0}")]
    Shape(String),
    /// The committed file differs.
    #[error("{} is not current: run `cargo run -p sampan-api-gen` and commit what it writes", .0.display())]
    Stale(PathBuf),
}
