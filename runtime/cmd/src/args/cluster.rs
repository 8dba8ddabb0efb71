//! What clusters and nodes are started with: `dev`, `server`, `agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::Ipv4Net;
use sampan_store::Level;

use super::values::{interval, milliseconds, octal};
use super::{DataDirArgs, SnapshotTargetArgs};

/// This machine as a node.
#[derive(Args, Debug, Clone)]
pub(crate) struct NodeArgs {
    /// Read options from a YAML file with the same names; the command line wins
    #[arg(short = 'c', long, env = "SAMPAN_CONFIG_FILE", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Label for this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) node_label: Vec<String>,
    /// Taint for this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    pub(crate) node_taint: Vec<String>,
    /// Most pods that this node takes
    #[arg(long, value_name = "COUNT", default_value_t = 250)]
    pub(crate) max_pods: u32,
    /// How much to log: error, warn, info, debug, trace, or a filter as of RUST_LOG
    /// [default: warn for dev, else info]
    #[arg(long, env = "SAMPAN_LOG", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Use nothing that came after this version, so that it can be gone back to: 0.2 or 0.3
    /// [default: what all machines understand]
    #[arg(long, value_name = "VERSION")]
    pub(crate) emulated_version: Option<Level>,
}

/// A cluster on this machine.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Address on which the API listens [default: 127.0.0.1 for dev, else 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port on which the API listens; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub(crate) https_listen_port: u16,
    /// Address under which others reach the API [default: this node's address]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Further names or addresses in the API's certificate
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_san: Vec<String>,
    /// Where to write the administrator's kubeconfig
    /// [default: kubeconfig.yaml in the data directory for dev, else /etc/sampan/sampan.yaml]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// Permissions of that file, octal
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = octal)]
    pub(crate) write_kubeconfig_mode: u32,
    /// Range of pod addresses
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidr: Ipv4Net,
    /// Range of service addresses
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub(crate) service_cidr: Ipv4Net,
    /// Run no node here, only the control plane
    #[arg(long)]
    pub(crate) disable_agent: bool,
    /// Append an audit record of each API request to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// Speak the etcd v3 API on this address: plain on loopback, mutual TLS elsewhere [default: not]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) etcd_listen: Option<SocketAddr>,
    /// How often watches that ask for it are told on the etcd API how far they are
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = interval, requires = "etcd_listen")]
    pub(crate) etcd_watch_progress_notify_interval: Duration,
    #[command(flatten)]
    pub(crate) snapshots: SnapshotTargetArgs,
}

/// How a machine finds its cluster.
#[derive(Args, Debug, Clone)]
pub(crate) struct JoinArgs {
    /// A server of the cluster to join: https://HOST:6443
    #[arg(short = 's', long, env = "SAMPAN_URL", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The token to join with; needed until the machine has joined
    #[arg(short = 't', long, env = "SAMPAN_TOKEN", value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "SAMPAN_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
}

/// How the servers keep their database together.
#[derive(Args, Debug, Clone)]
pub(crate) struct ReplicationArgs {
    /// Begin a cluster, and print how other machines join it
    #[arg(long, conflicts_with = "server")]
    pub(crate) cluster_init: bool,
    /// Go on alone from this server's copy of the database, after the others are lost for good
    #[arg(long, conflicts_with_all = ["server", "cluster_init"])]
    pub(crate) force_new_cluster: bool,
    /// How often the leader tells the others that it is there, in milliseconds
    #[arg(long, value_name = "MS", default_value = "60", value_parser = milliseconds)]
    pub(crate) heartbeat_interval: Duration,
    /// How long the others wait before they elect another, in milliseconds: from this to twice this
    #[arg(long, value_name = "MS", default_value = "150", value_parser = milliseconds)]
    pub(crate) election_timeout: Duration,
    /// Length of a node's part of the range of pod addresses [default: 24, or what --max-pods needs]
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(8..=30))]
    pub(crate) node_cidr_mask_size: Option<u8>,
}

/// `sampan server`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    #[command(flatten)]
    pub(crate) replication: ReplicationArgs,
}

/// `sampan agent`.
#[derive(Args, Debug, Clone)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    /// Port on loopback on which this node's own pods can be read, with the data directory's
    /// kubeconfig.yaml; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6444)]
    pub(crate) local_listen_port: u16,
}
