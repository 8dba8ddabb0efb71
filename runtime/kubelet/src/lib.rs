//! The node agent: takes the pods that are bound to its node, runs them, and says how they are.
//!
//! Flow: watch → [`manager`] → pure lifecycle ([`pod`]) → actions ([`act`]) → runtime, volumes →
//! events back → status ([`status`]) → API. The agent reads what its pods refer to ([`objects`])
//! and nothing else; it drives containers through [`sampan_cri`] and knows no runtime by name.
//! Only [`status`] writes pods' statuses.

pub mod act;
pub mod config;
pub mod context;
pub mod env;
mod kubelet;
pub mod manager;
pub mod node;
pub mod objects;
pub mod orphans;
pub mod paths;
pub mod pod;
pub mod server;
mod size_limits;
pub mod status;
mod timers;
pub mod volumes;

pub use config::{Capacity, ClockSkew, Config, Periods, Pressure};
pub use kubelet::{Kubelet, KubeletError};
