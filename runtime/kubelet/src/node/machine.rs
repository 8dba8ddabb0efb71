//! Facts of the machine, from the kernel. What cannot be read is reported as nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

/// What the machine uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all processes since the machine booted.
    pub cpu_nanos: u64,
    /// Memory in use that cannot be had without swapping.
    pub memory_bytes: u64,
    /// Memory that can be had.
    pub memory_available_bytes: u64,
    /// When the machine booted.
    pub booted_at: Timestamp,
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub capacity_bytes: u64,
    /// What may still be written.
    pub available_bytes: u64,
    /// Its inodes.
    pub inodes: u64,
    /// Its free inodes.
    pub inodes_free: u64,
}

/// What the machine uses now.
pub fn usage() -> Usage {
    let memory = memory();
    Usage {
        cpu_nanos: cpu_nanos(&read("/proc/stat")),
        memory_bytes: memory.total.saturating_sub(memory.available),
        memory_available_bytes: memory.available,
        booted_at: booted_at(),
    }
}

/// The file system that holds a directory.
pub fn disk(directory: &Path) -> Disk {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map_or_else(
        |_| Disk::default(),
        |stat| Disk {
            capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
        },
    )
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
}

/// The machine's memory, or what its control group leaves of it.
pub fn memory() -> Memory {
    let host = parse_meminfo(&read("/proc/meminfo"));
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    let Some(limit) = number("/sys/fs/cgroup/memory.max").filter(|limit| *limit < host.total) else {
        return host;
    };
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    let reclaimable = read("/sys/fs/cgroup/memory.stat")
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok())
        .unwrap_or(0);
    let working = used.saturating_sub(reclaimable);
    Memory { total: limit, available: limit.saturating_sub(working).min(host.available) }
}

fn parse_meminfo(text: &str) -> Memory {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    Memory { total: field("MemTotal:"), available: field("MemAvailable:") }
}

/// CPU time of all processes, from the first line of `/proc/stat`: what is not idle.
fn cpu_nanos(stat: &str) -> u64 {
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let ticks: u64 = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .map(|fields| {
            let fields = fields.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
            // user nice system idle iowait irq softirq steal; guest time is in user already.
            fields
                .take(8)
                .enumerate()
                .filter(|(index, _)| !matches!(index, 3 | 4))
                .map(|(_, ticks)| ticks)
                .sum()
        })
        .unwrap_or(0);
    ticks.saturating_mul(1_000_000_000 / ticks_per_second)
}

fn booted_at() -> Timestamp {
    let up = read("/proc/uptime")
        .split_whitespace()
        .next()
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or(0.0);
    let now = Timestamp::now();
    let up = Duration::try_from_secs_f64(up.max(0.0)).unwrap_or_default();
    let booted = now.checked_sub(up).unwrap_or(now);
    Timestamp::from_second(booted.as_second()).unwrap_or(booted)
}

/// Process ids: how many there may be, and how many are taken.
pub fn pids() -> (u64, u64) {
    let most = read("/proc/sys/kernel/pid_max").trim().parse().unwrap_or(0);
    // The fourth field of loadavg: running/total scheduling entities.
    let load = read("/proc/loadavg");
    let taken = load.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    (most, taken.unwrap_or(0))
}

/// Cores that this process may use, in thousandths.
pub fn cpu_millis() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u64::try_from(cores).unwrap_or(1).saturating_mul(1000)
}

/// A file's text; one that cannot be read is empty.
pub fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let memory = parse_meminfo("MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:   8192 kB\n");
        assert_eq!(memory, Memory { total: 16_777_216, available: 8_388_608 });
        assert_eq!(parse_meminfo(""), Memory::default());
        let per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(cpu_nanos("cpu  10 1 5 1000 7 2 3 4 0 0\ncpu0 1 1"), 25 * per_tick);
        assert_eq!(cpu_nanos("nonsense"), 0);
    }

    #[test]
    fn this_machine_has_memory_disk_and_processes() {
        let usage = usage();
        assert!(usage.memory_available_bytes > 0 && usage.cpu_nanos > 0);
        assert!(usage.booted_at < Timestamp::now());
        let disk = disk(Path::new("/nowhere/at/all"));
        assert!(disk.capacity_bytes >= disk.available_bytes && disk.capacity_bytes > 0);
        let (most, taken) = pids();
        assert!(most > taken && taken > 0);
    }
}
