//! Real servers on machines of their own, and everything that can happen to them, while writers
//! write on: no acknowledged write may be missing afterwards.

mod fault;
mod lab;
mod server;
mod tally;
mod wait;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tempfile::TempDir;

use crate::node::BenchError;
use crate::report::millis;
pub(crate) use fault::Fault;
use lab::Lab;
use server::Server;
use tally::{Tally, summary};
use wait::{client, leader, wait_agent, wait_kubeconfig, wait_serving, wait_voters};
use writer::Acknowledged;

/// How many servers.
const SERVERS: usize = 3;
/// Everything that was ever acknowledged is looked for every so many rounds.
const ALL_EVERY: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The `sampan` binary.
    pub(crate) sampan: PathBuf,
    /// How many faults, one after the other.
    pub(crate) rounds: usize,
    /// Which; all there are where none is named.
    pub(crate) only: Vec<Fault>,
    /// Where the logs of the servers and the agent stay; they go with the test where there is none.
    pub(crate) logs: Option<PathBuf>,
    /// Whether an agent behind a NAT takes part.
    pub(crate) agent: bool,
}

struct Cluster {
    servers: Vec<Server>,
    clients: Vec<Arc<Mutex<kube::Client>>>,
    agent: Option<Agent>,
    lab: Lab,
    logs: PathBuf,
    /// What goes with the test.
    _directory: TempDir,
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
    let kinds = kinds(options, &cluster);
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

/// The faults to go through, but for those that this machine cannot do.
fn kinds(options: &Options, cluster: &Cluster) -> Vec<Fault> {
    let mut kinds = if options.only.is_empty() { Fault::ALL.to_vec() } else { options.only.clone() };
    let agent = cluster.agent.is_some();
    kinds.retain(|fault| match fault::impossible(*fault, &cluster.servers, agent) {
        Some(why) => {
            println!("left out: {fault:?}: {why}");
            false
        }
        None => true,
    });
    kinds
}

async fn start(options: &Options) -> Result<Cluster, BenchError> {
    let directory = tempfile::tempdir()?;
    let logs = options.logs.as_deref().unwrap_or(directory.path()).to_owned();
    std::fs::create_dir_all(&logs)?;
    let mut lab = Lab::new()?;
    let sampan = std::path::absolute(&options.sampan)?;
    let mut first = Server::new(&sampan, "s1", lab.machine()?, &logs, None)?;
    first.start()?;
    let mut servers = vec![first];
    wait_kubeconfig(&mut servers).await?;
    let mut clients = vec![client(&servers, 0).await?];
    wait_serving(&clients, &mut servers, 0).await?;
    for number in 1..SERVERS {
        let Some(first) = servers.first() else { break };
        let (url, token) = (first.url(), first.token("server")?);
        let name = format!("s{}", number + 1);
        let mut server = Server::new(&sampan, &name, lab.machine()?, &logs, Some((&url, &token)))?;
        if number + 1 == SERVERS {
            server.with_clock(directory.path())?;
        }
        server.start()?;
        servers.push(server);
        clients.push(client(&servers, number).await?);
        wait_serving(&clients, &mut servers, number).await?;
    }
    wait_voters(&clients).await?;
    let agent = if options.agent {
        Some(start_agent(&sampan, &servers, &mut lab, directory.path(), &logs)?)
    } else {
        None
    };
    let clients = clients.into_iter().map(|client| Arc::new(Mutex::new(client))).collect();
    let cluster = Cluster { servers, clients, agent, lab, logs, _directory: directory };
    if cluster.agent.is_some() {
        wait_agent(&cluster).await?;
    }
    println!("{SERVERS} servers are up, logs are in {}", cluster.logs.display());
    Ok(cluster)
}

fn start_agent(
    sampan: &Path,
    servers: &[Server],
    lab: &mut Lab,
    directory: &Path,
    logs: &Path,
) -> Result<Agent, BenchError> {
    const NAME: &str = "behind-nat";
    let machine = lab.machine_behind_nat()?;
    let Some(first) = servers.first() else { return Err(BenchError::Failed("no servers".to_owned())) };
    let token = first.token("agent")?;
    let log = std::fs::File::create(logs.join("agent.log"))?;
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
    let mut begin = Instant::now();
    fault::inject(fault, at, &mut cluster.servers, &cluster.lab, round)?;
    if !fault.is_sudden() {
        begin = Instant::now();
    }
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
