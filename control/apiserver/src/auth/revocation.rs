//! Machines that are not what their certificates say any more: a certificate is good for a year, and
//! who was removed is to stay out from now on.

use tokio::sync::watch;

use super::{KEY_EXTRA, UserInfo};

/// Knows whose key is not good any more. Asked for each request of a machine, so it answers from
/// memory.
pub trait Revocations: Send + Sync + 'static {
    /// Why a machine with this user name may not be believed with this key (SHA-256 of the public key,
    /// hex); `None` where it may.
    fn refusal(&self, user: &str, key: &str) -> Option<String>;

    /// Changes whenever an answer may be another one than before.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why a user may not be believed; only machines have a key to be judged by.
pub(crate) fn refusal(revocations: &dyn Revocations, user: &UserInfo) -> Option<String> {
    let key = user.extra.get(KEY_EXTRA)?.first()?;
    revocations.refusal(&user.name, key)
}

/// Waits until a machine with this user name and key may not be believed; why. For ever where that
/// never happens.
pub async fn revoked(revocations: &dyn Revocations, user: &str, key: &str) -> String {
    let mut changes = revocations.changes();
    loop {
        changes.mark_unchanged();
        if let Some(why) = revocations.refusal(user, key) {
            return why;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
