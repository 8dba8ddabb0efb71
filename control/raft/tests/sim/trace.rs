//! What happened in a run: a fingerprint of all of it, and the last lines in words.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

const TAIL: usize = 400;

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: DefaultHasher,
    tail: VecDeque<String>,
    line: String,
    lines: u64,
    aloud: bool,
}

impl Trace {
    /// Prints each line where `aloud`.
    pub(crate) fn new(aloud: bool) -> Self {
        Self { hash: DefaultHasher::new(), tail: VecDeque::new(), line: String::new(), lines: 0, aloud }
    }

    pub(crate) fn add(&mut self, now: u64, what: std::fmt::Arguments<'_>) {
        self.line.clear();
        let _ = write!(self.line, "{now:>6} ms {what}");
        self.hash.write(self.line.as_bytes());
        self.lines += 1;
        if self.aloud {
            println!("{}", self.line);
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(self.line.clone());
    }

    /// Differs where anything differed.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.hash.finish()
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn tail(&self) -> String {
        self.tail.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}
