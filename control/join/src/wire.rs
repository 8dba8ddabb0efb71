//! What goes over the wire, as JSON. Fields may be added; what a reader does not know it skips.

use std::collections::BTreeMap;

use sampan_apiserver::pki::{MachineRole, Succession};
use serde::{Deserialize, Serialize};

use crate::{KeyId, Member, TokenRole};

/// Among the settings that a node is told: which part of the range of pod addresses is its.
pub const NODE_INDEX: &str = "node-index";

/// `GET /sampan/v1/ca`: the authorities of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    /// Which cluster.
    pub cluster_id: String,
    /// Grows when authorities change.
    pub generation: u64,
    /// The authorities of servers, PEM, the one that signs first.
    pub server_pem: String,
    /// The authorities of clients and machines, PEM, the one that signs first.
    pub client_pem: String,
    /// Which server authority followed which.
    pub successions: Vec<Succession>,
}

/// `GET /sampan/v1/time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    /// Milliseconds since 1970.
    pub unix_millis: i64,
}

/// `POST /sampan/v1/enroll`: a machine asks to become part of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EnrollRequest {
    /// The token, whole.
    pub token: String,
    /// The machine's name.
    pub name: String,
    /// What it is to be.
    pub roles: Vec<MachineRole>,
    /// `host:port` each, where it is reached.
    pub addresses: Vec<String>,
    /// A PKCS #10 request, PEM, that proves its key.
    pub request: String,
}

/// `POST /sampan/v1/renew`: a machine that is part of the cluster asks for new certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RenewRequest {
    /// The machine's name.
    pub name: String,
    /// What it is.
    pub roles: Vec<MachineRole>,
    /// `host:port` each, where it is reached.
    pub addresses: Vec<String>,
    /// A PKCS #10 request, PEM, that proves its key.
    pub request: String,
    /// Its certificates so far, PEM; expired ones do.
    pub certificates: Vec<String>,
}

/// A certificate for one of a machine's roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleCertificate {
    /// The role.
    pub role: MachineRole,
    /// The certificate, PEM.
    pub pem: String,
}

/// The answer to both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// A certificate per role.
    pub certificates: Vec<RoleCertificate>,
    /// How long they live, in seconds.
    pub life_seconds: i64,
    /// The cluster's authorities.
    pub authority: Authority,
    /// The servers.
    pub servers: Vec<Member>,
    /// Settings that are the whole cluster's, such as address ranges.
    pub settings: BTreeMap<String, String>,
    /// What all servers share; only for a server that enrols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// What all servers share and nobody else may know.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Shared {
    /// Files of keys and certificates: name and content.
    pub files: Vec<(String, String)>,
    /// The content of the store's key file, where values are sealed.
    pub sealing_keys: Option<String>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// `POST /sampan/v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewToken {
    /// What may join with it.
    pub role: TokenRole,
    /// For how many seconds; 0 is for ever, nothing a day.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// The answer to it: the only time that the token is told.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token, whole.
    pub token: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub info: TokenInfo,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// `GET /sampan/v1/tokens`: what is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its public name.
    pub id: String,
    /// What may join with it.
    pub role: TokenRole,
    /// What it is for.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// When it ends, in seconds since 1970; never where there is none.
    pub expires: Option<i64>,
}

/// `PUT /sampan/v1/members/ID`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// `host:port` each.
    pub addresses: Vec<String>,
}

/// The answer to `DELETE /sampan/v1/nodes/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The name that the machine had.
    pub name: String,
    /// Its key, which is refused from now on.
    pub key: KeyId,
}

/// `GET /sampan/v1/certificates` and the answer to `POST /sampan/v1/certificates/rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationStatus {
    /// Which authorities these are.
    pub generation: u64,
    /// Where a change of authorities stands, in one line.
    pub phase: String,
    /// Whether none is under way.
    pub settled: bool,
    /// The authorities of servers by their fingerprints, and what each does.
    pub server_authorities: Vec<(String, String)>,
}
