//! `subPath`: a part of a volume, which must not lead out of it.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::Mounted;

/// The place of a part of a volume. A part that is not there becomes a directory, where the
/// volume can be written. `copy` is where a part is kept as it is now, for volumes whose content
/// is replaced as a whole: a container keeps seeing what it started with.
pub fn resolve(volume: &Mounted, part: &str, copy: &Path) -> Result<PathBuf, String> {
    let relative = Path::new(part);
    let inside = relative.components().all(|piece| matches!(piece, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(format!("subPath \"{part}\" must be a relative path without .."));
    }
    let wanted = volume.path.join(relative);
    if !volume.read_only && !wanted.exists() {
        fs::create_dir_all(&wanted)
            .map_err(|error| format!("failed to create subPath \"{part}\": {error}"))?;
    }
    let root =
        volume.path.canonicalize().map_err(|error| format!("failed to resolve the volume: {error}"))?;
    let real =
        wanted.canonicalize().map_err(|error| format!("failed to prepare subPath \"{part}\": {error}"))?;
    if !real.starts_with(&root) {
        return Err(format!("subPath \"{part}\" leads out of the volume"));
    }
    if !volume.replaced {
        return Ok(real);
    }
    crate::paths::remove_tree(copy).ok();
    copy_tree(&real, copy).map_err(|error| format!("failed to keep subPath \"{part}\": {error}"))?;
    Ok(copy.to_owned())
}

/// Copies a file or a directory with its modes, following links.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    if !from.is_dir() {
        remove_file(to)?;
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_tree(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::atomic;
    use crate::volumes::payload::{File, Payload};

    fn writable(path: &Path) -> Mounted {
        Mounted { path: path.to_owned(), read_only: false, replaced: false }
    }

    #[test]
    fn a_missing_part_of_a_writable_volume_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let place = resolve(&writable(dir.path()), "a/b", Path::new("/unused")).unwrap();
        assert!(place.is_dir() && place.ends_with("a/b"));
    }

    #[test]
    fn no_part_leads_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir_all(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
        for part in ["../x", "/etc", "a/../../x", "link", "link/passwd"] {
            assert!(resolve(&writable(&volume), part, Path::new("/unused")).is_err(), "{part}");
        }
    }

    #[test]
    fn a_part_of_a_replaced_volume_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        let content = |text: &str| {
            Payload::from([("k".to_owned(), File { data: text.as_bytes().to_vec(), mode: 0o644 })])
        };
        atomic::write(&volume, &content("1")).unwrap();
        let mounted = Mounted { path: volume.clone(), read_only: true, replaced: true };
        let place = resolve(&mounted, "k", &dir.path().join("copy")).unwrap();
        atomic::write(&volume, &content("2")).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "1");
        let again = resolve(&mounted, "k", &dir.path().join("copy")).unwrap();
        assert_eq!(fs::read_to_string(again).unwrap(), "2", "a restart sees the new content");
        assert!(resolve(&mounted, "nope", &dir.path().join("copy2")).is_err());
    }
}
