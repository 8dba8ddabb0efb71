//! The dialling side: names resolved anew each time, QUIC to every address with a short stagger, TCP a
//! little later; the first that stands wins, and the most telling failure is reported.
//!
//! A QUIC handshake that is not answered repeats itself at longer and longer intervals, so that a peer
//! that can be reached again would hear of it only after as long as it was away. So new handshakes
//! begin beside those under way, which may still come to their end where the way is long.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::certificate::{Checked, Usage};
use crate::connection::{Connection, Link};
use crate::endpoint::Core;
use crate::error::TransportError;
use crate::hello;
use crate::identity::{KeyId, Role};
use crate::mux::{self, Side};
use crate::quic;
use crate::tls::{ALPN, client_tls_config};
use crate::verify::{self, Expected, Verdict};

/// Between attempts at one address and the next.
const STAGGER: Duration = Duration::from_millis(150);
/// How long QUIC is given before TCP is tried beside it.
const TCP_AFTER: Duration = Duration::from_millis(1000);
/// After how long a handshake over QUIC is begun anew;
const AGAIN: Duration = Duration::from_millis(1000);
/// by servers, who are few, as their group may wait for it.
const SERVER_AGAIN: Duration = Duration::from_millis(250);
/// How long a name may take to resolve.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);
/// Machines have no DNS names; the handshake wants one all the same, and does not send it.
const NO_NAME: &str = "sampan";

/// Whom to reach, and where.
#[derive(Clone, Debug)]
pub struct Target {
    /// "host:port" each, tried in this order and resolved anew each time.
    pub addresses: Vec<String>,
    /// What it must be.
    pub role: Role,
    /// The key that it must have; any machine of that role if there is none.
    pub key: Option<KeyId>,
    /// Whether TLS over TCP to the same addresses may stand in for QUIC.
    pub allow_tcp: bool,
}

#[derive(Clone, Debug)]
struct Attempt {
    kind: Kind,
    /// As it was given, for messages.
    name: String,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Quic,
    Tcp,
}

/// See [`crate::Endpoint::connect`].
pub(crate) async fn connect(
    core: &Arc<Core>,
    endpoint: &quinn::Endpoint,
    target: &Target,
) -> Result<Connection, TransportError> {
    if target.addresses.is_empty() {
        return Err(TransportError::Settings("no address to connect to".to_owned()));
    }
    let (found, failures) = resolve(&target.addresses).await;
    let attempts = plan(&found, target.allow_tcp);
    let expected = Expected { role: target.role, key: target.key };
    let again = match core.config.identity.own().role {
        Role::Server => SERVER_AGAIN,
        Role::Node => AGAIN,
    };
    race(attempts, failures, |attempt| {
        let (core, endpoint) = (Arc::clone(core), endpoint.clone());
        let patience = core.config.handshake_timeout;
        Box::pin(async move {
            let name = format!("{} ({})", attempt.name, attempt.address);
            let tried = async {
                match attempt.kind {
                    Kind::Quic => {
                        let dial = || dial_quic(&core, &endpoint, &name, attempt.address, expected);
                        repeatedly(again, dial).await
                    }
                    Kind::Tcp => dial_tcp(&core, &name, attempt.address, expected).await,
                }
            };
            timeout(patience, tried).await.unwrap_or_else(|_| Err(TransportError::Unreachable(name.clone())))
        })
    })
    .await
}

async fn resolve(addresses: &[String]) -> (Vec<(String, SocketAddr)>, Vec<TransportError>) {
    let lookups = addresses.iter().map(|address| async move {
        (address, timeout(RESOLVE_PATIENCE, tokio::net::lookup_host(address)).await)
    });
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (name, looked_up) in futures::future::join_all(lookups).await {
        match looked_up {
            Ok(Ok(addresses)) => found.extend(addresses.map(|address| (name.clone(), address))),
            Ok(Err(error)) => failures.push(TransportError::Unreachable(format!("{name} ({error})"))),
            Err(_) => failures.push(TransportError::Unreachable(format!("{name} (no answer from DNS)"))),
        }
    }
    (found, failures)
}

/// Every address once over QUIC, then once over TCP.
fn plan(found: &[(String, SocketAddr)], allow_tcp: bool) -> VecDeque<Attempt> {
    let kinds = [Kind::Quic, Kind::Tcp];
    let kinds = kinds.into_iter().filter(|kind| *kind == Kind::Quic || allow_tcp);
    let mut attempts: VecDeque<Attempt> = VecDeque::new();
    for kind in kinds {
        for (name, address) in found {
            if !attempts.iter().any(|a| a.kind == kind && a.address == *address) {
                attempts.push_back(Attempt { kind, name: name.clone(), address: *address });
            }
        }
    }
    attempts
}

/// Starts attempts one after the other, each a little after the one before or as soon as one failed.
async fn race<T>(
    mut waiting: VecDeque<Attempt>,
    mut failures: Vec<TransportError>,
    start: impl Fn(Attempt) -> BoxFuture<'static, Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let begun = Instant::now();
    let mut next_at = begun;
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(ended) = running.next(), if !running.is_empty() => match ended {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    failures.push(error);
                    next_at = Instant::now();
                }
            },
            () = sleep_until(next_at), if !waiting.is_empty() => {
                if let Some(attempt) = waiting.pop_front() {
                    running.push(start(attempt));
                }
                next_at = Instant::now() + STAGGER;
                if waiting.front().is_some_and(|next| next.kind == Kind::Tcp) {
                    next_at = next_at.max(begun + TCP_AFTER);
                }
            }
            else => return Err(most_telling(failures)),
        }
    }
}

/// Begins an attempt anew beside those under way, until one of them ends.
async fn repeatedly<T, F>(again: Duration, attempt: impl Fn() -> F) -> T
where
    F: Future<Output = T>,
{
    let running = FuturesUnordered::new();
    let mut running = std::pin::pin!(running);
    loop {
        running.push(attempt());
        if let Ok(Some(ended)) = timeout(again, running.next()).await {
            return ended;
        }
    }
}

/// Somebody's answer rather than nobody's; if there was none, where there was none.
fn most_telling(failures: Vec<TransportError>) -> TransportError {
    let mut silent: Vec<String> = Vec::new();
    let mut answer: Option<TransportError> = None;
    for failure in failures {
        match failure {
            TransportError::Unreachable(name) if !silent.contains(&name) => silent.push(name),
            TransportError::Unreachable(_) => {}
            failure if answer.as_ref().is_none_or(|best| best.weight() < failure.weight()) => {
                answer = Some(failure);
            }
            _ => {}
        }
    }
    answer.unwrap_or_else(|| TransportError::Unreachable(silent.join(", ")))
}

/// The verifier's objection, which is more exact than the error that it led to.
fn better(verdict: &Verdict, name: &str, error: TransportError) -> TransportError {
    match verdict.lock().take() {
        Some(objection) => objection.into_error(name.to_owned()),
        None => error,
    }
}

async fn dial_quic(
    core: &Core,
    endpoint: &quinn::Endpoint,
    name: &str,
    address: SocketAddr,
    expected: Expected,
) -> Result<Connection, TransportError> {
    let verdict = Verdict::default();
    let config = quic::client_config(&core.config, &core.transport, expected, &verdict)?;
    let connecting = endpoint
        .connect_with(config, address, NO_NAME)
        .map_err(|error| TransportError::Unreachable(format!("{name}: {error}")))?;
    let connection = connecting.await.map_err(|error| better(&verdict, name, quic::failure(name, &error)))?;
    let checked = check_server(core, name, &quic::peer_chain(&connection))?;
    let greeted = async {
        let (write, read) = connection.open_bi().await.map_err(|error| quic::failure(name, &error))?;
        let mut stream = tokio::io::join(read, write);
        let agreed = hello::dial(&mut stream, &core.terms(), name, &checked).await;
        let _ = stream.shutdown().await;
        agreed
    };
    match greeted.await {
        Ok(agreed) => Ok(core.connected(Link::Quic(connection), checked, agreed)),
        Err(error @ TransportError::Handshake { .. }) => {
            // The server may have ended it: with an alert about our certificate, or with words.
            Err(connection.close_reason().map_or(error, |reason| quic::failure(name, &reason)))
        }
        Err(error) => {
            connection.close(quic::REFUSED, error.to_string().as_bytes());
            Err(error)
        }
    }
}

async fn dial_tcp(
    core: &Core,
    name: &str,
    address: SocketAddr,
    expected: Expected,
) -> Result<Connection, TransportError> {
    let unreachable = |error: std::io::Error| TransportError::Unreachable(format!("{name}: TCP: {error}"));
    let socket = TcpStream::connect(address).await.map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    let verdict = Verdict::default();
    let connector =
        TlsConnector::from(Arc::new(client_tls_config(&core.config.identity, expected, &verdict)?));
    let server = ServerName::try_from(NO_NAME).map_err(|e| TransportError::Settings(e.to_string()))?;
    let mut stream = connector
        .connect(server, socket)
        .await
        .map_err(|error| better(&verdict, name, hello::broken_io(name, &error)))?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        let reason = "it does not speak our protocol".to_owned();
        return Err(TransportError::Handshake { address: name.to_owned(), reason });
    }
    let chain = session.peer_certificates().unwrap_or_default().to_vec();
    let checked = check_server(core, name, &chain)?;
    let agreed = hello::dial(&mut stream, &core.terms(), name, &checked).await?;
    let handle = mux::start(stream, Side::Dialler, address, core.mux_settings(), &core.tasks);
    core.remember(&handle);
    Ok(core.connected(Link::Tcp(handle), checked, agreed))
}

/// What the verifier has checked, once more for its result.
fn check_server(
    core: &Core,
    name: &str,
    chain: &[rustls::pki_types::CertificateDer<'_>],
) -> Result<Checked, TransportError> {
    verify::check(&core.config.identity, chain, Usage::Server)
        .map_err(|source| TransportError::Certificate { address: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    fn found(addresses: &[&str]) -> Vec<(String, SocketAddr)> {
        addresses.iter().map(|a| ((*a).to_owned(), a.parse().unwrap())).collect()
    }

    #[test]
    fn quic_goes_first_and_no_address_twice() {
        let found = found(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1"]);
        let kinds = |allow| {
            plan(&found, allow).iter().map(|a| (a.kind, a.address.ip().to_string())).collect::<Vec<_>>()
        };
        let (one, two) = ("10.0.0.1".to_owned(), "10.0.0.2".to_owned());
        let quic = vec![(Kind::Quic, one.clone()), (Kind::Quic, two.clone())];
        assert_eq!(kinds(false), quic);
        assert_eq!(kinds(true), [quic, vec![(Kind::Tcp, one), (Kind::Tcp, two)]].concat());
    }

    /// What was started when (ms), with attempts that take `took` (ms) and end as `ends` says.
    async fn trace(took: u64, ends: fn(Kind) -> bool) -> (Vec<(u64, Kind)>, Result<Kind, TransportError>) {
        let started = Arc::new(Mutex::new(Vec::new()));
        let begun = Instant::now();
        let seen = Arc::clone(&started);
        let ended = race(plan(&found(&["10.0.0.1:1", "10.0.0.2:1"]), true), Vec::new(), move |attempt| {
            let at = u64::try_from(begun.elapsed().as_millis()).unwrap();
            seen.lock().push((at, attempt.kind));
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(took)).await;
                if ends(attempt.kind) {
                    Ok(attempt.kind)
                } else {
                    Err(TransportError::Unreachable(attempt.name))
                }
            })
        })
        .await;
        let started = started.lock().clone();
        (started, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_staggered_and_tcp_comes_later() {
        let (started, ended) = trace(5000, |kind| kind == Kind::Tcp).await;
        assert_eq!(started, [(0, Kind::Quic), (150, Kind::Quic), (1000, Kind::Tcp), (1150, Kind::Tcp)]);
        assert_eq!(ended.unwrap(), Kind::Tcp);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_lets_the_next_attempt_start_at_once() {
        let (started, ended) = trace(10, |_| false).await;
        assert_eq!(started, [(0, Kind::Quic), (10, Kind::Quic), (20, Kind::Tcp), (30, Kind::Tcp)]);
        assert_eq!(ended.unwrap_err().to_string(), "no answer from 10.0.0.1:1, 10.0.0.2:1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_begun_anew_and_the_first_may_still_end() {
        let (begun, started) = (Instant::now(), Mutex::new(0_u32));
        let after = |first: u64, others: u64| {
            let number = {
                let mut started = started.lock();
                *started += 1;
                *started
            };
            async move {
                tokio::time::sleep(Duration::from_millis(if number == 1 { first } else { others })).await;
                number
            }
        };
        let again = Duration::from_millis(250);
        assert_eq!(repeatedly(again, || after(5000, 10)).await, 2, "the first was lost");
        assert_eq!(begun.elapsed(), Duration::from_millis(260));
        *started.lock() = 0;
        assert_eq!(repeatedly(again, || after(600, 600)).await, 1, "the way is long");
        assert_eq!(*started.lock(), 3);
    }

    #[test]
    fn an_answer_tells_more_than_silence() {
        let silent = |name: &str| TransportError::Unreachable(name.to_owned());
        let stranger = || TransportError::UnknownAuthority("b".to_owned());
        let told = most_telling(vec![silent("a"), stranger(), silent("c")]);
        assert!(matches!(told, TransportError::UnknownAuthority(_)));
    }

    #[tokio::test]
    async fn names_that_do_not_resolve_are_named() {
        let (found, failures) = resolve(&["nowhere.invalid:1".to_owned(), "127.0.0.1:7".to_owned()]).await;
        assert_eq!(found, [("127.0.0.1:7".to_owned(), "127.0.0.1:7".parse().unwrap())]);
        assert!(
            matches!(&failures[..], [TransportError::Unreachable(text)] if text.contains("nowhere.invalid"))
        );
    }
}
