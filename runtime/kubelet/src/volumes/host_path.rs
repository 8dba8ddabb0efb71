//! `hostPath`: a path of the node, checked against what the pod says it is.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks (and makes, where the type says so) a path of the node. The error is for the user.
pub fn check(path: &str, type_: &str) -> Result<(), String> {
    let place = Path::new(path);
    let wrong = |what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
    let meta = fs::metadata(place).ok();
    let is = |check: fn(&fs::Metadata) -> bool| meta.as_ref().is_some_and(check);
    match type_ {
        "" => Ok(()),
        "DirectoryOrCreate" => match &meta {
            Some(meta) if meta.is_dir() => Ok(()),
            Some(_) => wrong("a directory"),
            None => fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(place)
                .map_err(|error| format!("cannot create {path}: {error}")),
        },
        "FileOrCreate" => match &meta {
            Some(meta) if meta.is_file() => Ok(()),
            Some(_) => wrong("a file"),
            None => fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(place)
                .map(drop)
                .map_err(|error| format!("cannot create {path}: {error}")),
        },
        "Directory" if is(fs::Metadata::is_dir) => Ok(()),
        "Directory" => wrong("a directory"),
        "File" if is(fs::Metadata::is_file) => Ok(()),
        "File" => wrong("a file"),
        "Socket" if is(|meta| meta.file_type().is_socket()) => Ok(()),
        "Socket" => wrong("a socket file"),
        "CharDevice" if is(|meta| meta.file_type().is_char_device()) => Ok(()),
        "CharDevice" => wrong("a character device"),
        "BlockDevice" if is(|meta| meta.file_type().is_block_device()) => Ok(()),
        "BlockDevice" => wrong("a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_checked_or_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(dir.path().join("file"), "").unwrap();
        for (type_, path, ok) in [
            ("", at("nowhere"), true),
            ("Directory", at(""), true),
            ("Directory", at("file"), false),
            ("Directory", at("nowhere"), false),
            ("File", at("file"), true),
            ("File", at(""), false),
            ("DirectoryOrCreate", at("made/deep"), true),
            ("DirectoryOrCreate", at("file"), false),
            ("FileOrCreate", at("made.txt"), true),
            ("FileOrCreate", at("made"), false),
            ("CharDevice", "/dev/null".into(), true),
            ("BlockDevice", "/dev/null".into(), false),
            ("Socket", at("file"), false),
            ("Nonsense", at("file"), false),
        ] {
            assert_eq!(check(&path, type_).is_ok(), ok, "{type_} {path}");
        }
        assert!(dir.path().join("made/deep").is_dir() && dir.path().join("made.txt").is_file());
        assert_eq!(
            check(&at("file"), "Directory"),
            Err(format!("hostPath type check failed: {} is not a directory", at("file")))
        );
    }
}
