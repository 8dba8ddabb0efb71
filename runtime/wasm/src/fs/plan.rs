//! From mounts to preopened directories: decisions only.

use std::path::PathBuf;

use sampan_cri::Mount;

/// What a mount's host path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A single file.
    File,
}

/// What the root directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// A directory of the container's own, gone with it.
    Writable,
    /// An empty directory that cannot be written.
    ReadOnly,
    /// A mount at `/`.
    Mounted(Entry),
}

/// A directory of the host and where the guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Absolute, normal path in the guest.
    pub guest: String,
    /// Path on the node.
    pub host: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Single files under one parent path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileGroup {
    /// The parent path in the guest.
    pub parent: String,
    /// The files, by their full path in the guest.
    pub files: Vec<Entry>,
    /// Whether all of them are read-only: then so is the directory made for them.
    pub read_only: bool,
}

/// What a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The root directory.
    pub root: Root,
    /// Mounted directories, shallow ones first.
    pub directories: Vec<Entry>,
    /// Mounted files by parent.
    pub files: Vec<FileGroup>,
}

/// A set of mounts that cannot be met. The texts are for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// The path in the container cannot be used.
    #[error("mount path {path:?} must be absolute and free of \"..\"")]
    Path {
        /// The path.
        path: String,
    },
    /// Two mounts want the same path.
    #[error("mount path {path:?} is used twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// A single file would lie in a mounted directory.
    #[error("mounting the single file {file:?} into the volume mounted at {volume:?} is not supported")]
    FileInVolume {
        /// The file's path.
        file: String,
        /// The volume's path.
        volume: String,
    },
}

/// Plans a container's view of `mounts`.
///
/// # Errors
/// When the mounts contradict each other.
pub(crate) fn plan(mounts: &[(Mount, Kind)], read_only_root: bool) -> Result<Plan, PlanError> {
    let mut root = if read_only_root { Root::ReadOnly } else { Root::Writable };
    let mut directories: Vec<Entry> = Vec::new();
    let mut single: Vec<Entry> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (mount, kind) in mounts {
        let guest = normal(&mount.container_path)?;
        if seen.contains(&guest) {
            return Err(PlanError::Twice { path: guest });
        }
        seen.push(guest.clone());
        let entry = Entry { guest, host: mount.host_path.clone(), read_only: mount.read_only };
        match kind {
            Kind::Directory if entry.guest == "/" => root = Root::Mounted(entry),
            Kind::Directory => directories.push(entry),
            Kind::File => single.push(entry),
        }
    }
    directories.sort_by_key(|entry| (entry.guest.matches('/').count(), entry.guest.clone()));
    let files = group(single, &directories, &root)?;
    Ok(Plan { root, directories, files })
}

fn group(single: Vec<Entry>, directories: &[Entry], root: &Root) -> Result<Vec<FileGroup>, PlanError> {
    let mut groups: Vec<FileGroup> = Vec::new();
    for file in single {
        let volume = directories.iter().find(|entry| within(&file.guest, &entry.guest));
        if let Some(volume) = volume.map(|entry| entry.guest.clone()) {
            return Err(PlanError::FileInVolume { file: file.guest, volume });
        }
        if let Root::Mounted(_) = root {
            return Err(PlanError::FileInVolume { file: file.guest, volume: "/".to_owned() });
        }
        let parent = match file.guest.rsplit_once('/') {
            Some(("", _)) | None => "/".to_owned(),
            Some((parent, _)) => parent.to_owned(),
        };
        match groups.iter_mut().find(|group| group.parent == parent) {
            Some(group) => {
                group.read_only &= file.read_only;
                group.files.push(file);
            }
            None => groups.push(FileGroup { parent, read_only: file.read_only, files: vec![file] }),
        }
    }
    Ok(groups)
}

fn within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// The path with one slash between parts and none at the end.
fn normal(path: &str) -> Result<String, PlanError> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if !path.starts_with('/') || parts.contains(&"..") {
        return Err(PlanError::Path { path: path.to_owned() });
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(guest: &str, kind: Kind, read_only: bool) -> (Mount, Kind) {
        let host_path = format!("/host{guest}").into();
        (Mount { container_path: guest.to_owned(), host_path, read_only }, kind)
    }

    fn entry(guest: &str, read_only: bool) -> Entry {
        Entry { guest: guest.to_owned(), host: format!("/host{guest}").into(), read_only }
    }

    #[test]
    fn directories_are_sorted_shallow_first_and_keep_their_mode() {
        let mounts = [
            mount("/data/cache", Kind::Directory, true),
            mount("/data", Kind::Directory, false),
            mount("/etc", Kind::Directory, true),
        ];
        let plan = plan(&mounts, true).unwrap();
        assert_eq!(plan.root, Root::ReadOnly);
        assert_eq!(
            plan.directories,
            [entry("/data", false), entry("/etc", true), entry("/data/cache", true)]
        );
    }

    #[test]
    fn single_files_share_a_directory_for_each_parent() {
        let mounts = [
            mount("/dev/termination-log", Kind::File, false),
            mount("/etc/a.conf", Kind::File, true),
            mount("/etc/b.conf", Kind::File, true),
            mount("/dev/other", Kind::File, true),
            mount("/top", Kind::File, true),
        ];
        let plan = plan(&mounts, false).unwrap();
        let seen: Vec<_> =
            plan.files.iter().map(|g| (g.parent.as_str(), g.files.len(), g.read_only)).collect();
        assert_eq!(seen, [("/dev", 2, false), ("/etc", 2, true), ("/", 1, true)]);
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let file_in_volume =
            [mount("/data", Kind::Directory, false), mount("/data/x/file", Kind::File, false)];
        assert_eq!(
            plan(&file_in_volume, false),
            Err(PlanError::FileInVolume { file: "/data/x/file".into(), volume: "/data".into() })
        );
        let twice = [mount("/data", Kind::Directory, false), mount("/data/", Kind::Directory, false)];
        assert_eq!(plan(&twice, false), Err(PlanError::Twice { path: "/data".into() }));
        for path in ["data", "/a/../b", ""] {
            assert_eq!(
                plan(&[mount(path, Kind::Directory, false)], false),
                Err(PlanError::Path { path: path.into() })
            );
        }
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_not_inside() {
        let mounts = [mount("/data", Kind::Directory, false), mount("/database/file", Kind::File, false)];
        assert!(plan(&mounts, false).is_ok());
    }

    #[test]
    fn a_mount_can_be_the_root() {
        let plan = plan(&[mount("/", Kind::Directory, true)], false).unwrap();
        assert_eq!(plan.root, Root::Mounted(entry("/", true)));
    }
}
