//! Streams made by hand, for tests: bytes of slots in memory, with everything random given.

use uuid::Uuid;

use super::facts::{Close, CollectionFact, EpochFact, Fact, Member, Subject, TruncateFact};
use super::frame::{FLAG_CONTROL_ONLY, FrameBuilder, FrameHeader};
use super::header::SlotHeader;
use super::limits::PAGE;
use super::names::SlotName;
use super::record::{self, Fields};
use super::scan::{SlotScan, scan_slot};
use super::stream::ClosedAt;
use super::{Marker, StreamId, StreamKey};
use crate::types::{Epoch, Incarnation, Lsn};

/// The writer of all fixtures.
pub(crate) const WRITER: Uuid = Uuid::from_u128(0x1111_1111_1111_4111_8111_1111_1111_1111);
/// Their directory, unless said otherwise.
pub(crate) const DIRECTORY: Uuid = Uuid::from_u128(0x2222_2222_2222_4222_8222_2222_2222_2222);

/// An encoded DATA record.
pub(crate) fn entry(collection: &str, incarnation: Incarnation, lsn: u64, epoch: Epoch, payload: &[u8]) -> Vec<u8> {
    batched(collection, incarnation, lsn, 0, epoch, payload)
}

/// An encoded DATA record of a batch that ends at `batch_end`.
pub(crate) fn batched(
    collection: &str,
    incarnation: Incarnation,
    lsn: u64,
    batch_end: u64,
    epoch: Epoch,
    payload: &[u8],
) -> Vec<u8> {
    let mut buf = Vec::new();
    let fields = Fields {
        collection_id: collection,
        incarnation,
        lsn: Lsn(lsn),
        timestamp: 1_700_000_000_000_000 + i64::try_from(lsn).unwrap(),
        key: Some(b"key"),
        batch_end: Lsn(batch_end),
        epoch,
        payload,
        ..Fields::default()
    };
    record::encode(&mut buf, &fields, [("trace", b"\x00\xff".as_slice())]);
    buf
}

/// An encoded COLLECTION fact.
pub(crate) fn collection(name: &str, incarnation: Incarnation, head: u64, home: Uuid, epoch: Epoch) -> Vec<u8> {
    let mut buf = Vec::new();
    let fact = CollectionFact { home, move_number: 1, placement: 1, producers: Vec::new() };
    fact.encode(&mut buf, Subject { collection_id: name, incarnation, lsn: Lsn(head) }, epoch);
    buf
}

/// An encoded TRUNCATE fact.
pub(crate) fn truncate(name: &str, incarnation: Incarnation, to: u64, head: u64, epoch: Epoch) -> Vec<u8> {
    let mut buf = Vec::new();
    let subject = Subject { collection_id: name, incarnation, lsn: Lsn(to) };
    TruncateFact { head: Lsn(head) }.encode(&mut buf, subject, epoch);
    buf
}

/// A stream being written into memory.
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) id: StreamId,
    pub(crate) directory: Uuid,
    /// Bytes of file 1, 2, …; `None` where a file is missing.
    pub(crate) files: Vec<Option<Vec<u8>>>,
    /// Header fields of the next frame.
    pub(crate) next: FrameHeader,
}

impl Stream {
    pub(crate) fn new(epoch: u64, session: u32) -> Self {
        let key = StreamKey { epoch: Epoch(epoch), session };
        let seed = epoch as u8 * 16 + session as u8;
        let id = StreamId([seed; 16]);
        let next = FrameHeader { stream: id, frame_seq: 1, epoch: key.epoch, ..FrameHeader::default() };
        let mut stream = Self { key, id, directory: DIRECTORY, files: Vec::new(), next };
        stream.rotate();
        stream
    }

    pub(crate) fn name(&self, file: u64) -> SlotName {
        SlotName { key: self.key, file }
    }

    fn marker(&self, file: u64) -> Marker {
        [self.id.0[0] ^ 0xA0 ^ file as u8; 16]
    }

    /// Begins the next file.
    pub(crate) fn rotate(&mut self) {
        let file = self.files.len() as u64 + 1;
        let header = SlotHeader {
            writer: WRITER,
            directory: self.directory,
            stream: self.id,
            key: self.key,
            file,
            marker: self.marker(file),
        };
        self.files.push(Some(header.build_slot()));
        self.next.file = file;
    }

    /// Appends a frame that says that all before it are durable. Answers its offset.
    pub(crate) fn frame(&mut self, records: &[Vec<u8>]) -> u64 {
        let is_data = |record: &&Vec<u8>| record[0] == 2;
        let entries = records.iter().filter(is_data).count();
        let file = self.files.len() as u64;
        let marker = self.marker(file);
        let mut builder = FrameBuilder::new();
        builder.start(records.len() as u64, records.iter().map(Vec::len).sum());
        records.iter().for_each(|record| builder.push(record, 1, u32::from(record[0] == 2)));
        let bytes = self.files.last_mut().unwrap().as_mut().unwrap();
        let offset = bytes.len() as u64;
        self.next.offset = offset;
        self.next.durable_frame = self.next.frame_seq - 1;
        self.next.flags = if entries == 0 { FLAG_CONTROL_ONLY } else { 0 };
        let built = builder.finish_slot(&self.next, &marker).unwrap();
        bytes.extend_from_slice(built.bytes);
        self.next.prev_crc = built.crc;
        self.next.frame_seq += 1;
        offset
    }

    /// Appends frame 1: an EPOCH that closes these streams.
    pub(crate) fn begin(&mut self, closes: Vec<Close>) -> u64 {
        let mut buf = Vec::new();
        self.epoch_fact(closes).encode_record(&mut buf);
        self.frame(&[buf])
    }

    pub(crate) fn epoch_fact(&self, closes: Vec<Close>) -> EpochFact {
        EpochFact {
            key: self.key,
            run: Uuid::from_u128(0x3333_3333_3333_4333_8333_3333_3333_3333),
            format: 1,
            grant: 0,
            holder: String::new(),
            members: vec![Member { uuid: self.directory, url: "file:///wal".into(), in_use: true }],
            forgotten: Vec::new(),
            closes,
            accepted: Vec::new(),
            version: 0,
            mixed: Vec::new(),
        }
    }

    /// What a successor says of this stream as it stands.
    pub(crate) fn close(&self) -> Close {
        let ClosedAt { frame_seq, crc } = self.closed_at();
        Close { stream: self.id, key: self.key, frame_seq, crc }
    }

    pub(crate) fn closed_at(&self) -> ClosedAt {
        ClosedAt { frame_seq: self.next.frame_seq - 1, crc: self.next.prev_crc }
    }

    /// Scans all files that are there.
    pub(crate) fn scan(&self) -> Vec<SlotScan> {
        let numbered = (1..).zip(&self.files);
        let present = numbered.filter_map(|(file, bytes)| bytes.as_ref().map(|bytes| (file, bytes)));
        present
            .map(|(file, bytes)| scan_slot(&mut bytes.as_slice(), self.name(file), Some(self.id), |_| {}).unwrap())
            .collect()
    }

    /// Grows the last file with zeros, as a spare is.
    pub(crate) fn zeros(&mut self, pages: usize) {
        let bytes = self.files.last_mut().unwrap().as_mut().unwrap();
        bytes.resize(bytes.len() + pages * PAGE, 0);
    }
}
