//! A cluster of either system: processes on this machine, each on a file system of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use crate::disk::PrivateDisk;
use crate::node::BenchError;
use crate::process;

const PATIENCE: Duration = Duration::from_secs(90);

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    Etcd,
    Sampan,
}

/// One running or killed member.
struct Member {
    disk: PrivateDisk,
    /// Where clients speak etcd's protocol to it.
    client_port: u16,
    /// Where members speak to each other; for sampan the API's port, too.
    peer_port: u16,
    command: Vec<String>,
    child: Option<Child>,
}

/// See the module's description.
pub(crate) struct Cluster {
    pub(crate) system: System,
    binary: PathBuf,
    members: Vec<Member>,
    logs: TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until it takes writes.
    pub(crate) async fn start(system: System, binary: &Path, members: usize) -> Result<Self, BenchError> {
        let mut cluster =
            Self { system, binary: binary.to_owned(), members: Vec::new(), logs: tempfile::tempdir()? };
        for _ in 0..members {
            let disk = PrivateDisk::mount()?;
            let (client_port, peer_port) = (free_port()?, free_port()?);
            cluster.members.push(Member { disk, client_port, peer_port, command: Vec::new(), child: None });
        }
        match system {
            System::Etcd => cluster.start_etcd()?,
            System::Sampan => cluster.start_sampan().await?,
        }
        cluster.wait_whole().await?;
        Ok(cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    fn start_etcd(&mut self) -> Result<(), BenchError> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<String> = (self.members.iter().enumerate())
            .map(|(index, member)| format!("m{index}={}", url(member.peer_port)))
            .collect();
        for (index, member) in self.members.iter_mut().enumerate() {
            let (client, peer) = (url(member.client_port), url(member.peer_port));
            let options = [
                ("--name", format!("m{index}")),
                ("--data-dir", member.disk.path().display().to_string()),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-token", format!("bench-{}", std::process::id())),
                ("--initial-cluster-state", "new".to_owned()),
                ("--quota-backend-bytes", (1_u64 << 30).to_string()),
            ];
            member.command = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        }
        (0..self.members.len()).try_for_each(|index| self.spawn(index))
    }

    async fn start_sampan(&mut self) -> Result<(), BenchError> {
        let first =
            format!("https://127.0.0.1:{}", self.members.first().map_or(0, |member| member.peer_port));
        for (index, member) in self.members.iter_mut().enumerate() {
            let data = member.disk.path();
            let options = [
                ("--data-dir", data.display().to_string()),
                ("--node-name", format!("m{index}")),
                ("--node-ip", "127.0.0.1".to_owned()),
                ("--bind-address", "127.0.0.1".to_owned()),
                ("--https-listen-port", member.peer_port.to_string()),
                ("--etcd-listen", format!("127.0.0.1:{}", member.client_port)),
                ("--write-kubeconfig", data.join("kubeconfig.yaml").display().to_string()),
            ];
            member.command = vec!["server".to_owned(), "--disable-agent".to_owned()];
            member.command.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        }
        let alone = self.members.len() == 1;
        let command = self.members.first_mut().map(|member| &mut member.command);
        if let (false, Some(command)) = (alone, command) {
            command.push("--cluster-init".to_owned());
        }
        self.spawn(0)?;
        self.wait_serving(0).await?;
        for index in 1..self.members.len() {
            let token = self.token()?;
            if let Some(member) = self.members.get_mut(index) {
                member.command.extend(["--server".to_owned(), first.clone(), "--token".to_owned(), token]);
            }
            self.spawn(index)?;
            self.wait_serving(index).await?;
        }
        Ok(())
    }

    /// A token for another server.
    fn token(&self) -> Result<String, BenchError> {
        let Some(first) = self.members.first() else { return Err(BenchError::Failed("no members".into())) };
        process::token(&self.binary, &first.disk.path(), "server", None)
    }

    fn spawn(&mut self, index: usize) -> Result<(), BenchError> {
        let log = File::options().create(true).append(true).open(self.log(index))?;
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        let child = Command::new(&self.binary)
            .args(&member.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        member.child = Some(child);
        Ok(())
    }

    fn log(&self, index: usize) -> PathBuf {
        self.logs.path().join(format!("{:?}-{index}.log", self.system))
    }

    /// The last lines that a member said, for an error.
    fn last_words(&self, index: usize) -> String {
        let text = std::fs::read_to_string(self.log(index)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }

    /// Where clients reach the members that run.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let running = self.members.iter().filter(|member| member.child.is_some());
        running.map(|member| format!("http://127.0.0.1:{}", member.client_port)).collect()
    }

    async fn client(&self, index: usize) -> Result<Client, BenchError> {
        let Some(member) = self.members.get(index) else {
            return Err(BenchError::Failed("no such member".into()));
        };
        Client::connect(&format!("http://127.0.0.1:{}", member.client_port)).await
    }

    /// Waits until a member takes a write.
    async fn wait_serving(&mut self, index: usize) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let attempt = async { self.client(index).await?.put("/bench/ready".to_owned(), vec![1]).await };
            let result = tokio::time::timeout(Duration::from_secs(2), attempt).await;
            if matches!(result, Ok(Ok(_))) {
                return Ok(());
            }
            let ended = match self.members.get_mut(index).and_then(|member| member.child.as_mut()) {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if ended.is_some() || Instant::now() > deadline {
                let words = self.last_words(index);
                let why = format!(
                    "member {index} of {:?} does not serve: {result:?}; it said:\n{words}",
                    self.system
                );
                return Err(BenchError::Failed(why));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all members take writes.
    pub(crate) async fn wait_whole(&mut self) -> Result<(), BenchError> {
        for index in 0..self.members.len() {
            self.wait_serving(index).await?;
        }
        Ok(())
    }

    /// Which member leads.
    pub(crate) async fn leader(&self) -> Result<usize, BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for index in 0..self.members.len() {
                let Ok(mut client) = self.client(index).await else { continue };
                if matches!(client.leads().await, Ok(true)) {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(BenchError::Failed(format!("{:?} has no leader", self.system)))
    }

    /// A connection to the leader.
    pub(crate) async fn leader_endpoint(&self) -> Result<String, BenchError> {
        let leader = self.leader().await?;
        let port = self.members.get(leader).map_or(0, |member| member.client_port);
        Ok(format!("http://127.0.0.1:{port}"))
    }

    /// Kills a member, as `kill -9` does.
    pub(crate) fn kill(&mut self, index: usize) -> Result<(), BenchError> {
        if let Some(mut child) = self.members.get_mut(index).and_then(|member| member.child.take()) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts a killed member again and waits until it takes writes.
    pub(crate) async fn restart(&mut self, index: usize) -> Result<(), BenchError> {
        self.spawn(index)?;
        self.wait_serving(index).await
    }

    /// Bytes that reached the disks of all members so far; what waits in the kernel is sent first.
    pub(crate) fn written(&self) -> Result<u64, BenchError> {
        let mut total = 0;
        for member in &self.members {
            member.disk.sync()?;
            total += member.disk.written()?;
        }
        Ok(total)
    }

    /// Resident memory of all members.
    pub(crate) fn resident(&self) -> Result<u64, BenchError> {
        let running = self.members.iter().filter_map(|member| member.child.as_ref());
        running.map(|child| process::resident(child.id())).sum()
    }

    /// CPU time that all members that run used so far.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let running = self.members.iter().filter_map(|member| member.child.as_ref());
        running.map(|child| process::cpu(child.id())).sum()
    }

    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        for member in &mut self.members {
            if let Some(child) = member.child.take() {
                process::terminate(child, Duration::from_secs(10))?;
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            // What has ended already is as wanted; the disks are unmounted next.
            drop(self.kill(index));
        }
    }
}

/// A port that nobody uses now, neither for TCP nor for UDP.
fn free_port() -> Result<u16, BenchError> {
    loop {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}
