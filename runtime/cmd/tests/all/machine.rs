//! Servers and agents for one test: processes of their own, with directories that outlive them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use tempfile::TempDir;

use crate::cluster::{PATIENCE, client_of, program, range, sampan};

/// What a machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// The binary under test.
    Present,
    /// The same, as the version of this name.
    Emulating(&'static str),
    /// Another binary.
    Other(PathBuf),
}

/// A machine that runs `sampan server` or `sampan agent`.
pub(crate) struct Machine {
    pub(crate) name: String,
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    /// What it runs from its next start on.
    pub(crate) build: Build,
    /// Given again at each start once it is known, so that others find the server again.
    port: Option<u16>,
    process: Option<Child>,
}

impl Machine {
    /// A server without a node, which listens on loopback.
    pub(crate) fn server(name: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["server", "--disable-agent", "--bind-address", "127.0.0.1"];
        all.extend(arguments);
        Self::new(name, &all)
    }

    pub(crate) fn agent(name: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["agent", "--local-listen-port", "0"];
        all.extend(arguments);
        Self::new(name, &all)
    }

    fn new(name: &str, arguments: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            directory: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            build: Build::Present,
            port: None,
            process: None,
        }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig.yaml")
    }

    /// What the process wrote to standard error, over all its runs.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }

    /// Other arguments from the next start on.
    pub(crate) fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Its wall clock is off by so many seconds from the next start on, which the library sees to.
    pub(crate) fn set_clock(&mut self, library: &Path, off_by: i64) {
        self.environment =
            vec![("LD_PRELOAD", library.as_os_str().to_owned()), ("CLOCK_OFF_BY", off_by.to_string().into())];
    }

    /// Listens where another one did, which has stopped.
    pub(crate) fn listens_where(&mut self, other: &Self) {
        self.port = other.port;
    }

    fn is_server(&self) -> bool {
        self.arguments[0] == "server"
    }

    fn command(&self) -> std::process::Command {
        let mut command = self.program();
        command.envs(self.environment.iter().cloned());
        command.args(&self.arguments).args(["--node-name", &self.name, "--data-dir"]).arg(self.data_dir());
        if self.is_server() {
            let port = self.port.unwrap_or(0).to_string();
            command.args(["--https-listen-port", &port, "--write-kubeconfig"]).arg(self.kubeconfig());
        }
        if let Build::Emulating(version) = &self.build {
            command.args(["--emulated-version", version]);
        }
        command
    }

    /// The binary that it runs, with nothing of the environment that would change what it does.
    fn program(&self) -> std::process::Command {
        match &self.build {
            Build::Other(path) => program(path),
            Build::Present | Build::Emulating(_) => sampan(),
        }
    }

    /// Starts the process, without waiting for anything.
    pub(crate) fn spawn(&mut self) {
        let log = self.directory.path().join("stderr");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.process = Some(self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts a server and waits until it answers.
    pub(crate) async fn start(&mut self) {
        drop(std::fs::remove_file(self.kubeconfig()));
        self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready().await {
            self.assert_runs();
            assert!(Instant::now() < deadline, "{} is not ready in time: {}", self.name, self.errors());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.port = Some(self.url().rsplit_once(':').unwrap().1.parse().unwrap());
    }

    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
            panic!("{} ended with {status}: {}", self.name, self.errors());
        }
    }

    async fn is_ready(&self) -> bool {
        let Ok(client) = client_of(&self.kubeconfig()).await else { return false };
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        client.request_text(request).await.is_ok_and(|text| text == "ok")
    }

    /// Runs the command to its end, which is expected soon: a machine that may not start.
    pub(crate) fn refused(&self) -> String {
        let output = self.command().output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        // Log lines may come first; the last word is one line.
        let last = text.trim_end().lines().last().unwrap_or_default().to_owned();
        assert!(last.starts_with("sampan: "), "{text}");
        last
    }

    /// Waits until the process ends by itself; its last line.
    pub(crate) fn ended(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut process = self.process.take().unwrap();
        while process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{} goes on: {}", self.name, self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.errors().trim_end().lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn url(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("server")).unwrap().trim().to_owned()
    }

    pub(crate) async fn client(&self) -> kube::Client {
        client_of(&self.kubeconfig()).await.unwrap()
    }

    /// `sampan ARGUMENTS --data-dir` of this machine.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.program().args(arguments).arg("--data-dir").arg(self.data_dir()).output().unwrap()
    }

    /// The same; it must succeed. Its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn token(&self, role: &str) -> String {
        self.ok(&["token", "create", "--ttl", "1h", "--role", role]).trim().to_owned()
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while process.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                process.kill().unwrap();
                panic!("{} did not stop in time: {}", self.name, self.errors());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.kill();
        }
        self.stop();
    }
}

/// A first server, ready for others to join.
pub(crate) async fn first(arguments: &[&str]) -> Machine {
    first_of(Build::Present, arguments).await
}

/// The same, of some build.
pub(crate) async fn first_of(build: Build, arguments: &[&str]) -> Machine {
    let cidr = range();
    let mut all = vec!["--cluster-init", "--cluster-cidr", &cidr];
    all.extend(arguments);
    let mut server = Machine::server("s1", &all);
    server.build = build;
    server.start().await;
    server
}

/// A server that joins another, ready.
pub(crate) async fn joined(name: &str, first: &Machine) -> Machine {
    let mut server = Machine::server(name, &["--server", &first.url(), "--token", &first.token("server")]);
    server.build = first.build.clone();
    server.start().await;
    server
}

/// Three servers, all with a vote.
pub(crate) async fn three() -> [Machine; 3] {
    three_of(Build::Present).await
}

/// The same, of some build.
pub(crate) async fn three_of(build: Build) -> [Machine; 3] {
    let first = first_of(build, &[]).await;
    let second = joined("s2", &first).await;
    let third = joined("s3", &first).await;
    wait_for_voters(&first, 3).await;
    [first, second, third]
}

pub(crate) async fn wait_for_voters(server: &Machine, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let members = server.ok(&["member", "list"]);
        if members.lines().filter(|line| line.contains("voter")).count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "not {count} voters: {members}\n{}", server.errors());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The place in `servers` of the one that leads.
pub(crate) fn leader(servers: &[Machine], asked: &Machine) -> usize {
    let members = asked.ok(&["member", "list"]);
    let line = members.lines().find(|line| line.contains("leader")).unwrap_or_else(|| panic!("{members}"));
    servers.iter().position(|server| line.contains(&server.name)).unwrap()
}

/// Creates a config map through a server, trying until it takes it: while no server leads,
/// writes are refused.
pub(crate) async fn write(server: &Machine, name: &str) {
    let maps = Api::<ConfigMap>::default_namespaced(server.client().await);
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("k".to_owned(), name.to_owned())].into()),
        ..ConfigMap::default()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match maps.create(&PostParams::default(), &map).await {
            Ok(_) => return,
            // An earlier try whose answer was lost.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return,
            Err(error) => assert!(Instant::now() < deadline, "{name}: {error}\n{}", server.errors()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reads a config map through a server; the newest state, as a list without a resource version is.
pub(crate) async fn reads(server: &Machine, name: &str) -> bool {
    let maps = Api::<ConfigMap>::default_namespaced(server.client().await);
    maps.get_opt(name).await.unwrap_or_else(|error| panic!("{name}: {error}\n{}", server.errors())).is_some()
}

pub(crate) fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}
