//! `sampan check`: what works on this machine, what does not, and why. Changes nothing.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use crate::args::CheckArgs;
use crate::data_dir;
use crate::error::CommandError;
use crate::settings::Mode;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Works.
    Good,
    /// Works with less.
    Less,
    /// Does not work.
    Bad,
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    outcome: Outcome,
    what: &'static str,
    detail: String,
}

fn good(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Good, what, detail: detail.into() }
}

fn less(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Less, what, detail: detail.into() }
}

fn bad(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Bad, what, detail: detail.into() }
}

pub(super) fn run(args: CheckArgs) -> Result<ExitCode, CommandError> {
    let mode = if rustix::process::geteuid().is_root() { Mode::Server } else { Mode::Dev };
    let data_dir = data_dir::choose(mode, args.data.data_dir)?;
    let findings = [
        kernel(),
        clock(SystemTime::now()),
        memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        data_directory(&data_dir),
        port(args.https_listen_port),
        pod_addresses(),
        low_ports(&proc_sys("net/ipv4/ip_unprivileged_port_start")),
        memory_maps(&proc_sys("vm/max_map_count")),
        compiler(),
        kubectl(),
    ];
    super::print(&report(&findings));
    let failed = findings.iter().any(|finding| finding.outcome == Outcome::Bad);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn report(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.outcome {
            Outcome::Good => "ok  ",
            Outcome::Less => "warn",
            Outcome::Bad => "FAIL",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}  {:<18} {}", finding.what, finding.detail);
    }
    text
}

fn proc_sys(name: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default().trim().to_owned()
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let machine = uname.machine().to_string_lossy();
    if matches!(&*machine, "x86_64" | "aarch64") {
        good("kernel", format!("Linux {release}, {machine}"))
    } else {
        bad("kernel", format!("no WebAssembly compiler for {machine}; x86_64 and aarch64 work"))
    }
}

/// A machine without a clock of its own starts in 1970, and certificates are not valid yet then.
fn clock(now: SystemTime) -> Finding {
    const BUILT_AFTER: Duration = Duration::from_secs(1_763_000_000);
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since > BUILT_AFTER => good("clock", "is set"),
        _ => less("clock", "is in the past; set it, or clients will find certificates not valid yet"),
    }
}

fn memory(meminfo: &str) -> Finding {
    let kib = |name: &str| -> Option<u64> {
        meminfo.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    match kib("MemAvailable:") {
        Some(available) if available >= 128 * 1024 => {
            good("memory", format!("{} MiB free", available / 1024))
        }
        Some(available) => {
            less("memory", format!("only {} MiB free; 128 MiB make a useful node", available / 1024))
        }
        None => less("memory", "/proc/meminfo does not tell"),
    }
}

fn data_directory(path: &Path) -> Finding {
    let what = "data directory";
    let nearest = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    if let Err(error) =
        rustix::fs::access(nearest, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
    {
        return bad(what, format!("{}: {error}; name another with --data-dir", nearest.display()));
    }
    match rustix::fs::statvfs(nearest) {
        Ok(stat) => {
            let mebibytes = stat.f_bavail.saturating_mul(stat.f_frsize) / (1024 * 1024);
            let detail = format!("{} ({mebibytes} MiB free)", path.display());
            if mebibytes < 256 {
                less(what, format!("{detail}; 256 MiB are needed soon"))
            } else {
                good(what, detail)
            }
        }
        Err(error) => bad(what, format!("{}: {error}", nearest.display())),
    }
}

fn port(port: u16) -> Finding {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => good("API port", format!("{port} is free")),
        Err(error) => bad("API port", format!("{port}: {error}; choose another with --https-listen-port")),
    }
}

fn pod_addresses() -> Finding {
    match sampan_network::can_route() {
        Ok(()) => good("pod addresses", "a range of their own (10.42.0.0/16), by a local route"),
        Err(why) => less("pod addresses", format!("127.42.0.0/16, reachable from this machine only: {why}")),
    }
}

fn low_ports(first: &str) -> Finding {
    let root = rustix::process::geteuid().is_root();
    match first.parse::<u32>() {
        Ok(first) if !root && first > 80 => less(
            "low ports",
            format!(
                "pods cannot listen below {first}; 'sysctl net.ipv4.ip_unprivileged_port_start=80' allows it"
            ),
        ),
        _ => good("low ports", "pods can listen on any port"),
    }
}

fn memory_maps(count: &str) -> Finding {
    match count.parse::<u64>() {
        Ok(count) if count < 262_144 && !rustix::process::geteuid().is_root() => less(
            "memory maps",
            format!(
                "{count} allow about {} running containers; 'sysctl vm.max_map_count=1048576' allows more",
                count / 8
            ),
        ),
        Ok(count) => good("memory maps", format!("{count}")),
        Err(_) => less("memory maps", "/proc/sys/vm/max_map_count does not tell"),
    }
}

fn compiler() -> Finding {
    match sampan_wasm::self_test() {
        Ok(took) => good("WebAssembly", format!("compiled and ran a module in {} ms", took.as_millis())),
        Err(error) => {
            bad("WebAssembly", format!("a module does not run: {}", sampan_client::informer::chain(&error)))
        }
    }
}

fn kubectl() -> Finding {
    let output = std::process::Command::new("kubectl").args(["version", "--client", "-o", "json"]).output();
    let Ok(output) = output else {
        return less("kubectl", "is not on the PATH; kubernetes.io/docs/tasks/tools says how to get it");
    };
    let version = serde_json::from_slice::<serde_json::Value>(&output.stdout)
        .ok()
        .and_then(|v| Some(v.pointer("/clientVersion/gitVersion")?.as_str()?.to_owned()));
    let minor = version.as_deref().and_then(|v| v.split('.').nth(1)?.parse::<u32>().ok());
    match (version, minor) {
        (Some(version), Some(minor)) if minor >= 29 => good("kubectl", version),
        (Some(version), Some(_)) => {
            less("kubectl", format!("{version} cannot apply here; 1.29 and later can"))
        }
        _ => less("kubectl", "does not tell its version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_judged() {
        assert_eq!(memory("MemAvailable:  900000 kB\n").outcome, Outcome::Good);
        assert_eq!(memory("MemAvailable:  9000 kB\n").outcome, Outcome::Less);
        assert_eq!(memory("").outcome, Outcome::Less);
        assert_eq!(clock(SystemTime::UNIX_EPOCH).outcome, Outcome::Less);
        assert_eq!(clock(SystemTime::now()).outcome, Outcome::Good);
        let directory = tempfile::tempdir().unwrap();
        assert_ne!(data_directory(&directory.path().join("a/b")).outcome, Outcome::Bad);
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert_eq!(port(taken.local_addr().unwrap().port()).outcome, Outcome::Bad);
    }

    #[test]
    fn the_report_has_a_line_a_finding() {
        let text = report(&[good("a", "b"), bad("c", "d")]);
        assert_eq!(text, "ok    a                  b\nFAIL  c                  d\n");
    }
}
