//! The words of the engine as types: parsed once at the edge, never re-checked inside.

use std::fmt;
use std::sync::Arc;

/// A log sequence number: position of an entry in its collection, from 1, dense. 0 stands for "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No entry: the head of an empty collection.
    pub const ZERO: Self = Self(0);

    /// The LSN after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One start of a writer; strictly rising over the writer's life, below 2^43.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a collection's name: `epoch << 20 | counter`, so that a deleted and re-created name never sees its old entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The `counter`-th creation (from 0, below 2^20) in `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, counter: u32) -> Self {
        Self(epoch.0 << 20 | counter as u64)
    }

    /// The epoch in which the collection was created.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        Epoch(self.0 >> 20)
    }
}

/// The identity of a directory, for ever; also of writers and segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub uuid::Uuid);

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a collection name is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// The name is empty.
    #[error("a collection name has 1 to 255 bytes, this one is empty")]
    Empty,
    /// The name is longer than 255 bytes.
    #[error("a collection name has 1 to 255 bytes, this one has {0}")]
    TooLong(usize),
}

/// A valid collection name: any UTF-8, 1 to 255 bytes. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Most bytes in a name.
    pub const MAX_BYTES: usize = 255;

    /// Checks and wraps a name.
    ///
    /// # Errors
    /// When the name is empty or longer than [`Self::MAX_BYTES`].
    pub fn new(name: &str) -> Result<Self, NameError> {
        match name.len() {
            0 => Err(NameError::Empty),
            n if n > Self::MAX_BYTES => Err(NameError::TooLong(n)),
            _ => Ok(Self(name.into())),
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for CollectionName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_1_to_255_bytes() {
        assert_eq!(CollectionName::new(""), Err(NameError::Empty));
        assert!(CollectionName::new(&"x".repeat(255)).is_ok());
        assert_eq!(CollectionName::new(&"x".repeat(256)), Err(NameError::TooLong(256)));
        assert!(CollectionName::new("a/b\0🦀..").is_ok());
    }

    #[test]
    fn an_incarnation_remembers_its_epoch() {
        assert_eq!(Incarnation::new(Epoch(7), 3).epoch(), Epoch(7));
        assert_eq!(Incarnation::new(Epoch(7), 3).0, 7 << 20 | 3);
    }
}
