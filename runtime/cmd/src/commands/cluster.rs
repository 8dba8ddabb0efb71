//! `sampan dev` and `sampan server`: a cluster on this machine. Components start in the order
//! in which they need each other and stop in reverse.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sampan_apiserver::pki::{Pki, ServingNames};
use sampan_apiserver::{ApiServer, UserInfo};
use sampan_controllers::ControllersConfig;
use sampan_scheduler::{Scheduler, SchedulerConfig};
use sampan_store::DurableStore;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::local_node::LocalNode;
use crate::settings::{Mode, Settings};
use crate::{data_dir, kubeconfig_file, logging, node, store};

/// How long a component of the control plane may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(6 * 3600);
/// In the data directory: the URL of the API, as the last run served it.
pub(crate) const SERVER_FILE: &str = "server";

pub(super) fn run(settings: Settings) -> Result<ExitCode, CommandError> {
    logging::init(&settings.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8))
        .thread_name("sampan")
        .enable_all()
        .build()
        .doing(|| "threads cannot be started".to_owned())?;
    let outcome = runtime.block_on(serve(&settings));
    // Whatever still blocks on a disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn serve(settings: &Settings) -> Result<ExitCode, CommandError> {
    let mut stop = Stop::new()?;
    let listener = listen(settings).await?;
    let port = listener.local_addr().doing(|| "the API's port".to_owned())?.port();
    data_dir::prepare(&settings.data_dir)?;
    let storage = store::open(&settings.data_dir).await?;
    let outcome = serve_store(settings, listener, port, storage.clone(), &mut stop).await;
    storage.close().await.doing(|| "closing the database".to_owned())?;
    outcome
}

async fn serve_store(
    settings: &Settings,
    listener: TcpListener,
    port: u16,
    storage: Arc<DurableStore>,
    stop: &mut Stop,
) -> Result<ExitCode, CommandError> {
    let pki = Arc::new(
        Pki::load_or_create(&settings.data_dir.join("tls"), serving_names(settings))
            .doing(|| "certificates cannot be made".to_owned())?,
    );
    let local_node = LocalNode::default();
    let advertised = SocketAddr::new(advertised(settings), port);
    let mut config = sampan_apiserver::Config::new(storage, pki.clone(), advertised.to_string());
    config.audit.clone_from(&settings.audit_log);
    config.nodes = Some(Arc::new(local_node.clone()));
    let api = ApiServer::new(config).await.doing(|| "the API server cannot start".to_owned())?;

    let mut components = Components::default();
    start_control_plane(&mut components, &api, &pki, listener);
    if settings.agent {
        let client = kube::Client::new(api.service(UserInfo::node(&settings.node_name)), "default");
        let started = node::start(&mut components, settings, client, &local_node, port).await;
        if let Err(error) = started {
            components.stop().await;
            return Err(error);
        }
    }
    let url = format!("https://{}", SocketAddr::new(reached(settings), port));
    let told = kubeconfig_file::write(settings, &url, &pki.admin_kubeconfig(&url));
    if let Err(error) = told {
        components.stop().await;
        return Err(error);
    }
    announce(settings, &url);
    let code = tokio::select! {
        () = stop.asked() => ExitCode::SUCCESS,
        name = components.failed() => {
            tracing::error!(component = name, "ended by itself; stopping");
            ExitCode::FAILURE
        }
    };
    tokio::select! {
        () = components.stop() => Ok(code),
        () = stop.asked() => Err(CommandError::new("stopped at once: asked twice")),
    }
}

fn start_control_plane(components: &mut Components, api: &ApiServer, pki: &Arc<Pki>, listener: TcpListener) {
    let server = api.clone();
    components.start("API server", PATIENCE, |shutdown| async move {
        if let Err(error) = server.serve(listener, shutdown).await {
            tracing::error!(error = %sampan_client::informer::chain(&error), "the API server failed");
        }
    });
    let certificates = pki.clone();
    components.start("certificates", PATIENCE, |shutdown| renew(certificates, shutdown));
    let client =
        kube::Client::new(api.service(UserInfo::component("system:kube-controller-manager")), "default");
    let config = ControllersConfig { root_ca: pki.ca_pem().to_owned() };
    components.start("controllers", PATIENCE, |shutdown| sampan_controllers::run(client, config, shutdown));
    let client = kube::Client::new(api.service(UserInfo::component("system:kube-scheduler")), "default");
    components.start("scheduler", PATIENCE, |shutdown| async move {
        Scheduler::new(SchedulerConfig::default(), client).run(shutdown).await;
    });
}

/// Makes certificates anew before they expire.
async fn renew(pki: Arc<Pki>, shutdown: CancellationToken) {
    while tokio::time::timeout(RENEWAL, shutdown.cancelled()).await.is_err() {
        match pki.renew_due(Timestamp::now()) {
            Ok(true) => tracing::info!("certificates were renewed"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = %sampan_client::informer::chain(&error), "certificates were not renewed");
            }
        }
    }
}

async fn listen(settings: &Settings) -> Result<TcpListener, CommandError> {
    let address = SocketAddr::new(settings.bind_address, settings.port);
    TcpListener::bind(address).await.map_err(|error| {
        let mend = match error.kind() {
            std::io::ErrorKind::AddrInUse => "choose another port with --https-listen-port",
            std::io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --https-listen-port",
            _ => "choose another address with --bind-address",
        };
        CommandError::new(format!("cannot listen on {address}: {error}; {mend}"))
    })
}

/// The address that clients on this machine use.
fn reached(settings: &Settings) -> IpAddr {
    if settings.bind_address.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { settings.bind_address }
}

/// The address that others use.
fn advertised(settings: &Settings) -> IpAddr {
    if let Some(address) = settings.advertise_address {
        return address;
    }
    if settings.bind_address.is_unspecified() { node::address(settings) } else { settings.bind_address }
}

fn serving_names(settings: &Settings) -> ServingNames {
    let mut names = vec![settings.node_name.clone()];
    let mut addresses = vec![advertised(settings), reached(settings), node::address(settings)];
    // The first address of the service range is the API's own service.
    addresses.extend(settings.service_cidr.hosts().next().map(IpAddr::V4));
    for given in &settings.tls_san {
        match given.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(given.clone()),
        }
    }
    ServingNames::new(names, addresses)
}

fn announce(settings: &Settings, url: &str) {
    tracing::info!(url, kubeconfig = %settings.kubeconfig.display(), "ready");
    if settings.mode == Mode::Dev {
        let file = settings.kubeconfig.display();
        super::print(&format!(
            "The cluster is ready at {url}\n\n  export KUBECONFIG={file}\n  kubectl get nodes\n  \
             kubectl run hello --image=sampan/hello --restart=Never\n  kubectl logs hello\n\n\
             Ctrl-C stops it; the state stays in {}\n",
            settings.data_dir.display()
        ));
    }
}

/// The wish to stop: SIGINT (Ctrl-C) or SIGTERM.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self, CommandError> {
        let listen = |kind| signal(kind).doing(|| "signals cannot be listened to".to_owned());
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
