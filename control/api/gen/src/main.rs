//! Generates the schema table of `sampan-api` from the sources of two crates: `k8s-pb` (protobuf
//! tags, types, merge markers) and `k8s-openapi` (JSON names, descriptions, required fields), and
//! from the list of fields that are Go pointers, which is in neither.
//!
//! `cargo run -p sampan-api-gen` writes `control/api/generated/`; with `--check` it writes nothing
//! and fails unless the files there are what it would write.

mod error;
mod join;
mod markers;
mod openapi;
mod pointers;
mod protobuf;
mod sources;
mod table;
mod write;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use error::Error;

const POINTER_FIELDS: &str = include_str!("../pointer-fields.txt");

/// What to do with what was generated.
enum Mode {
    Write,
    Check,
}

fn main() -> ExitCode {
    let outcome = mode().and_then(|mode| run(&mode));
    let mut err = io::stderr().lock();
    match outcome {
        Ok(report) => {
            // Nothing can be done about a terminal that is gone.
            let _ = writeln!(err, "{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(err, "sampan-api-gen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mode() -> Result<Mode, Error> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (None, _) => Ok(Mode::Write),
        (Some("--check"), None) => Ok(Mode::Check),
        _ => Err(Error::Usage),
    }
}

fn run(mode: &Mode) -> Result<String, Error> {
    let sources = sources::find()?;
    let messages = protobuf::read(&sources.k8s_pb)?;
    let types = openapi::read(&sources.k8s_openapi)?;
    let pointers = pointers::read(POINTER_FIELDS)?;
    let table = join::join(&messages, &types, pointers)?;
    let header = format!(
        "Written by sampan-api-gen from k8s-pb {} and k8s-openapi {}. Do not edit.",
        sources.k8s_pb_version, sources.k8s_openapi_version
    );
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../generated");
    let files = [
        (directory.join("schema.txt"), write::schema(&header, &table)),
        (directory.join("descriptions.txt"), write::descriptions(&header, &table)),
    ];
    for (path, text) in &files {
        match mode {
            Mode::Write => fs::write(path, text).map_err(|error| Error::File(path.clone(), error))?,
            Mode::Check => check(path, text)?,
        }
    }
    let fields: usize = table.messages.values().map(|message| message.fields.len()).sum();
    Ok(format!("{} messages, {fields} fields", table.messages.len()))
}

fn check(path: &Path, text: &str) -> Result<(), Error> {
    let there = fs::read_to_string(path).map_err(|error| Error::File(path.to_owned(), error))?;
    if there == text { Ok(()) } else { Err(Error::Stale(PathBuf::from(path))) }
}
