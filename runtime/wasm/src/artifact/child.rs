//! The compiler's process: reads one module, writes its compiled code, ends. A module that
//! makes the compiler crash or eat memory does so here and not in the node.
//!
//! Arguments: the module's digest, the most memory to use, where the code goes. The module
//! comes by standard input. Exit code [`REFUSED`] says that the module is at fault; what is
//! wrong with it is then on standard error.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit};
use wasmtime::Engine;

use super::digest::Digest;
use crate::engine::{self, EngineClass};

/// The module does not compile.
pub(super) const REFUSED: u8 = 65;
/// Whoever started the process made a mistake, or the system failed.
const FAILED: u8 = 70;
/// Compiling waits for everything else on the machine.
const NICE: i32 = 15;

enum Failure {
    Refused(String),
    Failed(String),
}

/// The whole life of the compiler's process; `arguments` without the program's name.
#[must_use]
pub fn compile_child_main(arguments: Vec<OsString>) -> ExitCode {
    compile_child(&arguments).into()
}

/// The same, with the exit code as a number.
#[must_use]
pub fn compile_child(arguments: &[OsString]) -> u8 {
    let (code, why) = match run(arguments) {
        Ok(()) => return 0,
        Err(Failure::Refused(why)) => (REFUSED, why),
        Err(Failure::Failed(why)) => (FAILED, why),
    };
    // If nobody reads it, nobody wanted to know.
    let _ = writeln!(io::stderr(), "{why}");
    code
}

fn run(arguments: &[OsString]) -> Result<(), Failure> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |error: io::Error| Failure::Failed(format!("{doing}: {error}"))
    };
    let [digest, memory, output] = arguments else {
        return Err(Failure::Failed("wanted: digest, bytes of memory, output file".to_owned()));
    };
    let digest: Digest = parsed(digest)?;
    restrain(parsed(memory)?).map_err(failed("limiting the compiler"))?;
    let mut module = Vec::new();
    io::stdin().lock().read_to_end(&mut module).map_err(failed("reading the module"))?;
    // Also the sign that the node did not break off in the middle.
    if Digest::of(&module) != digest {
        return Err(Failure::Failed(format!("the module is not {digest}")));
    }
    let code = compile(&module).map_err(Failure::Refused)?;
    std::fs::write(Path::new(output), code).map_err(failed("writing the code"))
}

fn parsed<T: std::str::FromStr>(argument: &OsStr) -> Result<T, Failure> {
    let parsed = argument.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Failure::Failed(format!("{} makes no sense", argument.display())))
}

/// Less priority and bounded memory.
fn restrain(memory: u64) -> io::Result<()> {
    rustix::process::setpriority_process(None, NICE)?;
    let limit = Rlimit { current: Some(memory), maximum: Some(memory) };
    Ok(rustix::process::setrlimit(Resource::As, limit)?)
}

/// Compiles a module or a component for this node's engines.
///
/// # Errors
/// A text for the user: what is wrong with it.
pub(super) fn compile(module: &[u8]) -> Result<Vec<u8>, String> {
    // Code compiled for one class loads into the other; this one takes no pool.
    let engine = Engine::new(&engine::config(EngineClass::Command)).map_err(|error| format!("{error:#}"))?;
    let compiled = if wasmparser::Parser::is_component(module) {
        engine.precompile_component(module)
    } else {
        engine.precompile_module(module)
    };
    compiled.map_err(|error| format!("{error:#}"))
}
