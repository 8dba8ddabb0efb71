//! The Kubernetes API server: TLS, filters, registry, watch cache, discovery, OpenAPI.
//!
//! [`ApiServer::new`] makes one over a store; [`ApiServer::service`] gives clients of this process a
//! tower service, [`ApiServer::serve`] opens it to the network. A request goes through the filters
//! (`filters`) to an endpoint (`endpoints`), which calls the registry (`registry`) and the watch
//! cache (`cacher`). Nothing else in the project touches the store.

mod admission;
mod auth;
mod body;
mod cacher;
mod conversion;
mod core;
mod discovery;
mod endpoints;
mod filters;
mod metrics;
pub mod pki;
pub mod registry;
mod server;
pub mod stored;
pub mod validation;

pub use auth::{
    Attributes, Authorizer, BuiltInAuthorizer, Decision, KEY_EXTRA, Revocations, SERVERS, UserInfo, revoked,
};
pub use body::Body;
pub use endpoints::{NodeConnector, NodeError};
pub use server::{
    ApiServer, Config, Contents, DEFAULT_ISSUER, Figures, Handover, LocalService, ServerError,
    certificate_user,
};
