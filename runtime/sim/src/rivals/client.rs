//! A client of one endpoint that speaks etcd's protocol.

use std::time::Duration;

use bytes::Bytes;
use sampan_etcd::proto::etcdserverpb::kv_client::KvClient;
use sampan_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use sampan_etcd::proto::etcdserverpb::{PutRequest, StatusRequest};
use tonic::transport::{Channel, Endpoint};

use crate::node::BenchError;

/// See the module's description. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Client {
    pub(crate) async fn connect(endpoint: &str) -> Result<Self, BenchError> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_millis(500));
        let channel = endpoint.connect().await?;
        Ok(Self { kv: KvClient::new(channel.clone()), maintenance: MaintenanceClient::new(channel) })
    }

    /// A client that connects when it is first used.
    pub(crate) fn lazy(endpoint: &str) -> Result<Self, BenchError> {
        let endpoint =
            Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(Duration::from_millis(500));
        let channel = endpoint.connect_lazy();
        Ok(Self { kv: KvClient::new(channel.clone()), maintenance: MaintenanceClient::new(channel) })
    }

    /// Puts a key; it is durable on a majority when this returns.
    pub(crate) async fn put(&mut self, key: String, value: Vec<u8>) -> Result<(), BenchError> {
        let request =
            PutRequest { key: Bytes::from(key), value: Bytes::from(value), ..PutRequest::default() };
        self.kv.put(request).await.map_err(Box::new)?;
        Ok(())
    }

    /// Whether the member that answers leads.
    pub(crate) async fn leads(&mut self) -> Result<bool, BenchError> {
        let status = self.maintenance.status(StatusRequest {}).await.map_err(Box::new)?.into_inner();
        let own = status.header.map(|header| header.member_id);
        Ok(status.leader != 0 && own == Some(status.leader))
    }
}
