//! Reading Avro binary from a slice: the steps that records, facts and headers are decoded with. Every step checks its
//! bounds; none allocates.

use super::varint;

/// Why bytes are not what they should be. The text names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the bytes end inside {0}")]
    End(&'static str),
    /// A number is not in its shortest form.
    #[error("{0} is not a number in its shortest form")]
    Varint(&'static str),
    /// A number that its field cannot hold.
    #[error("{field} cannot be {value}")]
    Range {
        /// The field.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// A string that is none.
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
    /// Bytes are left over, or too few are there for what a count says.
    #[error("{0} does not end where it should")]
    Length(&'static str),
    /// A structure whose own checksum or magic does not hold.
    #[error("{0} fails its checksum")]
    Checksum(&'static str),
}

/// A position in bytes being decoded.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// What was read since `from`.
    #[must_use]
    pub fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// An Avro long (or int).
    ///
    /// # Errors
    /// When it is not whole or not minimal.
    #[inline]
    pub fn long(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let rest = self.rest();
        if let Some(&byte) = rest.first()
            && byte < 0x80
        {
            self.at += 1;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        let (value, length) = varint::get(rest).map_err(|error| match error {
            varint::VarintError::End => DecodeError::End(field),
            varint::VarintError::NotMinimal => DecodeError::Varint(field),
        })?;
        self.at += length;
        Ok(value)
    }

    /// An Avro long that may not be negative.
    ///
    /// # Errors
    /// Like [`Self::long`], and when it is negative.
    #[inline]
    pub fn number(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let value = self.long(field)?;
        u64::try_from(value).map_err(|_| DecodeError::Range { field, value })
    }

    /// A number that fits 32 bits.
    ///
    /// # Errors
    /// Like [`Self::number`], and when it is larger.
    pub fn small(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let value = self.long(field)?;
        u32::try_from(value).map_err(|_| DecodeError::Range { field, value })
    }

    /// So many bytes as they are.
    ///
    /// # Errors
    /// When fewer are left.
    #[inline]
    pub fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(length).ok_or(DecodeError::End(field))?;
        let taken = self.bytes.get(self.at..end).ok_or(DecodeError::End(field))?;
        self.at = end;
        Ok(taken)
    }

    /// An Avro fixed.
    ///
    /// # Errors
    /// When fewer bytes are left.
    #[inline]
    pub fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        self.take(N, field)?.try_into().map_err(|_| DecodeError::End(field))
    }

    /// Avro bytes: a length and so many bytes.
    ///
    /// # Errors
    /// When the length is negative or reaches beyond the end.
    #[inline]
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.number(field)?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::End(field))?, field)
    }

    /// An Avro string.
    ///
    /// # Errors
    /// Like [`Self::bytes`], and when it is not UTF-8.
    #[inline]
    pub fn string(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DecodeError::Utf8(field))
    }

    /// An Avro boolean.
    ///
    /// # Errors
    /// When it is neither 0 nor 1.
    pub fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.fixed::<1>(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(DecodeError::Range { field, value: i64::from(other) }),
        }
    }

    /// An Avro array in our form: nothing, or one block with a positive count; then 0.
    ///
    /// # Errors
    /// When the form is another, or an item does not decode.
    pub fn array<T>(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.number(field)?;
        let mut items = Vec::new();
        if count > 0 {
            for _ in 0..count {
                items.push(item(self)?);
            }
            self.array_end(field)?;
        }
        Ok(items)
    }

    /// The 0 that ends an array or a map.
    ///
    /// # Errors
    /// When something else stands there.
    pub fn array_end(&mut self, field: &'static str) -> Result<(), DecodeError> {
        match self.long(field)? {
            0 => Ok(()),
            value => Err(DecodeError::Range { field, value }),
        }
    }
}
