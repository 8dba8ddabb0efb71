//! Unpacking an image's archive. Only regular files whose names an image can have are taken,
//! and none leads out of the directory that they are unpacked to.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

use super::super::error::Fault;
use super::limits::{self, Bounded};
use super::source;

/// Unpacks an archive into a new directory.
pub(super) fn unpack(archive: &Path, to: &Path) -> Result<(), Fault> {
    fs::create_dir_all(to).map_err(Fault::io("making", to))?;
    let reader = source::decompressed(archive).map_err(Fault::io("reading", archive))?;
    let mut archive = Archive::new(Bounded::new(reader, limits::UNPACKED));
    let entries = archive.entries().map_err(broken)?;
    for (count, entry) in entries.enumerate() {
        if count >= limits::FILES {
            return Err(Fault::broken("the archive holds too many files"));
        }
        let mut entry = entry.map_err(broken)?;
        let name = inside(&entry.path_bytes())?;
        if !is_regular(entry.header().entry_type()) || !is_wanted(&name) {
            continue;
        }
        let (size, path) = (entry.size(), to.join(&name));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(Fault::io("making", directory))?;
        }
        let mut file = File::create(&path).map_err(Fault::io("writing", &path))?;
        copy(&mut entry, &mut file, size, &path)?;
    }
    // What is compressed has its checksum at the end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

/// Copies an entry; the archive's end in the middle of it is no end.
fn copy(entry: &mut impl io::Read, file: &mut File, size: u64, path: &Path) -> Result<(), Fault> {
    let mut buffer = vec![0; 128 << 10];
    let mut copied = 0;
    loop {
        let read = entry.read(&mut buffer).map_err(broken)?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        io::Write::write_all(file, bytes).map_err(Fault::io("writing", path))?;
        copied += read as u64;
    }
    if copied == size { Ok(()) } else { Err(Fault::broken("the archive is cut short")) }
}

/// What an archive's reader says of a broken one.
pub(super) fn broken(error: io::Error) -> Fault {
    Fault::broken(format!("the archive is broken: {error}"))
}

/// Whether an entry is a file with content.
pub(super) fn is_regular(entry: EntryType) -> bool {
    matches!(entry, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse)
}

/// An entry's name without what it need not have. Names that lead out of the archive are no
/// accident, so they are refused.
pub(super) fn inside(name: &[u8]) -> Result<PathBuf, Fault> {
    let text = String::from_utf8_lossy(name);
    let mut inside = PathBuf::new();
    for component in Path::new(text.as_ref()).components() {
        match component {
            Component::Normal(part) => inside.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Fault::broken(format!("the entry {text:?} leads out of the archive")));
            }
        }
    }
    Ok(inside)
}

/// Documents at the top, blobs, and the layers of old archives: an image has nothing else.
fn is_wanted(name: &Path) -> bool {
    let top = name.parent().is_some_and(|parent| parent.as_os_str().is_empty());
    let ends = |extension: &str| name.extension().is_some_and(|found| found == extension);
    name.starts_with("blobs") || (top && (ends("json") || ends("tar"))) || name.ends_with("layer.tar")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    /// An archive of entries, their names written as they are.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let (file, to) = (directory.path().join("a.tar"), directory.path().join("to"));
        fs::write(&file, bytes).unwrap();
        unpack(&file, &to).map_err(|fault| format!("{fault:?}"))?;
        let mut names = Vec::new();
        let mut directories = vec![to.clone()];
        while let Some(next) = directories.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    names.push(path.strip_prefix(&to).unwrap().to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        Ok(names)
    }

    #[test]
    fn only_what_an_image_has_is_unpacked() {
        let names = unpacked(&archive(&[
            ("./index.json", EntryType::Regular, b"{}"),
            ("/blobs/sha256/aa", EntryType::Regular, b"x"),
            ("old/layer.tar", EntryType::Regular, b"x"),
            ("readme.txt", EntryType::Regular, b"x"),
            ("blobs/link", EntryType::Symlink, b""),
            ("blobs/device", EntryType::Char, b""),
            ("blobs/directory/", EntryType::Directory, b""),
        ]));
        assert_eq!(names.unwrap(), ["blobs/sha256/aa", "index.json", "old/layer.tar"]);
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in ["../index.json", "blobs/../../x.json", "/../x.json", "blobs/sha256/../../../x"] {
            let error = unpacked(&archive(&[(name, EntryType::Regular, b"x")])).unwrap_err();
            assert!(error.contains("leads out of the archive"), "{name}: {error}");
        }
    }

    #[test]
    fn an_archive_that_is_cut_short_is_broken_wherever_the_cut_is() {
        let content = vec![b'x'; 3000];
        let whole = archive(&[
            ("blobs/sha256/aa", EntryType::Regular, &content),
            ("blobs/sha256/bb", EntryType::Regular, &content),
        ]);
        assert_eq!(unpacked(&whole).unwrap().len(), 2);
        for cut in [100, 600, 3000, 3900, 4200, 5000, 7000] {
            assert!(unpacked(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &whole).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(unpacked(&gzip).unwrap().len(), 2);
        assert!(unpacked(&gzip[..gzip.len() - 9]).is_err());
    }
}
