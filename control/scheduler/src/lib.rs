//! The scheduler: gives every pod that has none a node, and says why where it cannot.
//!
//! Flow: informers → [`cache`] (nodes and what stands on them) and [`queue`] (pods that wait) →
//! [`schedule`] (pure: filter, score, pick) → [`scheduler`] (assume, bind, or report). A client
//! of the API like any other; it never touches a node or the store.

pub mod cache;
pub mod framework;
pub mod plugins;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod scheduler;

pub use scheduler::{Scheduler, SchedulerConfig};
