//! Amounts with suffixes: `100m`, `1.5Gi`, `12e6`; exact, and written in Kubernetes' canonical form.
//!
//! Used for resource requests and limits, capacities and sizes, by defaulting, validation, the
//! scheduler and the runtime. Arithmetic is on whole nano-units in 128 bits; nothing is a float.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;

/// The greatest amount that a binary suffix can express, as Kubernetes caps it.
const BINARY_MAX: i128 = (i64::MAX as i128) * NANO;

/// The greatest amount held at all (10^29): greater ones are cut to it.
const MAX: i128 = 100_000_000_000_000_000_000_000_000_000 * NANO;

/// Digits after the point that count exactly before a binary suffix; further ones round up.
const BINARY_FRACTION: usize = 18;

/// Why text is no quantity, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not look like one.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// There are no digits.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is none that is known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Which suffixes an amount is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    #[default]
    DecimalSi,
}

/// An amount. Two are equal if they are the same amount, however they were written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number, written with decimal suffixes: CPUs, counts.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, written with decimal suffixes: `250m` of a CPU.
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// Reads text such as `100m`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let scanned = Scanned::of(text)?;
        let suffix = Suffix::of(scanned.suffix).ok_or(QuantityError::Suffix)?;
        if scanned.whole.is_empty() && scanned.fraction.is_empty() {
            return Err(QuantityError::Numeric);
        }
        let (nanos, format) = match suffix {
            Suffix::Decimal(exponent) => (scanned.decimal(i64::from(exponent)), Format::DecimalSi),
            Suffix::Exponent(exponent) => (scanned.decimal(exponent), Format::DecimalExponent),
            Suffix::Binary(power) => {
                let nanos = scanned.binary(power);
                // Less than one is no number of bytes: it is kept exactly, with a decimal suffix.
                let format = if (1..NANO).contains(&nanos) { Format::DecimalSi } else { Format::BinarySi };
                (nanos, format)
            }
        };
        Ok(Self { nanos: if scanned.negative { -nanos } else { nanos }, format })
    }

    /// Reads a JSON string or number; blanks around the text are let pass, as Kubernetes does.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    /// How it is written.
    pub fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The whole number, rounded away from zero; at most what 64 bits hold.
    pub fn value(self) -> i64 {
        narrow(divide_away(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero; at most what 64 bits hold.
    pub fn milli_value(self) -> i64 {
        narrow(divide_away(self.nanos, NANO / 1000))
    }

    /// Rounded away from zero to whole thousandths, as every amount in a resource list is.
    #[must_use]
    pub fn round_up_milli(self) -> Self {
        let milli = NANO / 1000;
        Self { nanos: divide_away(self.nanos, milli) * milli, ..self }
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, written as the first (or as the second, if the first is zero).
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos).clamp(-MAX, MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, written as the first (or as the second, if the first is zero).
    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, ..other }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, |sum, next| sum + next)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the greatest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let (number, steps) = strip(self.nanos / NANO, 1024, 6);
            let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(steps).unwrap_or(&"");
            return write!(f, "{number}{suffix}");
        }
        if self.format == Format::DecimalExponent {
            let (number, steps) = strip(self.nanos, 1000, usize::MAX);
            return match steps {
                3 => write!(f, "{number}"),
                0..3 => write!(f, "{number}e-{}", 9 - 3 * steps),
                _ => write!(f, "{number}e{}", 3 * steps - 9),
            };
        }
        let (number, steps) = strip(self.nanos, 1000, 9);
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].get(steps).unwrap_or(&"");
        write!(f, "{number}{suffix}")
    }
}

/// Divides as often as it goes without a remainder, but not more than `most` times.
fn strip(mut number: i128, by: i128, most: usize) -> (i128, usize) {
    let mut times = 0;
    while times < most && number % by == 0 {
        number /= by;
        times += 1;
    }
    (number, times)
}

fn divide_away(number: i128, by: i128) -> i128 {
    let whole = number / by;
    if number % by == 0 { whole } else { whole + number.signum() }
}

fn narrow(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

enum Suffix {
    Decimal(i8),
    Exponent(i64),
    Binary(u32),
}

impl Suffix {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => Self::Exponent(text.strip_prefix(['e', 'E'])?.parse().ok()?),
        })
    }
}

/// The parts of a quantity's text.
struct Scanned<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Scanned<'a> {
    fn of(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split_digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", rest),
        };
        let after = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let after = after.strip_prefix(['-', '+']).unwrap_or(after);
        if !split_digits(after).1.is_empty() {
            return Err(QuantityError::Format);
        }
        Ok(Self { negative, whole, fraction, suffix })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes()).map(|b| b - b'0')
    }

    /// The amount in nano-units if the suffix stands for a power of ten; what is smaller rounds up.
    fn decimal(&self, exponent: i64) -> i128 {
        let length = self.whole.len() + self.fraction.len();
        let fraction = i64::try_from(self.fraction.len()).unwrap_or(i64::MAX);
        let shift = exponent.clamp(-1_000_000, 1_000_000).saturating_add(9).saturating_sub(fraction);
        let dropped = usize::try_from(-shift).unwrap_or(0);
        let kept = length.saturating_sub(dropped);
        let mut nanos: i128 = 0;
        for digit in self.digits().take(kept) {
            nanos = nanos.saturating_mul(10).saturating_add(i128::from(digit)).min(MAX);
        }
        if self.digits().skip(kept).any(|digit| digit != 0) {
            nanos += 1;
        }
        for _ in 0..shift.max(0) {
            if nanos == 0 || nanos == MAX {
                break;
            }
            nanos = nanos.saturating_mul(10).min(MAX);
        }
        nanos.min(MAX)
    }

    /// The amount in nano-units if the suffix stands for a power of two; what is smaller rounds up.
    fn binary(&self, power: u32) -> i128 {
        let factor = 1_i128 << power;
        let whole = self.whole.bytes().fold(0_i128, |n, b| (n * 10 + i128::from(b - b'0')).min(BINARY_MAX));
        let most = i128::from(i64::MAX);
        if whole > most / factor {
            return BINARY_MAX;
        }
        let mut digits = self.fraction.bytes().map(|b| i128::from(b - b'0'));
        let mut fraction: i128 = 0;
        for _ in 0..BINARY_FRACTION {
            fraction = fraction * 10 + digits.next().unwrap_or(0);
        }
        // The fraction is in units of 10^-18; nano-units are 10^9 of those.
        let small = fraction * factor + i128::from(digits.any(|d| d != 0));
        (whole * factor * NANO + divide_away(small, NANO)).min(BINARY_MAX)
    }
}

/// Leading digits and the rest.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_written_canonically() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("0Gi", "0"),
            ("0.0m", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("001", "1"),
            ("-1", "-1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.1m", "100u"),
            ("1u", "1u"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("100000", "100k"),
            ("1k", "1k"),
            ("0.001k", "1"),
            ("1200", "1200"),
            ("12M", "12M"),
            ("1000M", "1G"),
            ("1E", "1E"),
            ("1000E", "1000E"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1025Ki", "1025Ki"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("0.5Ki", "512"),
            ("0.00001Mi", "10485760u"),
            ("1.1Ki", "1126400m"),
            ("2048Ki", "2Mi"),
            ("-1.5Gi", "-1536Mi"),
            ("8Ei", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e2", "1200"),
            ("1e-3", "1e-3"),
            ("15e-1", "1500e-3"),
            ("1e+6", "1e6"),
            ("1.5e6", "1500e3"),
            ("1e0", "1"),
            ("1e-30", "1e-9"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_kubernetes_words() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("a", QuantityError::Format),
            ("1.1.M", QuantityError::Format),
            ("1+1.0M", QuantityError::Format),
            (" 1", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("0.1am", QuantityError::Format),
            ("1ä", QuantityError::Format),
            ("1i", QuantityError::Suffix),
            (".5i", QuantityError::Suffix),
            ("0.1mi", QuantityError::Suffix),
            ("-3.01e-", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1kk", QuantityError::Suffix),
            ("+", QuantityError::Numeric),
            (".", QuantityError::Numeric),
            ("Mi", QuantityError::Numeric),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            QuantityError::Format.to_string(),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
    }

    #[test]
    fn json_numbers_and_padded_strings_are_read() {
        for (value, canonical) in
            [(json!(1), "1"), (json!(0.5), "500m"), (json!(" 1Gi "), "1Gi"), (json!(1e30), "100e27")]
        {
            assert_eq!(Quantity::from_json(&value).unwrap().to_string(), canonical, "{value}");
        }
        assert!(Quantity::from_json(&json!(true)).is_err());
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, value, milli) in [
            ("0", 0, 0),
            ("1m", 1, 1),
            ("1u", 1, 1),
            ("1001m", 2, 1001),
            ("-1m", -1, -1),
            ("-1001m", -2, -1001),
            ("1Gi", 1 << 30, (1 << 30) * 1000),
            ("100E", i64::MAX, i64::MAX),
            ("-100E", i64::MIN, i64::MIN),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
        }
        assert_eq!(Quantity::parse("1n").unwrap().round_up_milli().to_string(), "1m");
    }

    #[test]
    fn sums_keep_the_first_format_that_is_not_zero() {
        let q = |text| Quantity::parse(text).unwrap();
        assert_eq!((q("1Gi") + q("1024Ki")).to_string(), "1025Mi");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("100m")).to_string(), "900m");
        assert_eq!((q("1Gi") - q("2Gi")).to_string(), "-1Gi");
        assert_eq!([q("100m"), q("0.9")].into_iter().sum::<Quantity>(), q("1"));
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1") && q("-1") < q("0"));
        assert_eq!(Quantity::from_milli(250).to_string(), "250m");
        assert_eq!(Quantity::from_bytes(1 << 20).to_string(), "1Mi");
        assert_eq!(Quantity::from_units(3000).to_string(), "3k");
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_as_the_same_amount_and_text(
            text in r"[+-]?[0-9]{1,25}(\.[0-9]{0,25})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]|E[+-]?[0-9]{2})"
        ) {
            let quantity = Quantity::parse(&text).unwrap();
            let canonical = quantity.to_string();
            let again = Quantity::parse(&canonical).unwrap();
            prop_assert_eq!(again, quantity);
            prop_assert_eq!(again.to_string(), canonical);
        }

        #[test]
        fn sums_agree_with_whole_numbers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let sum = Quantity::from_milli(a) + Quantity::from_milli(b);
            prop_assert_eq!(sum.milli_value(), a + b);
            let difference = Quantity::from_milli(a) - Quantity::from_milli(b);
            prop_assert_eq!(difference.milli_value(), a - b);
            prop_assert_eq!(Quantity::from_milli(a).cmp(&Quantity::from_milli(b)), a.cmp(&b));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in r"\PC{0,12}|[0-9.eEinumkKMGTP+-]{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
