//! Whether this process may set up routes, asked without trying.

use rustix::thread::{CapabilitySet, capabilities};

/// Says why routes cannot be made, where they cannot.
pub fn can_route() -> Result<(), String> {
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(CapabilitySet::NET_ADMIN) => Ok(()),
        Ok(_) => Err("this user may not set up routes (CAP_NET_ADMIN); root may".to_owned()),
        Err(error) => Err(format!("capabilities cannot be read: {error}")),
    }
}
