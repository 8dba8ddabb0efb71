//! Finds the sources of the two crates as Cargo unpacked them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::Error;

/// Where the sources are.
pub(crate) struct Sources {
    pub(crate) k8s_pb: PathBuf,
    pub(crate) k8s_pb_version: String,
    pub(crate) k8s_openapi: PathBuf,
    pub(crate) k8s_openapi_version: String,
}

/// Asks Cargo.
pub(crate) fn find() -> Result<Sources, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .map_err(|error| Error::Cargo(error.to_string()))?;
    if !output.status.success() {
        return Err(Error::Cargo(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Cargo(error.to_string()))?;
    let (k8s_pb, k8s_pb_version) = package(&metadata, "k8s-pb")?;
    let (k8s_openapi, k8s_openapi_version) = package(&metadata, "k8s-openapi")?;
    Ok(Sources {
        k8s_pb: k8s_pb.join("src"),
        k8s_pb_version,
        k8s_openapi: k8s_openapi.join("src/v1_35"),
        k8s_openapi_version,
    })
}

fn package(metadata: &Value, name: &str) -> Result<(PathBuf, String), Error> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let package = packages
        .and_then(|packages| packages.iter().find(|package| text(package, "name") == name))
        .ok_or_else(|| Error::Cargo(format!("{name} is not among the packages")))?;
    let directory = Path::new(text(package, "manifest_path")).parent();
    let directory = directory.ok_or_else(|| Error::Cargo(format!("{name} has no directory")))?;
    Ok((directory.to_owned(), text(package, "version").to_owned()))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// All Rust files under a directory, in a fixed order.
pub(crate) fn rust_files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let fail = |error| Error::File(directory.clone(), error);
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A file as syntax.
pub(crate) fn parse(path: &Path) -> Result<syn::File, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::File(path.to_owned(), error))?;
    syn::parse_file(&text).map_err(|error| Error::Syntax(path.to_owned(), error))
}
