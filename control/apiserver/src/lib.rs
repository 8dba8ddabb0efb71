//! The Kubernetes API server: TLS, filters, registry, watch cache, discovery, OpenAPI.

pub mod registry;
pub mod validation;
