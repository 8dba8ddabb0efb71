//! Real servers on machines of their own, and everything that can happen to them, while writers
//! write on: no acknowledged write may be missing afterwards.

mod fault;
mod lab;
mod server;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use crate::node::BenchError;
use crate::report::{millis, percentile};
use fault::Fault;
use lab::Lab;
use server::Server;
use writer::Acknowledged;

/// How many servers.
const SERVERS: usize = 3;
/// How long the cluster may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(90);
/// Everything that was ever acknowledged is looked for every so many rounds.
const ALL_EVERY: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The `sampan` binary.
    pub(crate) sampan: PathBuf,
    /// How many faults, one after the other.
    pub(crate) rounds: usize,
    /// Whether an agent behind a NAT takes part.
    pub(crate) agent: bool,
}

/// What the rounds of one fault came to.
#[derive(Default)]
struct Tally {
    rounds: usize,
    elections: Vec<Duration>,
    whole_again: Vec<Duration>,
    lost: usize,
}

struct Cluster {
    servers: Vec<Server>,
    clients: Vec<Arc<Mutex<kube::Client>>>,
    agent: Option<Agent>,
    lab: Lab,
    directory: TempDir,
}

/// The agent behind the NAT.
struct Agent {
    process: std::process::Child,
    name: &'static str,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What has ended already is as wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) async fn run(options: &Options) -> Result<(), BenchError> {
    let mut cluster = start(options).await?;
    let acknowledged = Arc::new(Acknowledged::default());
    let writers: Vec<_> = (0..SERVERS)
        .map(|writer| tokio::spawn(writer::run(writer, cluster.clients.clone(), Arc::clone(&acknowledged))))
        .collect();
    let mut tallies: BTreeMap<Fault, Tally> = BTreeMap::new();
    let begin = Instant::now();
    let mut kinds: Vec<Fault> = Fault::ALL.to_vec();
    if cluster.agent.is_some() {
        kinds.push(Fault::Nat);
    }
    kinds.retain(|fault| match fault::impossible(*fault, &cluster.servers) {
        Some(why) => {
            println!("left out: {fault:?}: {why}");
            false
        }
        None => true,
    });
    for round in 0..options.rounds {
        let Some(fault) = kinds.get(round % kinds.len().max(1)) else { break };
        let result =
            one(&mut cluster, *fault, round, &acknowledged, tallies.entry(*fault).or_default()).await;
        if let Err(error) = result {
            for server in &cluster.servers {
                println!("-- {} said last:\n{}", server.name, server.last_words());
            }
            return Err(BenchError::Failed(format!("round {round}, {fault:?}: {error}")));
        }
    }
    acknowledged.stop();
    for writer in writers {
        writer.await.map_err(|error| BenchError::Failed(error.to_string()))?;
    }
    let lost = missing_anywhere(&cluster, &acknowledged, 0).await?;
    summary(&mut tallies, &acknowledged, begin.elapsed(), &lost);
    cluster.agent = None;
    for server in &mut cluster.servers {
        server.stop()?;
    }
    fault::clean_up();
    let lost_in_rounds: usize = tallies.values().map(|tally| tally.lost).sum();
    if lost.is_empty() && lost_in_rounds == 0 {
        return Ok(());
    }
    Err(BenchError::Failed("acknowledged writes are missing".to_owned()))
}

async fn start(options: &Options) -> Result<Cluster, BenchError> {
    let directory = tempfile::tempdir()?;
    let mut lab = Lab::new()?;
    let sampan = std::path::absolute(&options.sampan)?;
    let mut first = Server::new(&sampan, "s1", lab.machine()?, directory.path(), None)?;
    first.start()?;
    let mut servers = vec![first];
    wait_kubeconfig(&mut servers).await?;
    let mut clients = vec![client(&servers, 0).await?];
    wait_serving(&clients, &mut servers, 0).await?;
    for number in 1..SERVERS {
        let Some(first) = servers.first() else { break };
        let (url, token) = (first.url(), first.token("server")?);
        let name = format!("s{}", number + 1);
        let mut server = Server::new(&sampan, &name, lab.machine()?, directory.path(), Some((&url, &token)))?;
        if number + 1 == SERVERS {
            server.with_clock(directory.path())?;
        }
        server.start()?;
        servers.push(server);
        clients.push(client(&servers, number).await?);
        wait_serving(&clients, &mut servers, number).await?;
    }
    wait_voters(&clients).await?;
    let agent =
        if options.agent { Some(start_agent(&sampan, &servers, &mut lab, directory.path())?) } else { None };
    let clients = clients.into_iter().map(|client| Arc::new(Mutex::new(client))).collect();
    let cluster = Cluster { servers, clients, agent, lab, directory };
    if cluster.agent.is_some() {
        wait_agent(&cluster).await?;
    }
    println!("{SERVERS} servers are up, logs are in {}", cluster.directory.path().display());
    Ok(cluster)
}

fn start_agent(
    sampan: &Path,
    servers: &[Server],
    lab: &mut Lab,
    directory: &Path,
) -> Result<Agent, BenchError> {
    const NAME: &str = "behind-nat";
    let machine = lab.machine_behind_nat()?;
    let Some(first) = servers.first() else { return Err(BenchError::Failed("no servers".to_owned())) };
    let token = first.token("agent")?;
    let log = std::fs::File::create(directory.join("agent.log"))?;
    let data = directory.join("agent").display().to_string();
    let process = std::process::Command::new("ip")
        .args(["netns", "exec", &machine.namespace])
        .arg(sampan)
        .args([
            "agent",
            "--server",
            &first.url(),
            "--token",
            &token,
            "--data-dir",
            &data,
            "--node-name",
            NAME,
        ])
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(Agent { process, name: NAME })
}

/// One fault: done, undone, looked after.
async fn one(
    cluster: &mut Cluster,
    fault: Fault,
    round: usize,
    acknowledged: &Acknowledged,
    tally: &mut Tally,
) -> Result<(), BenchError> {
    acknowledged.round.store(round, Ordering::SeqCst);
    acknowledged.forget_times();
    let leader = leader(cluster).await?;
    let at = fault.strikes(leader, SERVERS, round);
    let before = acknowledged.count();
    let begin = Instant::now();
    fault::inject(fault, at, &mut cluster.servers, &cluster.lab, round)?;
    if fault == Fault::Move {
        renew_client(cluster, at).await?;
    }
    tokio::time::sleep(fault.lasts()).await;
    let election = acknowledged.first_after(begin);
    fault::heal(fault, at, &mut cluster.servers)?;
    let healed = Instant::now();
    whole_again(cluster, fault, at).await?;
    let whole = healed.elapsed();
    let from = if round % ALL_EVERY == ALL_EVERY - 1 { 0 } else { round.saturating_sub(1) };
    let lost = missing_anywhere(cluster, acknowledged, from).await?;
    let election = election.or_else(|| acknowledged.first_after(begin));
    println!(
        "round {round:>3}: {fault:?} of s{}: next write after {}, whole again {} after it was undone, {} writes acknowledged, {} lost{}",
        at + 1,
        election.map_or("—".to_owned(), millis),
        millis(whole),
        acknowledged.count() - before,
        lost.len(),
        lost.first().map_or(String::new(), |name| format!(" ({name}, …)")),
    );
    tally.rounds += 1;
    tally.lost += lost.len();
    tally.whole_again.push(whole);
    if fault.needs_election() {
        tally.elections.extend(election);
    }
    Ok(())
}

/// Waits until every server takes a write, and the agent is there.
async fn whole_again(cluster: &mut Cluster, fault: Fault, at: usize) -> Result<(), BenchError> {
    for index in 0..SERVERS {
        let clients: Vec<kube::Client> = cluster.clients.iter().map(current).collect();
        let result = wait_serving(&clients, &mut cluster.servers, index).await;
        if let Err(error) = result {
            // A server that ends by itself on a full disk is started again, as its supervisor would.
            let restarts = fault == Fault::FullDisk
                && index == at
                && cluster.servers.get(at).is_some_and(|server| server.pid().is_none());
            if !restarts {
                return Err(error);
            }
            println!("{error}; it is started again");
            if let Some(server) = cluster.servers.get_mut(at) {
                server.start()?;
            }
            wait_serving(&clients, &mut cluster.servers, index).await?;
        }
    }
    if cluster.agent.is_some() {
        wait_agent(cluster).await?;
    }
    Ok(())
}

fn current(client: &Arc<Mutex<kube::Client>>) -> kube::Client {
    client.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A moved server is spoken to at its new address.
async fn renew_client(cluster: &Cluster, at: usize) -> Result<(), BenchError> {
    let new = client(&cluster.servers, at).await?;
    if let Some(slot) = cluster.clients.get(at) {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = new;
    }
    Ok(())
}

/// A client of one server, with the administrator's rights.
async fn client(servers: &[Server], index: usize) -> Result<kube::Client, BenchError> {
    let (Some(first), Some(server)) = (servers.first(), servers.get(index)) else {
        return Err(BenchError::Failed("no such server".to_owned()));
    };
    let mut config = Kubeconfig::read_from(first.kubeconfig())?;
    for cluster in &mut config.clusters {
        if let Some(cluster) = &mut cluster.cluster {
            cluster.server = Some(server.url());
            // The name in the certificate that stays when the address changes.
            cluster.tls_server_name = Some("kubernetes".to_owned());
        }
    }
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_millis(500));
    config.read_timeout = Some(Duration::from_secs(60));
    Ok(kube::Client::try_from(config)?)
}

async fn wait_kubeconfig(servers: &mut [Server]) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Some(first) = servers.first_mut() else { break };
        if let Some(why) = first.ended()? {
            return Err(BenchError::Failed(why));
        }
        if first.kubeconfig().exists() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Failed("the first server wrote no kubeconfig".to_owned()))
}

/// Waits until a server takes a write.
async fn wait_serving(
    clients: &[kube::Client],
    servers: &mut [Server],
    index: usize,
) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(client) = clients.get(index) else { return Ok(()) };
        let probe = probe(client.clone());
        let result = tokio::time::timeout(Duration::from_secs(2), probe).await;
        if matches!(result, Ok(Ok(()))) {
            return Ok(());
        }
        let Some(server) = servers.get_mut(index) else { return Ok(()) };
        if let Some(why) = server.ended()? {
            return Err(BenchError::Failed(why));
        }
        if Instant::now() > deadline {
            let words = server.last_words();
            let why = format!("{} takes no writes: {result:?}; it said last:\n{words}", server.name);
            return Err(BenchError::Failed(why));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn probe(client: kube::Client) -> Result<(), BenchError> {
    let map = serde_json::json!({"metadata": {"generateName": "probe-"}});
    let map = serde_json::from_value(map).map_err(|error| BenchError::Failed(error.to_string()))?;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map).await?;
    Ok(())
}

/// What the servers say of their group.
async fn members(client: &kube::Client) -> Result<Vec<serde_json::Value>, BenchError> {
    let request = http::Request::get("/sampan/v1/members").body(Vec::new());
    let request = request.map_err(|error| BenchError::Failed(error.to_string()))?;
    Ok(client.request(request).await?)
}

async fn wait_voters(clients: &[kube::Client]) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        let Some(client) = clients.first() else { break };
        match members(client).await {
            Ok(members) => {
                let voters =
                    members.iter().filter(|member| member.get("voter") == Some(&true.into())).count();
                if voters == clients.len() {
                    return Ok(());
                }
                last = format!("{members:?}");
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(BenchError::Failed(format!("not all servers became voters: {last}")))
}

async fn leader(cluster: &Cluster) -> Result<usize, BenchError> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        for client in &cluster.clients {
            match tokio::time::timeout(Duration::from_secs(2), members(&current(client))).await {
                Ok(Ok(members)) => {
                    let leads = members.iter().find(|member| member.get("leader") == Some(&true.into()));
                    let name = leads.and_then(|member| member.get("name")).and_then(|name| name.as_str());
                    let index = cluster.servers.iter().position(|server| Some(server.name.as_str()) == name);
                    if let Some(index) = index {
                        return Ok(index);
                    }
                    last = format!("{members:?}");
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => "no answer".clone_into(&mut last),
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Failed(format!("nobody leads: {last}")))
}

/// Waits until the agent's node is Ready and was heard of lately.
async fn wait_agent(cluster: &Cluster) -> Result<(), BenchError> {
    let Some(agent) = &cluster.agent else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for client in &cluster.clients {
            let nodes: Api<Node> = Api::all(current(client));
            let node = tokio::time::timeout(Duration::from_secs(2), nodes.get(agent.name)).await;
            let Ok(Ok(node)) = node else { continue };
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = std::fs::read_to_string(cluster.directory.path().join("agent.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let words = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
    Err(BenchError::Failed(format!("the agent behind the NAT is not Ready; it said last:\n{words}")))
}

/// Acknowledged writes of rounds from `from` on that some server does not list.
async fn missing_anywhere(
    cluster: &Cluster,
    acknowledged: &Acknowledged,
    from: usize,
) -> Result<Vec<String>, BenchError> {
    let mut lost = Vec::new();
    for client in &cluster.clients {
        lost.extend(acknowledged.missing(current(client), from).await?);
    }
    lost.sort();
    lost.dedup();
    Ok(lost)
}

fn summary(
    tallies: &mut BTreeMap<Fault, Tally>,
    acknowledged: &Acknowledged,
    took: Duration,
    lost: &[String],
) {
    println!(
        "\n| fault | rounds | next write after, p50 | p99 | whole again, p50 | p99 | acknowledged writes lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut elections = Vec::new();
    for (fault, tally) in tallies.iter_mut() {
        elections.extend(tally.elections.iter().copied());
        let show = |times: &mut Vec<Duration>, share: f64| {
            if times.is_empty() { "—".to_owned() } else { millis(percentile(times, share)) }
        };
        println!(
            "| {fault:?} | {} | {} | {} | {} | {} | {} |",
            tally.rounds,
            show(&mut tally.elections, 0.5),
            show(&mut tally.elections, 0.99),
            show(&mut tally.whole_again, 0.5),
            show(&mut tally.whole_again, 0.99),
            tally.lost
        );
    }
    println!(
        "\nleader gone to next write: p50 {}, p99 {} over {} rounds (budget 1 s)",
        millis(percentile(&mut elections, 0.5)),
        millis(percentile(&mut elections, 0.99)),
        elections.len()
    );
    println!(
        "{} writes acknowledged in {:.0} s, {} of them missing at the end",
        acknowledged.count(),
        took.as_secs_f64(),
        lost.len()
    );
}
