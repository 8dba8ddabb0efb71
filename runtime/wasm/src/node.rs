//! What this machine allows: memory maps and file descriptors, raised where we may.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The maps that are enough for any number of pods that fits into the address space.
const ENOUGH_MAPS: u64 = 1_048_576;
/// Maps that the process needs beside its guests.
const OWN_MAPS: u64 = 5_000;
/// Maps of one running command.
const MAPS_PER_POD: u64 = 7;
/// Descriptors that the process needs beside its pods.
const OWN_FILES: u64 = 500;
/// Descriptors of one pod: a listening socket or a log, and some room.
const FILES_PER_POD: u64 = 3;
/// Instances whose 4 GiB reservations fit into the address space.
const ADDRESS_SPACE_PODS: u64 = 20_000;

/// What the runtime can carry here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// The most pods that the runtime can run at one time.
    pub max_pods: u64,
    /// What limits it, for the user.
    pub warnings: Vec<String>,
}

/// Reads the machine's limits, raising them first where `tune` says so and we may.
#[must_use]
pub(crate) fn prepare(tune: bool) -> NodeFacts {
    let path = Path::new("/proc/sys/vm/max_map_count");
    let read = || fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let mut maps = read();
    if tune && maps.is_some_and(|maps| maps < ENOUGH_MAPS) && fs::write(path, ENOUGH_MAPS.to_string()).is_ok()
    {
        maps = read();
    }
    let mut files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        let raised = Rlimit { current: files.maximum, maximum: files.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            files = getrlimit(Resource::Nofile);
        }
    }
    facts(maps, files.current)
}

/// What the limits come to; `None` is no limit.
fn facts(maps: Option<u64>, files: Option<u64>) -> NodeFacts {
    let mut facts = NodeFacts { max_pods: ADDRESS_SPACE_PODS, warnings: vec![] };
    let mut cap = |limit: u64, own: u64, each: u64, what: &str, how: &str| {
        let pods = limit.saturating_sub(own) / each;
        if pods < facts.max_pods {
            facts.max_pods = pods;
            facts.warnings.push(format!("{what} is {limit}: at most {pods} pods; {how}"));
        }
    };
    if let Some(maps) = maps {
        cap(
            maps,
            OWN_MAPS,
            MAPS_PER_POD,
            "vm.max_map_count",
            "raise it with: sysctl vm.max_map_count=1048576",
        );
    }
    if let Some(files) = files {
        cap(files, OWN_FILES, FILES_PER_POD, "the limit of open files", "raise it with: ulimit -n 1048576");
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_caps_the_pods_and_is_named() {
        let stock = facts(Some(65_530), Some(1_048_576));
        assert_eq!(stock.max_pods, 8_647);
        assert!(stock.warnings[0].contains("vm.max_map_count"));
        assert_eq!(facts(Some(1_048_576), None), NodeFacts { max_pods: 20_000, warnings: vec![] });
        let files = facts(Some(1_048_576), Some(1024));
        assert_eq!(files.max_pods, 174);
        assert!(files.warnings[0].contains("open files"));
        assert_eq!(facts(Some(100), Some(100)).max_pods, 0);
    }
}
