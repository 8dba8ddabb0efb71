//! openraft's own tests of log and state machine.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use sampan_store::{Background, DurableConfig, Level, Machine, Opened};

use super::Log;
use crate::directory::Directory;
use crate::machine::StateMachine;
use crate::types::TypeConfig;

struct Builder(Background);

/// Ends the log before the machine, and both before the directory.
struct Guard {
    log: Log,
    machine: Arc<Machine>,
    _dir: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log.close(false);
        self.machine.halt();
    }
}

impl StoreBuilder<TypeConfig, Log, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Log, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let mut config = DurableConfig::new(dir.path());
        config.segment_bytes = 64 << 10;
        config.background = self.0;
        let Opened { machine, wal, entries } = Machine::open(config).await.unwrap();
        let machine = Arc::new(machine);
        let log = Log::open(wal, entries, &machine).unwrap();
        let directory = Directory::new(1, 0, Level::NEWEST);
        let state_machine = StateMachine::new(1, Arc::clone(&machine), log.clone(), directory);
        Ok((Guard { log: log.clone(), machine, _dir: dir }, log, state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_own_tests_pass() {
    Suite::test_all(Builder(Background::Threads)).await.unwrap();
}

#[tokio::test]
async fn openrafts_own_tests_pass_without_threads() {
    Suite::test_all(Builder(Background::Inline)).await.unwrap();
}
