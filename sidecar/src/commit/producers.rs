//! The producers of one collection: which sequence number each sent last, so that a retry is stored once.
//!
//! 1. Two states a producer: *assigned* (the request has LSNs) decides what the next request is; *durable* is what a
//!    checkpoint may state.
//! 2. At most [`MAX_PRODUCERS`]; the one whose last request is oldest by LSN goes first, so that a replay forgets the
//!    same ones.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::format::record::RecordRef;
use crate::types::Lsn;

/// Most producers a collection remembers.
pub const MAX_PRODUCERS: usize = 1000;

/// A producer's last request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastRequest {
    /// Its sequence number.
    pub seq: u64,
    /// LSN of its first entry.
    pub first: Lsn,
    /// Number of its entries.
    pub count: u64,
}

impl LastRequest {
    /// What an entry's stamp says, taken for the first entry of its batch; `None` where it has no stamp.
    pub(crate) fn of(record: &RecordRef<'_>) -> Option<Self> {
        let count = record.batch_end.0.saturating_sub(record.lsn.0) + 1;
        (!record.producer_id.is_empty()).then_some(Self { seq: record.producer_seq, first: record.lsn, count })
    }

    /// LSN of its last entry.
    pub(crate) const fn last(&self) -> Lsn {
        Lsn(self.first.0 + self.count - 1)
    }
}

#[derive(Debug)]
struct Producer {
    assigned: LastRequest,
    durable: Option<LastRequest>,
}

/// What a stamped request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The next one: append it.
    New,
    /// The producer's last request again.
    Last(LastRequest),
    /// An older one; it lies before this LSN.
    Older(Lsn),
    /// Something is missing between the last (given) and this one.
    Skipped(u64),
}

/// The producers of one collection.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    by_id: HashMap<Bytes, Producer>,
    by_age: BTreeMap<Lsn, Bytes>,
}

impl Producers {
    /// Judges a stamp.
    pub(crate) fn judge(&self, id: &[u8], seq: u64) -> Stamp {
        match self.by_id.get(id) {
            None => Stamp::New,
            Some(_) if mutant!(RetryStoredTwice) => Stamp::New,
            Some(producer) => match producer.assigned {
                last if seq == last.seq => Stamp::Last(last),
                last if seq < last.seq => Stamp::Older(last.first),
                last if seq == last.seq + 1 => Stamp::New,
                last => Stamp::Skipped(last.seq),
            },
        }
    }

    /// Notes that a request got its LSNs.
    pub(crate) fn assigned(&mut self, id: &Bytes, request: LastRequest) {
        if let Some(producer) = self.by_id.get_mut(id) {
            self.by_age.remove(&producer.assigned.first);
            producer.assigned = request;
        } else {
            if self.by_id.len() >= MAX_PRODUCERS
                && let Some((_, oldest)) = self.by_age.pop_first()
            {
                self.by_id.remove(&oldest);
            }
            // The caller's bytes may be a slice of a large request.
            let id = Bytes::copy_from_slice(id);
            self.by_id.insert(id, Producer { assigned: request, durable: None });
        }
        if let Some((id, _)) = self.by_id.get_key_value(id) {
            self.by_age.insert(request.first, id.clone());
        }
    }

    /// Notes that a request is durable.
    pub(crate) fn durable(&mut self, id: &[u8], request: LastRequest) {
        if let Some(producer) = self.by_id.get_mut(id)
            && producer.durable.is_none_or(|before| before.seq < request.seq)
        {
            producer.durable = Some(request);
        }
    }

    /// Notes a request found in a journal: assigned and durable. The highest sequence wins, in any order of calls.
    pub(crate) fn recovered(&mut self, id: &Bytes, request: LastRequest) {
        if self.by_id.get(id).is_none_or(|known| known.assigned.seq < request.seq) {
            self.assigned(id, request);
            self.durable(id, request);
        }
    }

    /// What is durable, oldest first.
    pub(crate) fn durable_table(&self) -> impl Iterator<Item = (&Bytes, LastRequest)> {
        self.by_age.values().filter_map(|id| {
            let producer = self.by_id.get(id).filter(|_| !mutant!(ProducersNotStated))?;
            Some((id, if mutant!(ProducersStatedEarly) { producer.assigned } else { producer.durable? }))
        })
    }

    /// An estimate of the memory held, bytes.
    pub(crate) fn cost(&self) -> usize {
        self.by_id.len() * 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(seq: u64, first: u64, count: u64) -> LastRequest {
        LastRequest { seq, first: Lsn(first), count }
    }

    #[test]
    fn sequences_are_new_repeated_older_or_skipped() {
        let (mut producers, id) = (Producers::default(), Bytes::from_static(b"p"));
        assert_eq!(producers.judge(&id, 41), Stamp::New, "any first one");
        producers.assigned(&id, request(41, 7, 2));
        assert_eq!(producers.judge(&id, 42), Stamp::New);
        assert_eq!(producers.judge(&id, 41), Stamp::Last(request(41, 7, 2)));
        assert_eq!(producers.judge(&id, 40), Stamp::Older(Lsn(7)));
        assert_eq!(producers.judge(&id, 43), Stamp::Skipped(41));
    }

    #[test]
    fn only_durable_requests_are_stated() {
        let (mut producers, id) = (Producers::default(), Bytes::from_static(b"p"));
        producers.assigned(&id, request(1, 1, 1));
        assert_eq!(producers.durable_table().count(), 0);
        producers.assigned(&id, request(2, 2, 1));
        producers.durable(&id, request(1, 1, 1));
        assert_eq!(producers.durable_table().map(|(_, r)| r.seq).collect::<Vec<_>>(), [1]);
        producers.durable(&id, request(2, 2, 1));
        assert_eq!(producers.durable_table().map(|(_, r)| r.seq).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_least_recently_appending_producer_goes_first_and_a_replay_forgets_the_same() {
        let id = |n: u64| Bytes::from(format!("p{n}"));
        let mut live = Producers::default();
        let mut log = Vec::new();
        for lsn in 1..=MAX_PRODUCERS as u64 {
            log.push((id(lsn), request(1, lsn, 1)));
        }
        log.push((id(1), request(2, 1001, 1)));
        log.push((id(5000), request(9, 1002, 1)));
        for (id, r) in &log {
            live.assigned(id, *r);
            live.durable(id, *r);
        }
        assert_eq!(live.judge(b"p2", 7), Stamp::New, "forgotten");
        assert_eq!(live.judge(b"p1", 2), Stamp::Last(request(2, 1001, 1)), "used again, kept");
        let mut replayed = Producers::default();
        for (id, r) in &log {
            replayed.recovered(id, *r);
        }
        let table = |p: &Producers| p.durable_table().map(|(id, r)| (id.clone(), r)).collect::<Vec<_>>();
        assert_eq!(table(&live), table(&replayed));
        assert_eq!(table(&live).len(), MAX_PRODUCERS);
    }
}
