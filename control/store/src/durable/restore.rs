//! From a snapshot to tables: into a running store, or in the place of a damaged one.

use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::config::DurableConfig;
use super::dir::DataDir;
use super::shared::Shared;
use super::{Machine, OpenError, Opened, open};
use crate::codec::Codec;
use crate::command::ClusterId;
use crate::disk::{Disk, sync_dir};
use crate::level::Level;
use crate::machine::Position;
use crate::record::Record;
use crate::snapshot::{Header, Reader};
use crate::storage::StorageError;
use crate::tables::{Tables, TablesError};
use crate::wal::LogId;

/// The entry that a restored state stands for.
const BEFORE: LogId = LogId { term: 1, index: 1 };
/// How many frames of rows may wait for the tables.
const AHEAD: usize = 4;

/// What the reader hands to the tables' thread.
enum Feed {
    Rows(Vec<Record>),
    /// The snapshot was read to its end and is sound.
    Whole,
}

/// Builds tables from a snapshot, beside those of the running store.
pub(super) async fn build(
    shared: &Arc<Shared>,
    from: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<(Tables, Header), StorageError> {
    let path = shared.dir.restored();
    let codec = Arc::clone(&shared.core.codec);
    let cache = shared.config.redb_cache_bytes;
    let volatile = shared.config.volatile_prefixes.clone();
    let keep = move |record: &Record| !volatile.iter().any(|prefix| record.key.starts_with(prefix));
    build_at(&path, shared.tables_disk.clone(), cache, codec, keep, from).await
}

async fn build_at(
    path: &Path,
    disk: Disk,
    cache: usize,
    codec: Arc<Codec>,
    keep: impl Fn(&Record) -> bool + Send + 'static,
    from: &mut (dyn AsyncRead + Send + Unpin),
) -> Result<(Tables, Header), StorageError> {
    let mut reader = Reader::open(from, codec).await?;
    let header = reader.header().clone();
    let (feed, rows) = mpsc::channel(AHEAD);
    let position = Position { revision: header.revision, ..Position::default() };
    let owned = path.to_owned();
    let builder = tokio::task::spawn_blocking(move || {
        let mut tables = Tables::create(&owned, &disk, cache).map_err(create_failed)?;
        tables.load(position, Rows::new(rows).filter(move |row| row.as_ref().map_or(true, &keep)))?;
        Ok(tables)
    });
    let read = feed_rows(&mut reader, feed).await;
    let built = builder
        .await
        .unwrap_or_else(|error| Err(StorageError::Unavailable { why: format!("restoring failed: {error}") }));
    // What is wrong with the snapshot says more than what that did to the tables.
    match read.and(built) {
        Ok(tables) => Ok((tables, header)),
        Err(error) => {
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

async fn feed_rows<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    feed: mpsc::Sender<Feed>,
) -> Result<(), StorageError> {
    loop {
        let next = match reader.rows().await? {
            Some(rows) => Feed::Rows(rows),
            None => Feed::Whole,
        };
        let whole = matches!(next, Feed::Whole);
        // The tables' thread ended early: its error is the one to report.
        if feed.send(next).await.is_err() || whole {
            return Ok(());
        }
    }
}

/// The rows as the tables' thread sees them: an error at the end unless the snapshot was whole.
struct Rows {
    feed: mpsc::Receiver<Feed>,
    ready: std::vec::IntoIter<Record>,
    over: bool,
}

impl Rows {
    fn new(feed: mpsc::Receiver<Feed>) -> Self {
        Self { feed, ready: Vec::new().into_iter(), over: false }
    }
}

impl Iterator for Rows {
    type Item = Result<Record, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.next() {
                return Some(Ok(record));
            }
            if self.over {
                return None;
            }
            match self.feed.blocking_recv() {
                Some(Feed::Rows(rows)) => self.ready = rows.into_iter(),
                Some(Feed::Whole) => self.over = true,
                None => {
                    self.over = true;
                    return Some(Err(StorageError::Unavailable {
                        why: "the snapshot was not read to its end".into(),
                    }));
                }
            }
        }
    }
}

fn create_failed(error: TablesError) -> StorageError {
    match error {
        TablesError::Io(error) if crate::disk::is_no_space(&error) => StorageError::NoSpace,
        TablesError::Io(error) => StorageError::Io(error),
        TablesError::Corrupt(what) => StorageError::Corrupt { what },
    }
}

impl Machine {
    /// Opens a machine with the state of a snapshot in the place of what its directory holds,
    /// damaged or not; that is moved aside, into a `damaged-…` directory within. It is a cluster
    /// of its own from then on, without members, and its revisions lie far beyond the old ones.
    pub async fn rebuild(config: DurableConfig, snapshot: &Path) -> Result<Opened, OpenError> {
        let refuse = |source| OpenError::Snapshot { path: snapshot.to_owned(), source };
        let mut file = tokio::fs::File::open(snapshot).await.map_err(|error| refuse(error.into()))?;
        Self::rebuild_from(config, snapshot, &mut file).await
    }

    /// The same from a stream; `name` is what errors call it.
    pub async fn rebuild_from(
        config: DurableConfig,
        name: &Path,
        from: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Opened, OpenError> {
        if let Some(why) = config.problem() {
            return Err(OpenError::Config { why });
        }
        let refuse = |source| OpenError::Snapshot { path: name.to_owned(), source };
        let dir = DataDir::take(&config.dir, &config.keys, config.level)?;
        let codec = Arc::new(open::codec(&dir, &config)?);
        let disk = Disk::new(config.faults.clone());
        let volatile = config.volatile_prefixes.clone();
        let keep = move |record: &Record| !volatile.iter().any(|prefix| record.key.starts_with(prefix));
        let built = build_at(&dir.restored(), disk, config.redb_cache_bytes, codec, keep, from).await;
        let (tables, header) = built.map_err(refuse)?;
        let path = config.dir.clone();
        let opened = tokio::task::spawn_blocking(move || replace(dir, config, tables, &header)).await;
        opened.unwrap_or_else(|error| Err(OpenError::io(&path, std::io::Error::other(error))))
    }
}

/// Puts the new tables in place. A crash on the way leaves a directory that says that its tables
/// are missing, with everything that it had set aside.
fn replace(
    dir: DataDir,
    config: DurableConfig,
    mut tables: Tables,
    snapshot: &Header,
) -> Result<Opened, OpenError> {
    let unusable = |source| OpenError::io(&config.dir, source);
    let mut position = Position::default();
    position.restore(snapshot, tables.meta().position.keys);
    position.order.cluster = ClusterId::generate().map_err(unusable)?;
    // As if entries had led to this state and were gone: a member that joins gets the state, and
    // does not take the log's first entry for the beginning of everything.
    position.applied = BEFORE;
    position.order.installed = BEFORE;
    tables.reposition(position).map_err(|error| unusable(std::io::Error::other(error)))?;
    drop(tables);
    if dir.is_fresh() {
        dir.clear_unfinished()?;
        dir.mark(Level::OLDEST).map_err(unusable)?;
    } else {
        dir.set_aside().map_err(unusable)?;
    }
    std::fs::rename(dir.restored(), dir.tables()).map_err(unusable)?;
    sync_dir(&config.dir).map_err(unusable)?;
    open::open_in(dir, config)
}
