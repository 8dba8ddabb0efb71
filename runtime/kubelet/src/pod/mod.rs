//! The pure half of pod workers: what a pod is, what is known of it, what to do next, and what
//! its status says. No module here does I/O or looks at a clock; [`crate::manager`] feeds events
//! in and carries actions out.

pub mod admission;
pub mod backoff;
pub mod conditions;
pub mod container_status;
pub mod event;
pub mod ledger;
pub mod memory;
pub mod phase;
pub mod plan;
pub mod resources;
pub mod restart;
pub mod spec;
pub mod status;
pub mod stop;

pub use event::Event;
pub use memory::Memory;
pub use plan::{Action, Plan, plan};
