//! Makes on disk what a [`Plan`] needs. Blocking; called on blocking threads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::plan::{Entry, FileGroup, Plan, Root};

/// A directory that the guest finds open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preopen {
    /// Path on the node.
    pub host: PathBuf,
    /// Path in the guest.
    pub guest: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// A container's files as they are on disk now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Materialised {
    /// The preopened directories, `/` first.
    pub preopens: Vec<Preopen>,
    /// Copies to carry back when the container ends: from, to.
    copies: Vec<(PathBuf, PathBuf)>,
}

/// Makes the directories of `plan` under `own`, the container's private directory; `empty` is
/// the node's one empty directory. What is there already is kept: the call can be repeated.
///
/// # Errors
/// When a host path is gone or a directory cannot be made.
pub(crate) fn materialise(
    plan: &Plan,
    working_dir: &str,
    own: &Path,
    empty: &Path,
) -> io::Result<Materialised> {
    let mut made = Materialised::default();
    made.preopens.push(root(plan, working_dir, own, empty)?);
    for entry in &plan.directories {
        if !fs::metadata(&entry.host).map_err(|error| named(&entry.host, &error))?.is_dir() {
            return Err(io::Error::other(format!("{} is no directory any more", entry.host.display())));
        }
        made.preopens.push(Preopen {
            host: entry.host.clone(),
            guest: entry.guest.clone(),
            read_only: entry.read_only,
        });
    }
    for (index, group) in plan.files.iter().enumerate() {
        files(group, index, own, &mut made)?;
    }
    Ok(made)
}

fn root(plan: &Plan, working_dir: &str, own: &Path, empty: &Path) -> io::Result<Preopen> {
    let (host, read_only) = match &plan.root {
        Root::Mounted(entry) => (entry.host.clone(), entry.read_only),
        Root::ReadOnly if !plan.files.iter().any(|group| group.parent == "/") => {
            fs::create_dir_all(empty)?;
            (empty.to_owned(), true)
        }
        Root::ReadOnly => (own.join("root"), true),
        Root::Writable => {
            let root = own.join("root");
            // Mount points show up when the guest lists the directories above them.
            let points = plan.directories.iter().map(|entry| entry.guest.as_str());
            let points = points.chain(plan.files.iter().map(|group| group.parent.as_str()));
            for point in points.chain([working_dir]) {
                fs::create_dir_all(root.join(point.trim_start_matches('/')))?;
            }
            (root, false)
        }
    };
    Ok(Preopen { host, guest: "/".to_owned(), read_only })
}

/// Files at the top lie in the root directory itself; others get a directory of their own.
fn files(group: &FileGroup, index: usize, own: &Path, made: &mut Materialised) -> io::Result<()> {
    let at_top = group.parent == "/";
    let directory = if at_top { own.join("root") } else { own.join("files").join(index.to_string()) };
    fs::create_dir_all(&directory)?;
    let read_only = match made.preopens.first() {
        Some(root) if at_top => root.read_only,
        _ => group.read_only,
    };
    for file in &group.files {
        place(file, &directory, read_only, made)?;
    }
    if !at_top {
        made.preopens.push(Preopen { host: directory, guest: group.parent.clone(), read_only });
    }
    Ok(())
}

/// A read-only file in a directory that can be written is a private copy: the link would let
/// the guest write the host's file.
fn place(
    file: &Entry,
    directory: &Path,
    directory_read_only: bool,
    made: &mut Materialised,
) -> io::Result<()> {
    let Some(name) = file.guest.rsplit('/').next() else { return Ok(()) };
    let target = directory.join(name);
    // Volumes swap their files behind symbolic links; the guest gets the file itself.
    let host = fs::canonicalize(&file.host).map_err(|error| named(&file.host, &error))?;
    let exposed = file.read_only && !directory_read_only;
    if target.exists() {
        if !file.read_only && !same_file(&host, &target) {
            made.copies.push((target, host));
        }
        return Ok(());
    }
    if exposed || fs::hard_link(&host, &target).is_err() {
        fs::copy(&host, &target).map_err(|error| named(&host, &error))?;
        if !file.read_only {
            made.copies.push((target, host));
        }
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Carries copies of writable files back to the host, when the container has ended.
pub(crate) fn write_back(made: &Materialised) {
    for (copy, host) in &made.copies {
        if let Err(error) = fs::copy(copy, host) {
            tracing::warn!(path = %host.display(), %error, "a file written by the container was not carried back");
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_cri::Mount;

    use super::super::plan::{Kind, plan};
    use super::*;

    struct Node {
        directory: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("host")).unwrap();
            Self { directory }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.path("host").join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn materialise(&self, mounts: &[(Mount, Kind)], read_only_root: bool) -> Materialised {
            let plan = plan(mounts, read_only_root).unwrap();
            materialise(&plan, "/work", &self.path("own"), &self.path("empty")).unwrap()
        }
    }

    fn file(guest: &str, host: PathBuf, read_only: bool) -> (Mount, Kind) {
        (Mount { container_path: guest.to_owned(), host_path: host, read_only }, Kind::File)
    }

    #[test]
    fn a_read_only_root_without_files_makes_nothing_of_its_own() {
        let node = Node::new();
        let made = node.materialise(&[], true);
        assert_eq!(made.preopens, [Preopen { host: node.path("empty"), guest: "/".into(), read_only: true }]);
        assert!(!node.path("own").exists());
    }

    #[test]
    fn a_writable_root_shows_mount_points_and_the_working_directory() {
        let node = Node::new();
        let host_path = node.path("host");
        let mount = Mount { container_path: "/var/data".into(), host_path, read_only: false };
        let made = node.materialise(&[(mount, Kind::Directory)], false);
        assert!(
            made.preopens[0].host.join("var/data").is_dir() && made.preopens[0].host.join("work").is_dir()
        );
        assert_eq!(made.preopens[1].host, node.path("host"));
    }

    #[test]
    fn a_writable_file_is_the_hosts_own() {
        let node = Node::new();
        let log = node.file("termination-log", "");
        let made = node.materialise(&[file("/dev/termination-log", log.clone(), false)], true);
        let seen = &made.preopens[1];
        assert_eq!((seen.guest.as_str(), seen.read_only), ("/dev", false));
        fs::write(seen.host.join("termination-log"), "bye").unwrap();
        write_back(&made);
        assert_eq!(fs::read_to_string(log).unwrap(), "bye");
    }

    #[test]
    fn a_read_only_file_next_to_a_writable_one_cannot_change_the_hosts() {
        let node = Node::new();
        let (conf, log) = (node.file("conf", "original"), node.file("log", ""));
        let made =
            node.materialise(&[file("/x/conf", conf.clone(), true), file("/x/log", log, false)], false);
        fs::write(made.preopens[1].host.join("conf"), "changed").unwrap();
        write_back(&made);
        assert_eq!(fs::read_to_string(conf).unwrap(), "original");
    }

    #[test]
    fn files_behind_a_swapped_link_are_found_and_repeating_changes_nothing() {
        let node = Node::new();
        fs::create_dir(node.path("host/..v1")).unwrap();
        fs::write(node.path("host/..v1/key"), "one").unwrap();
        std::os::unix::fs::symlink("..v1", node.path("host/..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", node.path("host/key")).unwrap();
        let mounts = [file("/etc/key", node.path("host/key"), true)];
        let first = node.materialise(&mounts, false);
        assert_eq!(fs::read_to_string(first.preopens[1].host.join("key")).unwrap(), "one");
        assert!(first.preopens[1].read_only);
        assert_eq!(node.materialise(&mounts, false), first);
    }

    #[test]
    fn a_missing_host_path_is_named() {
        let node = Node::new();
        let plan = plan(&[file("/x", node.path("host/none"), true)], false).unwrap();
        let error = materialise(&plan, "/", &node.path("own"), &node.path("empty")).unwrap_err();
        assert!(error.to_string().contains("host/none"), "{error}");
    }
}
