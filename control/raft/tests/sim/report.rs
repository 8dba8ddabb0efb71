//! What a run, or many together, gave.

use std::fmt::Write;

use crate::counts::WORDS;
use crate::oracle::Summary;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) fingerprint: u64,
    pub(crate) lines: u64,
    /// In milliseconds.
    pub(crate) simulated: u64,
    pub(crate) summary: Summary,
    /// In the order of [`WORDS`].
    pub(crate) counts: Vec<u64>,
}

impl Report {
    /// The report as one line, for the process that counts.
    pub(crate) fn to_line(&self) -> String {
        let mut numbers = vec![self.fingerprint, self.lines, self.simulated];
        numbers.extend(self.summary.numbers());
        numbers.extend(&self.counts);
        let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
        words.join(" ")
    }

    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let numbers: Vec<u64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
        let ([fingerprint, lines, simulated], rest) = numbers.split_first_chunk()?;
        let (summary, counts) = rest.split_first_chunk()?;
        (counts.len() == WORDS.len()).then(|| Self {
            fingerprint: *fingerprint,
            lines: *lines,
            simulated: *simulated,
            summary: Summary::of(*summary),
            counts: counts.to_vec(),
        })
    }

    /// Counts another run in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.simulated += other.simulated;
        self.summary.add(&other.summary);
        self.counts.resize(WORDS.len(), 0);
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let never = |(count, _): &(&u64, &&str)| **count == 0;
        self.counts.iter().zip(&WORDS).filter(never).map(|(_, words)| *words).collect()
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        let Summary { revisions, acknowledged, unknown, histories, undecided, listings, views } =
            self.summary;
        let mut text = format!(
            "{} s simulated, {acknowledged} operations acknowledged, {unknown} unknown, {revisions} revisions, \
             {listings} lists and {views} watchers' views checked, {histories} histories of which {undecided} undecided\n",
            self.simulated / 1000
        );
        for (count, words) in self.counts.iter().zip(WORDS) {
            let _ = writeln!(text, "{count:>9} {words}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_from_their_lines_and_add_up() {
        let summary = Summary::of([1, 2, 3, 4, 5, 6, 7]);
        let counts: Vec<u64> = (0..WORDS.len() as u64).collect();
        let report = Report { fingerprint: 9, lines: 8, simulated: 7, summary, counts };
        assert_eq!(Report::from_line(&report.to_line()).as_ref(), Some(&report));
        assert_eq!(Report::from_line("1 2 3"), None);
        let mut sum = Report::default();
        sum.add(&report);
        sum.add(&report);
        assert_eq!((sum.summary.revisions, sum.counts[3]), (2, 6));
        assert_eq!(sum.missing(), [WORDS[0]]);
    }
}
