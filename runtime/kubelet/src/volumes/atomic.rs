//! Writing a volume so that its readers see the old content or the new one, never a mixture.
//!
//! The content lies in a directory of its own (`..TIME`), the link `..data` leads to it, and
//! what users see are links into `..data`. An update writes a new directory and swaps the link.
//! All links are relative and stay inside the volume.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use jiff::Timestamp;

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings the directory to `payload`. Returns whether anything changed.
pub fn write(volume: &Path, payload: &Payload) -> io::Result<bool> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(volume)?;
    let current = fs::read_link(volume.join(DATA)).ok();
    if current.is_some() && is_current(volume, payload) {
        return Ok(false);
    }
    let name = new_name(volume);
    let fresh = volume.join(&name);
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    for (path, file) in payload {
        write_file(&fresh.join(path), &file.data, file.mode)?;
    }
    let staged = volume.join(DATA_NEW);
    remove_if_there(&staged)?;
    std::os::unix::fs::symlink(&name, &staged)?;
    fs::rename(&staged, volume.join(DATA))?;
    link_visible(volume, payload)?;
    if let Some(old) = current {
        crate::paths::remove_tree(&volume.join(old))?;
    }
    Ok(true)
}

/// A directory name that is not in use.
fn new_name(volume: &Path) -> String {
    let now = Timestamp::now();
    let base = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let mut serial = u64::from(now.subsec_nanosecond().unsigned_abs());
    loop {
        let name = format!("{base}.{serial}");
        if fs::symlink_metadata(volume.join(&name)).is_err() {
            return name;
        }
        serial = serial.wrapping_add(1);
    }
}

fn write_file(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(data)?;
    // Not subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Whether the volume shows exactly this already.
fn is_current(volume: &Path, payload: &Payload) -> bool {
    let data = volume.join(DATA);
    let mut seen = BTreeSet::new();
    if collect(&data, "", &mut seen).is_err() || seen.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let place = data.join(path);
        seen.contains(path)
            && fs::metadata(&place).is_ok_and(|meta| meta.permissions().mode() & 0o777 == file.mode)
            && fs::read(&place).is_ok_and(|held| held == file.data)
    })
}

/// The relative paths of all files below a directory.
fn collect(directory: &Path, prefix: &str, into: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{path}/"), into)?;
        } else {
            into.insert(path);
        }
    }
    Ok(())
}

/// Makes the links that users see, and removes those that lead nowhere.
fn link_visible(volume: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::payload::File;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        files
            .iter()
            .map(|(path, data, mode)| {
                ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: *mode })
            })
            .collect()
    }

    fn visible(volume: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(volume)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_under_their_names_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        assert!(write(&volume, &payload(&[("a", "1", 0o644), ("d/e/f", "2", 0o400)])).unwrap());
        assert_eq!(visible(&volume), ["a", "d"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(volume.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::metadata(volume.join("d/e/f")).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(fs::read_link(volume.join("a")).unwrap().is_relative());
    }

    #[test]
    fn an_update_swaps_everything_at_once_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        write(volume, &payload(&[("a", "1", 0o644), ("b", "1", 0o644)])).unwrap();
        let before = fs::read_link(volume.join(DATA)).unwrap();
        assert!(write(volume, &payload(&[("a", "2", 0o644), ("c", "2", 0o644)])).unwrap());
        assert_ne!(fs::read_link(volume.join(DATA)).unwrap(), before);
        assert_eq!(visible(volume), ["a", "c"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
        assert_eq!(fs::read_dir(volume).unwrap().count(), 4, "two links, ..data and its directory");
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let content = payload(&[("a", "1", 0o644), ("d/b", "1", 0o600)]);
        assert!(write(dir.path(), &content).unwrap());
        assert!(!write(dir.path(), &content).unwrap());
        assert!(
            write(dir.path(), &payload(&[("a", "1", 0o600), ("d/b", "1", 0o600)])).unwrap(),
            "a mode counts"
        );
        assert!(write(dir.path(), &Payload::new()).unwrap());
        assert!(!write(dir.path(), &Payload::new()).unwrap());
    }

    #[test]
    fn an_open_directory_keeps_working_across_an_update() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1", 0o644)])).unwrap();
        let open =
            rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        write(dir.path(), &payload(&[("a", "2", 0o644)])).unwrap();
        let file =
            rustix::fs::openat(&open, "a", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        let mut buffer = [0; 4];
        let count = rustix::io::read(&file, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"2");
    }
}
