//! Lines of container logs as runtimes write them: `TIME stream P|F text`. Pure but for
//! [`last_lines`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The time as written.
    pub time: &'a str,
    /// The stream.
    pub stream: Stream,
    /// Whether the line of the program goes on in the next line of the log.
    pub partial: bool,
    /// The text.
    pub text: &'a [u8],
}

impl Line<'_> {
    /// The time.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Reads one line, its line feed left off. `None`: it is none (a torn write).
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; the first says whether the line is whole.
    let tag = parts.next()?.split(|byte| *byte == b':').next()?;
    let partial = match tag {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// The last lines of a log, without times, no more than `lines` lines and `bytes` bytes.
pub fn last_lines(path: &Path, lines: usize, bytes: usize) -> String {
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    // Each line carries a prefix of some fifty bytes.
    let window = u64::try_from(bytes + lines * 64).unwrap_or(u64::MAX);
    let from = length.saturating_sub(window);
    let mut tail = Vec::new();
    if file.seek(SeekFrom::Start(from)).is_err() || file.read_to_end(&mut tail).is_err() {
        return String::new();
    }
    let mut pieces = tail.split_inclusive(|byte| *byte == b'\n');
    if from > 0 {
        pieces.next();
    }
    let mut text = Vec::new();
    let mut starts = vec![0];
    for piece in pieces {
        let Some(line) = parse(piece.strip_suffix(b"\n").unwrap_or(piece)) else { continue };
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
            starts.push(text.len());
        }
    }
    let whole = starts.len().saturating_sub(1);
    let first = starts.get(whole.saturating_sub(lines)).copied().unwrap_or(0);
    let first = first.max(text.len().saturating_sub(bytes));
    String::from_utf8_lossy(text.get(first..).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        for (line, want) in [
            ("2026-01-01T00:00:00.5Z stdout F hello world", Some((Stream::Stdout, false, "hello world"))),
            ("2026-01-01T00:00:00.5Z stderr P he", Some((Stream::Stderr, true, "he"))),
            ("2026-01-01T00:00:00.5Z stdout F:x  two", Some((Stream::Stdout, false, " two"))),
            ("2026-01-01T00:00:00.5Z stdout F ", Some((Stream::Stdout, false, ""))),
            ("2026-01-01T00:00:00.5Z stdout F", Some((Stream::Stdout, false, ""))),
            ("2026-01-01T00:00:00.5Z stdin F x", None),
            ("2026-01-01T00:00:00.5Z stdout X x", None),
            ("2026-01-01T00", None),
            ("", None),
        ] {
            let got =
                parse(line.as_bytes()).map(|l| (l.stream, l.partial, std::str::from_utf8(l.text).unwrap()));
            assert_eq!(got, want, "{line}");
        }
    }

    #[test]
    fn the_end_of_a_log_is_read_without_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines: String =
            (0..500).map(|n| format!("2026-01-01T00:00:00.000000000Z stdout F line {n}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        assert_eq!(last_lines(&path, 2, 1000), "line 498\nline 499\n");
        assert_eq!(last_lines(&path, 80, 12), " 498\nline 499\n".get(2..).unwrap());
        assert_eq!(last_lines(&dir.path().join("none"), 2, 10), "");
    }
}
