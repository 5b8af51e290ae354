//! Byte sizes, as Kubernetes writes quantities: `1048576`, `"512Mi"`, `"1.5Gi"`, `"129e6"`.
//!
//! The arithmetic is exact. A fraction of a byte rounds up, as Kubernetes does it. The suffixes `n`, `u` and `m` are
//! refused: a milli-byte is always a mistake for a mebibyte.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, at most [`ByteSize::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a text is not a byte size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing there.
    #[error("the size is empty")]
    Empty,
    /// No digits, two points, an unknown suffix.
    #[error("not a size")]
    Malformed,
    /// Below zero.
    #[error("a size is not negative")]
    Negative,
    /// `n`, `u`, `m`.
    #[error("the suffix {0} means fractions of a byte")]
    Fraction(char),
    /// Above [`ByteSize::MAX`].
    #[error("the size is too large")]
    TooLarge,
    /// More digits after the point than can be computed exactly.
    #[error("the size has more than 19 digits after the point")]
    TooPrecise,
}

impl QuantityError {
    /// What would be right: ends a sentence that begins with "allowed: ".
    #[must_use]
    pub const fn allowed(self) -> &'static str {
        match self {
            Self::TooLarge => "at most 9223372036854775807 bytes",
            Self::Empty | Self::Malformed | Self::Negative | Self::Fraction(_) | Self::TooPrecise => {
                "bytes, or a quantity like \"512Mi\", \"1.5Gi\" or \"129e6\" (k M G T P E, Ki Mi Gi Ti Pi Ei)"
            }
        }
    }
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i64); 6] = [("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl ByteSize {
    /// The largest size: what a signed 64-bit integer holds, the limit of TOML and of Kubernetes.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a Kubernetes quantity.
    ///
    /// # Errors
    /// See [`QuantityError`].
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Malformed);
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let bytes = match suffix {
            "n" | "u" | "m" => return Err(QuantityError::Fraction(char::from(suffix.as_bytes()[0]))),
            _ => match BINARY.iter().find(|(name, _)| *name == suffix) {
                Some((_, shift)) => binary(whole, fraction, *shift)?,
                None => decimal(whole, fraction, exponent(suffix)?)?,
            },
        };
        if text.starts_with('-') && bytes > 0 {
            return Err(QuantityError::Negative);
        }
        u64::try_from(bytes).ok().map(Self).filter(|size| *size <= Self::MAX).ok_or(QuantityError::TooLarge)
    }
}

/// The power of ten that a decimal suffix stands for.
fn exponent(suffix: &str) -> Result<i64, QuantityError> {
    if suffix.is_empty() {
        return Ok(0);
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok(*power);
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Malformed)?;
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QuantityError::Malformed);
    }
    // Far beyond what any size needs, and far from overflow.
    let power = unsigned.parse::<i64>().unwrap_or(i64::MAX).min(1_000_000_000_000);
    Ok(if digits.starts_with('-') { -power } else { power })
}

/// `whole.fraction x 2^shift`, rounded up.
fn binary(whole: &str, fraction: &str, shift: u32) -> Result<u128, QuantityError> {
    let whole = digits(whole)?;
    if fraction.len() > 19 {
        return Err(QuantityError::TooPrecise);
    }
    let unit = u32::try_from(fraction.len()).map_or(u128::MAX, |len| 10_u128.pow(len));
    let part = (digits(fraction)? << shift).div_ceil(unit);
    whole.checked_mul(1 << shift).and_then(|bytes| bytes.checked_add(part)).ok_or(QuantityError::TooLarge)
}

/// `whole.fraction x 10^power`, rounded up.
fn decimal(whole: &str, fraction: &str, power: i64) -> Result<u128, QuantityError> {
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let point = i64::try_from(whole.len()).map_err(|_| QuantityError::TooLarge)?.saturating_add(power);
    if point <= 0 {
        return Ok(1);
    }
    let point = usize::try_from(point).map_err(|_| QuantityError::TooLarge)?;
    match all.split_at_checked(point) {
        Some((kept, rest)) => Ok(digits(kept)? + u128::from(rest.bytes().any(|byte| byte != b'0'))),
        None if point - all.len() > 38 => Err(QuantityError::TooLarge),
        None => digits(&format!("{significant}{}", "0".repeat(point - all.len()))),
    }
}

fn digits(text: &str) -> Result<u128, QuantityError> {
    let text = text.trim_start_matches('0');
    // 27 digits leave room for every shift and are far above the largest size.
    match text.len() {
        0 => Ok(0),
        1..=27 => text.parse().map_err(|_| QuantityError::Malformed),
        _ => Err(QuantityError::TooLarge),
    }
}

/// The shortest exact form: the largest binary unit that divides it, else plain bytes.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BINARY.iter().rev().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_bytes_and_fractions_round_up() {
        for (text, bytes) in [
            ("0", 0),
            ("-0", 0),
            ("1048576", 1_048_576),
            ("+1", 1),
            ("512Mi", 512 << 20),
            ("1.5Gi", 3 << 29),
            ("129e6", 129_000_000),
            ("1E3", 1_000),
            ("1E", 1_000_000_000_000_000_000),
            ("2.5k", 2_500),
            ("1.", 1),
            (".5Ki", 512),
            ("0.1", 1),
            ("1e-3", 1),
            ("1.0001k", 1_001),
            ("0.3Ki", 308),
            ("1500e-3", 2),
            ("7Ei", 7 << 60),
            ("0e99999999999999999999", 0),
            ("9223372036854775807", i64::MAX as u64),
            ("000000000000000000000000000000000000000000001", 1),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for (text, error) in [
            ("", QuantityError::Empty),
            ("Mi", QuantityError::Malformed),
            (".", QuantityError::Malformed),
            ("1.2.3", QuantityError::Malformed),
            ("1 Mi", QuantityError::Malformed),
            ("1MB", QuantityError::Malformed),
            ("1K", QuantityError::Malformed),
            ("1mi", QuantityError::Malformed),
            ("1e", QuantityError::Malformed),
            ("1e+", QuantityError::Malformed),
            ("++1", QuantityError::Malformed),
            ("٣", QuantityError::Malformed),
            ("1m", QuantityError::Fraction('m')),
            ("1u", QuantityError::Fraction('u')),
            ("1n", QuantityError::Fraction('n')),
            ("-1", QuantityError::Negative),
            ("9223372036854775808", QuantityError::TooLarge),
            ("8Ei", QuantityError::TooLarge),
            ("1e400", QuantityError::TooLarge),
            ("99999999999999999999999999999999999Ei", QuantityError::TooLarge),
            ("1.00000000000000000001Ki", QuantityError::TooPrecise),
        ] {
            assert_eq!(ByteSize::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_is_exact() {
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1024, "1Ki"), (1536, "1536"), (512 << 20, "512Mi"), (3 << 29, "1536Mi")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), near in "[+-]?[0-9]{0,30}[.]?[0-9]{0,30}([eE][+-]?[0-9]{0,20}|[A-Za-z]{0,3})") {
            let _ = ByteSize::parse(&text);
            let _ = ByteSize::parse(&near);
        }

        #[test]
        fn what_is_shown_parses_to_the_same_size(bytes in prop_oneof![0..=ByteSize::MAX.0, (0_u32..63).prop_map(|shift| 1_u64 << shift)]) {
            prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).to_string()), Ok(ByteSize(bytes)));
        }

        #[test]
        fn decimals_agree_with_exact_arithmetic(whole in 0_u64..1_000_000, fraction in 0_u64..1_000_000, index in 0_usize..4) {
            let (suffix, unit) = [("", 1_u128), ("k", 1_000), ("Ki", 1 << 10), ("Gi", 1 << 30)][index];
            let expected = ((u128::from(whole) * 1_000_000 + u128::from(fraction)) * unit).div_ceil(1_000_000);
            let parsed = ByteSize::parse(&format!("{whole}.{fraction:06}{suffix}")).unwrap();
            prop_assert_eq!(u128::from(parsed.0), expected);
        }
    }
}
