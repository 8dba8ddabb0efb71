//! What is done to the cluster, and undone.

use std::time::Duration;

use rustix::process::Signal;

use super::lab::Lab;
use super::server::Server;
use crate::node::BenchError;
use crate::process::run;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// `kill -9`, then a start
    KillLeader,
    KillFollower,
    KillAll,
    /// SIGTERM: leadership is handed over
    StopLeader,
    CutLeader,
    CutFollower,
    /// The leader hears nobody, but is heard
    LeaderDeaf,
    /// The leader is not heard, but hears
    LeaderMute,
    /// Each write to the leader's disk takes a second
    SlowDisk,
    FullDisk,
    /// SIGSTOP, then SIGCONT
    FreezeLeader,
    /// The clock of one server is off by years
    Clock,
    /// One server gets another address
    Move,
    /// The NAT before an agent forgets whom it knew
    Nat,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::KillLeader,
        Self::CutLeader,
        Self::FreezeLeader,
        Self::KillFollower,
        Self::LeaderDeaf,
        Self::SlowDisk,
        Self::KillLeader,
        Self::LeaderMute,
        Self::FullDisk,
        Self::StopLeader,
        Self::Clock,
        Self::CutFollower,
        Self::Move,
        Self::KillAll,
        Self::Nat,
    ];

    /// Whether it takes away the leader, so that another must be elected.
    pub(crate) fn needs_election(self) -> bool {
        matches!(
            self,
            Self::KillLeader | Self::CutLeader | Self::LeaderDeaf | Self::LeaderMute | Self::FreezeLeader
        )
    }

    /// Whether it takes effect at once, not only when the program that does it has been started and
    /// has ended.
    pub(crate) fn is_sudden(self) -> bool {
        matches!(
            self,
            Self::KillLeader | Self::KillFollower | Self::KillAll | Self::StopLeader | Self::FreezeLeader
        )
    }

    /// How long it lasts.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::SlowDisk => Duration::from_secs(6),
            Self::KillAll => Duration::from_millis(200),
            _ => Duration::from_millis(2500),
        }
    }

    /// Whom it strikes, with the leader where it is known.
    pub(crate) fn strikes(self, leader: usize, servers: usize, round: usize) -> usize {
        let follower = (leader + 1 + round % (servers - 1)) % servers;
        match self {
            Self::KillFollower | Self::CutFollower | Self::Move => follower,
            // The one whose clock can be changed.
            Self::Clock => servers - 1,
            Self::FullDisk if round.is_multiple_of(2) => follower,
            _ => leader,
        }
    }
}

/// Does it. An error says what this machine cannot do.
pub(crate) fn inject(
    fault: Fault,
    at: usize,
    servers: &mut [Server],
    lab: &Lab,
    round: usize,
) -> Result<(), BenchError> {
    if fault == Fault::KillAll {
        return servers.iter_mut().try_for_each(Server::kill);
    }
    let Some(server) = servers.get_mut(at) else { return Ok(()) };
    match fault {
        Fault::KillLeader | Fault::KillFollower => server.kill(),
        Fault::StopLeader => server.stop(),
        Fault::CutLeader | Fault::CutFollower => server.machine.plugged(false),
        Fault::LeaderDeaf => server.machine.drop_one_way(true, lab),
        Fault::LeaderMute => server.machine.drop_one_way(false, lab),
        Fault::SlowDisk => throttle(server, 1),
        Fault::FullDisk => fill(server),
        Fault::FreezeLeader => server.signal(Signal::STOP),
        Fault::Clock => server.set_clock(if round.is_multiple_of(2) { 1500 } else { -1500 }),
        Fault::Move => {
            let last = u8::try_from(20 + round % 150).unwrap_or(20);
            lab.move_to(&mut server.machine, last)
        }
        Fault::Nat => lab.rebind_nat(round),
        Fault::KillAll => Ok(()),
    }
}

/// Undoes it.
pub(crate) fn heal(fault: Fault, at: usize, servers: &mut [Server]) -> Result<(), BenchError> {
    if fault == Fault::KillAll {
        return servers.iter_mut().try_for_each(Server::start);
    }
    let Some(server) = servers.get_mut(at) else { return Ok(()) };
    match fault {
        Fault::KillLeader | Fault::KillFollower | Fault::StopLeader => server.start(),
        Fault::CutLeader | Fault::CutFollower => server.machine.plugged(true),
        Fault::LeaderDeaf | Fault::LeaderMute => server.machine.pass_both_ways(),
        Fault::SlowDisk => throttle(server, 0),
        Fault::FullDisk => Ok(std::fs::remove_file(filler(server))?),
        Fault::FreezeLeader => server.signal(Signal::CONT),
        Fault::Clock => server.set_clock(0),
        // The new address is the right one from now on.
        Fault::Move | Fault::Nat | Fault::KillAll => Ok(()),
    }
}

fn filler(server: &Server) -> std::path::PathBuf {
    server.disk.root().join("filler")
}

/// Leaves no block free.
fn fill(server: &Server) -> Result<(), BenchError> {
    let path = filler(server);
    let file = std::fs::File::create(&path)?;
    let mut at = 0;
    let mut step: u64 = 16 << 20;
    // Larger and larger is refused, smaller and smaller still fits.
    while step >= 4096 {
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(rustix::io::Errno::NOSPC) => step /= 2,
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
    Ok(())
}

/// At most so many writes a second reach the server's disk; 0 is no limit.
fn throttle(server: &Server, per_second: u32) -> Result<(), BenchError> {
    let Some(pid) = server.pid() else { return Ok(()) };
    let device = server.disk.device_number()?;
    let group = format!("/sys/fs/cgroup/blkio/sampan-faults-{}", std::process::id());
    if std::path::Path::new("/sys/fs/cgroup/blkio/cgroup.procs").exists() {
        std::fs::create_dir_all(&group)?;
        std::fs::write(format!("{group}/cgroup.procs"), pid.to_string())?;
        let limit = format!("{device} {per_second}");
        return Ok(std::fs::write(format!("{group}/blkio.throttle.write_iops_device"), limit)?);
    }
    let group = format!("/sys/fs/cgroup/sampan-faults-{}", std::process::id());
    std::fs::create_dir_all(&group)?;
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+io")?;
    std::fs::write(format!("{group}/cgroup.procs"), pid.to_string())?;
    let limit = if per_second == 0 { "max".to_owned() } else { per_second.to_string() };
    Ok(std::fs::write(format!("{group}/io.max"), format!("{device} wiops={limit}"))?)
}

/// Takes away what throttling needed.
pub(crate) fn clean_up() {
    for group in ["blkio/", ""] {
        let group = format!("/sys/fs/cgroup/{group}sampan-faults-{}", std::process::id());
        // Only where there is one, and only once its processes are gone.
        drop(std::fs::remove_dir(group));
    }
}

/// What this machine cannot do, with the reason.
pub(crate) fn impossible(fault: Fault, servers: &[Server], agent: bool) -> Option<&'static str> {
    match fault {
        Fault::Nat if !agent => Some("there is no agent"),
        Fault::Clock if !servers.iter().any(Server::has_clock) => {
            Some("libfaketime is not installed (Debian: faketime)")
        }
        Fault::SlowDisk if !throttling() => Some("there is no cgroup controller for block devices"),
        Fault::LeaderDeaf | Fault::LeaderMute if run("nft", &["--version"]).is_err() => {
            Some("nft is not installed")
        }
        _ => None,
    }
}

fn throttling() -> bool {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    std::path::Path::new("/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device").exists()
        || controllers.split_whitespace().any(|controller| controller == "io")
}
