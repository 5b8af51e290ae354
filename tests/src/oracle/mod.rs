//! A second reader of journals and segments, written from the specification of the format alone, to judge the engine by.
//!
//! 1. It shares no code with the engine: a mistake has to be made twice, apart, to go unseen.
//! 2. It is simple and slow: whole files in memory, no state kept between files, no repair.
//! 3. It never guesses: what no later head and no successor proves is torn; what one proves is damage.

pub mod avro;
pub mod frame;
pub mod header;
pub mod journal;
pub mod record;
pub mod segment;
pub mod view;

#[cfg(test)]
mod build;

pub use journal::{Damage, GoodFrame, Place, SlotFile, Verdict, classify};
pub use record::Record;
pub use segment::SegmentFile;
pub use view::{CollectionView, Merged, merge, merge_with_segments};
