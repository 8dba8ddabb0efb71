//! How many bytes of the disk (or of memory) a directory takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The blocks of all files below, in bytes. What cannot be read counts as nothing; links are
/// not followed; files that vanish meanwhile are fine.
pub fn bytes(directory: &Path) -> u64 {
    let mut total = 0_u64;
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                todo.push(entry.path());
            } else {
                total = total.saturating_add(meta.blocks().saturating_mul(512));
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_depths_count_and_links_do_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::write(dir.path().join("file"), vec![1; 50_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).unwrap();
        let used = bytes(dir.path());
        assert!((150_000..300_000).contains(&used), "{used}");
        assert_eq!(bytes(&dir.path().join("nowhere")), 0);
    }
}
