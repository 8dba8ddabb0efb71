//! The node's conditions, from what was measured. Pure.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
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
    /// How far the clock is behind the servers', where somebody measures that.
    pub clock_skew: Option<SignedDuration>,
}

/// A clock that is off by more than this makes certificates, tokens and leases unreliable.
const BEARABLE_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: Cow<'static, str>,
}

/// What the conditions should be.
#[allow(clippy::cast_precision_loss, reason = "shares of bytes need no exactness")]
pub fn find(measured: &Measured, pressure: &Pressure) -> Vec<Finding> {
    let below = |have: u64, of: u64, part: f64| of > 0 && (have as f64) < of as f64 * part;
    let memory = measured.memory.available < pressure.memory_available_bytes;
    let disk = below(measured.disk.available_bytes, measured.disk.capacity_bytes, pressure.disk_available)
        || below(measured.disk.inodes_free, measured.disk.inodes, pressure.inodes_free);
    let (most, taken) = measured.pids;
    let pids = below(most.saturating_sub(taken), most, pressure.pids_available);
    let choose = |type_, holds, yes: (&'static str, &'static str), no: (&'static str, &'static str)| {
        let (reason, message) = if holds { yes } else { no };
        Finding { type_, holds, reason, message: message.into() }
    };
    let mut findings = vec![
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
    ];
    if let Some(skew) = measured.clock_skew {
        findings.push(clock(skew));
    }
    findings
}

/// What is to be said of a clock that differs from the servers' by so much.
fn clock(skew: SignedDuration) -> Finding {
    let type_ = "ClockSkew";
    if skew.abs() <= BEARABLE_SKEW {
        let message = "the clock agrees with the servers'".into();
        return Finding { type_, holds: false, reason: "ClockAgreesWithServers", message };
    }
    let side = if skew.is_negative() { "ahead of" } else { "behind" };
    let message = format!("the clock is about {} {side} the servers'", roughly(skew.unsigned_abs())).into();
    Finding { type_, holds: true, reason: "ClockDiffersFromServers", message }
}

/// A span in words, so rough that it does not change all the time.
fn roughly(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    let units = [(365 * 86_400, "years"), (86_400, "days"), (3600, "hours")];
    let fitting = units.into_iter().find(|(length, _)| seconds >= 2 * length);
    let (length, unit) = fitting.unwrap_or((60, "minutes"));
    format!("{} {unit}", seconds.div_ceil(length))
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
                message: Some(finding.message.to_string()),
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
            clock_skew: None,
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
    fn a_clock_that_differs_from_the_servers_is_told_of() {
        let known = |seconds| {
            let skew = Some(SignedDuration::from_secs(seconds));
            let findings = find(&Measured { clock_skew: skew, ..healthy() }, &Pressure::default());
            let clock = findings.into_iter().find(|f| f.type_ == "ClockSkew").unwrap();
            (clock.holds, clock.message.into_owned())
        };
        assert!(find(&healthy(), &Pressure::default()).iter().all(|f| f.type_ != "ClockSkew"));
        assert_eq!(known(-60), (false, "the clock agrees with the servers'".into()));
        assert_eq!(known(61), (true, "the clock is about 2 minutes behind the servers'".into()));
        assert_eq!(known(-7100), (true, "the clock is about 119 minutes ahead of the servers'".into()));
        assert_eq!(known(90_000_000).1, "the clock is about 3 years behind the servers'");
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
