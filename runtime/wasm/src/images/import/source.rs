//! What a file is, told from its first bytes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::super::error::Fault;
use super::layout;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A module, or what is taken for one.
    Module,
    /// A directory with an OCI image layout.
    Layout,
    /// A tar archive, compressed or not.
    Archive,
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where a tar header says what it is.
const MAGIC: std::ops::Range<usize> = 257..262;
/// As much of a file as tells what it is.
const HEAD: u64 = 512;

/// Looks at a path.
pub(super) fn kind(path: &Path) -> Result<Kind, Fault> {
    let found = fs::metadata(path).map_err(Fault::io("reading", path))?;
    if found.is_dir() {
        if path.join(layout::INDEX).is_file() {
            return Ok(Kind::Layout);
        }
        return Err(Fault::broken("the directory is no OCI image layout: it has no index.json"));
    }
    let head = head(path).map_err(Fault::io("reading", path))?;
    Ok(sort(&head))
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

fn sort(head: &[u8]) -> Kind {
    let tar = head.get(MAGIC) == Some(b"ustar");
    if tar || compression(head) != Compression::None { Kind::Archive } else { Kind::Module }
}

fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Opens a file and unpacks whatever compression its first bytes show, which is more to be
/// trusted than what a media type says.
pub(super) fn decompressed(path: &Path) -> io::Result<Box<dyn Read>> {
    let head = head(path)?;
    let file = io::BufReader::new(File::open(path)?);
    Ok(match compression(&head) {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar.splice(MAGIC, *b"ustar");
        for (head, expected) in [
            (&b"\0asm\x01\0\0\0"[..], Kind::Module),
            (b"", Kind::Module),
            (b"#!/bin/sh", Kind::Module),
            (b"\x1f\x8b\x08", Kind::Archive),
            (b"\x28\xb5\x2f\xfd", Kind::Archive),
            (&tar, Kind::Archive),
        ] {
            assert_eq!(sort(head), expected, "{head:?}");
        }
    }
}
