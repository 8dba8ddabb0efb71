//! A container's arguments and environment, as Kubernetes builds them. Pure: whoever calls has
//! fetched what the container refers to ([`Refs`]).

pub mod build;
pub mod expand;
pub mod field;
pub mod refs;
pub mod resource;

pub use build::{Built, build};
pub use expand::expand;
pub use refs::{Refs, Wanted};
