//! The encoded entries of one collection, in memory: a chain of chunks that grow from 4 KiB to 256 KiB, so that ten
//! thousand quiet collections cost little and one busy one is not a million allocations.
//!
//! 1. Records lie in LSN order; inside a chunk LSNs are dense. A hole between two chunks is a gap, or in a segment.
//! 2. [`EntryBuffer::capacity`] is what the chunks hold from the allocator, not what is filled: the bound is on memory.
//! 3. Readers copy out; nobody holds a reference into a chunk after the call.

use std::collections::VecDeque;

use crate::types::Lsn;

/// The smallest chunk, bytes.
const CHUNK_MIN: usize = 4 << 10;
/// The largest chunk, bytes, unless one record is larger.
const CHUNK_MAX: usize = 256 << 10;
/// What a chunk costs beside its bytes and offsets.
const CHUNK_OVERHEAD: usize = 64;

#[derive(Debug)]
struct Chunk {
    first: Lsn,
    /// Where each record starts; the record of `first + i` starts at `starts[i]`.
    starts: Vec<u32>,
    bytes: Vec<u8>,
    /// What this chunk was counted with.
    counted: usize,
}

impl Chunk {
    fn with_capacity(first: Lsn, capacity: usize) -> Self {
        let mut chunk = Self { first, starts: Vec::new(), bytes: Vec::with_capacity(capacity), counted: 0 };
        chunk.counted = chunk.cost();
        chunk
    }

    fn last(&self) -> Lsn {
        Lsn(self.first.0 + self.starts.len() as u64 - 1)
    }

    fn cost(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * size_of::<u32>() + CHUNK_OVERHEAD
    }

    fn record(&self, index: usize) -> &[u8] {
        let start = self.starts[index] as usize;
        let end = self.starts.get(index + 1).map_or(self.bytes.len(), |&end| end as usize);
        &self.bytes[start..end]
    }
}

/// The encoded entries of one collection.
#[derive(Debug, Default)]
pub(crate) struct EntryBuffer {
    chunks: VecDeque<Chunk>,
    capacity: usize,
    bytes: u64,
    entries: u64,
}

impl EntryBuffer {
    /// Bytes of memory held.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Encoded bytes of the records held.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of records held.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// LSN of the first record.
    pub(crate) fn first(&self) -> Option<Lsn> {
        self.chunks.front().map(|chunk| chunk.first)
    }

    /// LSN of the last record.
    pub(crate) fn last(&self) -> Option<Lsn> {
        self.chunks.back().map(Chunk::last)
    }

    /// The LSNs held, as dense ranges in order.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (Lsn, Lsn)> {
        self.chunks.iter().map(|chunk| (chunk.first, chunk.last()))
    }

    /// How much [`Self::capacity`] grows at most by records of `len` bytes in all.
    pub(crate) fn growth(&self, len: usize) -> usize {
        match self.chunks.back() {
            Some(chunk) if chunk.bytes.capacity() - chunk.bytes.len() >= len => 0,
            Some(chunk) => len.max((chunk.bytes.capacity() * 2).clamp(CHUNK_MIN, CHUNK_MAX)) + CHUNK_OVERHEAD,
            None => len.max(CHUNK_MIN) + CHUNK_OVERHEAD,
        }
    }

    /// Appends one record: `encode` writes exactly `len` bytes to the end of the vector. `lsn` is above all others.
    pub(crate) fn push(&mut self, lsn: Lsn, len: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let fits = self.chunks.back().is_some_and(|chunk| {
            chunk.last().next() == lsn
                && chunk.bytes.capacity() - chunk.bytes.len() >= len
                && chunk.bytes.len() + len <= u32::MAX as usize
        });
        if !fits {
            let next = self.chunks.back().map_or(CHUNK_MIN, |chunk| (chunk.bytes.capacity() * 2).min(CHUNK_MAX));
            let chunk = Chunk::with_capacity(lsn, next.max(len));
            self.capacity += chunk.counted;
            self.chunks.push_back(chunk);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let start = chunk.bytes.len();
            chunk.starts.push(start as u32);
            encode(&mut chunk.bytes);
            self.bytes += (chunk.bytes.len() - start) as u64;
            self.entries += 1;
            let cost = chunk.cost();
            self.capacity += cost - chunk.counted;
            chunk.counted = cost;
        }
    }

    /// Appends the records of `first..=last` to `out`, those that are held.
    pub(crate) fn copy(&self, first: Lsn, last: Lsn, out: &mut Vec<u8>) {
        for chunk in self.from(first) {
            if chunk.first > last {
                break;
            }
            let start = first.0.saturating_sub(chunk.first.0) as usize;
            let end = (last.0 - chunk.first.0 + 1).min(chunk.starts.len() as u64) as usize;
            let from = chunk.starts[start] as usize;
            let to = chunk.starts.get(end).map_or(chunk.bytes.len(), |&end| end as usize);
            out.extend_from_slice(&chunk.bytes[from..to]);
        }
    }

    /// Appends records from the first one at or above `from` on, at most `most` bytes unless one record is larger, none
    /// above `to`. Answers the LSNs of the first and the last one.
    pub(crate) fn copy_some(&self, from: Lsn, to: Lsn, most: usize, out: &mut Vec<u8>) -> Option<(Lsn, Lsn)> {
        let start = out.len();
        let mut span: Option<(Lsn, Lsn)> = None;
        for (lsn, record) in self.iter(from).take_while(|(lsn, _)| *lsn <= to) {
            if span.is_some() && out.len() - start + record.len() > most {
                break;
            }
            out.extend_from_slice(record);
            span = Some((span.map_or(lsn, |(first, _)| first), lsn));
        }
        span
    }

    /// The LSNs of the records up to `to`, cut behind the chunk that brings them to `most` bytes, and before a hole that does
    /// not count as `joined`, and their bytes.
    pub(crate) fn extent(&self, to: Lsn, most: u64, joined: impl Fn(Lsn, Lsn) -> bool) -> Option<(Lsn, Lsn, u64)> {
        let mut extent: Option<(Lsn, Lsn, u64)> = None;
        for chunk in &self.chunks {
            let held = extent.map_or(0, |(_, _, bytes)| bytes);
            if chunk.first > to || held >= most {
                break;
            }
            if extent.is_some_and(|(_, last, _)| is_apart(last, chunk.first, &joined)) {
                break;
            }
            let count = (to.0 - chunk.first.0 + 1).min(chunk.starts.len() as u64) as usize;
            let end = chunk.starts.get(count).map_or(chunk.bytes.len(), |&end| end as usize);
            let bytes = held + (end - chunk.starts[0] as usize) as u64;
            let last = Lsn(chunk.first.0 + count as u64 - 1);
            extent = Some((extent.map_or(chunk.first, |(first, ..)| first), last, bytes));
        }
        extent
    }

    /// Encoded bytes of the records of `first..=last` that are held.
    pub(crate) fn bytes_between(&self, first: Lsn, last: Lsn) -> u64 {
        let within = self.from(first).take_while(|chunk| chunk.first <= last);
        within
            .map(|chunk| {
                let start = first.0.saturating_sub(chunk.first.0) as usize;
                let end = (last.0 - chunk.first.0 + 1).min(chunk.starts.len() as u64) as usize;
                let to = chunk.starts.get(end).map_or(chunk.bytes.len(), |&end| end as usize);
                (to - chunk.starts[start] as usize) as u64
            })
            .sum()
    }

    /// The records from `first` on, each with its LSN.
    pub(crate) fn iter(&self, first: Lsn) -> impl Iterator<Item = (Lsn, &[u8])> {
        self.from(first).flat_map(move |chunk| {
            let start = first.0.saturating_sub(chunk.first.0) as usize;
            (start..chunk.starts.len()).map(move |i| (Lsn(chunk.first.0 + i as u64), chunk.record(i)))
        })
    }

    /// The chunks that hold records at or above `first`.
    fn from(&self, first: Lsn) -> impl Iterator<Item = &Chunk> {
        // Most ask for what was appended last.
        let newest = self.chunks.back().filter(|chunk| chunk.first <= first);
        let start = match newest {
            Some(chunk) => self.chunks.len() - usize::from(chunk.last() >= first),
            None => self.chunks.partition_point(|chunk| chunk.last() < first),
        };
        self.chunks.range(start..)
    }

    /// Forgets the records up to `to`. Memory goes a chunk at a time.
    pub(crate) fn truncate_to(&mut self, to: Lsn) {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.last() <= to {
                self.bytes -= chunk.bytes.len() as u64 - u64::from(chunk.starts[0]);
                self.entries -= chunk.starts.len() as u64;
                self.capacity -= chunk.counted;
                self.chunks.pop_front();
            } else if chunk.first <= to {
                let gone = (to.0 - chunk.first.0 + 1) as usize;
                self.bytes -= u64::from(chunk.starts[gone]) - u64::from(chunk.starts[0]);
                self.entries -= gone as u64;
                chunk.starts.drain(..gone);
                chunk.first = to.next();
                break;
            } else {
                break;
            }
        }
    }

    /// Puts the records of `other`, all above ours, behind ours.
    pub(crate) fn extend(&mut self, other: Self) {
        debug_assert!(self.last() < other.first() || other.first().is_none());
        self.capacity += other.capacity;
        self.bytes += other.bytes;
        self.entries += other.entries;
        self.chunks.extend(other.chunks);
    }
}

/// Whether there is something between two LSNs that does not count as `joined`.
pub(crate) fn is_apart(last: Lsn, first: Lsn, joined: impl Fn(Lsn, Lsn) -> bool) -> bool {
    first > last.next() && !joined(last.next(), Lsn(first.0 - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(buffer: &mut EntryBuffer, lsn: u64, payload: &[u8]) {
        buffer.push(Lsn(lsn), payload.len(), |out| out.extend_from_slice(payload));
    }

    #[test]
    fn a_small_collection_costs_one_small_chunk() {
        let mut buffer = EntryBuffer::default();
        push(&mut buffer, 1, b"x");
        assert!(buffer.capacity() < CHUNK_MIN + 200, "{}", buffer.capacity());
    }

    #[test]
    fn growth_announces_the_memory_of_the_next_record() {
        let mut buffer = EntryBuffer::default();
        for lsn in 1..2000_u64 {
            let record = vec![0; (lsn as usize * 37) % 9000 + 1];
            let (before, announced) = (buffer.capacity(), buffer.growth(record.len()));
            push(&mut buffer, lsn, &record);
            // The table of starts grows beside it.
            assert!(buffer.capacity() <= before + announced + 4096, "at {lsn}");
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_from_lsn_to_bytes(
            steps in proptest::collection::vec((0_u8..10, 1_usize..9000, 0_u64..4), 1..200)
        ) {
            let mut buffer = EntryBuffer::default();
            let mut model = std::collections::BTreeMap::<u64, Vec<u8>>::new();
            let (mut head, mut truncated) = (0_u64, 0_u64);
            for (what, len, skip) in steps {
                if what == 0 {
                    truncated += (head - truncated) * skip / 3;
                    buffer.truncate_to(Lsn(truncated));
                    model = model.split_off(&(truncated + 1));
                } else {
                    head += 1 + if what == 1 { skip } else { 0 };
                    let record = vec![head as u8; len];
                    push(&mut buffer, head, &record);
                    model.insert(head, record);
                }
                let from = truncated + skip;
                let got: Vec<_> = buffer.iter(Lsn(from)).map(|(lsn, r)| (lsn.0, r.to_vec())).collect();
                let want: Vec<_> = model.range(from..).map(|(l, r)| (*l, r.clone())).collect();
                prop_assert_eq!(got, want);
                let mut copied = Vec::new();
                buffer.copy(Lsn(from), Lsn(from + 3), &mut copied);
                let want: Vec<u8> = model.range(from..=from + 3).flat_map(|(_, r)| r.clone()).collect();
                prop_assert_eq!(buffer.bytes_between(Lsn(from), Lsn(from + 3)), copied.len() as u64);
                prop_assert_eq!(copied, want);
                let (mut some, to) = (Vec::new(), Lsn(from + 5));
                if let Some((first, last)) = buffer.copy_some(Lsn(from), to, 10_000, &mut some) {
                    let want: Vec<u8> = model.range(first.0..=last.0).flat_map(|(_, r)| r.clone()).collect();
                    prop_assert!(first >= Lsn(from) && last <= to && (some.len() <= 10_000 || first == last));
                    prop_assert_eq!(model.range(from..).next().map(|(lsn, _)| *lsn), Some(first.0));
                    prop_assert_eq!(some, want);
                } else {
                    prop_assert!(model.range(from..=to.0).next().is_none());
                }
                let held = |last: u64| model.range(..=last).map(|(_, r)| r.len() as u64).sum::<u64>();
                if let Some((first, last, bytes)) = buffer.extent(to, 20_000, |_, _| true) {
                    prop_assert_eq!(model.keys().next(), Some(&first.0));
                    prop_assert!(last <= to && model.contains_key(&last.0));
                    prop_assert_eq!(bytes, held(last.0));
                    prop_assert!(bytes >= 20_000 || bytes == held(to.0));
                } else {
                    prop_assert_eq!(held(to.0), 0);
                }
                prop_assert_eq!(buffer.entries(), model.len() as u64);
                prop_assert_eq!(buffer.bytes(), model.values().map(|r| r.len() as u64).sum::<u64>());
            }
            buffer.truncate_to(Lsn(head));
            prop_assert_eq!((buffer.capacity(), buffer.bytes(), buffer.entries()), (0, 0, 0));
        }
    }
}
