//! The state machine's state from member to member: a cut on the one side, tables built beside
//! the present ones on the other.
//!
//! A cut is the newest live keys at one log entry, volatile ones included, without history. It is
//! sent in frames, each with a cursor from which the transfer can go on after a break.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Machine;
use super::shared::Shared;
use crate::layer::Layer;
use crate::level::Level;
use crate::machine::{Core, Order, Position, State};
use crate::read;
use crate::record::Record;
use crate::snapshot::Row;
use crate::span::{Span, successor};
use crate::storage::StorageError;
use crate::tables::{Tables, TablesError};
use crate::types::LeaseId;
use crate::volatile::Known;
use crate::wal::LogId;

/// What a build gathers before it writes to its tables.
const GATHER: usize = 4 << 20;

/// One frame. Sent as postcard: variants are only ever appended.
#[derive(Serialize, Deserialize)]
pub(super) enum Frame {
    Head {
        position: Position,
        order: Order,
    },
    Rows(Vec<Row>),
    /// Rows of which some are attached to leases.
    LeasedRows(Vec<(Row, LeaseId)>),
    /// As [`Frame::Head`], of a group that is not at the oldest level.
    HeadAt {
        position: Position,
        order: Order,
        level: u16,
    },
}

impl Frame {
    /// The records of its rows.
    pub(super) fn records(self) -> Result<Vec<Record>, StorageError> {
        match self {
            Self::Rows(rows) => Ok(rows.into_iter().map(|row| row.into_record(LeaseId::NONE)).collect()),
            Self::LeasedRows(rows) => {
                Ok(rows.into_iter().map(|(row, lease)| row.into_record(lease)).collect())
            }
            Self::Head { .. } | Self::HeadAt { .. } => Err(unsound("rows were expected")),
        }
    }
}

/// The state at one log entry; see the module's description.
pub struct Cut {
    id: [u8; 16],
    cut: read::Cut,
    position: Position,
    core: Arc<Core>,
}

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cut").field("applied", &self.position.applied).finish_non_exhaustive()
    }
}

impl Cut {
    /// Names the cut; no other has this id.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The last log entry in it.
    pub fn applied(&self) -> LogId {
        self.position.applied
    }

    /// The entry that the membership came with, and the membership.
    pub fn membership(&self) -> (LogId, Bytes) {
        (self.position.order.membership_at, self.position.order.membership.clone())
    }

    /// The frame of about `max` bytes after a cursor (empty: the first one), and the cursor after
    /// it; `None` where that was all. Reads the tables.
    pub fn frame(&self, cursor: &[u8], max: usize) -> Result<Option<(Bytes, Bytes)>, StorageError> {
        let Some((_, after)) = cursor.split_first() else {
            let head = head(&self.position);
            return Ok(Some((encode(&head)?, Bytes::from_static(&[1]))));
        };
        let start = if after.is_empty() { Bytes::new() } else { successor(after) };
        let span = Span::new(&start, Some(&Bytes::new()));
        let mut gathered = Gathered::new(max);
        self.cut.visit(&span, |found| {
            let record = self.cut.load(found)?;
            Ok(gathered.push(&record))
        })?;
        gathered.frame()
    }

    /// The core that the cut is of; two cuts of one machine share it.
    pub fn is_of(&self, machine: &Machine) -> bool {
        Arc::ptr_eq(&self.core, &machine.shared.core)
    }
}

/// The first frame.
fn head(position: &Position) -> Frame {
    let (order, level) = (position.order.clone(), position.level);
    let position = Position { order: Order::default(), ..position.clone() };
    if level == Level::OLDEST {
        Frame::Head { position, order }
    } else {
        Frame::HeadAt { position, order, level: level.number() }
    }
}

pub(super) struct Gathered {
    rows: Vec<(Row, LeaseId)>,
    bytes: usize,
    max: usize,
}

impl Gathered {
    pub(super) fn new(max: usize) -> Self {
        Self { rows: Vec::new(), bytes: 0, max }
    }

    pub(super) fn push(&mut self, record: &Record) -> ControlFlow<()> {
        self.bytes += record.key.len() + record.value.len() + 32;
        self.rows.push(Row::of(record));
        if self.bytes >= self.max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn frame(self) -> Result<Option<(Bytes, Bytes)>, StorageError> {
        let Some((last, _)) = self.rows.last() else { return Ok(None) };
        let mut cursor = BytesMut::with_capacity(last.key().len() + 1);
        cursor.put_u8(1);
        cursor.put_slice(last.key());
        let frame = Row::without_leases(self.rows).map_or_else(Frame::LeasedRows, Frame::Rows);
        Ok(Some((encode(&frame)?, cursor.freeze())))
    }
}

fn encode(frame: &Frame) -> Result<Bytes, StorageError> {
    postcard::to_allocvec(frame).map(Bytes::from).map_err(|error| unsound(&error.to_string()))
}

pub(super) fn decode(frame: &[u8]) -> Result<Frame, StorageError> {
    postcard::from_bytes(frame).map_err(|error| unsound(&error.to_string()))
}

fn unsound(why: &str) -> StorageError {
    StorageError::Corrupt { what: format!("a transfer of the state cannot be used: {why}") }
}

/// Tables on their way here, beside the present ones.
pub struct Build {
    id: [u8; 16],
    cursor: Bytes,
    position: Option<Position>,
    tables: Tables,
    gathered: Vec<Record>,
    gathered_bytes: usize,
    volatile: Vec<Record>,
    core: Arc<Core>,
}

impl std::fmt::Debug for Build {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Build").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Build {
    /// The cut that it is built from.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Where the transfer goes on; empty at its beginning.
    pub fn cursor(&self) -> Bytes {
        self.cursor.clone()
    }

    /// Takes a frame of [`Cut::frame`], with the cursor after it. Writes to the disk.
    pub fn push(&mut self, frame: &[u8], cursor_after: Bytes) -> Result<(), StorageError> {
        match (decode(frame)?, &self.position) {
            (Frame::Head { position, order }, None) => self.position = Some(Position { order, ..position }),
            (Frame::HeadAt { position, order, level }, None) => {
                let level = Level::of_number(level);
                self.position = Some(Position { order, level, ..position });
            }
            (Frame::Head { .. } | Frame::HeadAt { .. }, Some(_)) => {
                return Err(unsound("it has two heads"));
            }
            (Frame::Rows(_) | Frame::LeasedRows(_), None) => return Err(unsound("it has no head")),
            (frame, Some(_)) => frame.records()?.into_iter().for_each(|record| self.take(record)),
        }
        if self.gathered_bytes >= GATHER {
            self.write()?;
        }
        self.cursor = cursor_after;
        Ok(())
    }

    fn take(&mut self, record: Record) {
        if self.core.is_volatile(&record.key) {
            self.volatile.push(record);
        } else {
            self.gathered_bytes += record.weight();
            self.gathered.push(record);
        }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.gathered_bytes = 0;
        self.tables.add(&std::mem::take(&mut self.gathered))
    }
}

impl Machine {
    /// A cut of the newest state.
    pub fn cut(&self) -> Result<Cut, StorageError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StorageError::Unavailable { why: error.to_string() })?;
        let core = Arc::clone(&self.shared.core);
        let state = core.state.read();
        let cut = read::Cut::take_of(&core, &state, &Span::all(), None)?;
        let position = state.position.clone();
        drop(state);
        Ok(Cut { id, cut, position, core })
    }

    /// Begins to build tables from the cut of another member; what an older build left is
    /// dropped. Writes to the disk.
    pub fn begin_build(&self, id: [u8; 16]) -> Result<Build, StorageError> {
        self.shared.check()?;
        let shared = &self.shared;
        let tables =
            Tables::create(&shared.dir.received(), &shared.tables_disk, shared.config.redb_cache_bytes)
                .map_err(|error| match error {
                    TablesError::Io(error) if crate::disk::is_no_space(&error) => StorageError::NoSpace,
                    TablesError::Io(error) => StorageError::Io(error),
                    TablesError::Corrupt(what) => StorageError::Corrupt { what },
                })?;
        Ok(Build {
            id,
            cursor: Bytes::new(),
            position: None,
            tables,
            gathered: Vec::new(),
            gathered_bytes: 0,
            volatile: Vec::new(),
            core: Arc::clone(&shared.core),
        })
    }

    /// Puts a whole build in the place of everything, with one rename; `applied` is the last log
    /// entry that it must hold. Revision and position are exactly those of the cut, history ends,
    /// and so do watches. Blocks.
    pub fn install(&self, mut build: Build, applied: LogId) -> Result<(), StorageError> {
        let Some(position) = &build.position else { return Err(unsound("it has no head")) };
        if position.applied != applied {
            return Err(unsound(&format!("it is of entry {}, not {applied}", position.applied)));
        }
        let known = self.shared.config.level;
        if position.level > known {
            return Err(unsound(&format!(
                "it is of level {}, and this member knows {known} only",
                position.level
            )));
        }
        let mut position = position.clone();
        build.write()?;
        position.keys = build.tables.meta().position.keys;
        position.compacted = position.revision;
        position.order.installed = applied;
        let mut volatile = Layer::default();
        for record in build.volatile {
            volatile.insert(Arc::new(record));
        }
        let _writer = self.shared.writer.lock();
        // What came with it is not known to be all.
        let known = self.shared.core.known_after(applied.index, position.revision);
        put_in_place(&self.shared, build.tables, position, volatile, known)
    }
}

/// Puts tables in the place of everything, with one rename. The caller is the writer, and there is
/// no checkpoint to come after this one that is of the old state.
pub(super) fn put_in_place(
    shared: &Shared,
    mut tables: Tables,
    position: Position,
    volatile: Layer,
    known: Known,
) -> Result<(), StorageError> {
    tables.reposition(position.clone())?;
    let path = shared.dir.tables();
    let read = tables.read()?;
    let revision = position.revision;
    let mut slot = shared.tables.lock();
    if slot.is_none() {
        return Err(StorageError::Unavailable { why: "it was closed".into() });
    }
    shared.dir.mark(position.level)?;
    tables.rename(&path)?;
    crate::disk::sync_dir(shared.dir.path())?;
    let mut state = shared.core.state.write();
    *state = State {
        tables: Some(Arc::new(read)),
        volatile,
        known: Known { lost: state.known.lost, lost_at: state.known.lost_at, ..known },
        position,
        ..State::default()
    };
    drop(state);
    shared.note_tables(&tables);
    *slot = Some(tables);
    drop(slot);
    shared.core.hub.replace(revision);
    shared.core.tell_lacks();
    Ok(())
}
