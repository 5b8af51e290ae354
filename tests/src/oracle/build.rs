//! Writes small journals by the specification, to test the oracle before and without any engine.

use super::avro::crc;
use super::header::PAGE;
use super::record::kind;

pub(super) const MARKER: [u8; 16] = *b"0123456789abcdef";

/// What a slot is built from.
pub(super) struct Slot {
    pub(super) stream: [u8; 16],
    pub(super) epoch: u64,
    pub(super) file: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) seq: u64,
    pub(super) prev_crc: u32,
}

pub(super) fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    long(out, value.len() as i64);
    out.extend_from_slice(value);
}

fn record(kind: u64, collection: &str, lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    long(&mut out, kind as i64);
    bytes(&mut out, collection.as_bytes());
    let incarnation = if collection.is_empty() { 0 } else { 1 << 20 };
    for number in [incarnation, lsn as i64, 0, 0, 0] {
        long(&mut out, number);
    }
    bytes(&mut out, b"");
    long(&mut out, 0);
    long(&mut out, 0);
    bytes(&mut out, b"");
    let mut tail = Vec::new();
    bytes(&mut tail, payload);
    let sum = if kind == kind::FRAME || kind == kind::PAD { 0 } else { crc(&[&out, &tail]) };
    long(&mut out, 0);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&tail);
    out
}

pub(super) fn data(collection: &str, lsn: u64, payload: &[u8]) -> Vec<u8> {
    record(kind::DATA, collection, lsn, payload)
}

pub(super) fn epoch(epoch: u64, closes: &[([u8; 16], u64, u64, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    long(&mut payload, epoch as i64);
    long(&mut payload, 0);
    payload.extend_from_slice(&[7; 16]);
    long(&mut payload, 1);
    long(&mut payload, 0);
    bytes(&mut payload, b"");
    long(&mut payload, 0);
    long(&mut payload, 0);
    long(&mut payload, closes.len() as i64);
    for (stream, epoch, frame_seq, crc) in closes {
        payload.extend_from_slice(stream);
        long(&mut payload, *epoch as i64);
        long(&mut payload, 0);
        long(&mut payload, *frame_seq as i64);
        payload.extend_from_slice(&crc.to_le_bytes());
    }
    if !closes.is_empty() {
        long(&mut payload, 0);
    }
    record(kind::EPOCH, "", 0, &payload)
}

impl Slot {
    pub(super) fn new(stream: [u8; 16], epoch: u64, file: u64) -> Self {
        Self { stream, epoch, file, bytes: header(stream, epoch, file), seq: 0, prev_crc: 0 }
    }

    /// The next slot of the same stream.
    pub(super) fn next(&self) -> Self {
        let bytes = header(self.stream, self.epoch, self.file + 1);
        Self { bytes, file: self.file + 1, ..*self }
    }

    pub(super) fn name(&self) -> String {
        format!("{:013}.000-{:012}.avro", self.epoch, self.file)
    }

    /// Appends a frame; everything before it counts as durable.
    pub(super) fn frame(&mut self, records: &[Vec<u8>]) {
        self.seq += 1;
        let entries = records.iter().filter(|r| r[0] == 2).count() as u32;
        let offset = self.bytes.len() as u64;
        let plain: usize = records.iter().map(Vec::len).sum::<usize>() + 130;
        let mut block = Vec::new();
        let mut struct_at = 0;
        'fit: for pages in 1.. {
            for pad in 0..PAGE {
                let length_bytes = if pad < 64 { 1 } else { 2 };
                let body = plain + 16 + length_bytes + pad;
                block.clear();
                long(&mut block, records.len() as i64 + 2);
                long(&mut block, body as i64);
                if block.len() + body + 16 != pages * PAGE {
                    continue;
                }
                struct_at = block.len() + 18;
                block.extend(record(kind::FRAME, "", 0, &[0; 112]));
                records.iter().for_each(|r| block.extend(r));
                block.extend(record(kind::PAD, "", 0, &vec![0; pad]));
                break 'fit;
            }
        }
        let length = block.len() as u32 + 16;
        let mut s = [0u8; 112];
        s[..8].copy_from_slice(b"WALFRM01");
        s[12..16].copy_from_slice(&length.to_le_bytes());
        s[24..40].copy_from_slice(&self.stream);
        s[40..48].copy_from_slice(&self.file.to_le_bytes());
        s[48..56].copy_from_slice(&offset.to_le_bytes());
        s[56..64].copy_from_slice(&self.seq.to_le_bytes());
        s[64..72].copy_from_slice(&(self.seq - 1).to_le_bytes());
        s[72..76].copy_from_slice(&self.prev_crc.to_le_bytes());
        s[76..80].copy_from_slice(&entries.to_le_bytes());
        s[80..88].copy_from_slice(&self.epoch.to_le_bytes());
        let head_crc = crc(&[&s[..8], &s[12..16], &s[20..]]);
        s[16..20].copy_from_slice(&head_crc.to_le_bytes());
        block[struct_at..struct_at + 112].copy_from_slice(&s);
        self.prev_crc = crc(&[&self.stream, &self.file.to_le_bytes(), &offset.to_le_bytes(), &block]);
        block[struct_at + 8..struct_at + 12].copy_from_slice(&self.prev_crc.to_le_bytes());
        block.extend(MARKER);
        self.bytes.extend(block);
    }
}

fn header(stream: [u8; 16], epoch: u64, file: u64) -> Vec<u8> {
    let hex: String = stream.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut page = b"Obj\x01".to_vec();
    long(&mut page, 13);
    let uuid = "00000000-0000-4000-8000-000000000000";
    let mut crc_at = 0;
    let (epoch, file) = (epoch.to_string(), file.to_string());
    for (key, value) in [
        ("avro.schema", "\"bytes\""),
        ("avro.codec", "null"),
        ("wal.format", "1"),
        ("wal.features", ""),
        ("wal.kind", "journal"),
        ("wal.writer", uuid),
        ("wal.directory", uuid),
        ("wal.stream", &hex),
        ("wal.epoch", &epoch),
        ("wal.session", "0"),
        ("wal.file", &file),
        ("wal.crc", "00000000"),
    ] {
        bytes(&mut page, key.as_bytes());
        bytes(&mut page, value.as_bytes());
        crc_at = page.len() - 8;
    }
    bytes(&mut page, b"wal.pad");
    let pad = PAGE - page.len() - 2 - 1 - 16;
    bytes(&mut page, &vec![b' '; pad]);
    long(&mut page, 0);
    page.extend(MARKER);
    let sum = format!("{:08x}", crc(&[&page]));
    page[crc_at..crc_at + 8].copy_from_slice(sum.as_bytes());
    page
}

mod tests {
    use super::super::{SlotFile, Verdict, classify, merge};
    use super::*;

    const A: [u8; 16] = [0xaa; 16];
    const B: [u8; 16] = [0xbb; 16];

    /// Frames: EPOCH | 1, 2 | 3 (two pages) | empty.
    fn one_slot() -> Slot {
        let mut slot = Slot::new(A, 1, 1);
        slot.frame(&[epoch(1, &[])]);
        slot.frame(&[data("c", 1, b"one"), data("d", 1, b"two")]);
        slot.frame(&[data("c", 2, &[3; 5000])]);
        slot.frame(&[]);
        slot
    }

    fn judge(slots: &[&Slot]) -> Verdict {
        let names: Vec<String> = slots.iter().map(|slot| slot.name()).collect();
        let files: Vec<_> = slots.iter().zip(&names).map(|(s, name)| SlotFile { name, bytes: &s.bytes }).collect();
        classify(&files)
    }

    #[test]
    fn a_whole_slot_gives_its_entries() {
        let slot = one_slot();
        assert_eq!(slot.bytes.len(), 6 * PAGE);
        let verdict = judge(&[&slot]);
        assert_eq!((verdict.frames.len(), verdict.data().count()), (4, 3));
        assert!(verdict.damage.is_empty() && verdict.torn.is_empty() && verdict.bad_headers.is_empty());
        let merged = merge([&verdict]);
        assert_eq!(merged["c"].entries[&2].payload, [3; 5000]);
        assert!(merged.values().all(|view| view.holes.is_empty() && view.conflicts.is_empty()));
    }

    #[test]
    fn a_flip_is_damage_before_the_last_frame_torn_in_it_and_a_bad_header_in_page_0() {
        let mut slot = one_slot();
        let place = |offset: usize| (slot.name(), offset as u64);
        let places = [place(PAGE), place(2 * PAGE), place(3 * PAGE), place(5 * PAGE)];
        for bit in 0..slot.bytes.len() * 8 {
            slot.bytes[bit / 8] ^= 1 << (bit % 8);
            let verdict = judge(&[&slot]);
            slot.bytes[bit / 8] ^= 1 << (bit % 8);
            let page = bit / 8 / PAGE;
            let at: Vec<_> = verdict.damage.iter().map(|d| (d.place.file.clone(), d.place.offset)).collect();
            match page {
                0 => assert_eq!((at.len(), verdict.bad_headers.len(), verdict.frames.len()), (1, 1, 0), "bit {bit}"),
                5 => {
                    assert_eq!(
                        (verdict.frames.len(), verdict.damage.len(), verdict.torn.len()),
                        (3, 0, 1),
                        "bit {bit}"
                    );
                }
                _ => {
                    assert_eq!(at, [places[[0, 0, 1, 2, 2][page]].clone()], "bit {bit}");
                    assert_eq!((verdict.frames.len(), verdict.torn.len()), (3, 0), "bit {bit}");
                    let named = verdict.damage[0].kept.len();
                    let lost = [0, 0, 2, 1, 1][page];
                    assert!(named == lost || verdict.damage[0].unknown, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_cut_is_torn_unless_a_later_slot_proves_what_was_there() {
        let mut first = one_slot();
        let mut second = first.next();
        let whole = first.bytes.clone();
        for cut in PAGE..whole.len() {
            first.bytes.truncate(cut);
            let verdict = judge(&[&first]);
            assert_eq!(verdict.frames.len(), [0, 1, 2, 2, 3][cut / PAGE - 1], "cut at {cut}");
            assert!(verdict.damage.is_empty(), "cut at {cut}");
            first.bytes.clone_from(&whole);
        }
        second.frame(&[data("c", 3, b"three")]);
        first.bytes.truncate(5 * PAGE + 1);
        let verdict = judge(&[&first, &second]);
        assert_eq!((verdict.frames.len(), verdict.damage.len()), (4, 1));
        assert_eq!(verdict.damage[0].place.offset, 5 * PAGE as u64);
    }

    #[test]
    fn a_successor_proves_the_end_of_its_predecessor_and_hides_what_follows() {
        let mut first = one_slot();
        let (seq, crc) = (first.seq, first.prev_crc);
        first.frame(&[data("c", 3, b"garbage")]);
        let mut second = Slot::new(B, 2, 1);
        second.frame(&[epoch(2, &[(A, 1, seq, crc)])]);
        second.frame(&[data("c", 3, b"three")]);
        let verdict = judge(&[&first, &second]);
        assert_eq!((verdict.frames.len(), verdict.damage.len(), verdict.torn.len()), (6, 0, 0));
        assert_eq!(merge([&verdict])["c"].entries[&3].payload, b"three");
        first.bytes.truncate(5 * PAGE);
        let verdict = judge(&[&first, &second]);
        assert_eq!((verdict.frames.len(), verdict.damage.len()), (5, 1));
        assert_eq!((verdict.damage[0].place.offset, verdict.damage[0].unknown), (5 * PAGE as u64, true));
        let verdict = judge(&[&second]);
        assert_eq!((verdict.frames.len(), verdict.damage.len()), (2, 1));
    }

    #[test]
    fn a_frame_of_another_place_or_stream_is_not_there() {
        let mut slot = one_slot();
        let moved = slot.bytes[2 * PAGE..3 * PAGE].to_vec();
        slot.bytes.truncate(3 * PAGE);
        slot.bytes.extend(&moved);
        assert_eq!(judge(&[&slot]).frames.len(), 2);
        let other = Slot { bytes: one_slot().bytes, ..Slot::new(A, 1, 2) };
        assert_eq!(judge(&[&other]).bad_headers.len(), 1, "the header tells another file number");
    }
}
