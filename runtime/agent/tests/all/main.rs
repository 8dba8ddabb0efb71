//! Nodes and servers over real sockets of this machine, with a real API server in memory.

#![allow(unreachable_pub, reason = "one program: what its parts share is public among them")]

mod cluster;
mod connections;
#[path = "../../../kubelet/tests/all/fake_runtime.rs"]
#[allow(dead_code, reason = "the kubelet's own tests use the rest")]
mod fake_runtime;
mod kubelets;
mod local;
mod offline;
mod relays;
mod tls;
