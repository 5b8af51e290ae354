//! What a stopped engine leaves on its directories.

use walstorage_crds::url::WalUrl;

use super::Engine;

/// What a stopped engine leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftover {
    /// The writer's uid.
    pub writer_uid: uuid::Uuid,
    /// Entries that the application has not truncated; those of unknown outcome count.
    pub unapplied_entries: u64,
    /// Their bytes, as far as they are known.
    pub unapplied_bytes: u64,
    /// Directories that may hold something that is needed: every one but those that were emptied, and say so in all
    /// others, durably.
    pub holding: Vec<WalUrl>,
}

impl Engine {
    /// What is left; `None` where recovery has not ended, so that nobody knows.
    #[must_use]
    pub fn leftover(&self) -> Option<Leftover> {
        let mut leftover = self.0.peek(|log| {
            let collections = || log.iter();
            Leftover {
                writer_uid: log.identity.writer,
                unapplied_entries: collections().map(|collection| collection.entries()).sum(),
                unapplied_bytes: collections().map(|collection| collection.bytes()).sum(),
                holding: log
                    .journals
                    .iter()
                    .filter(|journal| journal.in_use || !journal.is_evacuated())
                    .map(|journal| journal.url.clone())
                    .collect(),
            }
        })?;
        leftover.holding.extend(self.0.findings.lock().unusable.iter().map(|unusable| unusable.wanted_url.clone()));
        Some(leftover)
    }
}
