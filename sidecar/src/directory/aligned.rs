//! Memory that starts on a page, as O_DIRECT wants it, without `unsafe`: a buffer that is larger than needed.

use crate::format::frame::page_offset;
use crate::format::limits::PAGE;

/// Bytes whose first one lies on a multiple of [`PAGE`]; zeros at first.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    buf: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn zeros(len: usize) -> Self {
        let buf = vec![0; len + PAGE];
        Self { start: page_offset(&buf), buf, len }
    }

    /// A copy of `bytes`.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeros(bytes.len());
        copy.as_mut().copy_from_slice(bytes);
        copy
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }
}

/// Whether `buf` starts on a multiple of [`PAGE`] in memory.
pub(crate) fn is_aligned(buf: &[u8]) -> bool {
    page_offset(buf) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_length_starts_on_a_page() {
        for len in [0, 1, PAGE - 1, PAGE, 5 * PAGE + 7] {
            let text: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let copy = Aligned::copy_of(&text);
            assert!(is_aligned(copy.as_ref()) && copy.as_ref() == text);
        }
    }
}
