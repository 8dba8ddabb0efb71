//! A pod's volumes: set up before its containers, kept up to date, taken down at its end.
//!
//! [`set_up`] is idempotent and serves for updates too: it fetches what volumes show, builds
//! their content ([`payload`], pure) and writes what changed ([`atomic`]). It is called by the
//! pod's worker only, never twice at once for one pod.

pub mod atomic;
pub mod empty_dir;
pub mod host_path;
pub mod payload;
pub mod set_up;
pub mod source;
pub mod subpath;
pub mod tokens;
pub mod usage;

pub use set_up::{Outcome, VolumeError, Volumes};

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A volume that is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Where it lies on the node.
    pub path: PathBuf,
    /// Whether it is never written by containers.
    pub read_only: bool,
    /// Whether its content is replaced as a whole when it changes, so that a part of it must be
    /// copied to stay.
    pub replaced: bool,
}

/// A pod's volumes by name.
pub type MountedVolumes = BTreeMap<String, Mounted>;
