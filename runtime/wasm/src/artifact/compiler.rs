//! Starting the compiler: for a node in a process of its own, bounded in memory and time; in
//! this process where that does not matter.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::child;
use super::{ArtifactError, Digest, ModuleBytes};

/// The longest that one module may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The longest message that is taken from the compiler.
const MESSAGE: u64 = 16 << 10;
/// The longest summary of it.
const SUMMARY: usize = 400;
/// The bounds of the memory that the compiler may use.
const MEMORY: (u64, u64) = (1 << 30, 4 << 30);

/// The most threads of one compiler.
const THREADS: usize = 8;

/// How modules are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process, on a thread for things that block: for tests and tools. A node leaves
    /// crashes and the hunger for memory to a process of its own.
    InProcess,
    /// In a process of its own.
    Process(CompilerProcess),
}

/// The program that is started for each module.
#[derive(Clone, Debug)]
pub struct CompilerProcess {
    /// The program. It ends up in [`crate::compile_child_main`].
    pub program: PathBuf,
    /// Arguments before those of `compile_child_main`.
    pub arguments: Vec<OsString>,
    /// Its environment, of which it gets nothing else.
    pub environment: Vec<(OsString, OsString)>,
    /// The most memory (address space) that it may take.
    pub memory: u64,
}

impl Compiler {
    /// This very program, called with the argument `compile`, within half of the machine's
    /// memory.
    #[must_use]
    pub fn this_program() -> Self {
        let info = rustix::system::sysinfo();
        let total = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit).max(1));
        Self::Process(CompilerProcess {
            // Also after the file on disk was replaced by a newer version.
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["compile".into()],
            environment: Vec::new(),
            memory: (total / 2).clamp(MEMORY.0, MEMORY.1),
        })
    }

    /// Compiles a module into a file.
    ///
    /// # Errors
    /// When the module does not compile or the compiler fails.
    pub(super) async fn compile(
        &self,
        digest: &Digest,
        module: &ModuleBytes,
        output: &Path,
    ) -> Result<(), ArtifactError> {
        match self {
            Self::InProcess => in_process(*digest, module.clone(), output.to_owned()).await,
            Self::Process(process) => {
                let run = process.run(digest, module, output);
                match tokio::time::timeout(PATIENCE, run).await {
                    Ok(done) => done,
                    Err(_) => Err(ArtifactError::Compiler(format!("no end after {} s", PATIENCE.as_secs()))),
                }
            }
        }
    }
}

async fn in_process(digest: Digest, module: ModuleBytes, output: PathBuf) -> Result<(), ArtifactError> {
    let work = move || {
        let module = module.read().map_err(|error| ArtifactError::Damaged(error.to_string()))?;
        if Digest::of(&module) != digest {
            return Err(ArtifactError::Damaged(format!("the module is not {digest}")));
        }
        let code = child::compile(&module).map_err(ArtifactError::Refused)?;
        std::fs::write(&output, code).map_err(ArtifactError::cache("writing compiled code"))
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ArtifactError::Compiler(error.to_string())))
}

impl CompilerProcess {
    async fn run(&self, digest: &Digest, module: &ModuleBytes, output: &Path) -> Result<(), ArtifactError> {
        let (input, bytes) = match module {
            ModuleBytes::Embedded(bytes) => (Stdio::piped(), *bytes),
            ModuleBytes::File(path) => {
                let (path, digest) = (path.clone(), *digest);
                let opened = tokio::task::spawn_blocking(move || open_verified(&path, &digest)).await;
                let opened = opened.map_err(|error| ArtifactError::Damaged(error.to_string())).flatten()?;
                (Stdio::from(opened), &[][..])
            }
        };
        let mut child = self.spawn(digest, input, output).map_err(|error| {
            ArtifactError::Compiler(format!("starting {}: {error}", self.program.display()))
        })?;
        let (status, message) =
            attend(&mut child, bytes).await.map_err(|error| ArtifactError::Compiler(error.to_string()))?;
        verdict(status, &message, self.memory)
    }

    fn spawn(&self, digest: &Digest, input: Stdio, output: &Path) -> io::Result<Child> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Command::new(&self.program)
            .args(&self.arguments)
            .arg(digest.to_string())
            .arg(self.memory.to_string())
            .arg(output)
            .env_clear()
            // Each thread reserves address space, which is what the limit counts.
            .env("RAYON_NUM_THREADS", threads.min(THREADS).to_string())
            .env("MALLOC_ARENA_MAX", "2")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Opens a module's file; one that has rotted is not worth starting a compiler.
fn open_verified(path: &Path, digest: &Digest) -> Result<std::fs::File, ArtifactError> {
    use std::io::Seek as _;
    let damaged = |error: io::Error| ArtifactError::Damaged(format!("{}: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(damaged)?;
    let (found, _) = Digest::of_reader(&mut file).map_err(damaged)?;
    if found != *digest {
        return Err(ArtifactError::Damaged(format!("{} is not what it was stored as", path.display())));
    }
    file.rewind().map_err(damaged)?;
    Ok(file)
}

/// Feeds the compiler, listens to it and waits for its end.
async fn attend(child: &mut Child, bytes: &[u8]) -> io::Result<(ExitStatus, String)> {
    let (input, errors) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut input) = input {
            // If it does not listen to the end, its exit status says why.
            let _ = input.write_all(bytes).await;
        }
    };
    let listen = async {
        let mut message = Vec::new();
        if let Some(mut errors) = errors {
            let mut first = (&mut errors).take(MESSAGE);
            first.read_to_end(&mut message).await?;
            // The rest is read too, so that it is not stuck with writing it.
            tokio::io::copy(&mut errors, &mut tokio::io::sink()).await?;
        }
        io::Result::Ok(String::from_utf8_lossy(&message).trim().to_owned())
    };
    let ((), message, status) = tokio::join!(feed, listen, child.wait());
    Ok((status?, message?))
}

/// What the compiler's end means.
fn verdict(status: ExitStatus, message: &str, memory: u64) -> Result<(), ArtifactError> {
    let said = |text: String| match summary(message) {
        said if said.is_empty() => text,
        said => format!("{text}: {said}"),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(child::REFUSED) => {
            Err(ArtifactError::Refused(message.to_owned()))
        }
        (Some(code), _) => Err(ArtifactError::Compiler(said(format!("exit code {code}")))),
        (None, Some(signal)) => Err(ArtifactError::Compiler(said(format!(
            "ended by signal {signal}; it may use {} MiB of memory",
            memory >> 20
        )))),
        (None, None) => Err(ArtifactError::Compiler(said(status.to_string()))),
    }
}

/// What a crash has to say, on one line and without hints for whoever debugs it.
fn summary(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note: "));
    let summary = lines.collect::<Vec<_>>().join("; ");
    summary.chars().take(SUMMARY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_end_tells_who_is_at_fault() {
        let exit = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(verdict(exit(0), "chatter", 0), Ok(()));
        assert_eq!(verdict(exit(65), "bad\nmodule", 0), Err(ArtifactError::Refused("bad\nmodule".into())));
        assert_eq!(
            verdict(exit(101), "\nthread panicked at x:\nno memory\nnote: run with a backtrace", 0),
            Err(ArtifactError::Compiler("exit code 101: thread panicked at x:; no memory".into()))
        );
        assert_eq!(
            verdict(ExitStatus::from_raw(6), "", 512 << 20),
            Err(ArtifactError::Compiler("ended by signal 6; it may use 512 MiB of memory".into()))
        );
    }
}
