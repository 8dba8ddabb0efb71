//! Carrying out what [`crate::pod::plan`] decided: the impure half of pod workers, a file an
//! action. Nothing here decides anything about a pod's life; each action reports back with an
//! event.

pub mod container_config;
pub mod credentials;
pub mod image;
pub mod record;
pub mod remove;
pub mod sandbox;
pub mod start;
pub mod stop;
pub mod volumes;
