//! How a guest's end becomes an exit code, a reason and a message.

use std::time::SystemTime;

use sampan_cri::ContainerExit;
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

use crate::memory::OutOfMemory;

/// The code of a container killed or out of memory.
pub(crate) const KILLED: i32 = 137;
/// The code of a container that ended at the stop request.
pub(crate) const TERMINATED: i32 = 143;

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with a code.
    Code(i32),
    /// It crossed its memory limit.
    OutOfMemory(String),
    /// It trapped: the code, and the trap's text.
    Trap(i32, String),
    /// It was asked to end and did, or had no way to notice.
    Stopped,
    /// It was ended by force.
    Killed,
    /// It never came to run.
    CannotRun(String),
}

/// Reads the result of a guest's call.
#[must_use]
pub(crate) fn classify(result: Result<(), wasmtime::Error>) -> Ended {
    let Err(error) = result else { return Ended::Code(0) };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ended::Code(exit.0);
    }
    if let Some(oom) = error.downcast_ref::<OutOfMemory>() {
        return Ended::OutOfMemory(oom.to_string());
    }
    let code = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => 139,
        _ => 134,
    };
    Ended::Trap(code, format!("{error:?}"))
}

impl Ended {
    /// What goes to the container's log, if anything: the trap's full text.
    #[must_use]
    pub(crate) fn log_line(&self) -> Option<&str> {
        match self {
            Self::Trap(_, text) | Self::OutOfMemory(text) | Self::CannotRun(text) => Some(text),
            _ => None,
        }
    }

    /// The record of it.
    #[must_use]
    pub(crate) fn record(&self, started_at: Option<SystemTime>, finished_at: SystemTime) -> ContainerExit {
        let (code, reason, message) = match self {
            Self::Code(0) => (0, "Completed", String::new()),
            Self::Code(code) => (*code, "Error", String::new()),
            Self::OutOfMemory(text) => (KILLED, "OOMKilled", text.clone()),
            Self::Trap(code, text) => (*code, "Error", shorten(text)),
            Self::Stopped => (TERMINATED, "Error", String::new()),
            Self::Killed => (KILLED, "Error", String::new()),
            Self::CannotRun(text) => (128, "ContainerCannotRun", shorten(text)),
        };
        ContainerExit { code, reason: reason.to_owned(), message, started_at, finished_at }
    }
}

/// Backtraces are for the log; a status keeps the first kilobyte.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(1024) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_code_and_reason() {
        let cases: [(Result<(), wasmtime::Error>, i32, &str); 7] = [
            (Ok(()), 0, "Completed"),
            (Err(I32Exit(0).into()), 0, "Completed"),
            (Err(I32Exit(3).into()), 3, "Error"),
            (Err(OutOfMemory { limit: 1, wanted: 2 }.into()), 137, "OOMKilled"),
            (Err(Trap::StackOverflow.into()), 139, "Error"),
            (Err(Trap::UnreachableCodeReached.into()), 134, "Error"),
            (Err(wasmtime::Error::msg("host")), 134, "Error"),
        ];
        for (result, code, reason) in cases {
            let exit = classify(result).record(None, SystemTime::UNIX_EPOCH);
            assert_eq!((exit.code, exit.reason.as_str()), (code, reason));
        }
        let stopped = Ended::Stopped.record(None, SystemTime::UNIX_EPOCH);
        assert_eq!((stopped.code, stopped.reason.as_str()), (143, "Error"));
        let killed = Ended::Killed.record(None, SystemTime::UNIX_EPOCH);
        assert_eq!((killed.code, killed.reason.as_str()), (137, "Error"));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let text = "ä".repeat(2000);
        assert_eq!(shorten(&text).chars().count(), 1025);
        assert_eq!(shorten("short"), "short");
    }
}
