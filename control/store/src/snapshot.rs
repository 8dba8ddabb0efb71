//! Snapshots as a stream: the live keys at one revision, in frames that check each other.
//!
//! `magic | format (u16) | frames`, a frame being `length | checksum | part`, the checksum
//! running on from the frame before, so that nothing can be cut out, doubled or put in. The last
//! part counts the rows. Values are in their envelopes: what was sealed stays sealed.

mod check;
mod write;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codec::Codec;
use crate::machine::Core;
use crate::read::Cut;
use crate::record::{Kind, Pos, Record};
use crate::span::Span;
use crate::storage::StorageError;
use crate::types::{LeaseId, prefix_end};

pub use check::{SnapshotCheck, SnapshotFault, SnapshotInfo};
pub use write::SnapshotWriter;

const MAGIC: &[u8; 16] = b"sampan snapshot\n";
const FORMAT: u16 = 2;
/// What a snapshot without leases has: programs that know no leases can read it.
const FORMAT_WITHOUT_LEASES: u16 = 1;
/// Rows are gathered into frames of about this size.
const FRAME_BYTES: usize = 256 << 10;
/// No frame is larger: one row, its key and envelope included, is well below.
const MAX_FRAME: u32 = 8 << 20;

/// How far a restored store's revisions lie beyond all that came before it.
pub(crate) const REVISION_LEAP: u64 = 1_000_000_000;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The revision that it is of.
    pub(crate) revision: u64,
    /// The newest revision that changed one of its keys.
    pub(crate) changed: u64,
}

#[derive(Serialize, Deserialize)]
enum Part {
    Header(Header),
    Rows(Vec<Row>),
    End {
        rows: u64,
    },
    /// Rows of which some are attached to leases. Format 2.
    LeasedRows(Vec<(Row, LeaseId)>),
}

/// One live key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pos: Pos,
    create: u64,
    version: u64,
    key: Bytes,
    value: Bytes,
}

/// Makes a snapshot of the newest state and hands it over piece by piece. Reads the tables.
pub(crate) fn produce(
    core: &Core,
    mut sink: impl FnMut(Vec<u8>) -> Result<(), StorageError>,
) -> Result<Header, StorageError> {
    let span = Span::all();
    let mut cut = Cut::take_of(core, &core.state.read(), &span, None)?;
    cut.retain(|key| !core.is_volatile(key));
    let header = Header { revision: cut.revision, changed: cut.changed };
    let mut writer = Writer::default();
    let mut begin = MAGIC.to_vec();
    let format = if has_leases(&cut)? { FORMAT } else { FORMAT_WITHOUT_LEASES };
    begin.extend_from_slice(&format.to_le_bytes());
    begin.extend(writer.frame(&Part::Header(header.clone()))?);
    sink(begin)?;
    let mut rows = Rows::default();
    cut.visit(&span, |found| {
        rows.push(&cut.load(found)?);
        if rows.bytes >= FRAME_BYTES {
            sink(writer.frame(&rows.take())?)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !rows.rows.is_empty() {
        sink(writer.frame(&rows.take())?)?;
    }
    sink(writer.frame(&Part::End { rows: rows.total })?)?;
    Ok(header)
}

impl Row {
    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    /// The row of a record, and its lease.
    pub(crate) fn of(record: &Record) -> (Self, LeaseId) {
        let row = Self {
            pos: record.pos,
            create: record.create,
            version: record.version,
            key: record.key.clone(),
            value: record.value.clone(),
        };
        (row, record.kind.lease())
    }

    pub(crate) fn into_record(self, lease: LeaseId) -> Record {
        let Self { pos, create, version, key, value } = self;
        Record { pos, key, value, create, version, prev: Pos::NONE, kind: Kind::live(lease) }
    }

    /// Rows of which none is attached to a lease; else all as they were.
    pub(crate) fn without_leases(rows: Vec<(Self, LeaseId)>) -> Result<Vec<Self>, Vec<(Self, LeaseId)>> {
        if rows.iter().all(|(_, lease)| lease.is_none()) {
            Ok(rows.into_iter().map(|(row, _)| row).collect())
        } else {
            Err(rows)
        }
    }
}

/// Whether there is any lease; where there is none, no key is attached to one.
fn has_leases(cut: &Cut) -> Result<bool, StorageError> {
    let prefix = Bytes::from_static(LeaseId::PREFIX);
    let mut found = false;
    cut.visit(&Span::new(&prefix, Some(&prefix_end(&prefix))), |_| {
        found = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

#[derive(Debug, Default)]
struct Rows {
    rows: Vec<(Row, LeaseId)>,
    bytes: usize,
    total: u64,
}

impl Rows {
    fn push(&mut self, record: &Arc<Record>) {
        self.bytes += record.key.len() + record.value.len() + 32;
        self.total += 1;
        self.rows.push(Row::of(record));
    }

    fn take(&mut self) -> Part {
        self.bytes = 0;
        Row::without_leases(std::mem::take(&mut self.rows)).map_or_else(Part::LeasedRows, Part::Rows)
    }
}

#[derive(Debug, Default)]
struct Writer {
    chain: u32,
}

impl Writer {
    fn frame(&mut self, part: &Part) -> Result<Vec<u8>, StorageError> {
        let payload = postcard::to_allocvec(part).map_err(|error| unsound(&error.to_string()))?;
        let len = u32::try_from(payload.len()).map_err(|_| unsound("a frame is too large"))?.to_le_bytes();
        self.chain = checksum(self.chain, len, &payload);
        let mut out = Vec::with_capacity(payload.len() + 8);
        out.extend_from_slice(&len);
        out.extend_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&payload);
        Ok(out)
    }
}

/// Reads a snapshot, refusing whatever is not a whole one.
pub(crate) struct Reader<R> {
    from: R,
    codec: Arc<Codec>,
    header: Header,
    chain: u32,
    last_key: Option<Bytes>,
    rows: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads as far as the header.
    pub(crate) async fn open(mut from: R, codec: Arc<Codec>) -> Result<Self, StorageError> {
        let mut magic = [0; MAGIC.len()];
        if !read_whole(&mut from, &mut magic).await? || magic != *MAGIC {
            return Err(unsound("it is not a snapshot of a sampan store"));
        }
        let mut format = [0; 2];
        if !read_whole(&mut from, &mut format).await? {
            return Err(cut_off());
        }
        let format = u16::from_le_bytes(format);
        if format > FORMAT {
            return Err(unsound(&format!("it has format {format}; this program knows up to {FORMAT}")));
        }
        let header = Header { revision: 0, changed: 0 };
        let mut reader = Self { from, codec, header, chain: 0, last_key: None, rows: 0 };
        match reader.part().await? {
            Part::Header(header) => reader.header = header,
            Part::Rows(_) | Part::LeasedRows(_) | Part::End { .. } => {
                return Err(unsound("it has no header"));
            }
        }
        Ok(reader)
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next rows, in key order; `None` once the whole snapshot was read and found sound.
    pub(crate) async fn rows(&mut self) -> Result<Option<Vec<Record>>, StorageError> {
        match self.part().await? {
            Part::Header(_) => Err(unsound("it has two headers")),
            Part::Rows(rows) => {
                let rows = rows.into_iter().map(|row| self.check(row, LeaseId::NONE));
                rows.collect::<Result<_, _>>().map(Some)
            }
            Part::LeasedRows(rows) => {
                let rows = rows.into_iter().map(|(row, lease)| self.check(row, lease));
                rows.collect::<Result<_, _>>().map(Some)
            }
            Part::End { rows } if rows == self.rows => Ok(None),
            Part::End { rows } => Err(unsound(&format!("it has {} keys instead of {rows}", self.rows))),
        }
    }

    fn check(&mut self, row: Row, lease: LeaseId) -> Result<Record, StorageError> {
        let mut record = row.into_record(lease);
        let Record { pos, key, value, .. } = &mut record;
        if self.last_key.as_ref().is_some_and(|last| *last >= *key) || pos.rev > self.header.revision {
            return Err(unsound("its keys are not in order"));
        }
        // Whether this store can open the value is better known now than later.
        let plain = self.codec.decode(key, value).map_err(|error| unsound(&error.to_string()))?;
        if self.codec.should_seal(key, value) {
            *value = self.codec.encode(key, &plain)?;
        }
        self.last_key = Some(key.clone());
        self.rows += 1;
        Ok(record)
    }

    async fn part(&mut self) -> Result<Part, StorageError> {
        let (mut len, mut crc) = ([0; 4], [0; 4]);
        if !read_whole(&mut self.from, &mut len).await? || !read_whole(&mut self.from, &mut crc).await? {
            return Err(cut_off());
        }
        let size = u32::from_le_bytes(len);
        if size > MAX_FRAME {
            return Err(unsound("it is damaged"));
        }
        let mut payload = vec![0; size as usize];
        if !read_whole(&mut self.from, &mut payload).await? {
            return Err(cut_off());
        }
        self.chain = checksum(self.chain, len, &payload);
        if self.chain != u32::from_le_bytes(crc) {
            return Err(unsound("it is damaged"));
        }
        postcard::from_bytes(&payload).map_err(|_| unsound("it is damaged"))
    }
}

/// Fills `out`; false where the stream ends before that.
async fn read_whole(from: &mut (impl AsyncRead + Unpin), out: &mut [u8]) -> Result<bool, StorageError> {
    match from.read_exact(out).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(StorageError::Io(error)),
    }
}

fn checksum(chain: u32, len: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(chain);
    hasher.update(&len);
    hasher.update(payload);
    hasher.finalize()
}

fn unsound(why: &str) -> StorageError {
    StorageError::Corrupt { what: format!("the snapshot cannot be used: {why}") }
}

fn cut_off() -> StorageError {
    unsound("it is cut off")
}
