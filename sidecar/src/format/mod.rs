//! Format 1: the bytes on storage, as pure functions. `sidecar/FORMAT.md` is the specification; this module is its one
//! implementation, shared by the engine, `walctl` and the tests.
//!
//! Invariants:
//! 1. Nothing here does I/O, keeps state between calls or reads a clock.
//! 2. No input makes a function panic, and none makes it allocate more than a small multiple of the input's length.
//! 3. What an encoder writes its decoder reads back equal, and what a decoder accepts has exactly one encoding
//!    (varints are minimal, arrays are one block).
//! 4. A frame is accepted only when every check of [`scan`] holds; nothing is repaired or guessed.

pub mod codec;
pub mod cursor;
pub mod facts;
#[cfg(test)]
pub(crate) mod fixture;
pub mod frame;
pub mod header;
pub mod identity;
#[cfg(test)]
mod interop;
pub mod limits;
pub mod names;
pub mod object;
pub mod record;
pub mod scan;
pub mod schema;
pub mod segment;
pub mod stream;
pub mod varint;

use std::fmt;

/// The random identity of a stream: the frames of one epoch and session in one directory.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub [u8; 16]);

impl StreamId {
    /// Parses the 32 lower-case hex digits that [`fmt::Display`] prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; 32] = text.as_bytes().try_into().ok()?;
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
        }
        Some(Self(id))
    }
}

const fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The marker of a file: ends its header and each of its blocks. Random, so that bytes of another file do not pass.
pub type Marker = [u8; 16];

/// Where a stream stands among the streams of a directory: ordered by epoch, then session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The process start that wrote it.
    pub epoch: crate::types::Epoch,
    /// From 0, one more after each failure of the directory in that epoch.
    pub session: u32,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.session)
    }
}
