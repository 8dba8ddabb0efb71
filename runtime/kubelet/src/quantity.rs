//! Kubernetes quantities as exact numbers: just what admission, limits and `resourceFieldRef`
//! need. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths: the finest unit that a quantity can name.
const NANO: i128 = 1_000_000_000;

/// An exact amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

impl Amount {
    /// Reads a quantity; `None` if it is none (the API server lets none through).
    pub fn parse(text: &str) -> Option<Self> {
        let end =
            text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
        let (number, suffix) = text.split_at_checked(end)?;
        let (base, power) = scale(suffix)?;
        let (negative, digits) = match number.as_bytes().first()? {
            b'-' => (true, number.get(1..)?),
            b'+' => (false, number.get(1..)?),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = [whole, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if !all_digits || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let fraction_digits = u32::try_from(fraction.len()).ok()?;
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let mut numerator = mantissa.checked_mul(NANO)?;
        let mut denominator = 10_i128.checked_pow(fraction_digits)?;
        if power >= 0 {
            numerator = numerator.checked_mul(base.checked_pow(power.unsigned_abs())?)?;
        } else {
            denominator = denominator.checked_mul(base.checked_pow(power.unsigned_abs())?)?;
        }
        let amount = div_ceil(numerator, denominator);
        Some(Self(if negative { -amount } else { amount }))
    }

    /// Reads an API quantity; one that cannot be read counts as nothing.
    pub fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// Whole units.
    pub const fn units(units: i64) -> Self {
        Self(units as i128 * NANO)
    }

    /// Thousandths.
    pub const fn millis(millis: i64) -> Self {
        Self(millis as i128 * (NANO / 1000))
    }

    /// In whole units, rounded up.
    pub fn ceil(self) -> i64 {
        i64::try_from(div_ceil(self.0, NANO)).unwrap_or(i64::MAX)
    }

    /// In thousandths, rounded up.
    pub fn ceil_millis(self) -> i64 {
        i64::try_from(div_ceil(self.0, NANO / 1000)).unwrap_or(i64::MAX)
    }

    /// How many times `divisor` goes into it, rounded up; a divisor of nothing counts as one.
    pub fn divided(self, divisor: Self) -> i64 {
        let divisor = if divisor.0 <= 0 { NANO } else { divisor.0 };
        i64::try_from(div_ceil(self.0, divisor)).unwrap_or(i64::MAX)
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

fn div_ceil(numerator: i128, denominator: i128) -> i128 {
    let quotient = numerator.div_euclid(denominator);
    if numerator.rem_euclid(denominator) == 0 { quotient } else { quotient + 1 }
}

/// A suffix as base and power.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        "Ei" => (1024, 6),
        other => (10, other.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        for (text, units, millis) in [
            ("1", 1, 1000),
            ("100m", 1, 100),
            ("1.5", 2, 1500),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("1k", 1000, 1_000_000),
            ("1e3", 1000, 1_000_000),
            ("1E2", 100, 100_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("0.5Gi", 536_870_912, 536_870_912_000),
            ("1u", 1, 1),
            ("-1", -1, -1000),
            ("0", 0, 0),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.ceil(), amount.ceil_millis()), (units, millis), "{text}");
        }
        for wrong in ["", "abc", "1Xi", ".", "1e", "--1"] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_divisor_counts_how_often_it_fits_rounded_up() {
        let half_core = Amount::parse("500m").unwrap();
        assert_eq!(half_core.divided(Amount::parse("1").unwrap()), 1);
        assert_eq!(half_core.divided(Amount::parse("1m").unwrap()), 500);
        assert_eq!(half_core.divided(Amount::default()), 1);
        assert_eq!(Amount::parse("100Mi").unwrap().divided(Amount::parse("1Mi").unwrap()), 100);
    }
}
