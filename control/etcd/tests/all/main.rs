//! The etcd API as its clients see it: our server, and beside it Debian's etcd, given the same.

mod differential;
mod etcdctl;
mod kube;
mod leases;
mod serving;
mod support;
mod watches;
