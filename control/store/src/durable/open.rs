//! Opening a data directory: whose it is, keys, tables, log, then the state as the tables have it.

use std::sync::Arc;
use std::sync::mpsc::channel;

use parking_lot::Mutex;

use super::config::{Background, DurableConfig};
use super::dir::DataDir;
use super::error::OpenError;
use super::keyfile::{self, Wanted};
use super::shared::Shared;
use super::{Machine, Opened, checkpointer};
use crate::codec::Codec;
use crate::disk::Disk;
use crate::machine::{Core, State};
use crate::storage::StorageError;
use crate::tables::Tables;
use crate::wal::{LogId, Wal};

/// Opens the machine; blocks.
pub(super) fn open(config: DurableConfig) -> Result<Opened, OpenError> {
    if let Some(why) = config.problem() {
        return Err(OpenError::Config { why });
    }
    let dir = DataDir::take(&config.dir, &config.keys, config.level)?;
    open_in(dir, config)
}

/// Opens the machine in a directory that is taken already.
pub(super) fn open_in(dir: DataDir, config: DurableConfig) -> Result<Opened, OpenError> {
    let codec = Arc::new(codec(&dir, &config)?);
    let disks = (Disk::new(config.faults.clone()), Disk::new(config.faults.clone()));
    let tables = open_tables(&dir, &config, &disks.1)?;
    let position = &tables.meta().position;
    let (wal, recovered) =
        Wal::open(&dir.wal(), config.segment_bytes, &disks.0, position.applied, position.order.installed)
            .map_err(|error| OpenError::wal(dir.kept_snapshot(), error))?;
    // What is lost with a restart is more than placeholders tell of: a member that is alone does not
    // write these either, at once. It gives up everything when it leads again.
    let lost = position.applied.index.max(wal.state().last.index.min(1));
    let core = core(&dir, &config, codec, &tables, lost)?;
    // Only now is anything written, and a program of an older format would not understand it.
    dir.mark(position.level).map_err(|error| OpenError::io(dir.path(), error))?;
    for leftover in [dir.restored(), dir.received()] {
        // What a restore or a transfer that did not come to its end left.
        let _ = std::fs::remove_file(leftover);
    }
    let replayed = wal.state().last;
    let machine = start(Shared::new(Arc::new(core), dir, config, disks, tables), replayed)?;
    Ok(Opened { machine, wal, entries: recovered.entries })
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

/// The state as the tables have it; those who order the commands bring it up to date. Of volatile
/// keys the changes up to entry `lost` are not known.
fn core(
    dir: &DataDir,
    config: &DurableConfig,
    codec: Arc<Codec>,
    tables: &Tables,
    lost: u64,
) -> Result<Core, OpenError> {
    let corrupt =
        |error: StorageError| OpenError::corrupt(&dir.tables(), &error.to_string(), dir.kept_snapshot());
    let position = tables.meta().position.clone();
    let read = tables.read().map_err(corrupt)?;
    let revision = position.revision;
    let state = State { tables: Some(Arc::new(read)), position, ..State::default() };
    let core = Core::new(state, codec, config.volatile_prefixes.clone());
    core.state.write().known = core.known_after(lost, revision);
    core.tell_lacks();
    Ok(core)
}

fn start(shared: Shared, replayed: LogId) -> Result<Machine, OpenError> {
    let path = shared.dir.path().to_owned();
    let background = shared.config.background;
    let shared = Arc::new(shared);
    // The machine exists before its thread, so that a failure to start it ends everything.
    let machine = Machine { shared: Arc::clone(&shared), thread: Mutex::default(), replayed };
    if background == Background::Threads {
        let (jobs, todo) = channel();
        let thread = std::thread::Builder::new()
            .name("store-tables".into())
            .spawn(move || checkpointer::run(&shared, &todo))
            .map_err(|source| OpenError::io(&path, source))?;
        *machine.shared.jobs.lock() = Some(jobs);
        *machine.thread.lock() = Some(thread);
    }
    Ok(machine)
}
