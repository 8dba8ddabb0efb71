//! What the parts of the node agent share.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, RwLock};
use sampan_client::{EventType, Recorder};
use sampan_cri::ContainerId;

use crate::config::Config;
use crate::env::field::PodFacts;
use crate::objects::Objects;
use crate::paths::Paths;
use crate::pod::admission::NodeView;
use crate::pod::ledger::Ledger;
use crate::pod::resources::Amounts;
use crate::pod::spec;
use crate::status::StatusManager;
use crate::volumes::Volumes;

/// What the parts of the node agent share. One per node, behind an `Arc`.
#[derive(Debug)]
pub struct Context {
    /// What the agent was made from.
    pub config: Config,
    /// Where things are kept.
    pub paths: Paths,
    /// Tells people.
    pub recorder: Recorder,
    /// Writes pods' statuses.
    pub statuses: StatusManager,
    /// What pods refer to.
    pub objects: Arc<Objects>,
    /// Sets volumes up.
    pub volumes: Volumes,
    /// What the node gives to pods.
    pub allocatable: Amounts,
    /// The node as admission sees it.
    pub node: RwLock<NodeView>,
    /// What was promised to pods.
    pub ledger: Mutex<Ledger>,
    /// Containers that ended only because the node was stopped.
    pub interrupted: HashSet<ContainerId>,
    /// Addresses that pods had before the agent started, by UID.
    pub former_addresses: Mutex<HashMap<String, IpAddr>>,
}

impl Context {
    /// Tells people about a pod, or a container of it.
    pub fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.recorder.event(&spec::object_reference(pod, container), kind, reason, message);
    }

    /// Facts of a pod with these addresses.
    pub fn facts(&self, addresses: &[IpAddr]) -> PodFacts {
        PodFacts { pod_ips: addresses.to_vec(), host_ip: self.config.network.node_address() }
    }
}
