//! The connection that is kept to a member.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use sampan_transport::{Connection, Endpoint, KeyId, Role, Target, TransportError};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::peers::PeerError;
use crate::types::{Member, MemberId};

/// How long a connection may be silent when an answer is due, where the way is not long.
const SILENT: Duration = Duration::from_millis(500);
/// So many times the way there and back it may be silent anyhow.
const WAYS: u32 = 3;
/// How long where so many answers in a row did not come: a leader that hears nobody must not be
/// heard for long. They are counted, as after a stall of this process the first one proves nothing.
const UNANSWERED: (u32, Duration) = (4, Duration::from_millis(250));
/// How often QUIC is tried while the connection is over TCP.
const QUIC_AGAIN: Duration = Duration::from_secs(60);

/// The connection to one member.
#[derive(Default)]
pub(super) struct Slot {
    held: Mutex<Connections>,
    dialling: Mutex<Option<Dialling>>,
}

/// The connections that there are to one member.
#[derive(Default)]
struct Connections {
    current: Option<Held>,
    /// The one over TCP that the current one took over from: streams may still be on it.
    former: Option<Held>,
    /// When QUIC was last tried instead of TCP.
    tried: Option<Instant>,
}

/// A connection, and when something was heard on it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) connection: Connection,
    pub(super) heard: Heard,
}

impl Held {
    /// One more answer did not come in time. Whether it is worth nothing any more.
    fn is_silent(&self) -> bool {
        self.heard.miss(self.connection.rtt().unwrap_or_default())
    }
}

/// A connection that is being made.
struct Dialling {
    /// Where to.
    addresses: Vec<String>,
    made: Made,
    task: AbortHandle,
}

/// What comes of it.
type Made = Shared<BoxFuture<'static, Result<Held, PeerError>>>;

impl Drop for Dialling {
    fn drop(&mut self) {
        // It has ended, or is not wanted any more.
        self.task.abort();
    }
}

/// When something was heard on a connection, and how many answers did not come since.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<(Instant, u32)>>);

impl Heard {
    fn now() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), 0))))
    }

    /// Something was heard.
    pub(super) fn touch(&self) {
        *self.0.lock() = (Instant::now(), 0);
    }

    /// One more answer did not come in time. Whether the connection is worth nothing any more, if
    /// the way there and back takes `rtt`.
    fn miss(&self, rtt: Duration) -> bool {
        let mut heard = self.0.lock();
        heard.1 = heard.1.saturating_add(1);
        let (since, misses) = (heard.0.elapsed(), heard.1);
        let ways = rtt * WAYS;
        since >= SILENT.max(ways) || (misses >= UNANSWERED.0 && since >= UNANSWERED.1.max(ways))
    }
}

impl Slot {
    /// The connection to the member: the one there is, or a new one.
    pub(super) async fn connection(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        to: &Member,
    ) -> Result<Held, PeerError> {
        if let Some(held) = self.alive() {
            if self.is_quic_due(&held) {
                tokio::spawn(prefer_quic(endpoint.clone(), to.clone(), Arc::clone(self)));
            }
            return Ok(held);
        }
        self.dial(endpoint, to).await
    }

    /// Waits for the connection that is being made to the member's addresses, or makes one.
    fn dial(self: &Arc<Self>, endpoint: &Endpoint, to: &Member) -> Made {
        let mut dialling = self.dialling.lock();
        if let Some(dialling) = dialling.as_ref()
            && dialling.addresses == to.addresses
            && dialling.made.peek().is_none()
        {
            return dialling.made.clone();
        }
        let (member, target) = (to.id, target(to, true));
        let (endpoint, slot) = (endpoint.clone(), Arc::clone(self));
        let task = tokio::spawn(async move {
            // The last one may have been made a moment ago.
            if let Some(held) = slot.alive() {
                return Ok(held);
            }
            let connection = endpoint.connect(&target).await.map_err(|error| unreachable(member, &error))?;
            Ok(slot.hold(connection))
        });
        let abort = task.abort_handle();
        let made = async move {
            task.await.unwrap_or_else(|_| {
                Err(PeerError::Unreachable { member, why: "it is elsewhere by now".into() })
            })
        };
        let made = made.boxed().shared();
        *dialling = Some(Dialling { addresses: to.addresses.clone(), made: made.clone(), task: abort });
        made
    }

    fn alive(&self) -> Option<Held> {
        let held = self.held.lock();
        held.current.clone().filter(|held| held.connection.close_reason().is_none())
    }

    fn hold(&self, connection: Connection) -> Held {
        let held = Held { connection, heard: Heard::now() };
        let mut connections = self.held.lock();
        let former = connections.current.replace(held.clone());
        connections.former = former.filter(|held| held.connection.close_reason().is_none());
        held
    }

    /// One more answer did not come in time: drops what is worth nothing any more.
    pub(super) fn drop_silent(&self) {
        let mut held = self.held.lock();
        let Connections { current, former, .. } = &mut *held;
        for slot in [current, former] {
            if let Some(silent) = slot.take_if(|held| held.is_silent()) {
                silent.connection.close("no answer");
            }
        }
    }

    /// Whether it is time to try QUIC instead of `held`.
    fn is_quic_due(&self, held: &Held) -> bool {
        if held.connection.is_quic() {
            return false;
        }
        let mut connections = self.held.lock();
        let now = Instant::now();
        let due = connections.tried.is_none_or(|tried| now.duration_since(tried) >= QUIC_AGAIN);
        if due {
            connections.tried = Some(now);
        }
        due
    }
}

fn target(member: &Member, allow_tcp: bool) -> Target {
    Target {
        addresses: member.addresses.clone(),
        role: Role::Server,
        key: Some(KeyId(member.key)),
        allow_tcp,
    }
}

/// A connection over QUIC takes over from the one over TCP, where it can be made.
async fn prefer_quic(endpoint: Endpoint, member: Member, slot: Arc<Slot>) {
    match endpoint.connect(&target(&member, false)).await {
        Ok(connection) => {
            slot.hold(connection);
        }
        Err(error) => tracing::debug!(%error, "the connection to a member stays one over TCP"),
    }
}

/// What a failure of the transport is to Raft.
pub(super) fn unreachable(member: MemberId, error: &TransportError) -> PeerError {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        source = cause.source();
    }
    PeerError::Unreachable { member, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_counts_as_silent_only_after_a_while() {
        let (heard, near, far) = (Heard::now(), Duration::from_millis(1), SILENT);
        assert!(!heard.miss(near), "it is young");
        tokio::time::advance(SILENT).await;
        assert!(heard.miss(near));
        heard.touch();
        // This process stood still.
        tokio::time::advance(UNANSWERED.1).await;
        assert!(!heard.miss(near), "one is not many");
        for _ in 2..UNANSWERED.0 {
            assert!(!heard.miss(near));
        }
        assert!(heard.miss(near), "many are");
        heard.touch();
        for _ in 0..UNANSWERED.0 {
            assert!(!heard.miss(near), "many at once, but soon");
        }
        tokio::time::advance(SILENT).await;
        assert!(!heard.miss(far), "the way is long");
        tokio::time::advance(SILENT * (WAYS - 1)).await;
        assert!(heard.miss(far));
    }
}
