//! What the pods on the node have been promised: sums and host ports, kept as pods come and go,
//! so that admission does not walk over all of them. Pure.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;
use sampan_api::quantity::Quantity;

use super::resources::{self, Amounts};
use super::spec;

/// A port of the node: its address, protocol and number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address; `0.0.0.0` stands for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

/// The host ports that a pod takes.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let host_network = spec::host_network(pod);
    spec::containers(pod)
        .filter(|(role, _)| *role != spec::Role::Init)
        .flat_map(|(_, container)| container.ports.iter().flatten())
        .filter_map(|port| {
            let number =
                port.host_port.filter(|port| *port > 0).or(host_network.then_some(port.container_port))?;
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

struct Entry {
    requests: Amounts,
    ports: Vec<HostPort>,
}

/// The node's promises.
#[derive(Default)]
pub struct Ledger {
    entries: HashMap<String, Entry>,
    sums: Amounts,
    ports: HashMap<(String, i32), HashSet<String>>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("pods", &self.entries.len())
            .field("sums", &self.sums)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// How many pods hold promises.
    pub fn pods(&self) -> usize {
        self.entries.len()
    }

    /// What is promised of a resource.
    pub fn used(&self, resource: &str) -> Quantity {
        self.sums.get(resource).copied().unwrap_or_default()
    }

    /// Whether a port is taken already; `0.0.0.0` clashes with every address.
    pub fn is_taken(&self, wanted: &HostPort) -> bool {
        self.ports.get(&(wanted.protocol.clone(), wanted.port)).is_some_and(|addresses| {
            wanted.ip == "0.0.0.0" || addresses.contains("0.0.0.0") || addresses.contains(&wanted.ip)
        })
    }

    /// Books a pod.
    pub fn add(&mut self, pod: &Pod) {
        let uid = spec::uid(pod).to_owned();
        self.remove(&uid);
        let entry = Entry { requests: resources::requests(pod), ports: host_ports(pod) };
        for (name, amount) in &entry.requests {
            *self.sums.entry(name.clone()).or_default() += *amount;
        }
        for port in &entry.ports {
            self.ports.entry((port.protocol.clone(), port.port)).or_default().insert(port.ip.clone());
        }
        self.entries.insert(uid, entry);
    }

    /// Strikes a pod off.
    pub fn remove(&mut self, uid: &str) {
        let Some(entry) = self.entries.remove(uid) else { return };
        for (name, amount) in &entry.requests {
            if let Some(sum) = self.sums.get_mut(name) {
                *sum -= *amount;
            }
        }
        for port in &entry.ports {
            let key = (port.protocol.clone(), port.port);
            if let Some(addresses) = self.ports.get_mut(&key) {
                addresses.remove(&port.ip);
                if addresses.is_empty() {
                    self.ports.remove(&key);
                }
            }
        }
    }
}
