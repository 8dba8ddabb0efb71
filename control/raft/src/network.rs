//! What openraft sends, and how: over [`Peers`], a stream of its own per purpose.
//!
//! Entries go down one long-lived stream per follower without waiting for answers. Votes,
//! heartbeats and transfers of leadership are calls, so that no append, however big, is in front
//! of them; a snapshot has its own stream, too ([`crate::snapshot_stream`]).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use sampan_store::{Background, DurableConfig, Level};
use tokio::time::timeout;

use crate::directory::Directory;
use crate::machine::SnapshotData;
use crate::peers::{Link, PeerError, Peers, Unanswered};
use crate::session::Session;
use crate::snapshot_stream;
use crate::types::{Member, MemberId, TypeConfig};
use crate::wire::{Append, Kind, Message, convert};

/// How long an append stream may take to open, and a follower to answer what it got. A follower
/// whose disk stalls answers late; one that is gone is noticed by its heartbeats long before.
pub(crate) const APPEND_WITHIN: Duration = Duration::from_secs(10);
/// The least time that a call gets: openraft may give up earlier.
const CALL_WITHIN_MIN: Duration = Duration::from_millis(100);

pub(crate) type Rpc = RPCError<TypeConfig>;
type AppendResults<'a> = BoxStream<'a, Result<StreamAppendResult<TypeConfig>, Rpc>>;

/// Makes clients for openraft.
pub(crate) struct Network {
    directory: Arc<Directory>,
    peers: Arc<dyn Peers>,
    background: Background,
    frame_bytes: usize,
}

impl Network {
    /// Sends to the members that the directory has, over `peers`; `background` reads snapshots.
    pub(crate) fn new(directory: Arc<Directory>, peers: Arc<dyn Peers>, store: &DurableConfig) -> Self {
        Self { directory, peers, background: store.background, frame_bytes: store.snapshot_frame_bytes }
    }

    fn client(&self, target: MemberId, member: &Member, lane: Lane) -> Client {
        self.directory.introduce(member);
        let ends = Ends {
            target,
            member: member.clone(),
            directory: Arc::clone(&self.directory),
            peers: Arc::clone(&self.peers),
            background: self.background,
            frame_bytes: self.frame_bytes,
        };
        Client { ends, lane, idle: Mutex::default() }
    }
}

/// What a client of openraft's is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// Entries in a stream; votes.
    Entries,
    /// Heartbeats, each a call.
    Heartbeats,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: MemberId, node: &Member) -> Client {
        self.client(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: MemberId, node: &Member) -> Client {
        self.client(target, node, Lane::Heartbeats)
    }
}

/// The way to one member.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) target: MemberId,
    member: Member,
    directory: Arc<Directory>,
    peers: Arc<dyn Peers>,
    pub(crate) background: Background,
    /// Of a snapshot, about.
    pub(crate) frame_bytes: usize,
}

impl Ends {
    /// The member's record: as the membership has it now, or had it when this was made.
    fn member(&self) -> Member {
        self.directory.member(self.target).unwrap_or_else(|| self.member.clone())
    }

    /// Opens a stream to the member.
    pub(crate) async fn stream(&self, kind: Kind, within: Duration) -> Result<Link, PeerError> {
        let open = self.directory.open(self.target, kind);
        let opened = timeout(within, self.peers.stream(&self.member(), open, within)).await;
        let opened = opened.unwrap_or(Err(PeerError::Timeout { member: self.target, within }));
        opened.inspect_err(|error| self.note(error))
    }

    /// One message there, one back.
    async fn call(&self, message: Message, within: Duration) -> Result<Message, PeerError> {
        let open = self.directory.open(self.target, Kind::Call);
        // openraft may give it up before its time.
        let unanswered = Unanswered::new(&*self.peers, self.target, Duration::ZERO);
        let answer = self.peers.call(&self.member(), open, message, within).await;
        unanswered.answered();
        answer.inspect_err(|error| self.note(error))
    }

    /// The member said which version it understands: what the group has is for those only that
    /// understand the group's level.
    ///
    /// # Errors
    /// [`PeerError::TooOld`].
    pub(crate) fn understands(&self, version: u16) -> Result<(), PeerError> {
        self.directory.understands(&self.member(), version);
        let (understands, group) = (Level::of_number(version), self.directory.level());
        if understands < group {
            return Err(PeerError::TooOld { member: self.target, understands, group });
        }
        Ok(())
    }

    /// Takes note of a failure: a silent connection is dropped, a removal noticed.
    pub(crate) fn note(&self, error: &PeerError) {
        self.directory.heard(error);
        if matches!(error, PeerError::Timeout { .. }) {
            self.peers.suspect(self.target);
        }
    }
}

/// openraft's client for one member and one purpose.
pub(crate) struct Client {
    ends: Ends,
    lane: Lane,
    /// The append stream, between two of openraft's sessions on it. Behind a lock only because
    /// openraft shares its clients.
    idle: Mutex<Option<Link>>,
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Rpc> {
        append_call(&self.ends, &rpc, within(&option)).await.map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, Rpc>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        match self.lane {
            Lane::Heartbeats => {
                // All of the time that it has: the answer takes as long as the way there and back.
                let calls = heartbeats(self.ends.clone(), input, option.hard_ttl().max(CALL_WITHIN_MIN));
                Box::pin(async move { Ok(calls) })
            }
            Lane::Entries => Box::pin(self.open_session(input)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let question = Message::Vote(convert::vote_request(&rpc));
        self.ask_vote(question, within(&option)).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let question = Message::PreVote(convert::vote_request(&rpc));
        self.ask_vote(question, within(&option)).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = snapshot_stream::send(&self.ends, vote, snapshot);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Rpc> {
        let message = Message::Transfer(convert::transfer(&req));
        match self.ends.call(message, within(&option)).await.map_err(rpc_error)? {
            Message::Transferred(answer) => {
                convert::raft_transferred(answer, &req).map_err(|why| failed(self.ends.target, &why))
            }
            other => Err(out_of_place(self.ends.target, &other)),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let waits = (0..).map(|attempt: u32| Duration::from_millis(10 << attempt.min(4)));
        Some(Backoff::new(waits))
    }
}

impl Client {
    /// Asks for a vote. A connection from before the member was restarted breaks when it is used
    /// first: an election must not be lost for that.
    async fn ask_vote(&self, question: Message, within: Duration) -> Result<VoteResponse<TypeConfig>, Rpc> {
        let answer = match self.ends.call(question.clone(), within).await {
            Err(PeerError::Broken { .. }) => self.ends.call(question, within).await,
            answer => answer,
        };
        match answer.map_err(rpc_error)? {
            Message::Voted(answer) => {
                convert::raft_vote_answer(answer).map_err(|why| failed(self.ends.target, &why))
            }
            other => Err(out_of_place(self.ends.target, &other)),
        }
    }

    /// One of openraft's sessions: appends go out as they come, answers come back in order. The
    /// stream is kept for the next session where this one comes to a good end.
    async fn open_session<S>(&mut self, input: S) -> Result<AppendResults<'_>, Rpc>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let Self { ends, idle, .. } = self;
        let idle = idle.get_mut();
        let link = match idle.take() {
            Some(link) => link,
            None => {
                let mut link = ends.stream(Kind::Append, APPEND_WITHIN).await.map_err(rpc_error)?;
                admitted(ends, &mut link).await.map_err(rpc_error)?;
                link
            }
        };
        let session = Session::new(ends.clone(), idle, link, input);
        let results = stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.result().await {
                Ok(Some(result)) => {
                    let more = result.is_ok();
                    Some((Ok(result), more.then_some(session)))
                }
                Ok(None) => {
                    session.keep().await;
                    None
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Box::pin(results))
    }
}

async fn admitted(ends: &Ends, link: &mut Link) -> Result<(), PeerError> {
    let admitted = timeout(APPEND_WITHIN, link.admitted()).await;
    let admitted = admitted.unwrap_or(Err(PeerError::Timeout { member: ends.target, within: APPEND_WITHIN }));
    admitted.and_then(|version| ends.understands(version)).inspect_err(|error| ends.note(error))
}

/// Each request a call of its own, one after the other.
fn heartbeats<S>(ends: Ends, input: S, within: Duration) -> AppendResults<'static>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    Box::pin(stream::unfold(Some((ends, input)), move |state| async move {
        let (ends, mut input) = state?;
        let request = input.next().await?;
        let result = append_call(&ends, &request, within).await;
        let more = matches!(result, Ok(Ok(_)));
        Some((result, more.then_some((ends, input))))
    }))
}

async fn append_call(
    ends: &Ends,
    request: &AppendEntriesRequest<TypeConfig>,
    within: Duration,
) -> Result<StreamAppendResult<TypeConfig>, Rpc> {
    let append: Append = convert::append(request).map_err(|error| failed(ends.target, &error.to_string()))?;
    match ends.call(Message::Append(append), within).await.map_err(rpc_error)? {
        Message::Appended(appended) => {
            convert::raft_appended(appended).map_err(|why| failed(ends.target, &why))
        }
        other => Err(out_of_place(ends.target, &other)),
    }
}

fn within(option: &RPCOption) -> Duration {
    option.soft_ttl().max(CALL_WITHIN_MIN)
}

/// openraft waits a while before it tries what is unreachable again, and does not where a stream
/// merely broke.
pub(crate) fn rpc_error(error: PeerError) -> Rpc {
    match error {
        PeerError::Unreachable { .. } | PeerError::Refused { .. } | PeerError::TooOld { .. } => {
            RPCError::Unreachable(Unreachable::new(&error))
        }
        PeerError::Broken { .. } | PeerError::Timeout { .. } | PeerError::Nonsense { .. } => {
            RPCError::Network(NetworkError::new(&error))
        }
    }
}

pub(crate) fn failed(member: MemberId, why: &str) -> Rpc {
    RPCError::Unreachable(Unreachable::new(&PeerError::broken(member, format!("the member failed: {why}"))))
}

pub(crate) fn out_of_place(member: MemberId, message: &Message) -> Rpc {
    tracing::debug!(?message, "an answer that is out of place");
    rpc_error(PeerError::nonsense(member, "an answer that is out of place"))
}
