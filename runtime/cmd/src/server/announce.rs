//! What is said when the server is ready.

use sampan_join::JoinService;

use crate::commands;
use crate::error::{CommandError, Doing};
use crate::settings::{Mode, Settings};

/// In the data directory: the URL of the API, as the last run served it.
pub(crate) const SERVER_FILE: &str = "server";

/// Says where the API is and, the first time, how other machines join.
pub(super) async fn ready(
    settings: &Settings,
    url: &str,
    join: Option<&JoinService>,
) -> Result<(), CommandError> {
    tracing::info!(url, kubeconfig = %settings.kubeconfig.display(), "ready");
    if settings.mode == Mode::Dev {
        let file = settings.kubeconfig.display();
        commands::print(&format!(
            "The cluster is ready at {url}\n\n  export KUBECONFIG={file}\n  kubectl get nodes\n  \
             kubectl run hello --image=sampan/hello --restart=Never\n  kubectl logs hello\n\n\
             Ctrl-C stops it; the state stays in {}\n",
            settings.node.data_dir.display()
        ));
    }
    match join.filter(|_| settings.replication.is_some_and(|replication| replication.cluster_init)) {
        Some(join) => how_to_join(settings, url, join).await,
        None => Ok(()),
    }
}

async fn how_to_join(settings: &Settings, url: &str, join: &JoinService) -> Result<(), CommandError> {
    let made = join.first_tokens().await.doing(|| "tokens cannot be made".to_owned())?;
    // Shown once, with the cluster's first start; 'sampan token create' makes others.
    let Some([server, agent]) = made else { return Ok(()) };
    let port = url.rsplit_once(':').map_or("6443", |(_, port)| port);
    let address = std::net::SocketAddr::new(super::names::advertised(settings), port.parse().unwrap_or(6443));
    commands::print(&format!(
        "Other machines join with these, within a day ('sampan token create' makes new ones):\n\n  \
         sampan server --server https://{address} --token {}\n  \
         sampan agent --server https://{address} --token {}\n",
        server.token, agent.token
    ));
    Ok(())
}
