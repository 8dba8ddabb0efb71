//! When members last showed themselves as leaders: with entries, or a heartbeat.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::MemberId;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Heard(Mutex<BTreeMap<MemberId, Instant>>);

impl Heard {
    /// `member` has just shown itself.
    pub(crate) fn note(&self, member: MemberId) {
        self.0.lock().insert(member, Instant::now());
    }

    /// For how long `member` has not shown itself; `None` where it never has.
    pub(super) fn silence(&self, member: MemberId) -> Option<Duration> {
        self.0.lock().get(&member).map(Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_for_each_member_from_when_it_was_heard() {
        let heard = Heard::default();
        heard.note(1);
        tokio::time::advance(Duration::from_millis(30)).await;
        heard.note(2);
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(heard.silence(1), Some(Duration::from_millis(40)));
        assert_eq!(heard.silence(2), Some(Duration::from_millis(10)));
        assert_eq!(heard.silence(3), None);
        heard.note(1);
        assert_eq!(heard.silence(1), Some(Duration::ZERO));
    }
}
