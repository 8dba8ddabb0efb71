//! The CRI log format: `<RFC 3339 with nanoseconds> <stream> <P|F> <text>` a line.

use std::io::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;

/// The longest text of one log line; longer lines of the guest become several, all but the
/// last tagged `P` (partial).
const LONGEST: usize = 16 << 10;

/// Which of the guest's output streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts the guest's output into log lines; keeps the unfinished line of each stream.
#[derive(Debug, Default)]
pub(super) struct Formatter {
    stdout: Unfinished,
    stderr: Unfinished,
}

#[derive(Debug, Default)]
struct Unfinished {
    text: Vec<u8>,
    since: Option<SystemTime>,
}

impl Formatter {
    /// Adds a chunk of output, written at `time`; whole lines go to `out`.
    pub(super) fn chunk(&mut self, source: Source, time: SystemTime, bytes: &[u8], out: &mut Vec<u8>) {
        let unfinished = match source {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let since = *unfinished.since.get_or_insert(time);
            while unfinished.text.len() + text.len() > LONGEST {
                let (head, rest) = text.split_at(LONGEST - unfinished.text.len());
                line(since, source, 'P', &[&unfinished.text, head], out);
                unfinished.text.clear();
                text = rest;
            }
            if whole {
                line(since, source, 'F', &[&unfinished.text, text], out);
                unfinished.text.clear();
                unfinished.since = None;
            } else {
                unfinished.text.extend_from_slice(text);
            }
        }
    }

    /// The guest has ended: what is unfinished is a line too.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        for (source, unfinished) in [(Source::Stdout, &mut self.stdout), (Source::Stderr, &mut self.stderr)] {
            let Unfinished { text, since } = std::mem::take(unfinished);
            if let (Some(since), false) = (since, text.is_empty()) {
                line(since, source, 'F', &[&text], out);
            }
        }
    }
}

fn line(time: SystemTime, source: Source, tag: char, parts: &[&[u8]], out: &mut Vec<u8>) {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{time:.9} {} {tag} ", source.name());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, 5)
    }

    #[test]
    fn whole_lines_of_both_streams_are_tagged_full() {
        let (mut formatter, mut out) = (Formatter::default(), vec![]);
        formatter.chunk(Source::Stdout, at(0), b"one\ntwo\n", &mut out);
        formatter.chunk(Source::Stderr, at(1), b"\n", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000000005Z stdout F one\n\
             1970-01-01T00:00:00.000000005Z stdout F two\n\
             1970-01-01T00:00:01.000000005Z stderr F \n"
        );
    }

    #[test]
    fn a_line_written_in_pieces_is_one_line_and_streams_do_not_mix() {
        let (mut formatter, mut out) = (Formatter::default(), vec![]);
        formatter.chunk(Source::Stdout, at(0), b"he", &mut out);
        formatter.chunk(Source::Stderr, at(1), b"x\n", &mut out);
        formatter.chunk(Source::Stdout, at(2), b"llo\nrest", &mut out);
        formatter.finish(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:01.000000005Z stderr F x\n\
             1970-01-01T00:00:00.000000005Z stdout F hello\n\
             1970-01-01T00:00:02.000000005Z stdout F rest\n"
        );
    }

    #[test]
    fn a_long_line_is_cut_into_partial_ones_and_nothing_is_lost() {
        let text = "0123456789".repeat(5000);
        let (mut formatter, mut out) = (Formatter::default(), vec![]);
        for piece in format!("{text}\nnext\n").as_bytes().chunks(7777) {
            formatter.chunk(Source::Stdout, at(0), piece, &mut out);
        }
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().map(|l| l.splitn(4, ' ').collect::<Vec<_>>()).collect();
        let tags: String = lines.iter().map(|l| l[2]).collect();
        assert_eq!(tags, "PPPFF");
        assert!(lines.iter().all(|l| l[3].len() <= LONGEST));
        assert_eq!(lines[..4].iter().map(|l| l[3]).collect::<String>(), text);
    }
}
