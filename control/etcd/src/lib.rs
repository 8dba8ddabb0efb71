//! The etcd v3 API over the store: KV, Watch, Lease, Maintenance, Cluster, Auth.
//!
//! Clients of etcd (etcdctl, a Kubernetes API server) see the same keys as our own API server:
//! what the one writes under `/registry/` the other shows. Keys under `/sampan/` are the
//! cluster's own: neither shown nor writable here. Services translate and decide nothing that the
//! store could decide; [`Lessor`] is what makes leases end, and runs on every server.

mod auth;
mod bolt;
mod check;
mod cluster;
mod codec;
mod connection;
mod context;
mod convert;
mod dispatch;
mod hash;
mod keys;
mod kv;
mod lease;
mod maintenance;
mod opening;
pub mod proto;
mod range;
mod scan;
mod server;
mod snapshot;
mod status;
mod unary;
mod view;
mod watch;

pub use context::Options;
pub use lease::{Lessor, RENEWALS};
pub use server::{Admit, EtcdServer, Listener, Security, ServeError};
pub use snapshot::{EtcdSnapshot, EtcdSnapshotError};
pub use view::{
    ClusterView, DbSize, Leadership, LeadershipStream, LogPosition, MemberView, Standalone, ViewError,
};

/// The version of etcd whose API is served, as clients that look for one are told.
pub const ETCD_VERSION: &str = "3.5.21";
