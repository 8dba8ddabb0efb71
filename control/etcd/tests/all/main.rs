//! The etcd API as its clients see it: our server, and beside it Debian's etcd, given the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail loudly"
)]

mod calls;
mod differential;
mod etcdctl;
mod kube;
mod leases;
mod serving;
mod support;
mod watches;
