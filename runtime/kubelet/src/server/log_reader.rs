//! Reading a log file: where to begin, and what of each line to hand out.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::cri_log;
use super::log_options::LogOptions;

/// Read this much at a time.
const BLOCK: usize = 64 << 10;

/// Where the last `lines` lines of a file begin. A line that the runtime broke into parts
/// counts as those parts, as in Kubernetes.
pub fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut found = 0;
    let mut buffer = vec![0; BLOCK];
    while position > 0 {
        let size = u64::try_from(BLOCK).unwrap_or(u64::MAX).min(position);
        position -= size;
        file.seek(SeekFrom::Start(position))?;
        let block = buffer.get_mut(..usize::try_from(size).unwrap_or(BLOCK)).unwrap_or_default();
        file.read_exact(block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let at = position + u64::try_from(index).unwrap_or(0) + 1;
            // The line feed at the very end ends the last line, it begins none.
            if *byte == b'\n' && at < end {
                found += 1;
                if found == lines {
                    return Ok(at);
                }
            }
        }
    }
    Ok(0)
}

/// Turns bytes of a log file into what the reader asked for.
#[derive(Debug)]
pub struct Filter {
    options: LogOptions,
    /// The beginning of a line whose end is not there yet.
    pending: Vec<u8>,
    left: Option<u64>,
    /// Whether the last line handed out goes on.
    continued: bool,
}

impl Filter {
    /// A filter for one reader.
    pub fn new(options: LogOptions) -> Self {
        Self { left: options.limit, options, pending: Vec::new(), continued: false }
    }

    /// Whether the reader has all it may get.
    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes more of the file; what to hand out is added to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if self.pending.is_empty() {
                self.line(line.strip_suffix(b"\n").unwrap_or(line), out);
            } else {
                let mut whole = std::mem::take(&mut self.pending);
                whole.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                self.line(&whole, out);
            }
        }
        self.pending.extend_from_slice(rest);
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = cri_log::parse(line) else { return };
        if self.options.stream.is_some_and(|stream| stream != line.stream) {
            return;
        }
        if let Some(since) = self.options.since
            && line.timestamp().is_some_and(|time| time < since)
        {
            return;
        }
        if self.options.timestamps && !self.continued {
            self.hand_out(line.time.as_bytes(), out);
            self.hand_out(b" ", out);
        }
        self.hand_out(line.text, out);
        if !line.partial {
            self.hand_out(b"\n", out);
        }
        self.continued = line.partial;
    }

    fn hand_out(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(left) = &mut self.left else {
            out.extend_from_slice(bytes);
            return;
        };
        let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        out.extend_from_slice(bytes.get(..count).unwrap_or_default());
        *left -= u64::try_from(count).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cri_log::Stream;
    use std::io::Write;

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n\
                       2026-01-01T00:00:02.000000000Z stderr F two\n\
                       2026-01-01T00:00:03.000000000Z stdout P th\n\
                       2026-01-01T00:00:03.000000000Z stdout F ree\n\
                       torn\n\
                       2026-01-01T00:00:04.000000000Z stdout F four\n";

    fn read(options: LogOptions) -> String {
        let mut whole = None;
        // However the bytes come, the same goes out.
        for step in [1, 7, 4096] {
            let mut filter = Filter::new(options.clone());
            let mut out = Vec::new();
            for chunk in LOG.as_bytes().chunks(step) {
                filter.push(chunk, &mut out);
            }
            let text = String::from_utf8(out).unwrap();
            assert_eq!(*whole.get_or_insert_with(|| text.clone()), text, "step {step}");
        }
        whole.unwrap()
    }

    #[test]
    fn prefixes_are_left_off_and_broken_lines_joined() {
        assert_eq!(read(LogOptions::default()), "one\ntwo\nthree\nfour\n");
    }

    #[test]
    fn each_option_has_its_effect() {
        let options = LogOptions::default;
        let two_onwards = "2026-01-01T00:00:02Z".parse().ok();
        for (options, want) in [
            (LogOptions { stream: Some(Stream::Stderr), ..options() }, "two\n"),
            (LogOptions { since: two_onwards, ..options() }, "two\nthree\nfour\n"),
            (LogOptions { limit: Some(6), ..options() }, "one\ntw"),
            (
                LogOptions { timestamps: true, stream: Some(Stream::Stderr), ..options() },
                "2026-01-01T00:00:02.000000000Z two\n",
            ),
        ] {
            assert_eq!(read(options.clone()), want, "{options:?}");
        }
        let stamped = read(LogOptions { timestamps: true, ..options() });
        assert_eq!(stamped.matches("2026-").count(), 4, "one time a line: {stamped}");
    }

    #[test]
    fn the_last_lines_are_found_whatever_the_size() {
        let mut file = tempfile::tempfile().unwrap();
        let lines: Vec<String> =
            (0..5000).map(|n| format!("line number {n} {}\n", "x".repeat(n % 97))).collect();
        file.write_all(lines.concat().as_bytes()).unwrap();
        for count in [0_usize, 1, 2, 999, 5000, 6000] {
            let offset = tail_offset(&mut file, count as u64).unwrap();
            let want: usize = lines[..lines.len().saturating_sub(count)].concat().len();
            assert_eq!(offset, want as u64, "{count} lines");
        }
    }
}
