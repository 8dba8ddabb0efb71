//! `--etcd-listen`: the etcd v3 API over this server's store.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use rustls::pki_types::CertificateDer;
use sampan_etcd::{
    ClusterView, DbSize, EtcdServer, Leadership, LeadershipStream, Lessor, Listener, LogPosition, MemberView,
    Options, Security, ViewError,
};
use sampan_raft::RaftStore;
use tokio_stream::wrappers::WatchStream;

use super::ground::Ground;
use super::{PATIENCE, etcd_urls, storage};
use crate::components::Components;
use crate::error::{CommandError, Doing};
use crate::settings::Settings;

/// Who may do everything, by the organisation in the client's certificate.
const MASTERS: &str = "system:masters";

/// Starts what makes leases end, and the API where it is asked for.
pub(super) async fn start(
    components: &mut Components,
    settings: &Settings,
    ground: &Ground,
) -> Result<(), CommandError> {
    let view: Arc<dyn ClusterView> = Arc::new(View(Arc::clone(&ground.store)));
    let lessor = Lessor::new(storage(ground), Arc::clone(&view));
    let keeper = Arc::clone(&lessor);
    // Leases end, too, where another server serves the API.
    components.start("leases", PATIENCE, |shutdown| async move { keeper.run(shutdown).await });
    let store = Arc::clone(&ground.store);
    let Some(address) = settings.etcd_listen else {
        components.start("no etcd API", PATIENCE, |shutdown| etcd_urls::tell(store, || None, shutdown));
        return Ok(());
    };
    let mend = || "--etcd-listen".to_owned();
    let security = if address.ip().to_canonical().is_loopback() {
        Security::Plaintext
    } else {
        let config = ground.pki.server_config().doing(mend)?;
        Security::MutualTls { config: Arc::new(config), admit: Arc::new(admit) }
    };
    let listener = Listener::bind(address, security).await.doing(mend)?;
    tracing::info!(address = %listener.local_address(), "the etcd API is served");
    let (local, own) = (listener.local_address(), settings.clone());
    let url = move || Some(etcd_urls::url(&own, local));
    components.start("etcd API's URL", PATIENCE, |shutdown| etcd_urls::tell(store, url, shutdown));
    let options = Options { progress_interval: settings.etcd_progress_interval, ..Options::default() };
    let server = EtcdServer::new(storage(ground), view, lessor, options);
    components.start("etcd API", PATIENCE, |shutdown| server.serve(listener, shutdown));
    Ok(())
}

/// Whoever the cluster's client authority made an administrator; the chain was verified.
fn admit(chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let leaf = chain.first().ok_or("a client certificate is needed")?;
    match sampan_apiserver::certificate_user(leaf) {
        Some(user) if user.in_group(MASTERS) => Ok(()),
        _ => Err(format!("the client certificate is not one of {MASTERS}")),
    }
}

/// The group of servers as etcd's clients see it.
struct View(Arc<RaftStore>);

fn leadership(of: sampan_raft::Leadership) -> Leadership {
    Leadership { leader: of.leader, term: of.term, mine: of.mine }
}

#[async_trait]
impl ClusterView for View {
    fn cluster_id(&self) -> u64 {
        self.0.cluster_id().0
    }

    fn member_id(&self) -> u64 {
        self.0.id()
    }

    fn leadership(&self) -> Leadership {
        leadership(*self.0.leadership().borrow())
    }

    fn leadership_changes(&self) -> LeadershipStream {
        Box::pin(WatchStream::new(self.0.leadership()).map(leadership))
    }

    fn log(&self) -> LogPosition {
        let (committed, applied) = self.0.log_position();
        LogPosition { committed, applied }
    }

    fn db_size(&self) -> DbSize {
        let stats = self.0.stats();
        DbSize { file: stats.tables_bytes + stats.log_bytes, in_use: stats.tables_bytes + stats.log_bytes }
    }

    async fn members(&self) -> Result<Vec<MemberView>, ViewError> {
        let urls = etcd_urls::all(&self.0).await;
        let urls = urls.map_err(|error| ViewError::Failed { why: sampan_client::informer::chain(&error) })?;
        let view = |standing: sampan_raft::MemberStatus| MemberView {
            id: standing.member.id,
            name: standing.member.name,
            peer_urls: standing.member.addresses.iter().map(|address| format!("quic://{address}")).collect(),
            client_urls: urls.get(&standing.member.id).cloned().into_iter().collect(),
            learner: !standing.voter,
        };
        Ok(self.0.members().into_iter().map(view).collect())
    }

    async fn transfer_leadership(&self, to: u64) -> Result<(), ViewError> {
        if !self.0.leadership().borrow().mine {
            return Err(ViewError::NotLeader);
        }
        self.0.transfer_leadership(Some(to)).await.map_err(|error| match error {
            sampan_raft::MembershipError::NotMember { .. }
            | sampan_raft::MembershipError::NotVoter { .. } => ViewError::UnknownMember,
            other => ViewError::Failed { why: sampan_client::informer::chain(&other) },
        })
    }

    async fn reclaim(&self) -> Result<(), ViewError> {
        self.0.checkpoint().await.map_err(|error| ViewError::Failed { why: error.to_string() })
    }
}
