//! Opening a data directory: whose it is, keys, tables, log, then the state as it was.

use std::sync::Arc;
use std::sync::mpsc::channel;

use parking_lot::Mutex;

use super::DurableStore;
use super::checkpointer::Checkpointer;
use super::config::DurableConfig;
use super::dir::DataDir;
use super::engine::{self, Engine};
use super::error::OpenError;
use super::keyfile::{self, Wanted};
use super::shared::Shared;
use crate::codec::Codec;
use crate::disk::Disk;
use crate::machine::{Core, State};
use crate::storage::StorageError;
use crate::tables::Tables;
use crate::wal::{Recovered, Wal};

/// Opens the store; blocks.
pub(super) fn open(config: DurableConfig) -> Result<DurableStore, OpenError> {
    if let Some(why) = config.problem() {
        return Err(OpenError::Config { why });
    }
    let dir = DataDir::take(&config.dir, &config.keys)?;
    open_in(dir, config)
}

/// Opens the store in a directory that is taken already.
pub(super) fn open_in(mut dir: DataDir, config: DurableConfig) -> Result<DurableStore, OpenError> {
    let codec = Arc::new(codec(&dir, &config)?);
    let disks = (Disk::new(config.faults.clone()), Disk::new(config.faults.clone()));
    let tables = open_tables(&dir, &config, &disks.1)?;
    let applied = tables.meta().position.applied;
    let (wal, recovered) = Wal::open(&dir.wal(), config.segment_bytes, &disks.0, applied)
        .map_err(|error| OpenError::wal(dir.kept_snapshot(), error))?;
    let core = recover(&dir, &config, codec, &tables, recovered)?;
    if dir.is_fresh() {
        dir.mark()?;
    }
    // What a restore that did not come to its end left.
    let _ = std::fs::remove_file(dir.restored());
    start(Shared::new(Arc::new(core), dir, config, disks, tables), wal)
}

pub(super) fn codec(dir: &DataDir, config: &DurableConfig) -> Result<Codec, OpenError> {
    let wanted = if config.sealed_prefixes.is_empty() { Wanted::No } else { Wanted::Yes };
    let keys = keyfile::load_or_make(dir, &config.keys, wanted)?;
    Ok(Codec::new(config.sealed_prefixes.clone(), keys))
}

fn open_tables(dir: &DataDir, config: &DurableConfig, disk: &Disk) -> Result<Tables, OpenError> {
    let path = dir.tables();
    let tables = if dir.is_fresh() {
        dir.clear_unfinished()?;
        Tables::create(&path, disk, config.redb_cache_bytes)
    } else {
        Tables::open(&path, disk, config.redb_cache_bytes)
    };
    tables.map_err(|error| OpenError::tables(&path, dir.kept_snapshot(), error))
}

/// The state as it was acknowledged: the tables', and the log's entries on top.
fn recover(
    dir: &DataDir,
    config: &DurableConfig,
    codec: Arc<Codec>,
    tables: &Tables,
    recovered: Recovered,
) -> Result<Core, OpenError> {
    let corrupt =
        |error: StorageError| OpenError::corrupt(&dir.tables(), &error.to_string(), dir.kept_snapshot());
    let position = tables.meta().position.clone();
    let read = tables.read().map_err(corrupt)?;
    let state = State { tables: Some(Arc::new(read)), position, ..State::default() };
    let core = Core::new(state, codec, config.volatile_prefixes.clone());
    let entries = recovered.entries.len();
    for (id, payload) in recovered.entries {
        engine::replay(&core, id, &payload).map_err(corrupt)?;
    }
    skip_used_revisions(&core, config);
    let position = core.state.read().position.clone();
    tracing::info!(revision = position.revision, keys = position.keys, entries, "the store is open");
    Ok(core)
}

/// Revisions that volatile keyspaces used, or may have used, are never given out again. Where
/// there are such keyspaces, one more is skipped: what was listed of them before the restart is
/// gone without an event, and whoever listed it must notice.
fn skip_used_revisions(core: &Core, config: &DurableConfig) {
    let mut state = core.state.write();
    let position = &mut state.position;
    position.revision = position.revision.max(position.reserved);
    if !config.volatile_prefixes.is_empty() {
        position.revision += 1;
    }
    let revision = position.revision;
    state.volatile_oldest = revision;
    drop(state);
    core.hub.advance(revision);
}

fn start(shared: Shared, wal: Wal) -> Result<DurableStore, OpenError> {
    let path = shared.dir.path().to_owned();
    let shared = Arc::new(shared);
    let (requests, incoming) = channel();
    let (jobs, todo) = channel();
    let engine = Engine::new(Arc::clone(&shared), wal, incoming, jobs);
    let checkpointer = Checkpointer::new(Arc::clone(&shared), todo, requests.clone());
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| OpenError::io(&path, source))
    };
    // The store exists before its threads, so that a failure to start one ends the other.
    let store = DurableStore { shared, requests, threads: Mutex::default() };
    let log = spawn("store-log", Box::new(|| engine.run()))?;
    store.threads.lock().push(log);
    let tables = spawn("store-tables", Box::new(|| checkpointer.run()))?;
    store.threads.lock().push(tables);
    Ok(store)
}
