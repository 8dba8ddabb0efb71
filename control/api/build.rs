//! Compresses the descriptions for the binary: they are half a megabyte of text that is only read
//! when an OpenAPI document is made.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

const SOURCE: &str = "generated/descriptions.txt";

/// Zstandard's level: slow to write, quick to read.
const LEVEL: i32 = 19;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let text = fs::read(SOURCE)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptions.zst"), zstd::bulk::compress(&text, LEVEL)?)?;
    Ok(())
}
