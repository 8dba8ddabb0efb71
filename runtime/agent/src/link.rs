//! The node's one connection to a server: made, kept, moved to the leader, made anew.
//!
//! The servers are tried in turn, the leader first, each over QUIC and then TCP. While there is a
//! connection the server tells which servers there are and who leads; when that is another one, a
//! connection to it is made first and takes over, and the old one is closed when what is under way
//! on it has had time to end. In the same way a connection over TCP gives way to QUIC once that
//! works. A node behind an address translator needs nothing else: the servers'
//! requests to its kubelet come on the same connection.
//!
//! A server that does not answer for its group counts as one that cannot be reached. One that loses
//! its group later is left when somebody notices: a request failed for it, or it told that nobody
//! leads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use sampan_transport::{Connection, Endpoint, KeyId, Purpose, Target, TransportError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, jitter};
use crate::control;
use crate::error::AgentError;
use crate::http1;
use crate::router::NodeRouter;
use crate::servers::{Better, Known, ServersView};
use crate::standing::{self, Useless};

/// So much earlier than the next server each server is dialled.
const HEAD_START: Duration = Duration::from_secs(1);

/// The times by which a link acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The pause after a first failed round of all servers; it doubles.
    pub retry: Duration,
    /// The longest pause.
    pub retry_max: Duration,
    /// A move to a new leader begins within this time, at a moment of chance, so that not all nodes
    /// move at once.
    pub move_spread: Duration,
    /// About so often QUIC is tried again while the connection is TCP.
    pub quic_again: Duration,
    /// So long what is under way on an old connection may take after a move.
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry: Duration::from_millis(250),
            retry_max: Duration::from_secs(20),
            move_spread: Duration::from_secs(2),
            quic_again: Duration::from_secs(600),
            drain: Duration::from_secs(10),
        }
    }
}

/// How a link is set up.
pub struct LinkConfig {
    /// What dials, with this node's identity.
    pub endpoint: Endpoint,
    /// Servers to begin with, `host:port`.
    pub seeds: Vec<String>,
    /// Where the list of servers is kept.
    pub directory: PathBuf,
    /// Who answers the servers' requests to this node.
    pub router: NodeRouter,
    /// The times by which it acts.
    pub timing: Timing,
}

/// The connection of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The server's name.
    pub server: String,
    /// The server's key.
    pub key: KeyId,
    /// Where it is.
    pub remote: SocketAddr,
    /// Whether it is QUIC; else it is TLS over TCP.
    pub quic: bool,
    /// Since when.
    pub since: Timestamp,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The connection, if there is one.
    pub connected: Option<Connected>,
    /// How often there was a connection after there was none. A move from one server to another
    /// does not count.
    pub generation: u64,
    /// The servers as last told.
    pub servers: ServersView,
}

/// The node's connection to the servers. Cheap to clone; all clones are one link.
#[derive(Clone, Debug)]
pub struct Link {
    current: watch::Sender<Option<Connection>>,
    state: watch::Sender<LinkState>,
    /// Somebody has reason to think that the server does not answer for its group.
    doubt: Arc<Notify>,
}

impl Link {
    /// Begins to connect, until `shutdown`; the task ends when the connection is closed.
    ///
    /// # Errors
    /// When no server is known.
    pub fn start(
        config: LinkConfig,
        shutdown: CancellationToken,
    ) -> Result<(Self, JoinHandle<()>), AgentError> {
        let known = Known::load(&config.directory, config.seeds.clone());
        if known.order(|| 0).is_empty() {
            return Err(AgentError::NoServers);
        }
        let state = LinkState { servers: known.view().clone(), ..LinkState::default() };
        let link = Self {
            current: watch::Sender::new(None),
            state: watch::Sender::new(state),
            doubt: Arc::default(),
        };
        let (news, heard) = mpsc::channel(16);
        let keeper = Keeper { config, known, link: link.clone(), news, heard, next_id: 0 };
        Ok((link, tokio::spawn(keeper.run(shutdown))))
    }

    /// The connection of now.
    pub fn connection(&self) -> Option<Connection> {
        self.current.borrow().clone()
    }

    /// How things stand; changes are told.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Whom to notify of doubts that the server still answers for its group: it is asked then, and
    /// left if it does not.
    pub(crate) fn doubt(&self) -> Arc<Notify> {
        Arc::clone(&self.doubt)
    }
}

/// What a connection tells the keeper.
enum News {
    /// The servers, as the connection with this number says.
    Servers(u64, ServersView),
    /// The connection with this number has ended.
    Ended(u64, String),
    /// Whether the server at the other end of this one answers for its group.
    Asked(u64, bool),
}

/// A connection that is kept.
struct Held {
    id: u64,
    connection: Connection,
}

/// The task that keeps the connection.
struct Keeper {
    config: LinkConfig,
    known: Known,
    link: Link,
    news: mpsc::Sender<News>,
    heard: mpsc::Receiver<News>,
    next_id: u64,
}

impl Keeper {
    async fn run(mut self, shutdown: CancellationToken) {
        let timing = self.config.timing;
        let mut backoff = Backoff::new(timing.retry, timing.retry_max);
        loop {
            let tried = tokio::select! {
                () = shutdown.cancelled() => return,
                tried = self.connect() => tried,
            };
            let pause = match tried {
                Ok(connection) => {
                    backoff.reset();
                    if self.keep(connection, &shutdown).await {
                        return;
                    }
                    // The next server is tried at once, but not by all nodes at the same moment.
                    jitter(timing.retry)
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "no server can be used");
                    let pause = backoff.failed();
                    if error.may_pass_soon() { pause.min(timing.retry_max / 4) } else { pause }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tries all servers: each gets a head start before the next one, and the first that answers is
    /// taken.
    async fn connect(&self) -> Result<Connection, Useless> {
        let mut targets = self.known.order(|| getrandom::u32().unwrap_or(0)).into_iter();
        let mut dialling = FuturesUnordered::new();
        let mut last = Useless::from(TransportError::Unreachable("any server: none is known".to_owned()));
        loop {
            let next = targets.next();
            let more = next.is_some();
            if let Some(target) = next {
                dialling.push(dial(&self.config.endpoint, target));
            }
            let answered = if more {
                tokio::time::timeout(HEAD_START, dialling.next()).await
            } else {
                Ok(dialling.next().await)
            };
            match answered {
                Ok(Some(Ok(connection))) => return Ok(connection),
                // That there was no answer says the least.
                Ok(Some(Err(error))) if !error.is_unreachable() || last.is_unreachable() => last = error,
                Ok(Some(Err(_))) | Err(_) => {}
                Ok(None) if more => {}
                Ok(None) => return Err(last),
            }
        }
    }

    /// Keeps a connection, and those that take over from it, until none is left. Whether that was
    /// because of `shutdown`.
    async fn keep(&mut self, connection: Connection, shutdown: &CancellationToken) -> bool {
        let mut held = self.adopt(connection);
        let mut moving = Move::Settled;
        let doubt = self.link.doubt();
        let mut asking = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.lost("the node is stopping");
                    held.connection.close("the node is stopping");
                    return true;
                }
                news = self.heard.recv() => match news {
                    Some(News::Ended(id, why)) if id == held.id => {
                        self.lost(&why);
                        return false;
                    }
                    Some(News::Servers(id, view)) if id == held.id => {
                        if view.leader.is_none() {
                            doubt.notify_one();
                        }
                        self.told(view, &held);
                        moving = self.plan_move(&held, moving);
                    }
                    Some(News::Asked(id, good)) => {
                        asking = false;
                        if id == held.id && !good {
                            self.lost("the server does not answer for its group any more");
                            held.connection.close("this server does not answer for its group");
                            return false;
                        }
                    }
                    // Of a connection that was left.
                    Some(_) => {}
                    // Cannot be: this end holds a sender.
                    None => return false,
                },
                () = doubt.notified(), if !asking => {
                    asking = true;
                    tokio::spawn(ask(held.id, held.connection.clone(), self.news.clone()));
                }
                step = moving.step() => (held, moving) = self.advance(held, step),
            }
        }
    }

    /// What would be better than the connection that is held.
    fn better(&self, held: &Held) -> Option<(Better, Target)> {
        self.known.better_than(held.connection.peer().key, held.connection.is_quic())
    }

    /// Whether to move, now that the servers are known.
    fn plan_move(&self, held: &Held, moving: Move) -> Move {
        match (self.better(held), moving) {
            (None, _) => Move::Settled,
            (Some((why, _)), moving) if moving.why() == Some(why) => moving,
            (Some((why, _)), _) => self.begin_move(why),
        }
    }

    fn begin_move(&self, why: Better) -> Move {
        let timing = &self.config.timing;
        let pause = match why {
            Better::Leader => jitter(timing.move_spread),
            Better::Quic => timing.quic_again / 2 + jitter(timing.quic_again / 2),
        };
        Move::Waiting(why, Instant::now() + pause)
    }

    /// The next step of a move: dial, or let the new connection take over.
    fn advance(&mut self, held: Held, step: Step) -> (Held, Move) {
        let Some((why, target)) = self.better(&held) else { return (held, Move::Settled) };
        let connection = match step {
            Step::Due => {
                let endpoint = self.config.endpoint.clone();
                let dialling = async move { reach(&endpoint, &target).await };
                return (held, Move::Dialling(why, tokio::spawn(dialling)));
            }
            Step::Dialled(Ok(connection)) if Some(connection.peer().key) == target.key => connection,
            // Another one leads by now.
            Step::Dialled(Ok(connection)) => {
                connection.close("another server leads");
                return (held, self.begin_move(why));
            }
            Step::Dialled(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "the connection stays as it is");
                let again = match why {
                    Better::Quic => self.begin_move(why),
                    Better::Leader => {
                        let pause = self.config.timing.retry_max;
                        Move::Waiting(why, Instant::now() + pause / 2 + jitter(pause / 2))
                    }
                };
                return (held, again);
            }
        };
        let new = self.adopt(connection);
        let drain = self.config.timing.drain;
        tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            held.connection.close("the node has moved to a better connection");
        });
        // It may be TCP, too, or another one may lead by now.
        let moving = self.plan_move(&new, Move::Settled);
        (new, moving)
    }

    /// Makes a connection the current one.
    fn adopt(&mut self, connection: Connection) -> Held {
        self.next_id += 1;
        let id = self.next_id;
        let peer = connection.peer().clone();
        tracing::info!(
            server = %peer, remote = %connection.remote(), quic = connection.is_quic(), "connected"
        );
        let connected = Connected {
            server: peer.name,
            key: peer.key,
            remote: connection.remote(),
            quic: connection.is_quic(),
            since: Timestamp::now(),
        };
        tokio::spawn(tend(id, connection.clone(), self.config.router.clone(), self.news.clone()));
        // Whoever learns of the state finds the connection.
        let before = self.link.current.send_replace(Some(connection.clone()));
        self.link.state.send_modify(|state| {
            state.generation += u64::from(before.is_none());
            state.connected = Some(connected);
        });
        Held { id, connection }
    }

    fn lost(&self, why: &str) {
        tracing::warn!(why, "the connection to the server has ended");
        self.link.current.send_replace(None);
        self.link.state.send_modify(|state| state.connected = None);
    }

    fn told(&mut self, view: ServersView, held: &Held) {
        if let Err(error) = self.known.tell(view) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the list of servers was not kept");
        }
        let view = self.known.view().clone();
        let name = self.known.name_of(held.connection.peer().key);
        self.link.state.send_modify(|state| {
            state.servers = view;
            if let Some(connected) = &mut state.connected
                && state.servers.servers.iter().any(|server| server.key == connected.key)
            {
                connected.server = name;
            }
        });
    }
}

/// How far a move to a better connection has come.
enum Move {
    /// There is none to make.
    Settled,
    /// It begins then.
    Waiting(Better, Instant),
    /// The server is being dialled.
    Dialling(Better, JoinHandle<Result<Connection, Useless>>),
}

/// What happens next in a move.
enum Step {
    /// Its time has come.
    Due,
    /// The server answered, or did not.
    Dialled(Result<Connection, Useless>),
}

impl Move {
    /// Why it is made.
    fn why(&self) -> Option<Better> {
        match self {
            Self::Settled => None,
            Self::Waiting(why, _) | Self::Dialling(why, _) => Some(*why),
        }
    }

    /// Waits for the next step; for ever where there is none. Cancellation-safe.
    async fn step(&mut self) -> Step {
        match self {
            Self::Settled => std::future::pending().await,
            Self::Waiting(_, at) => {
                tokio::time::sleep_until(*at).await;
                Step::Due
            }
            Self::Dialling(_, dialling) => Step::Dialled(
                dialling
                    .await
                    .unwrap_or_else(|error| Err(TransportError::Unreachable(error.to_string()).into())),
            ),
        }
    }
}

/// A connection to a server that answers for its group.
async fn reach(endpoint: &Endpoint, target: &Target) -> Result<Connection, Useless> {
    let connection = endpoint.connect(target).await?;
    if standing::answers(&connection).await {
        return Ok(connection);
    }
    let server = connection.peer().name.clone();
    if let Some(why) = connection.close_reason() {
        return Err(Useless::TurnedAway { server, why });
    }
    connection.close("this server does not answer for its group");
    Err(Useless::Alone(server))
}

async fn dial(endpoint: &Endpoint, target: Target) -> Result<Connection, Useless> {
    let dialled = reach(endpoint, &target).await;
    if let Err(error) = &dialled
        && !error.is_unreachable()
    {
        let error: &dyn std::error::Error = error;
        tracing::warn!(server = target.addresses.join(","), error, "a server is of no use");
    }
    dialled
}

/// Asks whether the server at the other end still answers for its group.
async fn ask(id: u64, connection: Connection, news: mpsc::Sender<News>) {
    let good = standing::answers(&connection).await;
    // The keeper may be gone.
    drop(news.send(News::Asked(id, good)).await);
}

/// Serves what comes on a connection and listens to what its server tells, until it ends.
async fn tend(id: u64, connection: Connection, router: NodeRouter, news: mpsc::Sender<News>) {
    let told = tokio::spawn(listen(id, connection.clone(), news.clone()));
    let why = loop {
        match connection.accept().await {
            Ok((Purpose::Node, stream)) => {
                tokio::spawn(http1::serve(stream, router.service()));
            }
            Ok((purpose, _)) => tracing::debug!(%purpose, "a server opened a stream that is not for nodes"),
            Err(error) => break error.to_string(),
        }
    };
    told.abort();
    // The keeper may be gone.
    drop(news.send(News::Ended(id, why)).await);
}

/// Passes on what the server tells. A stream that ends alone is opened again.
async fn listen(id: u64, connection: Connection, news: mpsc::Sender<News>) {
    const PAUSE: Duration = Duration::from_secs(5);
    loop {
        if let Ok(stream) = connection.open(Purpose::Control).await {
            let mut listener = control::Listener::new(stream);
            while let Some(view) = listener.next().await {
                if news.send(News::Servers(id, view)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
