//! What was sent, what was answered, and what a reader must therefore find.
//!
//! 1. A request acknowledged as DURABLE is read once, whole, at the LSNs of the reply, until it is truncated.
//! 2. A request acknowledged as BUFFERED is held to the same once a DURABLE one of the same epoch follows it.
//! 3. A refused request is never read. One of unknown outcome is read whole or not at all.
//! 4. Nothing is read twice; what was read once is read again at the same LSN, until it is truncated.
//! 5. A client's requests to one collection are read in the order in which they were sent.
//! 6. `truncated_to` never falls below what was acknowledged, nor rises above what was asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

/// A client's number and the number of its request.
pub type RequestId = (u32, u64);

/// A request as it was first sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Where to.
    pub collection: String,
    /// Number of entries.
    pub size: u32,
    /// Keys and headers were sent too.
    pub rich: bool,
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent, and no answer that says more.
    Unknown,
    /// Acknowledged.
    Acked {
        /// The first LSN.
        first: u64,
        /// As DURABLE; else as BUFFERED.
        durable: bool,
        /// The process start that answered.
        epoch: u64,
    },
    /// Acknowledged as a duplicate whose LSN is no longer known.
    Duplicate,
    /// Refused before an LSN was assigned.
    Refused,
}

/// An entry as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its position.
    pub lsn: u64,
    /// Opaque to the sidecar.
    pub payload: Vec<u8>,
    /// The key, where there is one.
    pub key: Option<Vec<u8>>,
    /// Name and value.
    pub headers: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
struct Request {
    sent: Sent,
    outcome: Outcome,
    /// The first LSN at which a reader found it, and which reader.
    seen_at: Option<(u64, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Book {
    requests: BTreeMap<RequestId, Request>,
    /// By collection and epoch: the highest LSN acknowledged as DURABLE.
    durable: HashMap<(String, u64), u64>,
    /// By collection: truncation asked for, and acknowledged.
    truncations: HashMap<String, (u64, u64)>,
    faults: Vec<String>,
    counts: Counts,
    disks_fail: bool,
    /// Who reads now; for messages.
    reader: Arc<str>,
}

/// How much went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries sent for the first time.
    pub sent: u64,
    /// Entries acknowledged.
    pub acked: u64,
    /// Requests answered as duplicates.
    pub duplicates: u64,
    /// Entries read and compared, over all checks.
    pub read: u64,
    /// Requests refused.
    pub refused: u64,
    /// Those that were refused because no directory could take them.
    pub refused_by_disks: u64,
}

/// Shared by all clients of one writer.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Book>);

/// The payload of entry `index` of a request: tells what it is, and is filled so that a mixed-up byte shows.
#[must_use]
pub fn payload((client, number): RequestId, index: u32, size: u32) -> Vec<u8> {
    let mut text = format!(r#"{{"client":{client},"request":{number},"index":{index},"size":{size},"fill":""#);
    let seed = u64::from(client) << 40 ^ number << 8 ^ u64::from(index);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = match state % 100 {
        0 => 60_000,
        1..10 => 4_000,
        small => small * 3,
    };
    for _ in 0..length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b'a' + (state >> 33) as u8 % 26));
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// Which entry of which request a payload says it is: client, request, index, size.
fn identify(payload: &[u8]) -> Option<(RequestId, u32, u32)> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let number = |key: &str| value.get(key)?.as_u64();
    let small = |key: &str| u32::try_from(number(key)?).ok();
    Some(((small("client")?, number("request")?), small("index")?, small("size")?))
}

/// The key and headers of the entries of a rich request.
#[must_use]
pub fn decoration((client, number): RequestId, index: u32) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
    let headers = vec![(String::new(), vec![]), ("n".to_owned(), number.to_le_bytes().to_vec())];
    (format!("{client}/{index}").into_bytes(), headers)
}

impl Ledger {
    /// Notes a request before it is sent for the first time.
    pub fn begin(&self, id: RequestId, sent: Sent) {
        let mut book = self.0.lock();
        book.counts.sent += u64::from(sent.size);
        book.requests.insert(id, Request { sent, outcome: Outcome::Unknown, seen_at: None });
    }

    /// Notes what came of it. A request that is sent again is `Unknown` again unless it is known to be stored.
    pub fn settle(&self, id: RequestId, outcome: Outcome) {
        let mut book = self.0.lock();
        let book = &mut *book;
        let Some(request) = book.requests.get_mut(&id) else {
            book.faults.push(format!("an answer to request {id:?}, which was not sent"));
            return;
        };
        let last_size = u64::from(request.sent.size);
        match outcome {
            Outcome::Acked { first, durable, epoch } => {
                book.counts.acked += last_size;
                if durable {
                    let highest = book.durable.entry((request.sent.collection.clone(), epoch)).or_default();
                    *highest = (first + last_size - 1).max(*highest);
                }
            }
            Outcome::Duplicate => {
                book.counts.acked += last_size;
                book.counts.duplicates += 1;
            }
            Outcome::Unknown | Outcome::Refused => {}
        }
        request.outcome = outcome;
    }

    /// Notes that a retry was answered as a duplicate.
    pub fn duplicate(&self) {
        self.0.lock().counts.duplicates += 1;
    }

    /// Says who reads from now on.
    pub fn reader(&self, name: &str) {
        self.0.lock().reader = name.into();
    }

    /// Says that disks fail: some requests fail that would not otherwise.
    pub fn expect_failing_disks(&self) {
        self.0.lock().disks_fail = true;
    }

    /// Whether disks fail.
    #[must_use]
    pub fn disks_fail(&self) -> bool {
        self.0.lock().disks_fail
    }

    /// Notes a refusal; a producer sends again what was refused.
    pub fn refused(&self, reason: &str) {
        let counts = &mut self.0.lock().counts;
        counts.refused += 1;
        counts.refused_by_disks += u64::from(reason == "NO_HEALTHY_DIRECTORY");
    }

    /// Notes something that must not happen.
    pub fn fault(&self, what: String) {
        self.0.lock().faults.push(what);
    }

    /// Notes a truncation before it is sent.
    pub fn truncating(&self, collection: &str, up_to: u64) {
        let mut book = self.0.lock();
        let asked = &mut book.truncations.entry(collection.to_owned()).or_default().0;
        *asked = up_to.max(*asked);
    }

    /// Notes that a truncation was acknowledged.
    pub fn truncated(&self, collection: &str, up_to: u64) {
        let mut book = self.0.lock();
        let acked = &mut book.truncations.entry(collection.to_owned()).or_default().1;
        *acked = up_to.max(*acked);
    }

    /// What went through so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    /// Requests that are neither acknowledged nor refused.
    #[must_use]
    pub fn unknown(&self) -> Vec<RequestId> {
        let book = self.0.lock();
        book.requests.iter().filter(|(_, r)| r.outcome == Outcome::Unknown).map(|(id, _)| *id).collect()
    }

    /// Compares what a reader got of one collection, from `truncated_to` + 1 to its end, with what must be there, and
    /// says everything that is wrong. What is below `truncated_to` is forgotten.
    pub fn check(&self, collection: &str, truncated_to: u64, seen: &[Seen]) -> Vec<String> {
        let mut book = self.0.lock();
        let mut wrong = std::mem::take(&mut book.faults);
        let (asked, acked) = book.truncations.get(collection).copied().unwrap_or_default();
        if !(acked..=asked).contains(&truncated_to) {
            wrong.push(format!("{collection}: truncated to {truncated_to}, acknowledged {acked}, asked for {asked}"));
        }
        book.counts.read += seen.len() as u64;
        let mut found: BTreeMap<RequestId, Vec<(u64, u32)>> = BTreeMap::new();
        let mut order: HashMap<u32, u64> = HashMap::new();
        for (entry, expected) in seen.iter().zip(truncated_to + 1..) {
            if entry.lsn != expected {
                wrong.push(format!("{collection}: LSN {} follows {}", entry.lsn, expected - 1));
                break;
            }
            match examine(&book.requests, collection, entry) {
                Err(what) => wrong.push(format!("{collection}/{}: {what}", entry.lsn)),
                Ok((id, index)) => {
                    let last = order.insert(id.0, id.1).unwrap_or(0);
                    if last > id.1 {
                        wrong.push(format!("{collection}/{}: request {id:?} after {last}", entry.lsn));
                    }
                    found.entry(id).or_default().push((entry.lsn, index));
                }
            }
        }
        let Book { requests, durable, reader, .. } = &mut *book;
        for (id, request) in requests.iter_mut().filter(|(_, r)| r.sent.collection == collection) {
            let entries = found.remove(id).unwrap_or_default();
            if let Err(what) = judge(request, &entries, truncated_to, durable, reader) {
                wrong.push(format!("{collection}: request {id:?}: {what}"));
            }
        }
        requests.retain(|_, request| {
            let last = request.seen_at.as_ref().map(|(first, _)| first + u64::from(request.sent.size) - 1);
            request.sent.collection != collection
                || request.outcome == Outcome::Unknown
                || last.is_none_or(|last| last > truncated_to)
        });
        wrong
    }
}

/// Which request an entry belongs to, and as which of its entries; or what is wrong with it.
fn examine(
    requests: &BTreeMap<RequestId, Request>,
    collection: &str,
    entry: &Seen,
) -> Result<(RequestId, u32), String> {
    let shown = || String::from_utf8_lossy(&entry.payload[..entry.payload.len().min(100)]).into_owned();
    let (id, index, size) = identify(&entry.payload).ok_or_else(|| format!("not one of ours: {}", shown()))?;
    let request = requests.get(&id).ok_or_else(|| format!("request {id:?} was never sent, or truncated away"))?;
    if entry.payload != payload(id, index, size) || size != request.sent.size {
        return Err(format!("altered: {}", shown()));
    }
    if request.sent.collection != collection {
        return Err(format!("request {id:?} was sent to {}", request.sent.collection));
    }
    let (key, headers) = decoration(id, index);
    let (key, headers) = if request.sent.rich { (Some(key), headers) } else { (None, vec![]) };
    if entry.key != key || entry.headers != headers {
        return Err(format!("request {id:?}: another key or other headers"));
    }
    Ok((id, index))
}

/// Judges the entries found of one request: LSN and index of each.
fn judge(
    request: &mut Request,
    entries: &[(u64, u32)],
    truncated_to: u64,
    durable: &HashMap<(String, u64), u64>,
    reader: &Arc<str>,
) -> Result<(), String> {
    let size = u64::from(request.sent.size);
    let Some((lsn, index)) = entries.first().copied() else {
        let must_be_at = match request.outcome {
            Outcome::Acked { first, durable: true, .. } => Some(first),
            Outcome::Acked { first, durable: false, epoch } => {
                let proven = durable.get(&(request.sent.collection.clone(), epoch)).copied().unwrap_or(0);
                (first + size - 1 <= proven).then_some(first)
            }
            Outcome::Duplicate if truncated_to == 0 => Some(0),
            Outcome::Duplicate | Outcome::Unknown | Outcome::Refused => None,
        };
        return match must_be_at.or(request.seen_at.as_ref().map(|(first, _)| *first)) {
            Some(first) if first + size - 1 > truncated_to => {
                Err(format!("lost; it was {:?}, seen at {:?}", request.outcome, request.seen_at))
            }
            Some(first) => {
                request.seen_at = Some((first, Arc::clone(reader)));
                Ok(())
            }
            None => Ok(()),
        };
    };
    let first = lsn.saturating_sub(u64::from(index));
    let start = first.max(truncated_to + 1);
    let whole: Vec<(u64, u32)> = (start..first + size).map(|lsn| (lsn, (lsn - first) as u32)).collect();
    if entries != whole {
        return Err(format!("a part of it, or doubled: (LSN, index) {entries:?} of {size}"));
    }
    if request.outcome == Outcome::Refused {
        return Err(format!("refused, yet it is at {first}"));
    }
    if let Outcome::Acked { first: acked, .. } = request.outcome
        && acked != first
    {
        return Err(format!("acknowledged at {acked}, read at {first}"));
    }
    if request.seen_at.as_ref().is_some_and(|(seen, _)| *seen != first) {
        return Err(format!("read at {:?} before, at {first} now", request.seen_at));
    }
    request.seen_at = Some((first, Arc::clone(reader)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(size: u32) -> Sent {
        Sent { collection: "c".into(), size, rich: false }
    }

    fn entries(id: RequestId, size: u32, first: u64) -> Vec<Seen> {
        let of = |index| Seen {
            lsn: first + u64::from(index),
            payload: payload(id, index, size),
            key: None,
            headers: vec![],
        };
        (0..size).map(of).collect()
    }

    /// Requests 1 (one entry, acknowledged at 1), 2 (three, at 2) and 3 (one, outcome unknown).
    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        for (number, size) in [(1, 1), (2, 3), (3, 1)] {
            ledger.begin((0, number), sent(size));
        }
        ledger.settle((0, 1), Outcome::Acked { first: 1, durable: true, epoch: 1 });
        ledger.settle((0, 2), Outcome::Acked { first: 2, durable: true, epoch: 1 });
        ledger
    }

    fn all() -> Vec<Seen> {
        [entries((0, 1), 1, 1), entries((0, 2), 3, 2)].concat()
    }

    #[test]
    fn what_was_acknowledged_and_nothing_more_is_right_and_so_is_an_unknown_one() {
        assert_eq!(ledger().check("c", 0, &all()), Vec::<String>::new());
        let with_unknown = [all(), entries((0, 3), 1, 5)].concat();
        assert_eq!(ledger().check("c", 0, &with_unknown), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_wrong_is_found() {
        let cases: [(&str, Vec<Seen>); 8] = [
            ("lost", all()[..1].to_vec()),
            ("lost", vec![]),
            ("a part", all()[..3].to_vec()),
            ("doubled", [all(), entries((0, 1), 1, 5)].concat()),
            ("doubled", [all(), entries((0, 2), 3, 5)].concat()),
            ("LSN 5 follows 3", [all()[..3].to_vec(), entries((0, 3), 1, 5)].concat()),
            ("never sent", [all(), entries((7, 7), 1, 5)].concat()),
            ("read at 1", [entries((0, 3), 1, 1), entries((0, 1), 1, 2), entries((0, 2), 3, 3)].concat()),
        ];
        for (what, seen) in cases {
            let wrong = ledger().check("c", 0, &seen).join("\n");
            let expected = if what == "read at 1" { "acknowledged at 1, read at 2" } else { what };
            assert!(wrong.contains(expected), "{what}: {wrong}");
        }
        let mut altered = all();
        altered[0].payload[60] ^= 1;
        assert!(ledger().check("c", 0, &altered).join("").contains("altered"));
        assert!(!ledger().check("d", 0, &all()).is_empty(), "another collection's entries");
    }

    #[test]
    fn a_refused_request_must_not_be_there() {
        let ledger = ledger();
        ledger.settle((0, 3), Outcome::Refused);
        assert!(ledger.check("c", 0, &[all(), entries((0, 3), 1, 5)].concat()).join("").contains("refused"));
    }

    #[test]
    fn what_was_read_once_must_stay() {
        let ledger = ledger();
        let with_unknown = [all(), entries((0, 3), 1, 5)].concat();
        assert!(ledger.check("c", 0, &with_unknown).is_empty());
        assert!(ledger.check("c", 0, &all()).join("").contains("lost"));
    }

    #[test]
    fn a_buffered_one_must_be_there_when_a_durable_one_of_its_epoch_follows() {
        let buffered = |epoch| {
            let ledger = ledger();
            ledger.begin((1, 1), sent(1));
            ledger.settle((1, 1), Outcome::Acked { first: 4, durable: false, epoch });
            ledger.check("c", 0, &all()).join("")
        };
        assert!(buffered(1).contains("lost"));
        assert_eq!(buffered(2), "");
    }

    #[test]
    fn truncation_forgets_and_is_held_to_what_was_asked_and_acknowledged() {
        let ledger = ledger();
        assert!(ledger.check("c", 3, &all()[3..]).join("").contains("asked for 0"));
        ledger.truncating("c", 3);
        assert_eq!(ledger.check("c", 3, &all()[3..]), Vec::<String>::new());
        ledger.truncated("c", 3);
        assert!(ledger.check("c", 0, &all()).join("").contains("acknowledged 3"));
    }
}
