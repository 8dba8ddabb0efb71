//! The control plane over the ground: API, joining, nodes' connections, and what only the leader does.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_agent::{Gateway, NodeRouter};
use sampan_apiserver::pki::{Identity, MachineRole, Pki};
use sampan_apiserver::{ApiServer, NodeConnector, UserInfo};
use sampan_controllers::ControllersConfig;
use sampan_join::{JoinConfig, JoinService, RenewFrom, Renewer};
use sampan_scheduler::{Scheduler, SchedulerConfig};
use sampan_transport::{ALPN, Clock};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::ground::{Ground, Machines};
use super::group::{self, Directory, Group};
use super::peers::{OtherServers, OverTcp};
use super::{PATIENCE, etcd, snapshots, storage};
use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::leading::while_leading;
use crate::machine;
use crate::settings::Settings;

/// How often a server looks whether it is still where the others know it to be.
const LOOK: Duration = Duration::from_secs(1);
/// How soon it tells them again where it is, when that failed: they cannot reach it meanwhile.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// What others need of the running control plane.
pub(super) struct Plane {
    pub(super) api: ApiServer,
    pub(super) join: Option<JoinService>,
}

impl Plane {
    pub(super) async fn start(
        components: &mut Components,
        settings: &Settings,
        ground: &Ground,
        listener: TcpListener,
        port: u16,
        local: NodeRouter,
    ) -> Result<Self, CommandError> {
        let leading = group::leading(&ground.store);
        let advertised = std::net::SocketAddr::new(super::names::advertised(settings), port);
        let mut config =
            sampan_apiserver::Config::new(storage(ground), Arc::clone(&ground.pki), advertised.to_string());
        config.audit.clone_from(&settings.audit_log);
        config.leading = Some(leading.clone());
        let store = Arc::clone(&ground.store);
        config.figures = Some(Arc::new(move || super::figures::text(&store)));
        let (mut join, mut gateway) = (None, None);
        match &ground.machines {
            None => config.nodes = Some(Arc::new(local.clone())),
            Some(machines) => {
                let service = joining(settings, ground, machines).await?;
                config.extension = Some(service.router());
                config.revocations = Some(service.revocations());
                config.handover = Some(Arc::new(OverTcp(machines.endpoint.clone())));
                let nodes = nodes(components, ground, machines);
                nodes.connect_local(local);
                nodes.obey(service.revocations());
                config.nodes = Some(Arc::new(nodes.clone()) as Arc<dyn NodeConnector>);
                (join, gateway) = (Some(service), Some(nodes));
            }
        }
        let api = ApiServer::new(config).await.doing(|| "the API server cannot start".to_owned())?;
        if let (Some(machines), Some(gateway)) = (&ground.machines, gateway) {
            gateway.attach(api.clone());
            drop(machines.gateway.set(gateway));
        }
        serve(components, &api, listener);
        certificates(components, ground);
        if let Some(join) = join.clone() {
            components.start("joining", PATIENCE, |shutdown| async move { join.run(shutdown).await });
            moved(components, settings, ground, port);
        }
        of_the_leader(components, &api, &ground.pki, &leading);
        snapshots::start(components, settings, ground, leading)?;
        etcd::start(components, settings, ground).await?;
        Ok(Self { api, join })
    }
}

fn serve(components: &mut Components, api: &ApiServer, listener: TcpListener) {
    let server = api.clone();
    components.start("API server", PATIENCE, |shutdown| async move {
        if let Err(error) = server.serve(listener, shutdown).await {
            tracing::error!(error = %sampan_client::informer::chain(&error), "the API server failed");
        }
    });
}

/// The server's side of joining, with this server's own names written down.
async fn joining(
    settings: &Settings,
    ground: &Ground,
    machines: &Machines,
) -> Result<JoinService, CommandError> {
    let membership = Arc::new(Group(Arc::clone(&ground.store)));
    let name = &settings.node.name;
    let cluster_id = ground.store.cluster_id().to_string();
    let mut config =
        JoinConfig::new(storage(ground), Arc::clone(&ground.pki), membership, cluster_id, name.as_str());
    config.settings = ground.facts.to_map();
    config.node_parts = ground.facts.node_parts();
    let keys = machines.sealing_keys.clone();
    config.sealing_keys = Some(Arc::new(move || std::fs::read_to_string(&keys)));
    let service = JoinService::new(config);
    service.share_authorities().await.doing(|| "the cluster's authorities cannot be read".to_owned())?;
    let joined = machines.joined.lock().take();
    if let Some(joined) = joined {
        let recorded = service.record_self(&joined, &machines.addresses).await;
        *machines.joined.lock() = Some(joined);
        recorded.doing(|| format!("this server cannot be {name:?}"))?;
        let index = service.node_index(name).await.doing(|| "this node has no pod addresses".to_owned())?;
        // Set once: there is one start.
        let _ = ground.node_index.set(index);
    }
    let own = machines.joined.lock().as_ref().and_then(|joined| joined.identity(MachineRole::Server));
    if let Some(own) = own {
        show_over_tcp(&ground.pki, &own);
    }
    Ok(service)
}

/// Machines that come over TCP see the same identity as those that come over QUIC.
fn show_over_tcp(pki: &Pki, own: &Identity) {
    if let Err(error) = pki.set_machine(ALPN, own) {
        tracing::error!(error = %sampan_client::informer::chain(&error), "machines cannot come over TCP");
    }
}

/// The server's side of nodes' connections.
fn nodes(components: &mut Components, ground: &Ground, machines: &Machines) -> Gateway {
    let leader = ground.store.leadership().borrow().leader;
    let (view, seen) = watch::channel(group::seen(&ground.store, leader));
    let directory = Directory::new(seen, OtherServers::new(machines.endpoint.clone()));
    let store = Arc::clone(&ground.store);
    components.start("view of the servers", PATIENCE, |shutdown| group::follow(store, view, shutdown));
    let key = sampan_transport::KeyId(machines.key.0);
    Gateway::new(key, Arc::new(directory))
}

/// This machine's certificate is made anew before it expires; the API's is by whoever serves it.
fn certificates(components: &mut Components, ground: &Ground) {
    let Some(machines) = &ground.machines else { return };
    let Some(joined) = machines.joined.lock().take() else { return };
    let (identity, pki) = (machines.identity.clone(), Arc::clone(&ground.pki));
    let addresses = machines.addresses.clone();
    let clock = Arc::clone(&machines.clock);
    let now = move || Timestamp::try_from(clock.likely()).unwrap_or_else(|_| Timestamp::now());
    let own = Arc::clone(&ground.pki);
    let renewer = Renewer::new(
        joined,
        RenewFrom::Own(own),
        Arc::new(move || addresses.clone()),
        Arc::new(now),
        move |renewal| {
            machine::install(&identity, MachineRole::Server, &renewal);
            if let Some((_, own)) = renewal.identities.iter().find(|(role, _)| *role == MachineRole::Server) {
                show_over_tcp(&pki, own);
            }
        },
    );
    components.start("machine certificate", PATIENCE, |shutdown| renewer.run(shutdown));
}

/// A server that is reached elsewhere than the group knows says so: its address may change while it
/// runs.
fn moved(components: &mut Components, settings: &Settings, ground: &Ground, port: u16) {
    let (store, pki) = (Arc::clone(&ground.store), Arc::clone(&ground.pki));
    let settings = Settings { service_cidr: ground.facts.service_cidr, ..settings.clone() };
    components.start("addresses", PATIENCE, |shutdown| async move {
        // What was told comes back only with the leader's next entries.
        let mut told = Vec::new();
        let mut pause = LOOK;
        while tokio::time::timeout(pause, shutdown.cancelled()).await.is_err() {
            pause = LOOK;
            let addresses = super::names::for_machines(&settings, port);
            let own = store.members().into_iter().find(|standing| standing.member.id == store.id());
            let Some(own) = own.filter(|own| own.member.addresses != addresses) else { continue };
            if let Err(error) = pki.set_names(super::names::serving(&settings)) {
                tracing::error!(error = %sampan_client::informer::chain(&error), "the API's certificate cannot be made for the new address");
            }
            let member = sampan_raft::Member { addresses: addresses.clone(), ..own.member };
            match store.update_member(member).await {
                Ok(()) if told == addresses => {}
                Ok(()) => {
                    tracing::info!(?addresses, "the other servers know where this one is now");
                    told = addresses;
                }
                Err(error) => {
                    tracing::debug!(error = %sampan_client::informer::chain(&error), "not told yet where this server is");
                    pause = TELL_AGAIN;
                }
            }
        }
    });
}

/// Controllers and scheduler: one of each in the whole cluster.
fn of_the_leader(
    components: &mut Components,
    api: &ApiServer,
    pki: &Arc<Pki>,
    leading: &watch::Receiver<bool>,
) {
    let client =
        kube::Client::new(api.service(UserInfo::component("system:kube-controller-manager")), "default");
    let (root_ca, mine) = (root_ca(pki), leading.clone());
    components.start("controllers", PATIENCE, |shutdown| {
        while_leading(mine, shutdown, move |reign| {
            let config = ControllersConfig { root_ca: root_ca.clone() };
            sampan_controllers::run(client.clone(), config, reign)
        })
    });
    let client = kube::Client::new(api.service(UserInfo::component("system:kube-scheduler")), "default");
    let mine = leading.clone();
    components.start("scheduler", PATIENCE, |shutdown| {
        while_leading(mine, shutdown, move |reign| {
            let client = client.clone();
            async move { Scheduler::new(SchedulerConfig::default(), client).run(reign).await }
        })
    });
}

/// The authorities of servers, PEM, as they are and as they will be.
fn root_ca(pki: &Pki) -> watch::Receiver<String> {
    let mut trust = pki.trust();
    let (text, told) = watch::channel(trust.borrow_and_update().server_pem.clone());
    tokio::spawn(async move {
        while trust.changed().await.is_ok() {
            let now = trust.borrow_and_update().server_pem.clone();
            text.send_if_modified(|held| {
                let changed = *held != now;
                *held = now;
                changed
            });
        }
    });
    told
}
