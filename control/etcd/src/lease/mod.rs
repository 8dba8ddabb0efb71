//! Leases: keys that end together, unless somebody keeps saying that they are wanted.
//!
//! A lease is a key of the store ([`sampan_store::LeaseId::key`]) whose value is the time to live
//! that was granted, so it is replicated, backed up and restored like any other. Keeping it alive
//! writes a key under [`RENEWALS`], which the store keeps in memory only: every server's
//! [`Lessor`] sees it and counts anew, and no flash is spent. Only the leader's lessor ends leases.

mod lessor;
mod service;
mod table;

pub use lessor::{Lessor, RENEWALS};
pub(crate) use service::LeaseService;
