//! What a container sees of the node's files: its root directory and its mounts, as preopened
//! directories.
//!
//! [`plan`] decides, without I/O; [`materialise`] makes on disk what the plan needs, as late as
//! the first instance, so that an idle handler costs no inode. WASI opens files under
//! directories only and guests pick the preopened directory with the longest matching path, so
//! nested mounts need nothing special. A mounted single file gets a directory of its own, made
//! for all single files under one parent path, with a hard link (or, across file systems, a
//! copy that is written back when the container ends) to the file.

mod materialise;
mod plan;

pub(crate) use self::materialise::{Materialised, materialise, write_back};
pub(crate) use self::plan::{Kind, Plan, plan};
