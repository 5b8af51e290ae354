//! What the tools found, for people and (serialised) for programs.

use serde::Serialize;

/// Entries that are lost, or in danger, at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The collection; `None` = unknown.
    pub collection: Option<String>,
    /// The first LSN; `None` = unknown.
    pub first: Option<u64>,
    /// The last LSN; `None` = unknown.
    pub last: Option<u64>,
}

impl Lost {
    /// These LSNs of a collection.
    #[must_use]
    pub fn of(collection: &str, first: u64, last: u64) -> Self {
        Self { collection: Some(collection.to_owned()), first: Some(first), last: Some(last) }
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.collection, self.first, self.last) {
            (Some(name), Some(first), Some(last)) => write!(f, "{name} {first}..{last}"),
            (Some(name), ..) => write!(f, "{name}"),
            (None, ..) => f.write_str("unknown"),
        }
    }
}

/// Something that is wrong: `verify` fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Canonical URL of the directory; empty where it is about several.
    pub directory: String,
    /// The file's path; empty where it is not about one.
    pub file: String,
    /// Where in it.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// Whose entries: those that can still be read there by name, and one that is unknown where there may be more.
    pub lost: Vec<Lost>,
    /// The most entries that can be lost there, where it is known.
    pub most_entries: Option<u64>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { directory, file, offset, what, lost, most_entries: _ } = self;
        let place = if file.is_empty() { directory } else { file };
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        if let Some(offset) = offset {
            write!(f, "offset {offset}: ")?;
        }
        f.write_str(what)?;
        for (index, lost) in lost.iter().enumerate() {
            write!(f, "{}{lost}", if index == 0 { "; entries: " } else { ", " })?;
        }
        Ok(())
    }
}

/// A stream that ends in bytes that nothing proves: nothing acknowledged is lost, recovery cuts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TailReport {
    /// The file's path.
    pub file: String,
    /// Where the unproven bytes start.
    pub offset: u64,
    /// A sidecar may be writing there right now.
    pub in_progress: bool,
    /// Entries of the unfinished commit, where its head can be read.
    pub entries: Option<u32>,
}

/// A stream of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamReport {
    /// The process start that wrote it.
    pub epoch: u64,
    /// The session in that epoch.
    pub session: u32,
    /// Its files.
    pub files: u64,
    /// Frames that count.
    pub frames: u64,
    /// Entries in them.
    pub entries: u64,
    /// A later stream says where it ends.
    pub closed: bool,
    /// It ends with a clean shutdown.
    pub clean_shutdown: bool,
}

/// What a segment holds of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentContent {
    /// The collection.
    pub collection: String,
    /// The first LSN.
    pub first: u64,
    /// The last LSN.
    pub last: u64,
    /// Entries that can be read.
    pub entries: u64,
}

/// A segment that the journal speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// The file's path.
    pub file: String,
    /// Canonical URL of the directory.
    pub directory: String,
    /// The segment, under whatever name.
    pub uuid: uuid::Uuid,
    /// How its blocks are compressed.
    pub codec: &'static str,
    /// Nothing is added to it any more.
    pub sealed: bool,
    /// It holds several collections.
    pub shared: bool,
    /// Valid bytes, as the journal says.
    pub bytes: u64,
    /// Blocks of entries.
    pub blocks: u64,
    /// What is in it of collections whose entries there count.
    pub collections: Vec<SegmentContent>,
}

/// A file that looks like a segment and that nothing needs: normal after a crash, or truncated and not yet removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnusedReport {
    /// The file's path.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub what: String,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectoryReport {
    /// Canonical URL.
    pub url: String,
    /// The directory; `None` where its identity cannot be read.
    pub uuid: Option<uuid::Uuid>,
    /// The writer it belongs to.
    pub writer: Option<uuid::Uuid>,
    /// The writer's name.
    pub writer_id: Option<String>,
    /// Bytes of its journal.
    pub bytes: u64,
    /// Its streams, oldest first.
    pub streams: Vec<StreamReport>,
}

/// LSNs that are recorded as lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapReport {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// `DAMAGE`, `DIRECTORY_FORGOTTEN`, or a number.
    pub reason: String,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectionReport {
    /// Its name.
    pub name: String,
    /// Which life of it.
    pub incarnation: u64,
    /// Everything up to here is forgotten.
    pub truncated_to: u64,
    /// The highest LSN known.
    pub head: u64,
    /// Everything up to here is in segments.
    pub flushed_to: u64,
    /// Segments with entries above `truncated_to`.
    pub segments: u64,
    /// Entries above `truncated_to` that can be read, in segments and journals together.
    pub entries: u64,
    /// Recorded losses above `truncated_to`.
    pub gaps: Vec<GapReport>,
}
