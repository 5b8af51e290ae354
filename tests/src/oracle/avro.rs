//! Avro's binary encoding as far as journals use it, read strictly: a number written in more bytes than it needs is an
//! error, and so is everything that reaches beyond the end.

/// Reads forward through bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at byte `at`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The number of bytes before the next one to read.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// The next `N` bytes as an array.
    pub fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A zigzag number in as few bytes as it needs.
    pub fn long(&mut self) -> Option<i64> {
        let mut value = 0u64;
        for index in 0..10 {
            let byte = self.take(1)?[0];
            let part = u64::from(byte & 0x7f);
            if index == 9 && part > 1 {
                return None;
            }
            value |= part << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return None;
                }
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        None
    }

    /// A number that cannot be negative.
    pub fn natural(&mut self) -> Option<u64> {
        u64::try_from(self.long()?).ok()
    }

    /// A length and so many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        self.take(length)
    }

    /// Like [`Self::bytes`], UTF-8.
    pub fn string(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// One byte, 0 or 1.
    pub fn boolean(&mut self) -> Option<bool> {
        match self.take(1)?[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// An array in one positive block, or an empty one.
    pub fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.natural()?;
        let mut items = Vec::new();
        if count > 0 {
            for _ in 0..count {
                items.push(item(self)?);
            }
            if self.long()? != 0 {
                return None;
            }
        }
        Some(items)
    }
}

/// CRC32C (Castagnoli) over several pieces as if they were one.
#[must_use]
pub fn crc(pieces: &[&[u8]]) -> u32 {
    pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: one bit at a time.
    fn crc_by_definition(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn the_crc_is_castagnolis() {
        assert_eq!(crc(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc(&[b"1234", b"", b"56789"]), 0xe306_9283);
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        assert_eq!(crc(&[&bytes]), crc_by_definition(&bytes));
    }

    #[test]
    fn numbers_are_zigzag_and_minimal() {
        let read = |bytes: &[u8]| Cursor::new(bytes, 0).long();
        assert_eq!(read(&[0]), Some(0));
        assert_eq!(read(&[1]), Some(-1));
        assert_eq!(read(&[2]), Some(1));
        assert_eq!(read(&[0xe0, 0x01]), Some(112));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(i64::MIN));
        assert_eq!(read(&[0x80, 0x00]), None, "0 in two bytes");
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None, "65 bits");
        assert_eq!(read(&[0x80]), None, "cut short");
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        assert_eq!(Cursor::new(&[8, b'a', b'b', b'c'], 0).bytes(), None);
        assert_eq!(Cursor::new(&[6, b'a', b'b', b'c'], 0).bytes(), Some(&b"abc"[..]));
        assert_eq!(Cursor::new(&[1], 0).bytes(), None, "a negative length");
    }
}
