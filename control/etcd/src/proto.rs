//! Messages, servers and clients, generated from `proto/`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]

/// What is stored.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// The services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
