//! Amounts of CPU and memory: read, added and subtracted exactly, and written as the API server would write them.

use walstorage_crds::quantity::ByteSize;

/// CPU in thousandths, or memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Thousandths of a processor.
    Cpu,
    /// Bytes.
    Memory,
}

impl Unit {
    /// Both, with their names in resources.
    pub(crate) const ALL: [(&'static str, Self); 2] = [("cpu", Self::Cpu), ("memory", Self::Memory)];

    /// Reads a quantity; less than a thousandth of a processor, or than a byte, rounds up.
    pub(crate) fn parse(self, text: &str) -> Option<u64> {
        let bytes = |text: &str| ByteSize::parse(text).ok().map(|size| size.0);
        match self {
            Self::Memory => bytes(text),
            Self::Cpu => match text.strip_suffix('m') {
                Some(thousandths) => bytes(thousandths),
                None if text.ends_with(|c: char| c.is_ascii_digit() || c == '.') && !text.contains(['e', 'E']) => {
                    bytes(&format!("{text}k"))
                }
                None => bytes(text)?.checked_mul(1000),
            },
        }
    }

    /// The plain form.
    pub(crate) fn print(self, amount: u64) -> String {
        match self {
            Self::Memory => ByteSize(amount).to_string(),
            Self::Cpu if amount.is_multiple_of(1000) => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
        }
    }

    /// The plain form of a quantity; what cannot be read is left for the API server to judge.
    pub(crate) fn plain(self, text: &str) -> String {
        self.parse(text).map_or_else(|| text.to_owned(), |amount| self.print(amount))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_as_the_api_server_does_it() {
        for (unit, text, amount, plain) in [
            (Unit::Cpu, "500m", 500, "500m"),
            (Unit::Cpu, "0.5", 500, "500m"),
            (Unit::Cpu, "2", 2000, "2"),
            (Unit::Cpu, "2000m", 2000, "2"),
            (Unit::Cpu, "1.", 1000, "1"),
            (Unit::Cpu, "1e1", 10_000, "10"),
            (Unit::Cpu, "1k", 1_000_000, "1000"),
            (Unit::Cpu, "0", 0, "0"),
            (Unit::Memory, "1Gi", 1 << 30, "1Gi"),
            (Unit::Memory, "1024Mi", 1 << 30, "1Gi"),
            (Unit::Memory, "1000", 1000, "1000"),
        ] {
            assert_eq!(unit.parse(text), Some(amount), "{text}");
            assert_eq!(unit.plain(text), plain, "{text}");
        }
        assert_eq!(Unit::Cpu.parse("many"), None);
        assert_eq!(Unit::Cpu.plain("many"), "many");
        assert_eq!(Unit::Memory.parse("1m"), None);
    }
}
