//! What is left of damaged frames: records whose own checksum holds, batches whole.

use super::noted::Spot;
use crate::format::facts::{EpochFact, Fact as _};
use crate::format::record::{self, Kind, RecordRef};
use crate::format::stream::Damage;
use crate::types::{CollectionName, Lsn};

/// A record that was saved, and where it stands.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) raw: Vec<u8>,
    pub(crate) spot: Spot,
}

/// What is left of damaged frames: the records whose own checksum holds.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// Whole batches, and facts.
    pub(crate) records: Vec<Saved>,
    /// DATA among them.
    pub(crate) entries: u64,
    /// DATA of batches that are not whole: nobody gets them, but they say what is damaged.
    pub(crate) partial: Vec<Vec<u8>>,
}

/// A place where the stream is damaged, and what could be saved there.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) damage: Damage,
    pub(crate) salvage: Salvage,
    /// An earlier start recorded it as gaps already.
    pub(crate) accepted: bool,
    /// What came before is freed, be it of this stream or older ones: it was stated in a checkpoint, perhaps in what is lost.
    pub(crate) alone: bool,
}

impl Loss {
    /// What was saved of EPOCH records, with the frame.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = (u64, EpochFact)> {
        let records = self.salvage.records.iter().filter_map(|saved| Some(record::decode(&saved.raw).ok()?.0));
        records
            .filter(|record| record.kind == Kind::Epoch)
            .filter_map(|record| Some((self.damage.first_seq, EpochFact::decode(&record).ok()?)))
    }
}

/// Which records of a damaged frame to keep. Where the record before a batch is bad, the batch may have begun with it.
pub(super) fn keep_whole_batches(records: &[(RecordRef<'_>, Spot)]) -> Salvage {
    let saved = |(record, spot): &(RecordRef<'_>, Spot)| Saved { raw: record.raw().to_vec(), spot: *spot };
    let good = |record: &RecordRef<'_>| {
        record.crc_holds() && (record.kind == Kind::Epoch || CollectionName::new(record.collection_id).is_ok())
    };
    let mut kept = Salvage::default();
    let mut index = 0;
    while let Some((record, _)) = records.get(index) {
        let is_data = record.kind == Kind::Data;
        let wanted = if is_data { record.batch_end.0.saturating_sub(record.lsn.0) + 1 } else { 1 };
        let batch = usize::try_from(wanted).ok().and_then(|wanted| records.get(index..index.checked_add(wanted)?));
        let begins = !is_data
            || record.batch_end == Lsn::ZERO
            || match index.checked_sub(1).map(|before| &records[before].0) {
                None => true,
                Some(before) => good(before) && (before.kind != Kind::Data || before.batch_end != record.batch_end),
            };
        let continues = |(i, (part, _)): (usize, &(RecordRef<'_>, Spot))| {
            good(part) && part.lsn.0 == record.lsn.0 + i as u64 && part.incarnation == record.incarnation
        };
        match batch {
            Some(batch) if begins && batch.iter().enumerate().all(continues) => {
                kept.records.extend(batch.iter().map(saved));
                kept.entries += if is_data { wanted } else { 0 };
                index += batch.len();
            }
            _ => {
                if is_data && good(record) {
                    kept.partial.push(record.raw().to_vec());
                }
                index += 1;
            }
        }
    }
    kept
}
