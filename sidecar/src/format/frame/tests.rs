use super::*;
use crate::format::record::{self, Fields};
use crate::format::scan::{Expected, parse_frame, parse_head};
use proptest::prelude::*;

const MARKER: Marker = [0xAB; 16];

fn header(offset: u64) -> FrameHeader {
    FrameHeader {
        flags: FLAG_CONTROL_ONLY,
        stream: StreamId([5; 16]),
        file: 3,
        offset,
        frame_seq: 9,
        durable_frame: 8,
        prev_crc: 77,
        epoch: Epoch(4),
        floor: 2,
        oldest: Epoch(1),
        oldest_session: 6,
    }
}

fn expected() -> Expected {
    Expected { stream: Some(StreamId([5; 16])), epoch: Epoch(4), file: 3 }
}

fn entry(bytes: usize) -> Vec<u8> {
    let payload = vec![0x5A; bytes];
    let mut buf = Vec::new();
    record::encode(&mut buf, &Fields { collection_id: "c", payload: &payload, ..Fields::default() }, []);
    buf
}

/// A record of exactly so many bytes (not one of the few lengths that no record has).
fn record_of(total: usize) -> Option<Vec<u8>> {
    (0..4).find_map(|digits| {
        let record = entry(total.checked_sub(entry(0).len() + digits)?);
        (record.len() == total).then_some(record)
    })
}

#[test]
fn the_struct_lies_as_specified() {
    let mut builder = FrameBuilder::new();
    builder.start(0, 0);
    let built = builder.finish_slot(&header(8192), &MARKER).unwrap();
    let block = built.bytes;
    assert_eq!(block.len(), PAGE);
    assert_eq!(block[..3], [4, 0xda, 0x3f], "two records, 4,077 bytes");
    assert_eq!(block[3..21], CONSTANT);
    let fields = &block[21..21 + 112];
    assert_eq!(&fields[..8], b"WALFRM01");
    assert_eq!(fields[8..12], built.crc.to_le_bytes());
    assert_eq!(fields[12..16], 4096_u32.to_le_bytes());
    assert_eq!(fields[20..24], 1_u32.to_le_bytes());
    assert_eq!(fields[24..40], [5; 16]);
    assert_eq!(fields[40..48], 3_u64.to_le_bytes());
    assert_eq!(fields[48..56], 8192_u64.to_le_bytes());
    assert_eq!(fields[56..64], 9_u64.to_le_bytes());
    assert_eq!(fields[64..72], 8_u64.to_le_bytes());
    assert_eq!(fields[72..76], 77_u32.to_le_bytes());
    assert_eq!(fields[76..80], 0_u32.to_le_bytes());
    assert_eq!(fields[80..88], 4_u64.to_le_bytes());
    assert_eq!(fields[88..96], 2_u64.to_le_bytes());
    assert_eq!(fields[96..104], 1_u64.to_le_bytes());
    assert_eq!(fields[104..108], 6_u32.to_le_bytes());
    assert_eq!(fields[108..112], [0; 4]);
    assert_eq!(block[block.len() - 16..], MARKER);
    let pad = &block[21 + 112..block.len() - 16];
    assert_eq!(pad[..18], [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb2, 0x3d]);
    assert_eq!(pad.len(), 18 + 3929);
    assert!(pad[18..].iter().all(|byte| *byte == 0));

    let head: Vec<u8> = [&fields[..8], &fields[12..16], &fields[20..]].concat();
    assert_eq!(fields[16..20], crc32c::crc32c(&head).to_le_bytes());
    let mut whole = [&[5; 16][..], &3_u64.to_le_bytes(), &8192_u64.to_le_bytes(), &block[..block.len() - 16]].concat();
    whole[32 + 21 + 8..32 + 21 + 12].fill(0);
    assert_eq!(built.crc, crc32c::crc32c(&whole));
}

#[test]
fn a_frame_takes_the_least_pages_for_which_a_pad_exists() {
    // What a page of a frame with one record holds beside that record, and a PAD of `pad` bytes.
    let around = 1 + 2 + FRAME_RECORD + 16;
    for (pad, pages) in [(17, 1), (18, 1), (80, 1), (81, 2), (82, 1), (83, 1), (16, 2), (1, 2), (0, 2)] {
        let record = record_of(PAGE - around - pad).unwrap();
        let mut builder = FrameBuilder::new();
        builder.start(1, record.len());
        builder.push(&record, 1, 1);
        assert_eq!(builder.slot_len(), pages * PAGE, "PAD of {pad}");
        let built = builder.finish_slot(&header(4096), &MARKER).unwrap();
        assert_eq!(built.bytes.len(), pages * PAGE, "PAD of {pad}");
        let head = parse_head(built.bytes, &expected(), 4096).unwrap().unwrap();
        let frame = parse_frame(built.bytes, &head, &MARKER).unwrap();
        assert_eq!(frame.records().map(|record| record.unwrap().raw().to_vec()).collect::<Vec<_>>(), [record]);
    }
}

#[test]
fn every_size_around_the_widths_of_the_numbers_is_laid_out() {
    for near in [8192_usize, 1 << 20] {
        for bytes in near - 400..near + 100 {
            for records in [1, 61, 62, 63, 8189, 8190, 8191] {
                let layout = Layout::slot(records, bytes);
                assert!(layout.length.is_multiple_of(PAGE));
                assert_eq!(layout.head_len() + bytes + layout.pad + MARKER.len(), layout.length);
                assert!(layout.pad >= 17 && layout.pad <= PAGE + 81 && pad_payload(layout.pad).is_some());
            }
        }
    }
}

#[test]
fn records_land_in_place_when_the_numbers_given_are_right() {
    let record = entry(1000);
    let mut builder = FrameBuilder::new();
    for records in [1, 61, 62, 100, 1100] {
        builder.start(records, record.len() * records as usize);
        (0..records).for_each(|_| builder.push(&record, 1, 1));
        let at = builder.buf[builder.records_at..].as_ptr();
        let built = builder.finish_slot(&header(4096), &MARKER).unwrap();
        assert_eq!(built.bytes.as_ptr().align_offset(PAGE), 0);
        assert!(built.bytes.as_ptr_range().contains(&at));
        let head = parse_head(built.bytes, &expected(), 4096).unwrap().unwrap();
        assert_eq!(built.bytes[head.records_at()..].as_ptr(), at, "nothing was moved");
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused() {
    let mut builder = FrameBuilder::new();
    builder.start(1, MAX_FRAME - 200);
    builder.push(&vec![0; MAX_FRAME - 200], 1, 1);
    assert!(builder.finish_slot(&header(4096), &MARKER).is_ok());
    builder.start(1, MAX_FRAME - 160);
    builder.push(&vec![0; MAX_FRAME - 160], 1, 1);
    assert_eq!(builder.finish_slot(&header(4096), &MARKER).unwrap_err(), FrameTooLong(MAX_FRAME + PAGE));
}

proptest! {
    #[test]
    fn what_is_built_is_read_whatever_was_announced(
        sizes in proptest::collection::vec(0_usize..3000, 0..80),
        announced in (0_u64..10_000, 0_usize..2_000_000),
        object: bool,
    ) {
        let mut builder = FrameBuilder::new();
        // Twice, since the buffer is used again.
        for _ in 0..2 {
            builder.start(announced.0, announced.1);
            let mut records = Vec::new();
            for size in &sizes {
                let record = entry(*size);
                builder.push(&record, 1, 1);
                records.push(record);
            }
            builder.push_fact(|buf| { record::encode(buf, &Fields { kind: record::Kind::Delete, ..Fields::default() }, []); });
            let bytes = builder.bytes();
            prop_assert_eq!(builder.records(), sizes.len() as u64 + 1);
            prop_assert_eq!(builder.entries() as usize, sizes.len());
            let length = builder.slot_len();
            let built = if object { builder.finish_object(&header(4096), &MARKER) } else { builder.finish_slot(&header(4096), &MARKER) };
            let built = built.unwrap();
            let head = parse_head(built.bytes, &expected(), 4096).unwrap().unwrap();
            prop_assert_eq!(head.header, header(4096));
            prop_assert_eq!(head.entries as usize, sizes.len());
            prop_assert_eq!(head.crc, built.crc);
            let frame = if object {
                prop_assert_eq!(built.bytes.len(), head.records_at() + bytes + 16);
                crate::format::scan::parse_object_frame(built.bytes, &head, &MARKER)
            } else {
                prop_assert_eq!(built.bytes.len(), length);
                prop_assert_eq!(built.bytes.as_ptr().align_offset(PAGE), 0);
                parse_frame(built.bytes, &head, &MARKER)
            };
            let read: Vec<_> = frame.unwrap().records().map(|record| record.unwrap().raw().to_vec()).collect();
            prop_assert_eq!(read.len(), records.len() + 1);
            prop_assert_eq!(&read[..records.len()], &records[..]);
        }
    }
}
