//! The wasmtime engines of a node and the one place where they are configured.
//!
//! Two engines share the same compile-time settings, so that code compiled once (by the
//! compiler's child process, see `artifact`) loads into either: commands live long and get
//! memory on demand, HTTP handlers come and go and draw from a pool. Nothing here loads or
//! runs a module.

use std::fmt;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How many handler instances may live at one time on the node, warm ones included.
pub const HANDLER_INSTANCES: u32 = 1_000;

/// Fuel between two yield points of a guest: rare enough to cost nothing, often enough
/// (a fraction of a millisecond) to share a thread and to hold a CPU limit.
pub const FUEL_YIELD_INTERVAL: u64 = 1_000_000;

/// Which engine a module runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineClass {
    /// Long-lived instances, memory on demand.
    Command,
    /// `wasi:http` instances: pooled, warm memory kept.
    Handler,
}

/// The configuration of an engine class. Whatever compiles code for this node compiles with
/// this: the settings that matter to compiled code are the same for both classes.
#[must_use]
pub fn config(class: EngineClass) -> Config {
    let mut config = Config::new();
    // Fuel gives the yield points at which a guest can be throttled, descheduled and ended.
    // Epochs would need a ticking thread, and both together cost a half more than either.
    config.consume_fuel(true);
    if class == EngineClass::Handler {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(HANDLER_INSTANCES)
        .total_core_instances(HANDLER_INSTANCES * 4)
        .total_memories(HANDLER_INSTANCES * 2)
        .total_tables(HANDLER_INSTANCES * 4)
        .total_stacks(HANDLER_INSTANCES * 4)
        .max_memories_per_module(4)
        .max_tables_per_module(8)
        // Interpreters compiled to WebAssembly have large tables and instance records.
        .table_elements(200_000)
        .max_core_instance_size(8 << 20)
        .max_component_instance_size(8 << 20)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        .decommit_batch_size(16)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Why the engines could not be made.
#[derive(Debug, thiserror::Error)]
#[error("wasmtime cannot run on this machine: {0}")]
pub struct EngineError(String);

/// The node's engines. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    command: Engine,
    handler: Engine,
    pooled: bool,
}

impl Engines {
    /// Makes both engines. Where the address space is too small for the pool (a limit on
    /// virtual memory), handlers get their memory on demand too; see [`Engines::pooled`].
    ///
    /// # Errors
    /// When wasmtime does not run on this machine at all.
    pub fn new() -> Result<Self, EngineError> {
        let command =
            Engine::new(&config(EngineClass::Command)).map_err(|e| EngineError(format!("{e:#}")))?;
        match Engine::new(&config(EngineClass::Handler)) {
            Ok(handler) => Ok(Self { command, handler, pooled: true }),
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "no pool of instances: handlers start slower");
                Ok(Self { handler: command.clone(), command, pooled: false })
            }
        }
    }

    /// The engine of a class.
    #[must_use]
    pub fn get(&self, class: EngineClass) -> &Engine {
        match class {
            EngineClass::Command => &self.command,
            EngineClass::Handler => &self.handler,
        }
    }

    /// Whether handlers have their pool.
    #[must_use]
    pub fn pooled(&self) -> bool {
        self.pooled
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").field("pooled", &self.pooled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    fn compatibility(engine: &Engine) -> u64 {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn code_compiled_for_one_class_loads_into_the_other() {
        let engines = Engines::new().unwrap();
        assert_eq!(
            compatibility(engines.get(EngineClass::Command)),
            compatibility(engines.get(EngineClass::Handler))
        );
    }
}
