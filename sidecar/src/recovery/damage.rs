//! Damage, told to people and programs: where it is, what is lost by it, and what to do.

use std::path::Path;

use super::decide::Place;
use super::merge::Merged;
use crate::api::{DamageReport, LostRange};
use crate::directory::identity::JOURNAL;
use crate::format::names::SlotName;
use crate::format::record;
use crate::types::{CollectionName, Lsn};

/// One report per place, holes with the first of them.
pub(super) fn reports(places: &[Place], merged: &Merged, losses: &[(usize, Lsn, Lsn)]) -> Vec<DamageReport> {
    let mut reports = Vec::new();
    for lost in &merged.unresolved {
        let Some(place) = places.iter().find(|place| place.identity.directory == lost.directory) else { continue };
        let damage = &lost.loss.damage;
        let name = SlotName { key: lost.key, file: damage.file };
        let file = place.opened.disk.0.display(&Path::new(JOURNAL).join(name.to_string()));
        let salvage = &lost.loss.salvage;
        let mut named = named_in(salvage.records.iter().map(|saved| &saved.raw));
        named.extend(named_in(&salvage.partial));
        if damage.most_entries() > lost.loss.salvage.entries {
            named.push((None, None));
        }
        reports.push(DamageReport {
            directory: place.opened.wanted.url.clone(),
            file: file.display().to_string(),
            offset: damage.offset,
            what: damage.what.to_string(),
            lost: named,
        });
    }
    let holes = losses.iter().filter_map(|&(index, first, last)| {
        let collection = &merged.collections[index];
        let inside = collection.holes.contains(&(first, last));
        inside.then(|| (Some(collection.name.clone()), Some((first, last))))
    });
    let holes: Vec<_> = holes.collect();
    match (reports.first_mut(), holes.is_empty()) {
        (_, true) => {}
        (Some(report), false) => report.lost.extend(holes),
        (None, false) => {
            let Some(place) = places.first() else { return reports };
            reports.push(DamageReport {
                directory: place.opened.wanted.url.clone(),
                file: place.opened.disk.0.display(Path::new(JOURNAL)).display().to_string(),
                offset: 0,
                what: "entries that were acknowledged are in no file".to_owned(),
                lost: holes,
            });
        }
    }
    reports
}

/// Collections and LSNs of records that are readable in a damaged frame.
fn named_in<'a>(records: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<LostRange> {
    let mut named: Vec<LostRange> = Vec::new();
    for raw in records {
        let Ok((record, _)) = record::decode(raw) else { continue };
        if record.kind != record::Kind::Data {
            continue;
        }
        let name = CollectionName::new(record.collection_id).ok();
        match named.last_mut() {
            Some((last_name, Some((_, last)))) if *last_name == name && last.next() == record.lsn => *last = record.lsn,
            _ => named.push((name, Some((record.lsn, record.lsn)))),
        }
    }
    named
}

/// What an administrator reads of one.
pub(super) fn sentence(report: &DamageReport) -> String {
    let mut of: Vec<String> = Vec::new();
    for (name, range) in &report.lost {
        of.push(match (name, range) {
            (Some(name), Some((first, last))) => format!("{:?} LSN {first} to {last}", name.as_str()),
            (Some(name), None) => format!("{:?}, LSNs unknown", name.as_str()),
            (None, _) => "unknown".to_owned(),
        });
    }
    let of = if of.is_empty() { "no entries".to_owned() } else { of.join(", ") };
    format!(
        "damage in {} at offset {}: {} (of {of}); restore the file, or set on_damage = \"gap\" to go on with what is left",
        report.file, report.offset, report.what
    )
}
