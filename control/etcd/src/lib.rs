//! The etcd v3 API over the store.
