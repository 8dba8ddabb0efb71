//! What everything stands on: who this machine is, its part of the store, its way to other machines.
//!
//! A machine is one of three: the first server of its cluster (or the only one), one that has
//! joined, and one that is about to join. All three end in the same state.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use sampan_agent::Gateway;
use sampan_apiserver::pki::{MachineRole, Pki};
use sampan_join::{Enrollment, Joined, KeyId, MachineKey, enroll, join_members, joined, prepare_server};
use sampan_raft::{Member, NoPeers, Peers, QuicPeers, RaftConfig, RaftStore, Start, Timing};
use sampan_transport::{Clock, Endpoint, EndpointConfig, FloorFile, Identity};
use tokio_util::sync::CancellationToken;

use super::forced::Forced;
use super::{names, peers};
use crate::cluster_facts::ClusterFacts;
use crate::error::{CommandError, Doing};
use crate::settings::{Join, Mode, Settings};
use crate::{machine, node, store};

/// A server is a node of its name, too, whether it runs one now or not.
pub(super) const ROLES: [MachineRole; 2] = [MachineRole::Server, MachineRole::Node];
/// How often a server looks whether it is a member by now.
const LOOK: Duration = Duration::from_millis(50);
/// How often a server that is not a member yet asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// See the module's description.
pub(super) struct Ground {
    pub(super) store: Arc<RaftStore>,
    pub(super) pki: Arc<Pki>,
    pub(super) facts: ClusterFacts,
    /// `None` on a cluster that is alone for good.
    pub(super) machines: Option<Machines>,
    /// This node's part of the range of pod addresses.
    pub(super) node_index: OnceLock<u32>,
}

/// The way to other machines.
pub(super) struct Machines {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Identity,
    pub(super) clock: Arc<FloorFile>,
    pub(super) key: KeyId,
    pub(super) addresses: Vec<String>,
    /// The file with the keys that the store seals values with.
    pub(super) sealing_keys: PathBuf,
    /// Taken by whoever renews it.
    pub(super) joined: Mutex<Option<Joined>>,
    /// Who serves nodes, once the API is there.
    pub(super) gateway: Arc<OnceLock<Gateway>>,
    /// Connections are taken from the moment on that the store is open: without them a group of
    /// which all members start at once would never have a leader.
    accepting: CancellationToken,
}

impl Machines {
    fn accept(&self, store: &Arc<RaftStore>) {
        let (endpoint, store) = (self.endpoint.clone(), Arc::clone(store));
        tokio::spawn(peers::accept(endpoint, store, Arc::clone(&self.gateway), self.accepting.clone()));
    }
}

impl Ground {
    /// Finds out who this machine is, joining its cluster if need be, and opens the store. A server
    /// of several returns once it is a member.
    pub(super) async fn prepare(settings: &Settings, port: u16) -> Result<Self, CommandError> {
        let tls = settings.node.data_dir.join("tls");
        let known = joined(&tls).doing(|| "this machine's keys cannot be used".to_owned())?;
        match (&known, &settings.join) {
            (Some(known), _) => check(known, settings)?,
            (None, Some(join)) => drop(Self::enroll(settings, join, port).await?),
            (None, None) => {}
        }
        let pki = Pki::load_or_create(&tls, names::serving(settings))
            .doing(|| "certificates cannot be made".to_owned())?;
        let opening = Opening { settings, pki: Arc::new(pki), port };
        match settings.replication {
            None => opening.alone(&tls, known.is_some()).await,
            Some(replication) => opening.with_others(&tls, replication.force_new_cluster).await,
        }
    }

    async fn enroll(settings: &Settings, join: &Join, port: u16) -> Result<Joined, CommandError> {
        let data_dir = &settings.node.data_dir;
        if data_dir.join("db").exists() {
            return Err(CommandError::new(format!(
                "{} holds a cluster of its own; to join another, start with an empty directory (--data-dir)",
                data_dir.display()
            )));
        }
        let token = join.token.clone().ok_or_else(|| {
            CommandError::new("this machine has not joined yet: give it a token with --token; 'sampan token create --role server' on a server makes one")
        })?;
        let wanted = Enrollment {
            server: join.url.clone(),
            token,
            name: settings.node.name.clone(),
            roles: ROLES.to_vec(),
            addresses: names::for_machines(settings, port),
            dir: data_dir.join("tls"),
        };
        let outcome = enroll(&wanted).await;
        machine::tidy_after(&outcome, data_dir);
        outcome.doing(|| format!("cannot join {}", join.url))
    }

    /// Where this server's node is in the cluster.
    pub(super) fn place(&self, settings: &Settings, port: u16) -> node::Place {
        let index = self.node_index.get().copied().unwrap_or(0);
        let prefix = if settings.mode == Mode::Dev { None } else { self.facts.node_prefix };
        node::Place {
            cluster_cidr: self.facts.cluster_cidr,
            service_cidr: self.facts.service_cidr,
            prefix,
            index,
            api_port: port,
        }
    }

    /// Waits until this server is told that it is no member any more; what there is to say.
    pub(super) async fn removed(&self) -> CommandError {
        removed(&self.store).await
    }

    /// Ends in good order: leadership goes to another server first.
    pub(super) async fn close(self) -> Result<(), CommandError> {
        let closed = self.store.close().await.doing(|| "closing the database".to_owned());
        if let Some(machines) = &self.machines {
            machines.accepting.cancel();
            machines.clock.persist();
            machines.endpoint.close("the server stops").await;
        }
        closed
    }
}

/// Waits until this server has a vote, as far as it knows; one that learns must still ask for it.
async fn has_vote(store: &RaftStore) {
    while !store.members().iter().any(|standing| standing.voter && standing.member.id == store.id()) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn removed(store: &RaftStore) -> CommandError {
    let mut removed = store.removed();
    if removed.wait_for(|removed| *removed).await.is_err() {
        std::future::pending::<()>().await;
    }
    CommandError::new(
        "this server was removed from its cluster and stops; to join again, start with an empty --data-dir",
    )
}

/// A machine that has joined must have joined as what it is started as.
fn check(known: &Joined, settings: &Settings) -> Result<(), CommandError> {
    if !known.roles.contains(&MachineRole::Server) {
        return Err(CommandError::new(format!(
            "{} is that of an agent; run 'sampan agent', or name another directory with --data-dir",
            settings.node.data_dir.display()
        )));
    }
    if known.name != settings.node.name {
        return Err(CommandError::new(format!(
            "this server joined its cluster as {:?} and stays that; start it with --node-name {}",
            known.name, known.name
        )));
    }
    Ok(())
}

/// What opening the store takes.
struct Opening<'a> {
    settings: &'a Settings,
    pki: Arc<Pki>,
    port: u16,
}

impl Opening<'_> {
    fn config(&self, key: KeyId, sealing_keys: Option<PathBuf>) -> RaftConfig {
        let mut store = store::config(&self.settings.node.data_dir);
        store.level = self.settings.node.level;
        if let Some(keys) = sealing_keys {
            store.keys = keys;
        }
        let member = Member {
            id: key.member_id(),
            name: self.settings.node.name.clone(),
            addresses: names::for_machines(self.settings, self.port),
            key: key.0,
        };
        let mut config = RaftConfig::new(store, member);
        if let Some(replication) = self.settings.replication {
            let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            config.timing = Timing {
                heartbeat: millis(replication.heartbeat),
                election_min: millis(replication.election),
                election_max: millis(replication.election) * 2,
            };
        }
        config
    }

    async fn open(
        &self,
        config: RaftConfig,
        start: Start,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<RaftStore>, CommandError> {
        let opened = RaftStore::open(config, start, peers).await;
        opened.map_err(|error| store::explain(error, &self.settings.node.data_dir))
    }

    /// `sampan dev`: the same store, with nobody else.
    async fn alone(self, tls: &Path, has_joined: bool) -> Result<Ground, CommandError> {
        if has_joined {
            return Err(CommandError::new(format!(
                "{} is that of a server; run 'sampan server', or name another directory with --data-dir",
                self.settings.node.data_dir.display()
            )));
        }
        let key = MachineKey::load_or_create(tls).doing(|| "this machine's key cannot be used".to_owned())?;
        let config = self.config(key.id(), None);
        let store = self.open(config, Start::Bootstrap, Arc::new(NoPeers)).await?;
        let facts = ClusterFacts::of_settings(self.settings);
        self.ground(store, facts, None)
    }

    async fn with_others(self, tls: &Path, force: bool) -> Result<Ground, CommandError> {
        let joined = prepare_server(tls, &self.pki, &self.settings.node.name, &ROLES)
            .doing(|| "this machine's certificates cannot be made".to_owned())?;
        let forced = Forced::begin(&self.settings.node.data_dir, force)?;
        let start = match (forced.acts(), joined.servers.is_empty()) {
            (true, _) => Start::ForceNew,
            (false, false) => Start::Join,
            (false, true) => Start::Bootstrap,
        };
        let config = self.config(joined.key.id(), joined.sealing_keys());
        let sealing_keys = config.store.keys.clone();
        let machines = self.machines(joined, sealing_keys)?;
        let peers = Arc::new(QuicPeers::new(machines.endpoint.clone()));
        let store = self.open(config, start, peers).await?;
        forced.opened(&store.cluster_id().to_string())?;
        machines.accept(&store);
        let settled = async {
            if start == Start::Join {
                self.become_member(&store, &machines).await?;
            }
            ClusterFacts::agree(&*store, self.settings).await
        };
        let facts = tokio::select! {
            facts = settled => facts?,
            error = removed(&store) => return Err(error),
        };
        self.ground(store, facts, Some(machines))
    }

    fn ground(
        self,
        store: Arc<RaftStore>,
        facts: ClusterFacts,
        machines: Option<Machines>,
    ) -> Result<Ground, CommandError> {
        let names = names::serving(&Settings { service_cidr: facts.service_cidr, ..self.settings.clone() });
        self.pki.set_names(names).doing(|| "the API's certificate cannot be made".to_owned())?;
        Ok(Ground { store, pki: self.pki, facts, machines, node_index: OnceLock::new() })
    }

    /// Binds the endpoint that other machines are reached from.
    fn machines(&self, joined: Joined, sealing_keys: PathBuf) -> Result<Machines, CommandError> {
        let data_dir = &self.settings.node.data_dir;
        let identity = machine::identity(&joined, MachineRole::Server)?;
        let clock = machine::clock(data_dir)?;
        self.pki.set_time(machine::time(&clock));
        let listen = std::net::SocketAddr::new(self.settings.bind_address, self.port);
        let mut config = EndpointConfig::new(
            listen,
            identity.clone(),
            machine::reset_key(data_dir)?,
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        config.protocols = self.settings.node.protocols();
        let endpoint = Endpoint::bind(config).doing(|| {
            format!("cannot listen on {listen} (UDP); choose another port with --https-listen-port")
        })?;
        Ok(Machines {
            endpoint,
            identity,
            clock,
            key: joined.key.id(),
            addresses: names::for_machines(self.settings, self.port),
            sealing_keys,
            joined: Mutex::new(Some(joined)),
            gateway: Arc::default(),
            accepting: CancellationToken::new(),
        })
    }

    /// Asks the cluster to take this server in, until it has.
    async fn become_member(&self, store: &Arc<RaftStore>, machines: &Machines) -> Result<(), CommandError> {
        let joined = machines.joined.lock().take();
        let Some(joined) = joined else { return Ok(()) };
        let servers: Vec<String> = self.settings.join.iter().map(|join| join.url.clone()).collect();
        let known = joined.servers.iter().flat_map(|server| &server.addresses);
        let servers: Vec<String> =
            servers.into_iter().chain(known.map(|address| format!("https://{address}"))).collect();
        let outcome = loop {
            let asked = tokio::select! {
                // A server that was a member before is told so by the leader, wherever the servers
                // are that it knew when it joined.
                biased;
                () = has_vote(store) => break Ok(()),
                asked = join_members(&joined, &servers, &machines.addresses) => asked,
            };
            match asked {
                Ok(_) => break Ok(()),
                Err(error) if error.may_pass() || machine::lags_behind(&error) => {
                    tracing::info!(why = %sampan_client::informer::chain(&error), "not a member yet; asking again");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => {
                    break Err(error).doing(|| "the cluster does not take this server in".to_owned());
                }
            }
        };
        *machines.joined.lock() = Some(joined);
        outcome
    }
}
