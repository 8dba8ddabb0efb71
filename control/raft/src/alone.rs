//! Peers of a member that has none.

use std::time::Duration;

use async_trait::async_trait;

use crate::peers::{Link, PeerError, Peers};
use crate::types::Member;
use crate::wire::Open;

/// Reaches nobody: for a member that is to stay alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn stream(&self, to: &Member, _open: Open, _within: Duration) -> Result<Link, PeerError> {
        Err(PeerError::Unreachable { member: to.id, why: "this member has no network".into() })
    }
}
