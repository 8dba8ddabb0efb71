//! Whether WebAssembly runs on this machine, tried with the smallest module.

use std::time::{Duration, Instant};

use wasmtime::{Instance, Module, Store};

use crate::engine::{EngineClass, EngineError, Engines};

/// `(module (func (export "answer") (result i32) i32.const 42))`.
const ANSWER: &[u8] = b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x07\x0a\x01\x06answer\0\0\x0a\x06\x01\x04\0\x41\x2a\x0b";

/// Why WebAssembly does not run here.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The engine does not start.
    #[error("the engine does not start")]
    Engine(#[from] EngineError),
    /// The module does not compile or run.
    #[error("{0}")]
    Module(String),
}

/// Compiles and runs a module; says how long that took.
///
/// # Errors
/// When this machine cannot do it.
pub fn self_test() -> Result<Duration, SelfTestError> {
    let engines = Engines::new()?;
    let begin = Instant::now();
    let answer = run(&engines).map_err(|error| SelfTestError::Module(format!("{error:#}")))?;
    match answer {
        42 => Ok(begin.elapsed()),
        other => Err(SelfTestError::Module(format!("42 came out as {other}"))),
    }
}

fn run(engines: &Engines) -> wasmtime::Result<i32> {
    let engine = engines.get(EngineClass::Command);
    let module = Module::new(engine, ANSWER)?;
    let mut store = Store::new(engine, ());
    store.set_fuel(10_000)?;
    let instance = Instance::new(&mut store, &module, &[])?;
    instance.get_typed_func::<(), i32>(&mut store, "answer")?.call(&mut store, ())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_runs_webassembly() {
        super::self_test().unwrap();
    }
}
