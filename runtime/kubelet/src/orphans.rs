//! Directories of pods that are gone: left when the node was ended in the middle of something.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::paths::{Paths, remove_tree};

/// Directories that an earlier run left, each with the UID of its pod.
#[derive(Debug, Default)]
pub struct Leftovers {
    found: Vec<(String, PathBuf)>,
}

impl Leftovers {
    /// Looks for directories. To be called before any pod is taken on, so that what a new pod
    /// makes is never mistaken for something old.
    pub fn find(paths: &Paths) -> Self {
        let pods = std::iter::once(paths.pods()).chain(paths.memory_pods());
        let by_uid = pods.flat_map(|root| entries(&root));
        let logs =
            entries(&paths.logs()).into_iter().map(|(name, path)| (uid_of_logs(&name).to_owned(), path));
        Self { found: by_uid.chain(logs).collect() }
    }

    /// Removes those of pods that are not `known`.
    pub async fn remove(self, known: &HashSet<String>) {
        let gone: Vec<PathBuf> =
            self.found.into_iter().filter(|(uid, _)| !known.contains(uid)).map(|(_, path)| path).collect();
        if gone.is_empty() {
            return;
        }
        tracing::info!(count = gone.len(), "removing directories of pods that are gone");
        let removed = tokio::task::spawn_blocking(move || {
            for path in gone {
                if let Err(error) = remove_tree(&path) {
                    tracing::warn!(path = %path.display(), %error, "a directory was not removed");
                }
            }
        });
        removed.await.ok();
    }
}

fn entries(root: &std::path::Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

/// The UID in the name of a log directory.
fn uid_of_logs(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_directories_of_unknown_pods_go() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::on_disk_only(dir.path());
        for path in ["pods/u1/volumes", "pods/u2/volumes", "logs/ns_a_u1", "logs/ns_b_u2", "other"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let leftovers = Leftovers::find(&paths);
        std::fs::create_dir_all(dir.path().join("pods/u3")).unwrap();
        leftovers.remove(&HashSet::from(["u1".to_owned()])).await;
        let left = |path: &str| dir.path().join(path).exists();
        assert!(left("pods/u1") && left("logs/ns_a_u1") && left("other"));
        assert!(left("pods/u3"), "made since");
        assert!(!left("pods/u2") && !left("logs/ns_b_u2"));
    }
}
