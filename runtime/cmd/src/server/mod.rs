//! `sampan dev` and `sampan server`: a cluster, or a part of one, on this machine. Components start
//! in the order in which they need each other and stop in reverse.
//!
//! [`ground`] says who this machine is and opens its part of the store; [`plane`] starts the
//! control plane over it; this file is the order of it all.

mod announce;
mod etcd;
mod etcd_urls;
mod figures;
mod forced;
mod ground;
mod group;
mod names;
mod own_node;
mod peers;
mod plane;
mod snapshots;
mod stop;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sampan_apiserver::UserInfo;
use tokio::net::TcpListener;

use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::settings::{Mode, Settings};
use crate::{data_dir, kubeconfig_file, listen, logging};
pub(crate) use announce::SERVER_FILE;
use ground::Ground;
use own_node::OwnNode;
use plane::Plane;
pub(crate) use stop::Stop;

/// How long a component of the control plane may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(settings: Settings) -> Result<ExitCode, CommandError> {
    logging::init(&settings.node.log_level)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(&settings));
    // Whatever still blocks on a disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// The threads of everything but guests.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8))
        .thread_name("sampan")
        .enable_all()
        .build()
        .doing(|| "threads cannot be started".to_owned())
}

async fn serve(settings: &Settings) -> Result<ExitCode, CommandError> {
    let mut stop = Stop::new()?;
    let listener = match settings.mode {
        Mode::Dev => listen::tcp(settings).await?,
        Mode::Server | Mode::Agent => listen::tcp_and_udp(settings).await?,
    };
    let port = listener.local_addr().doing(|| "the API's port".to_owned())?.port();
    data_dir::prepare(&settings.node.data_dir)?;
    let mut node = OwnNode::start(settings, port)?;
    let prepared = tokio::select! {
        ground = Ground::prepare(settings, port) => ground.map(Some),
        () = stop.asked() => Ok(None),
        error = node.failed() => Err(error),
    };
    let ground = match prepared {
        Ok(Some(ground)) => ground,
        other => {
            node.stop().await;
            return other.map(|_| ExitCode::SUCCESS);
        }
    };
    let outcome = serve_on(settings, &ground, node, (listener, port), &mut stop).await;
    ground.close().await?;
    outcome
}

async fn serve_on(
    settings: &Settings,
    ground: &Ground,
    mut node: OwnNode,
    (listener, port): (TcpListener, u16),
    stop: &mut Stop,
) -> Result<ExitCode, CommandError> {
    let mut components = Components::default();
    let router = node.router.clone();
    let planned = tokio::select! {
        plane = Plane::start(&mut components, settings, ground, listener, port, router) => plane.map(Some),
        // A server whose group has no leader waits here for long.
        () = stop.asked() => Ok(None),
        error = ground.removed() => Err(error),
        error = node.failed() => Err(error),
    };
    let started = match planned {
        Ok(Some(plane)) => tokio::select! {
            started = attach(settings, ground, &plane, &mut node, port) => started.map(|()| true),
            () = stop.asked() => Ok(false),
            error = ground.removed() => Err(error),
        },
        Ok(None) => Ok(false),
        Err(error) => Err(error),
    };
    let code = match started {
        Ok(true) => tokio::select! {
            () = stop.asked() => Ok(ExitCode::SUCCESS),
            error = ground.removed() => Err(error),
            error = node.failed() => Err(error),
            name = components.failed() => {
                tracing::error!(component = name, "ended by itself; stopping");
                Ok(ExitCode::FAILURE)
            }
        },
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    };
    let ending = async {
        node.stop().await;
        components.stop().await;
    };
    tokio::select! {
        () = ending => code,
        () = stop.asked() => Err(CommandError::new("stopped at once: asked twice")),
    }
}

/// Gives the node its control plane, and tells the user where it is.
async fn attach(
    settings: &Settings,
    ground: &Ground,
    plane: &Plane,
    node: &mut OwnNode,
    port: u16,
) -> Result<(), CommandError> {
    let service = plane.api.service(UserInfo::node(&settings.node.name));
    node.attach(ground.place(settings, port), service).await?;
    let url = names::url(settings, port);
    kubeconfig_file::write(settings, &url, &ground.pki.admin_kubeconfig(&url))?;
    announce::ready(settings, &url, plane.join.as_ref()).await
}

/// A clone of the store, as everybody but its owner sees it.
fn storage(ground: &Ground) -> Arc<dyn sampan_store::Storage> {
    Arc::clone(&ground.store) as Arc<dyn sampan_store::Storage>
}
