//! Two looks at a sidecar and what happened between them.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;
use walstorage_sidecar::proto::{Collection, Status};

/// One look.
pub(super) struct Sample {
    at: Instant,
    pub(super) status: Status,
    collections: Vec<Collection>,
}

impl Sample {
    pub(super) fn new(status: Status, collections: Vec<Collection>) -> Self {
        Self { at: Instant::now(), status, collections }
    }
}

/// A collection and how busy it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Busy {
    pub(super) appended_per_second: f64,
    pub(super) truncated_per_second: f64,
    pub(super) collection: Collection,
}

/// What there is to show.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    /// Between the two looks.
    pub(super) seconds: f64,
    /// Entries that became durable.
    pub(super) appended_per_second: f64,
    /// Entries that were truncated.
    pub(super) truncated_per_second: f64,
    pub(super) status: Status,
    /// The busiest, the busiest first.
    pub(super) collections: Vec<Busy>,
}

impl View {
    /// What happened between two looks, with the `most` busiest collections.
    pub(super) fn between(before: &Sample, now: &Sample, most: usize) -> Self {
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-6);
        // After a restart in between nothing can be compared.
        let epoch = |sample: &Sample| sample.status.writer.as_ref().map(|writer| writer.epoch);
        let known = if epoch(before) == epoch(now) { before.collections.as_slice() } else { &now.collections };
        let known: HashMap<_, _> = known.iter().map(|one| ((one.name.as_str(), one.incarnation), one)).collect();
        let mut collections: Vec<Busy> = now
            .collections
            .iter()
            .map(|one| {
                // One that was not there is new: all of it happened since.
                let (head, truncated) = known
                    .get(&(one.name.as_str(), one.incarnation))
                    .map_or((0, 0), |known| (known.durable_head, known.truncated_to));
                let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
                Busy {
                    appended_per_second: rate(one.durable_head, head),
                    truncated_per_second: rate(one.truncated_to, truncated),
                    collection: one.clone(),
                }
            })
            .collect();
        let appended_per_second = collections.iter().map(|one| one.appended_per_second).sum();
        let truncated_per_second = collections.iter().map(|one| one.truncated_per_second).sum();
        collections.sort_by(|a, b| {
            let busy = |one: &Busy| one.appended_per_second + one.truncated_per_second;
            let rates = busy(b).total_cmp(&busy(a));
            rates.then(b.collection.bytes.cmp(&a.collection.bytes)).then(a.collection.name.cmp(&b.collection.name))
        });
        collections.truncate(most);
        Self { seconds, appended_per_second, truncated_per_second, status: now.status.clone(), collections }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walstorage_sidecar::proto::Writer;

    use super::*;

    fn sample(at: Instant, epoch: u64, collections: &[(&str, u64, u64, u64, u64)]) -> Sample {
        let collection = |(name, incarnation, truncated_to, durable_head, bytes): &(&str, u64, u64, u64, u64)| {
            let (incarnation, truncated_to, durable_head, bytes) = (*incarnation, *truncated_to, *durable_head, *bytes);
            Collection { name: (*name).into(), incarnation, truncated_to, durable_head, bytes, ..Collection::default() }
        };
        let status = Status { writer: Some(Writer { epoch, ..Writer::default() }), ..Status::default() };
        Sample { at, status, collections: collections.iter().map(collection).collect() }
    }

    fn rates(view: &View) -> Vec<(&str, f64, f64)> {
        let one = |busy: &Busy| (busy.appended_per_second, busy.truncated_per_second);
        view.collections.iter().map(|busy| (busy.collection.name.as_str(), one(busy).0, one(busy).1)).collect()
    }

    #[test]
    fn rates_are_differences_and_the_busiest_come_first() {
        let start = Instant::now();
        let old = [("idle", 1, 0, 5, 10), ("large", 1, 0, 5, 99), ("busy", 1, 10, 100, 1), ("again", 1, 0, 50, 1)];
        let before = sample(start, 1, &old);
        let new = [
            ("idle", 1, 0, 5, 10),
            ("large", 1, 0, 5, 99),
            ("busy", 1, 30, 140, 1),
            ("again", 2, 0, 6, 1),
            ("new", 1, 0, 8, 1),
        ];
        let now = sample(start + Duration::from_secs(2), 1, &new);
        let view = View::between(&before, &now, 4);
        let expected = [("busy", 20.0, 10.0), ("new", 4.0, 0.0), ("again", 3.0, 0.0), ("large", 0.0, 0.0)];
        assert_eq!(rates(&view), expected);
        assert_eq!((view.seconds, view.appended_per_second, view.truncated_per_second), (2.0, 27.0, 10.0));
    }

    #[test]
    fn a_restart_in_between_is_no_burst() {
        let start = Instant::now();
        let now = sample(start + Duration::from_secs(1), 2, &[("c", 1, 3, 500, 1)]);
        let view = View::between(&sample(start, 1, &[]), &now, 9);
        assert_eq!(rates(&view), [("c", 0.0, 0.0)]);
    }
}
