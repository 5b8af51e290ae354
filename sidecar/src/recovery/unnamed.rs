//! Segments of which a damaged journal says nothing any more. A FLUSHED may have been in a frame that is lost, while the
//! entries that it spoke of are whole in their segment and nowhere else: where entries are missing they are looked for in
//! segments that no fact names, and behind what is said of those that facts name.
//!
//! A segment tells what is in it: each of its flushes ends with an INDEX that has names, incarnations, LSNs and
//! checksums. Only entries that were durable are ever written to one, and an LSN of an incarnation is given once, so that what
//! is found is what is missing.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::decide::Place;
use super::merge::{Merged, MergedCollection, covered_to};
use crate::commit::segments::shared_folder;
use crate::engine::segment_scan::{self, Contents, Part};
use crate::format::facts::FlushedFact;
use crate::format::header::SegmentOf;
use crate::format::names::{CURRENT_SEGMENT, collection_dir, is_segment};
use crate::types::Lsn;

/// A segment of which no fact says as much as it holds.
struct Found<'a> {
    place: &'a Place,
    path: PathBuf,
    contents: Contents,
}

/// After damage: takes what is missing from segments that nothing names. Answers a sentence for each that is used, and for each
/// file that could not be read.
pub(super) fn adopt(merged: &mut Merged, places: &[Place], only_homes: impl Fn(Uuid) -> bool) -> Vec<String> {
    if merged.damaged_since.is_none() || mutant!(ReplacedUnnamed) {
        return Vec::new();
    }
    let concerned: BTreeSet<usize> = merged.losses(only_homes).into_iter().map(|(index, ..)| index).collect();
    if concerned.is_empty() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let known = known(merged);
    let folders: BTreeSet<PathBuf> =
        concerned.iter().map(|index| collection_dir(merged.collections[*index].name.as_str()).into()).collect();
    let mut found = Vec::new();
    for place in places.iter().filter(|place| place.counts) {
        for folder in folders.iter().cloned().chain([shared_folder()]) {
            look(place, &folder, &known, &mut found, &mut warnings);
        }
    }
    // What was made of another comes before it.
    found.sort_by_key(|found| std::cmp::Reverse(found.contents.header.segment));
    for index in concerned {
        for found in &found {
            let collection = &mut merged.collections[index];
            let (name, incarnation) = (collection.name.clone(), collection.incarnation);
            let of = |part: &&Part| part.name == name.as_str() && part.incarnation == incarnation;
            let part = found.contents.parts.iter().find(of).filter(|part| fills(part, collection));
            let Some((first, last)) = part.and_then(Part::span) else { continue };
            let dead = collection.adopt(found.fact(first), last);
            merged.dead_segments.extend(dead.into_iter().map(|(fact, last)| (name.clone(), incarnation, fact, last)));
            warnings.push(format!(
                "LSN {first} to {last} of {:?} are read from {}, of which a journal with lost frames says nothing",
                name.as_str(),
                found.place.opened.disk.0.display(&found.path).display()
            ));
        }
    }
    warnings
}

/// How long each segment of each collection is, as facts say.
fn known(merged: &Merged) -> HashMap<Uuid, u64> {
    let needed = merged.collections.iter().flat_map(|collection| &collection.segments).map(|(fact, _)| fact);
    let mut known: HashMap<Uuid, u64> = HashMap::new();
    for fact in needed.chain(merged.dead_segments.iter().map(|(_, _, fact, _)| fact)) {
        let length = known.entry(fact.segment).or_default();
        *length = fact.length.max(*length);
    }
    known
}

/// Adds the segments in a folder that hold more than `known` says of them.
fn look<'a>(
    place: &'a Place,
    folder: &Path,
    known: &HashMap<Uuid, u64>,
    found: &mut Vec<Found<'a>>,
    warnings: &mut Vec<String>,
) {
    let disk = place.opened.disk.0.as_ref();
    let failed = |path: &Path, error: std::io::Error| {
        format!("{}: {error}: whether entries that are missing are in it is not known", disk.display(path).display())
    };
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return warnings.push(failed(folder, error)),
    };
    let shared = folder == shared_folder();
    for entry in entries.into_iter().filter(|entry| shared || is_segment(&entry.name)) {
        let path = folder.join(&entry.name);
        match segment_scan::scan(disk, &path, |segment| known.get(&segment).is_none_or(|length| *length < entry.len)) {
            Ok(Some(contents)) if belongs(&contents, place) => found.push(Found { place, path, contents }),
            Ok(_) => {}
            Err(error) => warnings.push(failed(&path, error)),
        }
    }
}

fn belongs(contents: &Contents, place: &Place) -> bool {
    (contents.header.directory, contents.header.writer) == (place.identity.directory, place.identity.writer)
}

/// Whether entries of `part` are missing in its collection, and all that are missing between them are truncated or in gaps.
fn fills(part: &Part, collection: &MergedCollection) -> bool {
    let missing = |(first, last): &(Lsn, Lsn)| {
        *last > collection.head || collection.holes.iter().any(|(from, to)| first <= to && from <= last)
    };
    let between = part.runs.windows(2).map(|pair| (pair[0].1.next(), Lsn(pair[1].0.0 - 1)));
    let gaps = || collection.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
    let accounted = |(first, last): (Lsn, Lsn)| covered_to(first.max(collection.truncated_to.next()), gaps()) >= last;
    part.runs.iter().any(missing) && between.into_iter().all(accounted)
}

impl Part {
    fn span(&self) -> Option<(Lsn, Lsn)> {
        Some((self.runs.first()?.0, self.runs.last()?.1))
    }
}

impl Found<'_> {
    /// What a FLUSHED would say of it.
    fn fact(&self, first_lsn: Lsn) -> FlushedFact {
        let Contents { header, flushed, .. } = &self.contents;
        FlushedFact {
            segment: header.segment,
            directory: header.directory,
            first_lsn,
            length: flushed.length,
            index_offset: flushed.index_offset,
            index_crc: flushed.index_crc,
            sealed: !self.path.ends_with(CURRENT_SEGMENT),
            shared: header.of == SegmentOf::Shared,
            bytes: 0,
        }
    }
}
