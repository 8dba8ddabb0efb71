//! A server of the cluster: a real process on a machine of the lab, on a small disk of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::lab::Machine;
use crate::disk::PrivateDisk;
use crate::node::BenchError;
use crate::process;

/// Large enough for the state of a test, small enough to fill.
const DISK: u64 = 512 << 20;
/// The port of the API.
pub(crate) const PORT: u16 = 6443;
/// Where Debian puts the library that changes what a process takes for the time.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// See the module's description.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    pub(crate) disk: PrivateDisk,
    sampan: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// What the library for another time reads, where it is used.
    clock: Option<PathBuf>,
    child: Option<Child>,
}

impl Server {
    /// A server that begins the cluster, or joins it with `join` (a server's URL and a token).
    pub(crate) fn new(
        sampan: &Path,
        name: &str,
        machine: Machine,
        logs: &Path,
        join: Option<(&str, &str)>,
    ) -> Result<Self, BenchError> {
        let disk = PrivateDisk::mount_sized(DISK)?;
        let data = disk.path().display().to_string();
        let kubeconfig = disk.path().join("kubeconfig.yaml").display().to_string();
        let mut arguments: Vec<String> =
            ["server", "--disable-agent", "--data-dir", &data, "--node-name", name]
                .into_iter()
                .chain(["--write-kubeconfig", &kubeconfig])
                .map(str::to_owned)
                .collect();
        match join {
            None => arguments.push("--cluster-init".to_owned()),
            Some((url, token)) => {
                arguments.extend(["--server", url, "--token", token].map(str::to_owned));
            }
        }
        let (name, log) = (name.to_owned(), logs.join(format!("{name}.log")));
        Ok(Self { name, machine, disk, sampan: sampan.to_owned(), arguments, log, clock: None, child: None })
    }

    /// Its clock can be changed; false where the library for that is not installed.
    pub(crate) fn with_clock(&mut self, directory: &Path) -> Result<bool, BenchError> {
        if faketime().is_none() {
            return Ok(false);
        }
        let clock = directory.join(format!("{}.clock", self.name));
        std::fs::write(&clock, "+0")?;
        self.clock = Some(clock);
        Ok(true)
    }

    /// Sets its clock by so many days.
    pub(crate) fn set_clock(&self, days: i64) -> Result<(), BenchError> {
        match &self.clock {
            // Replaced whole: it is read at any moment.
            Some(clock) => {
                let new = clock.with_extension("new");
                std::fs::write(&new, format!("{days:+}d"))?;
                Ok(std::fs::rename(&new, clock)?)
            }
            None => Err(BenchError::Failed(format!("{} has no clock to change", self.name))),
        }
    }

    pub(crate) fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    pub(crate) fn start(&mut self) -> Result<(), BenchError> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.machine.namespace]);
        if let (Some(clock), Some(library)) = (&self.clock, faketime()) {
            command.arg("env").arg(format!("LD_PRELOAD={library}"));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()));
            command.args([
                "FAKETIME_CACHE_DURATION=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
                "DONT_FAKE_MONOTONIC=1",
            ]);
        }
        let child = command
            .arg(&self.sampan)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<(), BenchError> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        self.child.as_ref().map_or(Ok(()), |child| process::signal(child, signal))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process ended although nobody killed it.
    pub(crate) fn ended(&mut self) -> Result<Option<String>, BenchError> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.child = None;
        Ok(Some(format!("{} ended with {status}; it said last:\n{}", self.name, self.last_words())))
    }

    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}:{PORT}", self.machine.address)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.disk.path().join("kubeconfig.yaml")
    }

    /// A token with which machines of `role` join.
    pub(crate) fn token(&self, role: &str) -> Result<String, BenchError> {
        process::token(&self.sampan, &self.disk.path(), role, Some(&self.machine.namespace))
    }

    pub(crate) fn stop(&mut self) -> Result<(), BenchError> {
        self.child.take().map_or(Ok(()), |child| process::terminate(child, Duration::from_secs(15)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What has ended already is as wanted; the disk is unmounted next.
        drop(self.kill());
    }
}

fn faketime() -> Option<&'static str> {
    FAKETIME.into_iter().find(|path| Path::new(path).exists())
}
