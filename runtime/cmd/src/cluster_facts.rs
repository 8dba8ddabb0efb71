//! What is the same on all machines of a cluster, decided when it began: address ranges.

use std::collections::BTreeMap;

use bytes::Bytes;
use ipnet::Ipv4Net;
use sampan_store::{Compare, Op, RangeRequest, Revision, Storage, Txn};

use crate::error::{CommandError, Doing};
use crate::settings::Settings;

/// In the store, outside of what the API serves.
const KEY: &[u8] = b"/sampan/cluster-facts";

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterFacts {
    /// The range of pod addresses.
    pub(crate) cluster_cidr: Ipv4Net,
    /// The range of service addresses.
    pub(crate) service_cidr: Ipv4Net,
    /// The length of a node's part of the range; `None`: by the number of its pods.
    pub(crate) node_prefix: Option<u8>,
}

impl ClusterFacts {
    /// As this server was started.
    pub(crate) fn of_settings(settings: &Settings) -> Self {
        let prefix =
            settings.node_prefix.unwrap_or_else(|| sampan_network::plan::node_prefix(settings.node.max_pods));
        Self {
            cluster_cidr: settings.cluster_cidr,
            service_cidr: settings.service_cidr,
            node_prefix: Some(prefix),
        }
    }

    /// The cluster's, which the first server to come decides.
    pub(crate) async fn agree(store: &dyn Storage, settings: &Settings) -> Result<Self, CommandError> {
        let unusable = || "the cluster's settings cannot be read".to_owned();
        let ours = Self::of_settings(settings);
        let value = serde_json::to_vec(&ours.to_map()).doing(unusable)?;
        let key = Bytes::from_static(KEY);
        let first = Txn {
            compares: vec![Compare::ModRevision { key: key.clone(), revision: Revision(0) }],
            success: vec![Op::Put { key: key.clone(), value: value.into() }],
            failure: Vec::new(),
        };
        if retried(|| store.txn(first.clone())).await.doing(unusable)?.succeeded {
            return Ok(ours);
        }
        let found = retried(|| store.range(RangeRequest::key(key.clone()))).await.doing(unusable)?;
        let held = found.kvs.first().ok_or_else(|| CommandError::new(unusable()))?;
        let held: BTreeMap<String, String> = serde_json::from_slice(&held.value).doing(unusable)?;
        let held = Self::from_map(&held).ok_or_else(|| CommandError::new(unusable()))?;
        for (option, ours, held) in [
            ("--cluster-cidr", ours.cluster_cidr, held.cluster_cidr),
            ("--service-cidr", ours.service_cidr, held.service_cidr),
        ] {
            if ours != held {
                tracing::info!(%held, given = %ours, "{option} is the cluster's and stays");
            }
        }
        Ok(held)
    }

    /// How many nodes there may be.
    pub(crate) fn node_parts(&self) -> u32 {
        let bits = self.node_prefix.unwrap_or(24).saturating_sub(self.cluster_cidr.prefix_len());
        1_u32.checked_shl(bits.into()).unwrap_or(u32::MAX)
    }

    /// As they are told to machines that join.
    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from([
            ("cluster-cidr".to_owned(), self.cluster_cidr.to_string()),
            ("service-cidr".to_owned(), self.service_cidr.to_string()),
        ]);
        if let Some(prefix) = self.node_prefix {
            map.insert("node-cidr-mask-size".to_owned(), prefix.to_string());
        }
        map
    }

    /// As a machine that joined was told.
    pub(crate) fn from_map(map: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            cluster_cidr: map.get("cluster-cidr")?.parse().ok()?,
            service_cidr: map.get("service-cidr")?.parse().ok()?,
            node_prefix: map.get("node-cidr-mask-size").map(|text| text.parse()).transpose().ok()?,
        })
    }
}

/// While the group has no leader the store refuses; it is asked again until it answers.
pub(crate) async fn retried<T, Fut>(ask: impl Fn() -> Fut) -> Result<T, sampan_store::StorageError>
where
    Fut: Future<Output = Result<T, sampan_store::StorageError>>,
{
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
    let mut told = false;
    loop {
        match ask().await {
            Err(sampan_store::StorageError::Unavailable { why }) => {
                if !told {
                    tracing::info!(why, "waiting for the servers to agree on a leader");
                    told = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_through_the_map() {
        let facts = ClusterFacts {
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_prefix: Some(22),
        };
        assert_eq!(ClusterFacts::from_map(&facts.to_map()), Some(facts));
        assert_eq!(ClusterFacts::from_map(&BTreeMap::new()), None);
    }
}
