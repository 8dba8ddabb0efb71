//! The node's conditions, from what was measured. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::{Disk, Memory};
use crate::config::Pressure;

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Memory.
    pub memory: Memory,
    /// The disk that holds pods' data.
    pub disk: Disk,
    /// Process ids: how many there may be, and how many are taken.
    pub pids: (u64, u64),
    /// Whether the node is stopping.
    pub stopping: bool,
}

/// A condition without its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: &'static str,
}

/// What the conditions should be.
#[allow(clippy::cast_precision_loss, reason = "shares of bytes need no exactness")]
pub fn find(measured: &Measured, pressure: &Pressure) -> [Finding; 4] {
    let below = |have: u64, of: u64, part: f64| of > 0 && (have as f64) < of as f64 * part;
    let memory = measured.memory.available < pressure.memory_available_bytes;
    let disk = below(measured.disk.available_bytes, measured.disk.capacity_bytes, pressure.disk_available)
        || below(measured.disk.inodes_free, measured.disk.inodes, pressure.inodes_free);
    let (most, taken) = measured.pids;
    let pids = below(most.saturating_sub(taken), most, pressure.pids_available);
    let choose = |type_, holds, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if holds { yes } else { no };
        Finding { type_, holds, reason, message }
    };
    [
        choose(
            "MemoryPressure",
            memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        choose(
            "DiskPressure",
            disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        choose(
            "PIDPressure",
            pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        choose(
            "Ready",
            !measured.stopping,
            ("KubeletReady", "kubelet is posting ready status"),
            ("KubeletNotReady", "node is shutting down"),
        ),
    ]
}

/// The conditions with their times: the moment of the last change is kept.
pub fn dated(findings: &[Finding], known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    findings
        .iter()
        .map(|finding| {
            let status = if finding.holds { "True" } else { "False" };
            let since = known
                .iter()
                .find(|known| known.type_ == finding.type_ && known.status == status)
                .and_then(|known| known.last_transition_time.clone());
            NodeCondition {
                type_: finding.type_.into(),
                status: status.into(),
                reason: Some(finding.reason.into()),
                message: Some(finding.message.into()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: Some(since.unwrap_or(Time(now))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Measured {
        Measured {
            memory: Memory { total: 8 << 30, available: 4 << 30 },
            disk: Disk { capacity_bytes: 100, available_bytes: 50, inodes: 100, inodes_free: 50 },
            pids: (1000, 100),
            stopping: false,
        }
    }

    fn holding(measured: Measured) -> Vec<&'static str> {
        find(&measured, &Pressure::default())
            .iter()
            .filter(|finding| finding.holds)
            .map(|f| f.type_)
            .collect()
    }

    #[test]
    fn pressure_is_what_was_measured() {
        assert_eq!(holding(healthy()), ["Ready"]);
        let memory = Memory { total: 8 << 30, available: 10 << 20 };
        assert_eq!(holding(Measured { memory, ..healthy() }), ["MemoryPressure", "Ready"]);
        let disk = Disk { available_bytes: 9, ..healthy().disk };
        assert_eq!(holding(Measured { disk, ..healthy() }), ["DiskPressure", "Ready"]);
        let disk = Disk { inodes_free: 4, ..healthy().disk };
        assert_eq!(holding(Measured { disk, ..healthy() }), ["DiskPressure", "Ready"]);
        let disk = Disk { inodes: 0, inodes_free: 0, ..healthy().disk };
        assert_eq!(holding(Measured { disk, ..healthy() }), ["Ready"], "some file systems count no inodes");
        assert_eq!(holding(Measured { pids: (1000, 990), ..healthy() }), ["PIDPressure", "Ready"]);
        assert!(holding(Measured { stopping: true, ..healthy() }).is_empty());
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let first = dated(&find(&healthy(), &Pressure::default()), &[], at(1));
        let second = dated(&find(&healthy(), &Pressure::default()), &first, at(9));
        assert!(second.iter().all(|c| c.last_transition_time == Some(Time(at(1)))));
        assert!(second.iter().all(|c| c.last_heartbeat_time == Some(Time(at(9)))));
        let stopping = Measured { stopping: true, ..healthy() };
        let third = dated(&find(&stopping, &Pressure::default()), &second, at(20));
        let ready = third.iter().find(|c| c.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time, Some(Time(at(20))));
    }
}
