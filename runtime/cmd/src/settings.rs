//! The command line made into settings: defaults filled in, everything checked before anything starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Taint;
use sampan_store::Level;
use sampan_transport::ProtocolRange;

use crate::args::{AgentArgs, ClusterArgs, JoinArgs, NodeArgs, ServerArgs, SnapshotTargetArgs};
use crate::data_dir;
use crate::error::{CommandError, Doing};
use crate::node_name;

/// Whether a machine is for trying things out or for service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A cluster on a laptop, for one user.
    Dev,
    /// In production.
    Server,
    /// A node of a cluster whose servers are elsewhere.
    Agent,
}

/// This machine as a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) name: String,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) max_pods: u32,
    pub(crate) log_level: String,
    /// The newest level of the cluster that this machine takes part in.
    pub(crate) level: Level,
}

impl NodeSettings {
    /// The protocols that it speaks with other machines: they have the levels' numbers.
    pub(crate) fn protocols(&self) -> ProtocolRange {
        ProtocolRange::upto(self.level.number().into())
    }
}

impl NodeSettings {
    fn new(mode: Mode, args: NodeArgs) -> Result<Self, CommandError> {
        let level = if mode == Mode::Dev { "warn" } else { "info" };
        Ok(Self {
            data_dir: data_dir::choose(mode, args.data.data_dir)?,
            name: node_name::choose(args.node_name.as_deref())?,
            ip: args.node_ip,
            labels: labels(&args.node_label)?,
            taints: taints(&args.node_taint)?,
            max_pods: args.max_pods,
            log_level: args.log_level.unwrap_or_else(|| level.to_owned()),
            level: args.emulated_version.unwrap_or(Level::NEWEST),
        })
    }

    /// The node's address.
    pub(crate) fn address(&self) -> IpAddr {
        self.ip.unwrap_or_else(sampan_network::node_address::primary)
    }
}

/// The cluster that a machine is to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// One of its servers.
    pub(crate) url: String,
    /// Needed until the machine has joined.
    pub(crate) token: Option<String>,
}

impl Join {
    fn new(args: JoinArgs) -> Result<Option<Self>, CommandError> {
        let token = match (args.token, &args.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => Some(read_secret(file, "--token-file")?),
            (None, None) => None,
        };
        let Some(url) = args.server else {
            return match token {
                Some(_) => Err(CommandError::new(
                    "a token without a cluster to join: name one of its servers with --server https://HOST:6443",
                )),
                None => Ok(None),
            };
        };
        let plain = url.trim_end_matches('/');
        let host = plain.strip_prefix("https://").filter(|host| !host.is_empty() && !host.contains('/'));
        match host {
            Some(_) => Ok(Some(Self { url: plain.to_owned(), token })),
            None => Err(CommandError::new(format!("--server {url:?}: must be https://HOST:PORT"))),
        }
    }
}

/// How the servers keep their database together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replication {
    pub(crate) cluster_init: bool,
    pub(crate) force_new_cluster: bool,
    pub(crate) heartbeat: Duration,
    pub(crate) election: Duration,
}

/// What a cluster is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) node: NodeSettings,
    pub(crate) bind_address: IpAddr,
    pub(crate) port: u16,
    pub(crate) advertise_address: Option<IpAddr>,
    pub(crate) tls_san: Vec<String>,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) kubeconfig_mode: u32,
    pub(crate) cluster_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    pub(crate) node_prefix: Option<u8>,
    pub(crate) agent: bool,
    pub(crate) audit_log: Option<PathBuf>,
    pub(crate) etcd_listen: Option<SocketAddr>,
    pub(crate) etcd_progress_interval: Duration,
    pub(crate) snapshots: SnapshotTargetArgs,
    pub(crate) join: Option<Join>,
    /// `None`: alone for good, as `sampan dev` is.
    pub(crate) replication: Option<Replication>,
}

impl Settings {
    /// `sampan dev`.
    pub(crate) fn dev(args: ClusterArgs) -> Result<Self, CommandError> {
        Self::new(Mode::Dev, args)
    }

    /// `sampan server`.
    pub(crate) fn server(args: ServerArgs) -> Result<Self, CommandError> {
        let ServerArgs { cluster, join, replication } = args;
        let mut settings = Self::new(Mode::Server, cluster)?;
        settings.join = Join::new(join)?;
        settings.node_prefix = replication.node_cidr_mask_size;
        if replication.heartbeat_interval * 2 > replication.election_timeout {
            return Err(CommandError::new(
                "--election-timeout must be at least twice --heartbeat-interval, or servers depose a sound leader",
            ));
        }
        settings.replication = Some(Replication {
            cluster_init: replication.cluster_init,
            force_new_cluster: replication.force_new_cluster,
            heartbeat: replication.heartbeat_interval,
            election: replication.election_timeout,
        });
        Ok(settings)
    }

    /// Fills in the defaults of a mode and checks what was given.
    fn new(mode: Mode, args: ClusterArgs) -> Result<Self, CommandError> {
        let node = NodeSettings::new(mode, args.node)?;
        let (loopback, kubeconfig) = match mode {
            Mode::Dev => (Ipv4Addr::LOCALHOST, node.data_dir.join("kubeconfig.yaml")),
            Mode::Server | Mode::Agent => (Ipv4Addr::UNSPECIFIED, PathBuf::from("/etc/sampan/sampan.yaml")),
        };
        if overlap(&args.cluster_cidr, &args.service_cidr) {
            return Err(CommandError::new(format!(
                "--cluster-cidr {} and --service-cidr {} overlap; choose ranges apart from each other",
                args.cluster_cidr, args.service_cidr
            )));
        }
        Ok(Self {
            mode,
            node,
            bind_address: args.bind_address.unwrap_or(loopback.into()),
            port: args.https_listen_port,
            advertise_address: args.advertise_address,
            tls_san: args.tls_san,
            kubeconfig: args.write_kubeconfig.unwrap_or(kubeconfig),
            kubeconfig_mode: args.write_kubeconfig_mode,
            cluster_cidr: args.cluster_cidr.trunc(),
            service_cidr: args.service_cidr.trunc(),
            node_prefix: None,
            agent: !args.disable_agent,
            audit_log: args.audit_log_path,
            etcd_listen: args.etcd_listen,
            etcd_progress_interval: args.etcd_watch_progress_notify_interval,
            snapshots: args.snapshots,
            join: None,
            replication: None,
        })
    }
}

/// What `sampan agent` is started with.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    pub(crate) node: NodeSettings,
    /// `None` once the machine has joined: then it knows its servers.
    pub(crate) join: Option<Join>,
    /// On loopback, where this node's own pods can be read.
    pub(crate) local_port: u16,
}

impl AgentSettings {
    pub(crate) fn new(args: AgentArgs) -> Result<Self, CommandError> {
        Ok(Self {
            node: NodeSettings::new(Mode::Agent, args.node)?,
            join: Join::new(args.join)?,
            local_port: args.local_listen_port,
        })
    }
}

/// A secret from a file, without the line end that editors leave.
pub(crate) fn read_secret(file: &Path, option: &str) -> Result<String, CommandError> {
    let text =
        std::fs::read_to_string(file).doing(|| format!("{option} {} cannot be read", file.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(CommandError::new(format!("{option} {} is empty", file.display()))),
        secret => Ok(secret.to_owned()),
    }
}

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
    given
        .iter()
        .map(|text| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            let mut mistakes = sampan_api::names::is_qualified_name(key);
            mistakes.extend(sampan_api::names::is_label_value(value));
            match mistakes.first() {
                None => Ok((key.to_owned(), value.to_owned())),
                Some(mistake) => Err(CommandError::new(format!("--node-label {text:?}: {mistake}"))),
            }
        })
        .collect()
}

fn taints(given: &[String]) -> Result<Vec<Taint>, CommandError> {
    given
        .iter()
        .map(|text| {
            let wrong = |what: &str| CommandError::new(format!("--node-taint {text:?}: {what}"));
            let (pair, effect) =
                text.rsplit_once(':').ok_or_else(|| wrong("must be KEY=VALUE:EFFECT or KEY:EFFECT"))?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut mistakes = sampan_api::names::is_qualified_name(key);
            mistakes.extend(sampan_api::names::is_label_value(value));
            if let Some(mistake) = mistakes.first() {
                return Err(wrong(mistake));
            }
            if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
                return Err(wrong("the effect must be NoSchedule, PreferNoSchedule or NoExecute"));
            }
            Ok(Taint {
                key: key.to_owned(),
                value: (!value.is_empty()).then(|| value.to_owned()),
                effect: effect.to_owned(),
                time_added: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_and_labels_are_checked() {
        let one = |text: &str| taints(&[text.to_owned()]);
        assert_eq!(one("a=b:NoSchedule").unwrap()[0].value.as_deref(), Some("b"));
        assert_eq!(one("a:NoExecute").unwrap()[0].value, None);
        for wrong in ["a", "a=b:Sometimes", "a b:NoSchedule", ":NoSchedule"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
        assert!(labels(&["a/b/c=d".to_owned()]).is_err());
        assert_eq!(labels(&["a=b".to_owned()]).unwrap()["a"], "b");
    }

    #[test]
    fn overlapping_ranges_are_seen() {
        let net = |text: &str| text.parse().unwrap();
        assert!(overlap(&net("10.0.0.0/8"), &net("10.43.0.0/16")));
        assert!(!overlap(&net("10.42.0.0/16"), &net("10.43.0.0/16")));
    }
}
