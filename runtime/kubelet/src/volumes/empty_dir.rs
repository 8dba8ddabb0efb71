//! `emptyDir`: a directory that lives as long as the pod.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};

use crate::pod::resources::amount;
use crate::pod::spec;

/// Makes the directory, writable for everyone whatever the umask.
pub fn create(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

/// Whether the volume is to lie in memory.
pub fn in_memory(source: &EmptyDirVolumeSource) -> bool {
    source.medium.as_deref() == Some("Memory")
}

/// A limit of a pod's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeLimit {
    /// The volume.
    pub volume: String,
    /// The limit as the user wrote it.
    pub text: String,
    /// The limit in bytes.
    pub bytes: u64,
}

/// The pod's volumes with a size limit.
pub fn size_limits(pod: &Pod) -> Vec<SizeLimit> {
    let volumes = spec::spec(pod).and_then(|spec| spec.volumes.as_ref());
    volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| {
            let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
            let bytes = u64::try_from(amount(limit).value()).ok().filter(|bytes| *bytes > 0)?;
            Some(SizeLimit { volume: volume.name.clone(), text: limit.0.clone(), bytes })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_limits_above_zero_count() {
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [
            { "name": "a", "emptyDir": { "sizeLimit": "1Mi" } },
            { "name": "b", "emptyDir": { "sizeLimit": "0" } },
            { "name": "c", "emptyDir": {} },
            { "name": "d", "hostPath": { "path": "/" } }
        ] } }))
        .unwrap();
        let limits = size_limits(&pod);
        assert_eq!(limits, [SizeLimit { volume: "a".into(), text: "1Mi".into(), bytes: 1 << 20 }]);
    }

    #[test]
    fn everyone_may_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/y");
        create(&path).unwrap();
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
    }
}
