//! How machines join: tokens, enrolment, certificates, members.
//!
//! A machine has one key for as long as it is part of the cluster ([`MachineKey`]). It enrols with a
//! token ([`enroll`]), and from then on its key is its proof ([`Renewer`]). [`JoinService`] is the
//! server's side: routes below `/sampan/v1/`, to be mounted by the API server, and the work that
//! goes with them. [`AdminClient`] asks the same routes as an administrator.
//!
//! In the store, below `/sampan/`: `tokens/<id>` (a salted hash), `identities/<role>/<name>` (a key),
//! `removed/<key>`, and `pki/authorities` (private keys: the store must seal [`SEALED_PREFIX`]).

mod client;
mod error;
mod files;
mod hex;
mod key;
mod membership;
mod rotation;
mod server;
mod token;
mod wire;

pub use client::{
    AdminClient, Enrollment, Joined, RenewFrom, Renewal, Renewer, Snapshot, enroll, join_members, joined,
    measure_skew, prepare_server, renew, update_addresses,
};
pub use error::JoinError;
pub use key::{KEY_FILE, KeyId, KeyIdError, MachineKey};
pub use membership::{Member, MemberState, Membership, MembershipError, format_member_id};
pub use rotation::{Holder, Observed, Phase, Step, plan};
pub use sampan_apiserver::pki::MachineRole;
pub use server::{FIRST_TOKEN_TTL, JoinConfig, JoinService, SEALED_PREFIX, SealingKeys};
pub use token::{JoinToken, TokenError, TokenRole};
pub use wire::{CreatedToken, NODE_INDEX, NewToken, RemovedNode, RoleCertificate, RotationStatus, TokenInfo};
