//! What the tests of strategies share.

use std::sync::Arc;

use jiff::Timestamp;
use sampan_api::scheme;

use crate::registry::strategy::{Context, Part, Strategy};

/// The strategy of a core resource.
pub(super) fn strategy(plural: &str) -> Arc<dyn Strategy> {
    super::all().into_iter().find(|strategy| strategy.resource().plural == plural).unwrap()
}

/// A request for a part of a core resource.
pub(super) fn context(plural: &str, part: Part) -> Context {
    Context { requested: scheme::by_gvr("", "v1", plural).unwrap(), part, now: Timestamp::UNIX_EPOCH }
}
