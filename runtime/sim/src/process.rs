//! Processes that are measured or harmed: their memory, their end, and what they print.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::node::BenchError;

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<u64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| BenchError::Failed("no VmRSS".to_owned()))
}

/// CPU time used so far, in user and in kernel mode, by threads that are gone as well.
pub(crate) fn cpu(pid: u32) -> Result<Duration, BenchError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    let [user, system] = *ticks else { return Err(BenchError::Failed("no CPU times".to_owned())) };
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_micros((user + system) * 1_000_000 / per_second))
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<(), BenchError> {
    let pid = Pid::from_child(child);
    Ok(rustix::process::kill_process(pid, signal).map_err(std::io::Error::from)?)
}

/// Asks a process to end, and ends it where it does not within `patience`.
pub(crate) fn terminate(mut child: Child, patience: Duration) -> Result<(), BenchError> {
    signal(&child, Signal::TERM)?;
    let deadline = Instant::now() + patience;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs a program to its end; an error says what it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, BenchError> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| BenchError::Failed(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::Failed(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}

/// A token with which a machine of `role` joins, from the server on `data`; `namespace` is the
/// network namespace that the server is in, if not this one.
pub(crate) fn token(
    sampan: &Path,
    data: &Path,
    role: &str,
    namespace: Option<&str>,
) -> Result<String, BenchError> {
    let (sampan, data) = (sampan.display().to_string(), data.display().to_string());
    let create = ["token", "create", "--role", role, "--ttl", "24h", "--data-dir", &data];
    let said = match namespace {
        None => run(&sampan, &create)?,
        Some(namespace) => {
            let mut arguments = vec!["netns", "exec", namespace, &sampan];
            arguments.extend(create);
            run("ip", &arguments)?
        }
    };
    let token = said.split_whitespace().find(|word| word.starts_with("K10")).map(str::to_owned);
    token.ok_or_else(|| BenchError::Failed(format!("no token in {said:?}")))
}
