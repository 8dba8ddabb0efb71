//! The network between simulated members: it delays, loses, doubles, reorders, cuts and heals.
//!
//! Streams keep their order, as QUIC's do, and break when nothing gets through for long or an end
//! goes away; single calls enjoy no such order. Time is the simulation's: [`Net::pump`] delivers
//! what is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use sampan_raft::peers::{Incoming, Link, Outgoing, PeerError, Peers};
use sampan_raft::wire::{Admit, Appended, Kind, Message, Open, Refusal};
use sampan_raft::{Member, MemberId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::counts::{Counts, Happened};
use crate::trace::Trace;

/// How many messages may be under way in one direction of a stream.
const WINDOW: usize = 64;
/// Of so many frames of snapshots one does not arrive, and its stream breaks.
const SNAPSHOT_BREAKS: u32 = 30;

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Milliseconds that a message takes, least and most.
    pub(crate) latency: (u64, u64),
    /// Of 1,000 messages, how many are lost (streams send them again, later).
    pub(crate) loss: u32,
    /// Of 1,000 calls, how many arrive twice.
    pub(crate) doubled: u32,
    /// Of 1,000 messages, how many take very long.
    pub(crate) slow: u32,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { latency: (1, 3), loss: 0, doubled: 0, slow: 0 };

    pub(crate) fn random(rng: &mut StdRng) -> Self {
        let least = rng.random_range(1..5);
        Self {
            latency: (least, least + rng.random_range(0..30)),
            loss: [0, 5, 50, 150][rng.random_range(0..4)],
            doubled: [0, 10, 100][rng.random_range(0..3)],
            slow: [0, 5, 30][rng.random_range(0..3)],
        }
    }

    fn delay(&self, rng: &mut StdRng, counts: &Counts) -> u64 {
        let mut delay = rng.random_range(self.latency.0..=self.latency.1);
        if rng.random_range(0..1000) < self.slow {
            counts.note(Happened::SlowMessage);
            delay += rng.random_range(20..400);
        }
        delay
    }

    fn loses(&self, rng: &mut StdRng) -> bool {
        rng.random_range(0..1000) < self.loss
    }
}

/// A member as the network sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Station {
    pub(crate) id: MemberId,
    /// Whether it answers.
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Counts its lives: what was meant for an earlier one is lost.
    pub(crate) life: u32,
}

enum Piece {
    Admit(Admit),
    Message(Message),
    Finish,
}

type Arrived = Result<Piece, PeerError>;

struct Pipe {
    from: usize,
    to: usize,
    under_way: VecDeque<(u64, Piece)>,
    last_due: u64,
    receiver: mpsc::UnboundedSender<Arrived>,
    room: Arc<Semaphore>,
}

struct Stream {
    open: Open,
    lives: [u32; 2],
    pipes: [Pipe; 2],
    /// The answering side's half, until the opening arrives.
    answerer: Option<Link>,
    breaks_at: Option<u64>,
    /// How long nothing may get through.
    patience: u64,
}

enum Packet {
    Call { from: usize, to: usize, life: u32, call: u64, open: Open, message: Message },
    Answer { from: usize, to: usize, life: u32, call: u64, answer: Result<Message, Refusal> },
}

type CallAnswer = Result<Result<Message, Refusal>, PeerError>;

/// What a member must be told to do now.
pub(crate) enum Serve {
    Link { host: usize, from: MemberId, open: Open, link: Link },
    Call { host: usize, from: usize, from_id: MemberId, call: u64, open: Open, message: Message },
}

/// See the module's description.
pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) rng: StdRng,
    pub(crate) weather: Weather,
    /// Directions in which nothing gets through.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    pub(crate) stations: Vec<Station>,
    pub(crate) trace: Trace,
    counts: Counts,
    /// The newest call that each member got from each other.
    newest: BTreeMap<(usize, usize), u64>,
    streams: BTreeMap<u64, Stream>,
    packets: BTreeMap<(u64, u64), Packet>,
    calls: BTreeMap<u64, oneshot::Sender<CallAnswer>>,
    next: u64,
}

pub(crate) type Shared = Arc<Mutex<Net>>;

impl Net {
    pub(crate) fn new(rng: StdRng, stations: Vec<Station>, trace: Trace, counts: Counts) -> Self {
        Self {
            now: 0,
            rng,
            weather: Weather::FAIR,
            cuts: BTreeSet::new(),
            stations,
            trace,
            counts,
            newest: BTreeMap::new(),
            streams: BTreeMap::new(),
            packets: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn find(&self, id: MemberId) -> Option<usize> {
        self.stations.iter().position(|station| station.id == id)
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    fn send_packet(&mut self, packet: Packet) {
        let lost = self.weather.loses(&mut self.rng);
        if lost {
            self.counts.note(Happened::LostCall);
        } else {
            let due = self.now + self.weather.delay(&mut self.rng, &self.counts);
            let number = self.number();
            self.packets.insert((due, number), packet);
        }
    }

    fn begin_call(
        &mut self,
        from: usize,
        to: usize,
        open: &Open,
        message: &Message,
    ) -> oneshot::Receiver<CallAnswer> {
        let call = self.number();
        let (sender, receiver) = oneshot::channel();
        self.calls.insert(call, sender);
        let life = self.stations[to].life;
        let twice = self.rng.random_range(0..1000) < self.weather.doubled;
        self.counts.add(Happened::Doubled, u64::from(twice));
        for _ in 0..=u32::from(twice) {
            let (open, message) = (open.clone(), message.clone());
            self.send_packet(Packet::Call { from, to, life, call, open, message });
        }
        receiver
    }

    /// A member's answer to a call sets out.
    pub(crate) fn answer(&mut self, from: usize, to: usize, call: u64, answer: Result<Message, Refusal>) {
        let life = self.stations[to].life;
        self.send_packet(Packet::Answer { from, to, life, call, answer });
    }

    /// A stream, or why not.
    fn begin_stream(&mut self, net: &Shared, from: usize, to: usize, open: Open) -> Result<Link, PeerError> {
        let (here, there) = (self.stations[from], self.stations[to]);
        if !there.up || !self.reaches(from, to) || !self.reaches(to, from) {
            let why = "no connection".to_owned();
            return Err(PeerError::Unreachable { member: there.id, why });
        }
        let id = self.number();
        let (to_answerer, from_opener) = mpsc::unbounded_channel();
        let (to_opener, from_answerer) = mpsc::unbounded_channel();
        let pipe = |from, to, receiver| Pipe {
            from,
            to,
            under_way: VecDeque::new(),
            last_due: 0,
            receiver,
            room: Arc::new(Semaphore::new(WINDOW)),
        };
        let pipes = [pipe(from, to, to_answerer), pipe(to, from, to_opener)];
        let end = |member, side: usize, receiver| Link {
            member,
            outgoing: Box::new(Sender {
                net: Arc::clone(net),
                stream: id,
                side,
                member,
                room: Arc::clone(&pipes[side].room),
                finished: false,
            }),
            incoming: Box::new(Receiver { member, receiver }),
        };
        let opener = end(there.id, 0, from_answerer);
        let answerer = end(here.id, 1, from_opener);
        self.trace.add(self.now, format_args!("{from} opens {:?} {id} to {to}", open.kind));
        let patience = self.rng.random_range(800..3_000);
        self.streams.insert(
            id,
            Stream {
                open,
                lives: [here.life, there.life],
                pipes,
                answerer: Some(answerer),
                breaks_at: None,
                patience,
            },
        );
        let due = self.now + self.weather.delay(&mut self.rng, &self.counts);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.pipes[0].last_due = due;
        }
        Ok(opener)
    }

    fn put(&mut self, stream: u64, side: usize, piece: Piece) -> bool {
        let mut delay = self.weather.delay(&mut self.rng, &self.counts);
        while self.weather.loses(&mut self.rng) {
            // Sent again after a probe.
            self.counts.note(Happened::LostPiece);
            delay += self.rng.random_range(20..120);
        }
        let Some(found) = self.streams.get_mut(&stream) else { return false };
        let pipe = &mut found.pipes[side];
        if self.stations[pipe.from].life != found.lives[side] {
            // Whoever died says nothing more.
            return false;
        }
        let due = (self.now + delay).max(pipe.last_due);
        // Snapshots come when all is well again, mostly, and are to break off all the same.
        if matches!(piece, Piece::Message(Message::SnapshotFrame { .. }))
            && self.rng.random_range(0..SNAPSHOT_BREAKS) == 0
        {
            found.breaks_at.get_or_insert(due);
        }
        pipe.last_due = due;
        pipe.under_way.push_back((due, piece));
        true
    }

    /// Brings the clock to `now` and delivers what is due; what members must do themselves is
    /// returned.
    pub(crate) fn pump(&mut self, now: u64) -> Vec<Serve> {
        self.now = now;
        let mut serve = Vec::new();
        self.pump_packets(&mut serve);
        let ids: Vec<u64> = self.streams.keys().copied().collect();
        for id in ids {
            self.pump_stream(id, &mut serve);
        }
        serve
    }

    fn pump_packets(&mut self, serve: &mut Vec<Serve>) {
        let later = self.packets.split_off(&(self.now + 1, 0));
        for ((_, number), packet) in std::mem::replace(&mut self.packets, later) {
            let (from, to, life) = match &packet {
                Packet::Call { from, to, life, .. } | Packet::Answer { from, to, life, .. } => {
                    (*from, *to, *life)
                }
            };
            let station = self.stations[to];
            if station.paused {
                self.packets.insert((self.now + 1, number), packet);
                continue;
            }
            if !self.reaches(from, to) || station.life != life {
                self.counts.add(Happened::Held, u64::from(station.life == life));
                continue;
            }
            match packet {
                Packet::Call { call, .. } if !station.up => {
                    // Nobody listens there: sometimes somebody says so.
                    if self.reaches(to, from)
                        && self.rng.random_range(0..2) == 0
                        && let Some(caller) = self.calls.remove(&call)
                    {
                        let why = "nobody listens".to_owned();
                        let _ = caller.send(Err(PeerError::Unreachable { member: station.id, why }));
                    }
                }
                Packet::Call { call, open, message, .. } => {
                    self.trace.add(self.now, format_args!("{from} calls {to}: {}", name(&message)));
                    let newest = self.newest.entry((from, to)).or_default();
                    self.counts.add(Happened::Reordered, u64::from(call < *newest));
                    *newest = call.max(*newest);
                    let from_id = self.stations[from].id;
                    serve.push(Serve::Call { host: to, from, from_id, call, open, message });
                }
                Packet::Answer { call, answer, .. } => {
                    if let Some(caller) = self.calls.remove(&call) {
                        let _ = caller.send(Ok(answer));
                    }
                }
            }
        }
    }

    fn pump_stream(&mut self, id: u64, serve: &mut Vec<Serve>) {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let ends = [stream.pipes[0].from, stream.pipes[0].to];
        let alive = [0, 1].map(|end| {
            let station = self.stations[ends[end]];
            station.up && station.life == stream.lives[end]
        });
        if alive != [true, true] && stream.breaks_at.is_none() {
            stream.breaks_at = Some(now + self.rng.random_range(1..900));
        }
        if stream.pipes.iter().all(|pipe| pipe.receiver.is_closed() && pipe.under_way.is_empty()) {
            self.streams.remove(&id);
            return;
        }
        let stuck = stream
            .pipes
            .iter()
            .any(|pipe| pipe.under_way.front().is_some_and(|(due, _)| due + stream.patience < now));
        if stuck || stream.breaks_at.is_some_and(|at| at <= now) {
            self.trace.add(now, format_args!("stream {id} between {} and {} breaks", ends[0], ends[1]));
            self.counts.note(Happened::BrokenStream);
            if let Some(stream) = self.streams.remove(&id) {
                stream.end(&self.stations);
            }
            return;
        }
        for side in 0..2 {
            let pipe = &mut stream.pipes[side];
            let (from, to) = (pipe.from, pipe.to);
            let is_cut = self.cuts.contains(&(from, to));
            if is_cut || self.stations[to].paused || !alive[1 - side] {
                let due = is_cut && pipe.under_way.front().is_some_and(|(due, _)| *due == now);
                self.counts.add(Happened::Held, u64::from(due));
                continue;
            }
            let arrives = pipe.last_due <= now || pipe.under_way.front().is_some_and(|(due, _)| *due <= now);
            if side == 0
                && arrives
                && let Some(link) = stream.answerer.take()
            {
                let from_id = self.stations[from].id;
                serve.push(Serve::Link { host: to, from: from_id, open: stream.open.clone(), link });
            }
            let pipe = &mut stream.pipes[side];
            while pipe.under_way.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, piece)) = pipe.under_way.pop_front() else { break };
                if let Piece::Message(message) = &piece {
                    self.trace.add(now, format_args!("{from} -> {to} on {id}: {}", name(message)));
                    note_message(&self.counts, message);
                }
                pipe.room.add_permits(1);
                if pipe.receiver.send(Ok(piece)).is_err() {
                    // Nobody reads it any more.
                    pipe.room.close();
                    pipe.under_way.clear();
                }
            }
        }
    }
}

impl Stream {
    fn end(self, stations: &[Station]) {
        for pipe in &self.pipes {
            let (member, why) = (stations[pipe.from].id, "the connection was lost".to_owned());
            let _ = pipe.receiver.send(Err(PeerError::Broken { member, why }));
            pipe.room.close();
        }
    }
}

fn name(message: &Message) -> String {
    match message {
        Message::Append(append) if append.entries.is_empty() => "heartbeat".to_owned(),
        Message::Append(append) => {
            format!("{} entries after {:?}", append.entries.len(), append.previous.map(|at| at.index))
        }
        Message::SnapshotFailed { why } => format!("SnapshotFailed: {why}"),
        Message::Appended(Appended::Failed { why }) => format!("append failed: {why}"),
        other => {
            let mut name = FirstWord(String::new());
            let _ = write!(name, "{other:?}");
            name.0
        }
    }
}

/// Takes the first word of what is written to it, and then no more: messages are long.
struct FirstWord(String);

impl std::fmt::Write for FirstWord {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let word = text.split(['(', '{', ' ']).next().unwrap_or_default();
        self.0.push_str(word);
        if word.len() < text.len() { Err(std::fmt::Error) } else { Ok(()) }
    }
}

fn note_message(counts: &Counts, message: &Message) {
    match message {
        Message::SnapshotDone { .. } => counts.note(Happened::Snapshot),
        Message::SnapshotAt { cursor } if !cursor.is_empty() => counts.note(Happened::Resumed),
        Message::VolatileEnd => counts.note(Happened::VolatileCopy),
        _ => {}
    }
}

/// One half of a stream, as a member writes to it.
struct Sender {
    net: Shared,
    stream: u64,
    side: usize,
    member: MemberId,
    room: Arc<Semaphore>,
    finished: bool,
}

impl Sender {
    fn put(&mut self, piece: Piece) -> Result<(), PeerError> {
        let gone = PeerError::Broken { member: self.member, why: "the connection was lost".to_owned() };
        if self.finished {
            return Err(gone);
        }
        self.net.lock().put(self.stream, self.side, piece).then_some(()).ok_or(gone)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // As with QUIC, what was sent still arrives. (Not during a crash: then the lock may be
        // held, and nothing matters.)
        if !self.finished
            && let Some(mut net) = self.net.try_lock()
        {
            net.put(self.stream, self.side, Piece::Finish);
        }
    }
}

#[async_trait]
impl Outgoing for Sender {
    async fn admit(&mut self, admit: Admit) -> Result<(), PeerError> {
        self.put(Piece::Admit(admit))
    }

    async fn send(&mut self, message: Message) -> Result<(), PeerError> {
        match self.room.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => {
                let why = "the connection was lost".to_owned();
                return Err(PeerError::Broken { member: self.member, why });
            }
        }
        self.put(Piece::Message(message))
    }

    async fn finish(&mut self) {
        let _ = self.put(Piece::Finish);
        self.finished = true;
    }
}

struct Receiver {
    member: MemberId,
    receiver: mpsc::UnboundedReceiver<Arrived>,
}

#[async_trait]
impl Incoming for Receiver {
    async fn admit(&mut self) -> Result<Admit, PeerError> {
        let member = self.member;
        match self.receiver.recv().await {
            Some(Ok(Piece::Admit(admit))) => Ok(admit),
            Some(Ok(_)) | None => {
                Err(PeerError::Broken { member, why: "it was closed unanswered".to_owned() })
            }
            Some(Err(error)) => Err(error),
        }
    }

    async fn next(&mut self) -> Result<Option<Message>, PeerError> {
        let member = self.member;
        loop {
            match self.receiver.recv().await {
                Some(Ok(Piece::Message(message))) => return Ok(Some(message)),
                Some(Ok(Piece::Admit(Admit::Accepted { .. }))) => {}
                Some(Ok(Piece::Admit(Admit::Refused(refusal)))) => {
                    return Err(PeerError::Refused { member, refusal });
                }
                Some(Ok(Piece::Finish)) => return Ok(None),
                Some(Err(error)) => return Err(error),
                None => return Err(PeerError::Broken { member, why: "the connection was lost".to_owned() }),
            }
        }
    }
}

/// The network as one member uses it.
pub(crate) struct SimPeers {
    pub(crate) net: Shared,
    pub(crate) host: usize,
}

#[async_trait]
impl Peers for SimPeers {
    async fn stream(&self, to: &Member, open: Open, within: Duration) -> Result<Link, PeerError> {
        let attempt = {
            let mut net = self.net.lock();
            match net.find(to.id) {
                Some(target) => net.begin_stream(&self.net, self.host, target, open),
                None => Err(PeerError::Unreachable { member: to.id, why: "no such address".to_owned() }),
            }
        };
        if attempt.is_err() {
            let patience = self.net.lock().rng.random_range(1..500);
            tokio::time::sleep(within.min(Duration::from_millis(patience))).await;
        }
        attempt
    }

    async fn call(
        &self,
        to: &Member,
        open: Open,
        message: Message,
        within: Duration,
    ) -> Result<Message, PeerError> {
        assert_eq!(open.kind, Kind::Call);
        let member = to.id;
        let answer = {
            let mut net = self.net.lock();
            let target = net.find(member);
            target.map(|target| net.begin_call(self.host, target, &open, &message))
        };
        let Some(answer) = answer else {
            tokio::time::sleep(within).await;
            return Err(PeerError::Unreachable { member, why: "no such address".to_owned() });
        };
        match timeout(within, answer).await {
            Ok(Ok(answer)) => answer?.map_err(|refusal| PeerError::Refused { member, refusal }),
            // Whatever comes later is for nobody.
            _ => Err(PeerError::Timeout { member, within }),
        }
    }
}
