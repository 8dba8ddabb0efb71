//! `sampan agent`: this machine as a node of a cluster whose servers are elsewhere. Once it has
//! joined it starts without them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use sampan_agent::{Agent, AgentConfig};
use sampan_apiserver::pki::MachineRole;
use sampan_join::{Enrollment, Joined, RenewFrom, Renewer, enroll, joined};
use sampan_transport::{Clock, Endpoint, EndpointConfig, FloorFile, Identity};

use crate::cluster_facts::ClusterFacts;
use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::server::{self, Stop};
use crate::settings::{AgentSettings, Join};
use crate::{data_dir, kubeconfig_file, logging, machine, node};

/// How long a component may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a machine that is not part of the cluster yet waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn run(settings: AgentSettings) -> Result<ExitCode, CommandError> {
    logging::init(&settings.node.log_level)?;
    let runtime = server::runtime()?;
    let outcome = runtime.block_on(serve(&settings));
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn serve(settings: &AgentSettings) -> Result<ExitCode, CommandError> {
    let mut stop = Stop::new()?;
    data_dir::prepare(&settings.node.data_dir)?;
    let joined = tokio::select! {
        joined = join(settings) => joined?,
        () = stop.asked() => return Ok(ExitCode::SUCCESS),
    };
    let place = place(&joined)?;
    let machine = Machine::new(settings, &joined)?;
    let agent = Agent::start(machine.config(settings, &joined))
        .await
        .doing(|| "the agent cannot start".to_owned())?;
    local_kubeconfig(settings, &agent)?;
    let mut components = Components::default();
    renewal(&mut components, joined, &machine);
    let router = agent.router().clone();
    let api = node::Api::remote(&agent);
    let started = node::start(&mut components, &settings.node, &place, api, |kubelet| {
        router.connect(kubelet);
    })
    .await;
    let code = match started {
        Ok(()) => {
            tracing::info!(node = settings.node.name, "ready");
            tokio::select! {
                () = stop.asked() => Ok(ExitCode::SUCCESS),
                name = components.failed() => {
                    tracing::error!(component = name, "ended by itself; stopping");
                    Ok(ExitCode::FAILURE)
                }
            }
        }
        Err(error) => Err(error),
    };
    let ending = async {
        components.stop().await;
        agent.stop().await;
        machine.clock.persist();
        machine.endpoint.close("the node stops").await;
    };
    tokio::select! {
        () = ending => code,
        () = stop.asked() => Err(CommandError::new("stopped at once: asked twice")),
    }
}

/// The way to this node's own pods, where a user looks for it.
fn local_kubeconfig(settings: &AgentSettings, agent: &Agent) -> Result<(), CommandError> {
    let Some((address, made)) = agent.local_api() else { return Ok(()) };
    let path = settings.node.data_dir.join("kubeconfig.yaml");
    let cannot = || format!("the kubeconfig {} cannot be written", path.display());
    let text = std::fs::read_to_string(made).doing(cannot)?;
    kubeconfig_file::replace(&path, &text, 0o600).doing(cannot)?;
    tracing::info!(%address, kubeconfig = %path.display(), "this node's own pods can be read here");
    Ok(())
}

/// What this machine is in its cluster; joins where it has not yet.
async fn join(settings: &AgentSettings) -> Result<Joined, CommandError> {
    let tls = settings.node.data_dir.join("tls");
    let known = joined(&tls).doing(|| "this machine's keys cannot be used".to_owned())?;
    match (known, &settings.join) {
        (Some(known), _) => as_node(known, settings),
        (None, Some(join)) => first_time(settings, join, &tls).await,
        (None, None) => Err(CommandError::new(
            "this machine has not joined a cluster yet: name one with --server https://HOST:6443 and --token; \
             'sampan token create --role agent' on a server makes one",
        )),
    }
}

fn as_node(known: Joined, settings: &AgentSettings) -> Result<Joined, CommandError> {
    if known.roles.contains(&MachineRole::Server) {
        return Err(CommandError::new(format!(
            "{} is that of a server; run 'sampan server', or name another directory with --data-dir",
            settings.node.data_dir.display()
        )));
    }
    if known.name != settings.node.name {
        return Err(CommandError::new(format!(
            "this machine joined its cluster as {:?} and stays that; start it with --node-name {}",
            known.name, known.name
        )));
    }
    Ok(known)
}

async fn first_time(settings: &AgentSettings, join: &Join, tls: &Path) -> Result<Joined, CommandError> {
    let data_dir = &settings.node.data_dir;
    if tls.exists() {
        return Err(CommandError::new(format!(
            "{} holds a cluster of its own; to join another, start with an empty directory (--data-dir)",
            data_dir.display()
        )));
    }
    let token = join.token.clone().ok_or_else(|| {
        CommandError::new("this machine has not joined yet: give it a token with --token; 'sampan token create --role agent' on a server makes one")
    })?;
    let wanted = Enrollment {
        server: join.url.clone(),
        token,
        name: settings.node.name.clone(),
        roles: vec![MachineRole::Node],
        addresses: Vec::new(),
        dir: tls.to_owned(),
    };
    loop {
        let outcome = enroll(&wanted).await;
        machine::tidy_after(&outcome, data_dir);
        match outcome {
            Err(error) if error.may_pass() => {
                // A gateway may be up long before its servers are.
                tracing::warn!(why = %sampan_client::informer::chain(&error), "cannot join yet; asking again");
                tokio::time::sleep(ASK_AGAIN).await;
            }
            outcome => return outcome.doing(|| format!("cannot join {}", join.url)),
        }
    }
}

/// Where this node is in the cluster, as it was told when it joined.
fn place(joined: &Joined) -> Result<node::Place, CommandError> {
    let lacking =
        || CommandError::new("the server did not tell which pod addresses this node has; it is too old");
    let facts = ClusterFacts::from_map(&joined.settings).ok_or_else(lacking)?;
    let index = joined.settings.get(sampan_join::NODE_INDEX).and_then(|text| text.parse().ok());
    let port = joined
        .servers
        .iter()
        .flat_map(|server| &server.addresses)
        .find_map(|address| address.rsplit_once(':')?.1.parse().ok());
    Ok(node::Place {
        cluster_cidr: facts.cluster_cidr,
        service_cidr: facts.service_cidr,
        prefix: facts.node_prefix,
        index: index.ok_or_else(lacking)?,
        api_port: port.unwrap_or(6443),
    })
}

/// This machine towards its servers.
struct Machine {
    identity: Identity,
    endpoint: Endpoint,
    clock: Arc<FloorFile>,
    /// `https://HOST:PORT` each.
    servers: Arc<RwLock<Vec<String>>>,
}

impl Machine {
    fn new(settings: &AgentSettings, joined: &Joined) -> Result<Self, CommandError> {
        let data_dir = &settings.node.data_dir;
        let identity = machine::identity(joined, MachineRole::Node)?;
        let clock = machine::clock(data_dir)?;
        let any = if Path::new("/proc/net/if_inet6").exists() {
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)
        } else {
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
        };
        let mut config = EndpointConfig::new(
            any,
            identity.clone(),
            machine::reset_key(data_dir)?,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        config.protocols = settings.node.protocols();
        let endpoint = Endpoint::bind_dialler(config).doing(|| format!("cannot send from {any} (UDP)"))?;
        let mut servers: Vec<String> =
            addresses(joined).map(|address| format!("https://{address}")).collect();
        servers.extend(settings.join.iter().map(|join| join.url.clone()));
        Ok(Self { identity, endpoint, clock, servers: Arc::new(RwLock::new(servers)) })
    }

    fn config(&self, settings: &AgentSettings, joined: &Joined) -> AgentConfig {
        let mut servers: Vec<String> = addresses(joined).cloned().collect();
        let given = settings.join.iter().filter_map(|join| join.url.strip_prefix("https://"));
        servers.extend(given.map(with_port));
        let mut config = AgentConfig::new(
            &settings.node.name,
            settings.node.data_dir.join("agent"),
            self.endpoint.clone(),
            servers,
        );
        config.local_port = Some(settings.local_port);
        config
    }
}

fn addresses(joined: &Joined) -> impl Iterator<Item = &String> {
    joined.servers.iter().flat_map(|server| &server.addresses)
}

/// A URL's host with its port.
fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { host.to_owned() } else { format!("{host}:443") }
}

/// Certificates are made anew by the servers, by proof of the machine's key.
fn renewal(components: &mut Components, joined: Joined, machine: &Machine) {
    let (asked, told) = (Arc::clone(&machine.servers), Arc::clone(&machine.servers));
    let identity = machine.identity.clone();
    let clock = Arc::clone(&machine.clock);
    let now =
        move || Timestamp::try_from(clock.now().max(clock.floor())).unwrap_or_else(|_| Timestamp::now());
    let renewer = Renewer::new(
        joined,
        RenewFrom::Servers(Arc::new(move || asked.read().clone())),
        Arc::new(Vec::new),
        Arc::new(now),
        move |renewal| {
            machine::install(&identity, MachineRole::Node, &renewal);
            let servers: Vec<String> = renewal
                .servers
                .iter()
                .flat_map(|server| &server.addresses)
                .map(|address| format!("https://{address}"))
                .collect();
            if !servers.is_empty() {
                *told.write() = servers;
            }
        },
    );
    components.start("machine certificate", PATIENCE, |shutdown| renewer.run(shutdown));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_port_means_https() {
        assert_eq!(with_port("host:6443"), "host:6443");
        assert_eq!(with_port("host"), "host:443");
        assert_eq!(with_port("[::1]:6443"), "[::1]:6443");
    }
}
