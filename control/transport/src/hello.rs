//! The hello that begins every connection: which protocol versions, which build, what time it is; and
//! the judgement that follows from it. Pure over any byte stream; the TLS below has authenticated it.
//!
//! The dialling side writes its hello, the accepting side answers with its own or with a refusal.
//! Fields are only ever appended (trailing bytes are ignored by older builds).

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::certificate::Checked;
use crate::clock::{Clock, Validity, validity};
use crate::error::{RefusalCode, TransportError};
use crate::frame::{self, FrameError};
use crate::quic;

/// The newest protocol that this build speaks.
pub const PROTOCOL: u32 = 3;
/// The oldest protocol that this build speaks.
pub const PROTOCOL_OLDEST: u32 = 1;

const LIMIT: usize = 4096;
/// Nothing after the year 9999 is taken for a time.
const LAST: u64 = 253_402_300_799;

/// The protocol versions that a build speaks. A build speaks its own and the one before, at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

impl ProtocolRange {
    /// What this build speaks, but nothing newer than `max`: it behaves as the older build did.
    #[must_use]
    pub fn upto(max: u32) -> Self {
        Self { min: PROTOCOL_OLDEST, max: max.clamp(PROTOCOL_OLDEST, PROTOCOL) }
    }

    /// The highest version that both speak.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u32> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

impl Default for ProtocolRange {
    fn default() -> Self {
        Self::upto(PROTOCOL)
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.max)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    protocols: ProtocolRange,
    build: String,
    /// The sender's clock, in seconds since 1970, right or wrong.
    time: u64,
}

impl Hello {
    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.time.min(LAST))
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Welcome(Hello),
    Refused { code: RefusalCode, reason: String, hello: Hello },
}

/// What this side brings to a hello.
pub(crate) struct Terms<'a> {
    pub(crate) protocols: ProtocolRange,
    pub(crate) build: &'a str,
    pub(crate) clock: &'a dyn Clock,
}

impl Terms<'_> {
    fn hello(&self) -> Hello {
        let time = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Hello { protocols: self.protocols, build: self.build.to_owned(), time }
    }

    /// What both sides conclude from the other's hello.
    fn judge(&self, address: &str, peer: &Checked, theirs: &Hello) -> Result<Agreed, TransportError> {
        let Some(protocol) = self.protocols.agree(theirs.protocols) else {
            return Err(TransportError::Protocol {
                address: address.to_owned(),
                ours: self.protocols,
                theirs: theirs.protocols,
            });
        };
        match validity(peer.not_after, self.clock.moment(), theirs.time()) {
            Validity::Valid => Ok(Agreed { protocol, build: theirs.build.clone(), time: theirs.time() }),
            Validity::Expired => {
                Err(TransportError::Expired { address: address.to_owned(), name: peer.identity.name.clone() })
            }
        }
    }
}

/// What a hello led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) protocol: u32,
    pub(crate) build: String,
    pub(crate) time: SystemTime,
}

/// The dialling side.
pub(crate) async fn dial<S>(
    stream: &mut S,
    terms: &Terms<'_>,
    address: &str,
    peer: &Checked,
) -> Result<Agreed, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |e: FrameError| broken(address, &e);
    frame::write(stream, &terms.hello(), LIMIT).await.map_err(broken)?;
    match frame::read(stream, LIMIT).await.map_err(broken)? {
        Some(Answer::Welcome(theirs)) => terms.judge(address, peer, &theirs),
        Some(Answer::Refused { code: RefusalCode::Protocol, hello, .. }) => Err(TransportError::Protocol {
            address: address.to_owned(),
            ours: terms.protocols,
            theirs: hello.protocols,
        }),
        Some(Answer::Refused { code, reason, .. }) => {
            Err(TransportError::Refused { address: address.to_owned(), code, reason })
        }
        None => Err(broken(FrameError::Truncated)),
    }
}

/// The accepting side. An error after which a refusal was sent is told apart by [`was_answered`].
pub(crate) async fn accept<S>(
    stream: &mut S,
    terms: &Terms<'_>,
    address: &str,
    peer: &Checked,
) -> Result<Agreed, TransportError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |e: FrameError| broken(address, &e);
    let theirs: Hello =
        frame::read(stream, LIMIT).await.map_err(broken)?.ok_or_else(|| broken(FrameError::Truncated))?;
    let judged = terms.judge(address, peer, &theirs);
    let hello = terms.hello();
    let answer = match &judged {
        Ok(_) => Answer::Welcome(hello),
        Err(TransportError::Expired { .. }) => Answer::Refused {
            code: RefusalCode::Expired,
            reason: format!("the certificate of {} has expired", peer.identity),
            hello,
        },
        Err(_) => Answer::Refused {
            code: RefusalCode::Protocol,
            reason: format!("protocol {} is spoken here, not {}", terms.protocols, theirs.protocols),
            hello,
        },
    };
    frame::write(stream, &answer, LIMIT).await.map_err(broken)?;
    judged
}

/// Whether the accepting side sent a refusal before this error, which should get through.
pub(crate) fn was_answered(error: &TransportError) -> bool {
    matches!(error, TransportError::Expired { .. } | TransportError::Protocol { .. })
}

fn broken(address: &str, error: &FrameError) -> TransportError {
    match error {
        FrameError::Io(error) => broken_io(address, error),
        other => TransportError::Handshake { address: address.to_owned(), reason: other.to_string() },
    }
}

/// What it means that TLS over TCP broke; with TLS 1.3 a server's opinion of our certificate comes
/// after the handshake.
pub(crate) fn broken_io(address: &str, error: &io::Error) -> TransportError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => quic::alerted(address.to_owned(), *alert),
        _ => TransportError::Handshake { address: address.to_owned(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Skew, Testimony};
    use crate::identity::{KeyId, PeerIdentity, Role};

    struct Fixed(SystemTime, SystemTime);

    impl Clock for Fixed {
        fn now(&self) -> SystemTime {
            self.0
        }
        fn floor(&self) -> SystemTime {
            self.1
        }
        fn observe(&self, _: &Testimony) {}
        fn clock_skew(&self) -> Option<Skew> {
            None
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn peer(not_after: u64) -> Checked {
        let identity = PeerIdentity { name: "a".to_owned(), role: Role::Server, key: KeyId([1; 32]) };
        Checked { identity, not_after: at(not_after) }
    }

    async fn exchange(
        dialler: (ProtocolRange, Fixed, Checked),
        acceptor: (ProtocolRange, Fixed, Checked),
    ) -> (Result<Agreed, TransportError>, Result<Agreed, TransportError>) {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let terms =
            |(protocols, clock, _): &(ProtocolRange, Fixed, Checked)| (*protocols, Fixed(clock.0, clock.1));
        let ((dp, dc), (ap, ac)) = (terms(&dialler), terms(&acceptor));
        let dialling = Terms { protocols: dp, build: "new", clock: &dc };
        let accepting = Terms { protocols: ap, build: "old", clock: &ac };
        tokio::join!(
            dial(&mut a, &dialling, "them", &acceptor.2),
            accept(&mut b, &accepting, "us", &dialler.2)
        )
    }

    #[test]
    fn the_highest_common_version_is_agreed_on() {
        let range = |min, max| ProtocolRange { min, max };
        let cases = [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 2), range(1, 1), Some(1)),
            (range(1, 2), range(2, 3), Some(2)),
            (range(2, 3), range(2, 3), Some(3)),
            (range(2, 3), range(1, 1), None),
            (range(1, 1), range(4, 9), None),
        ];
        for (a, b, expected) in cases {
            assert_eq!((a.agree(b), b.agree(a)), (expected, expected), "{a} and {b}");
        }
        assert_eq!(ProtocolRange::upto(1).to_string(), "1");
        assert_eq!(range(1, 2).to_string(), "1 to 2");
    }

    #[tokio::test]
    async fn both_sides_learn_what_was_agreed() {
        let side = |now| (ProtocolRange { min: 1, max: 2 }, Fixed(at(now), at(0)), peer(100));
        let (dialled, accepted) = exchange(side(10), side(20)).await;
        assert_eq!(dialled.unwrap(), Agreed { protocol: 2, build: "old".to_owned(), time: at(20) });
        assert_eq!(accepted.unwrap(), Agreed { protocol: 2, build: "new".to_owned(), time: at(10) });
    }

    #[tokio::test]
    async fn no_common_version_is_the_same_clear_line_on_both_sides() {
        let side = |min, max| (ProtocolRange { min, max }, Fixed(at(10), at(0)), peer(100));
        let (dialled, accepted) = exchange(side(3, 4), side(1, 2)).await;
        assert_eq!(
            dialled.unwrap_err().to_string(),
            "them speaks protocol 1 to 2, this build speaks 3 to 4: upgrade the older one first"
        );
        assert_eq!(
            accepted.unwrap_err().to_string(),
            "us speaks protocol 3 to 4, this build speaks 1 to 2: upgrade the older one first"
        );
    }

    #[tokio::test]
    async fn an_expired_dialler_is_told_so() {
        let dialler = (ProtocolRange::default(), Fixed(at(10), at(0)), peer(100));
        let acceptor = (ProtocolRange::default(), Fixed(at(500), at(500)), peer(1000));
        let (dialled, accepted) = exchange(dialler, acceptor).await;
        let dialled = dialled.unwrap_err();
        assert!(dialled.is_expired_here(), "{dialled}");
        assert!(matches!(accepted, Err(TransportError::Expired { .. })));
    }

    #[tokio::test]
    async fn an_expired_acceptor_is_refused_by_the_dialler() {
        let dialler = (ProtocolRange::default(), Fixed(at(500), at(500)), peer(1000));
        let acceptor = (ProtocolRange::default(), Fixed(at(10), at(0)), peer(100));
        let (dialled, _) = exchange(dialler, acceptor).await;
        assert!(matches!(dialled, Err(TransportError::Expired { .. })));
    }

    #[tokio::test]
    async fn a_time_beyond_all_reason_does_no_harm() {
        let hello = Hello { protocols: ProtocolRange::default(), build: String::new(), time: u64::MAX };
        assert_eq!(hello.time(), at(LAST));
    }
}
