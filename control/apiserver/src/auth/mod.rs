//! Who asks, and what they may: identities, service account tokens, the authorizer.
//!
//! The filters call in here; nothing here knows HTTP.

mod authorizer;
mod revocation;
mod tokens;
mod user;

pub use authorizer::{Attributes, Authorizer, BuiltInAuthorizer, Decision};
pub use revocation::{Revocations, revoked};
pub use user::{KEY_EXTRA, SERVERS, UserInfo};

pub(crate) use authorizer::{EXTENSION_ROOT, JOIN_PATHS, PUBLIC_PATHS, at_or_below};
pub(crate) use revocation::refusal;
pub(crate) use tokens::{Binding, Claims, KubernetesClaims, TokenAuthority};
pub(crate) use user::{ALL_AUTHENTICATED, MACHINES, MASTERS};
