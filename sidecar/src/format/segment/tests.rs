use super::*;
use crate::format::StreamKey;
use crate::format::fixture::{DIRECTORY, WRITER, entry};
use crate::format::header::{SegmentHeader, SegmentOf};
use proptest::prelude::*;
use uuid::Uuid;

const ALL: [Codec; 3] = [Codec::Null, Codec::Snappy, Codec::Zstandard];
const INC: Incarnation = Incarnation(7 << 20);

fn header(codec: Codec, of: SegmentOf) -> SegmentHeader {
    SegmentHeader {
        writer: WRITER,
        directory: DIRECTORY,
        segment: Uuid::from_u128(9),
        key: StreamKey { epoch: Epoch(7), session: 0 },
        file: 0,
        codec,
        of,
        marker: [0xC3; 16],
    }
}

fn own() -> SegmentOf {
    SegmentOf::Collection { name: "c".into(), incarnation: INC, first: Lsn(1) }
}

/// A file of two flushes and what their facts say.
fn segment(codec: Codec, of: SegmentOf, flushes: &[Vec<Vec<u8>>]) -> (Vec<u8>, Vec<Flushed>) {
    let header = header(codec, of);
    let mut bytes = header.build();
    let mut facts: Vec<Flushed> = Vec::new();
    for flush in flushes {
        let previous = facts.last().map_or(0, |fact| fact.index_offset);
        let shared = header.of == SegmentOf::Shared;
        let mut builder = FlushBuilder::new(codec, header.marker, shared, bytes.len() as u64, previous);
        for record in flush {
            builder.push(&record::decode(record).unwrap().0).unwrap();
            if bytes.len().is_multiple_of(2) {
                bytes.extend(builder.take());
            }
        }
        let (rest, fact) = builder.finish(Epoch(7)).unwrap();
        bytes.extend(rest);
        assert_eq!(fact.length, bytes.len() as u64);
        facts.push(fact);
    }
    (bytes, facts)
}

/// Reads a segment the way the engine will: from the last index back.
fn read(bytes: &[u8], fact: Flushed) -> Result<Vec<Vec<u8>>, BlockError> {
    let (header, _) = SegmentHeader::parse(bytes).unwrap();
    let mut flushes = Vec::new();
    let (mut end, mut at, mut crc) = (fact.length, fact.index_offset, fact.index_crc);
    loop {
        let stored = &bytes[at as usize..end as usize];
        let block = Block::parse(stored, crc, header.codec, &header.marker)?;
        let record = block.records().next().unwrap()?;
        let index = Index::decode(&record)?;
        let mut entries = Vec::new();
        for indexed in &index.blocks {
            let stored = &bytes[indexed.offset as usize..][..indexed.length as usize];
            let block = Block::parse(stored, indexed.crc, header.codec, &header.marker)?;
            let records: Vec<_> = block.records().collect::<Result<_, _>>()?;
            assert_eq!(records.len(), indexed.count as usize);
            assert_eq!((records[0].lsn, records[records.len() - 1].lsn), (indexed.first, indexed.last));
            let (name, incarnation) = &index.names[indexed.name as usize];
            assert!(records.iter().all(|one| one.collection_id == name && one.incarnation == *incarnation));
            entries.extend(records.iter().map(|record| record.raw().to_vec()));
        }
        flushes.push(entries);
        if index.previous == 0 {
            flushes.reverse();
            return Ok(flushes.concat());
        }
        // Where the index before ends, its own flush's first block says.
        let first = index.blocks.first().map_or(at, |block| block.offset);
        (end, at) = (first, index.previous);
        crc = crc32c::crc32c(&bytes[at as usize..end as usize]);
    }
}

fn some(name: &str, lsns: std::ops::RangeInclusive<u64>, bytes: usize) -> Vec<Vec<u8>> {
    lsns.map(|lsn| entry(name, INC, lsn, Epoch(7), &vec![lsn as u8; bytes])).collect()
}

#[test]
fn entries_come_back_through_the_indexes() {
    for codec in ALL {
        let flushes = [some("c", 1..=5, 300_000), some("c", 6..=6, 2_000_000), some("c", 7..=400, 20)];
        let (bytes, facts) = segment(codec, own(), &flushes);
        assert_eq!(read(&bytes, facts[2]).unwrap(), flushes.concat());
        assert_eq!(read(&bytes, facts[0]).unwrap(), flushes[0]);
    }
}

#[test]
fn blocks_hold_one_collection_and_at_most_a_mebibyte_unless_one_entry_is_larger() {
    let flush = [some("a", 1..=7, 300_000), some("b", 1..=1, 3_000_000), some("b", 2..=3, 10), some("a", 8..=8, 10)];
    let (bytes, facts) = segment(Codec::Null, SegmentOf::Shared, &[flush.concat()]);
    assert_eq!(read(&bytes, facts[0]).unwrap(), flush.concat());
    let stored = &bytes[facts[0].index_offset as usize..];
    let block = Block::parse(stored, facts[0].index_crc, Codec::Null, &[0xC3; 16]).unwrap();
    let record = block.records().next().unwrap().unwrap();
    assert_eq!((record.collection_id, record.lsn), ("", Lsn(8)));
    let index = Index::decode(&record).unwrap();
    assert_eq!(index.names, [("a".into(), INC), ("b".into(), INC)]);
    let shape: Vec<_> = index.blocks.iter().map(|block| (block.name, block.count, block.length > 1 << 20)).collect();
    assert_eq!(shape, [(0, 3, false), (0, 3, false), (0, 1, false), (1, 1, true), (1, 2, false), (0, 1, false)]);
}

#[test]
fn stock_readers_read_segments() {
    use apache_avro::types::Value;
    for codec in ALL {
        let flushes = [some("c", 1..=50, 40_000), some("c", 51..=60, 10)];
        let (bytes, _) = segment(codec, own(), &flushes);
        let reader = apache_avro::Reader::new(bytes.as_slice()).unwrap();
        let mut lsns = Vec::new();
        for value in reader {
            let Value::Record(fields) = value.unwrap() else { panic!() };
            let get = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
            if get("kind") == &Value::Enum(1, "DATA".into()) {
                let Value::Long(lsn) = get("lsn") else { panic!() };
                lsns.push(*lsn);
            }
        }
        assert_eq!(lsns, (1..=60).collect::<Vec<_>>(), "{codec:?}");
    }
}

#[test]
fn every_changed_bit_behind_the_header_is_noticed() {
    for codec in ALL {
        let flush = some("c", 1..=3, 20);
        let (good, facts) = segment(codec, own(), std::slice::from_ref(&flush));
        let (_, header) = SegmentHeader::parse(&good).unwrap();
        for bit in header * 8..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes, facts[0]).is_err(), "{codec:?}, bit {bit}");
        }
    }
}

#[test]
fn wrong_blocks_say_what_is_wrong() {
    let marker = [1; 16];
    let record = entry("c", INC, 1, Epoch(1), b"x");
    let parse = |count, records: &[u8], end: &Marker| {
        let mut stored = Vec::new();
        let (_, crc) = put_block(&mut stored, count, records, Codec::Null, end).unwrap();
        let block = Block::parse(&stored, crc, Codec::Null, &marker);
        block.and_then(|block| block.records().map(|record| record.map(|_| ())).collect::<Result<Vec<_>, _>>())
    };
    assert_eq!(parse(1, &record, &marker), Ok(vec![()]));
    assert_eq!(parse(1, &record, &[2; 16]), Err(BlockError::Marker));
    assert_eq!(parse(0, &record, &marker), Err(BlockError::Malformed));
    assert!(matches!(parse(2, &record, &marker), Err(BlockError::Record(_))));
    let mut wrong = record;
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(parse(1, &wrong, &marker), Err(BlockError::Crc));
    assert_eq!(Block::parse(b"", 1, Codec::Null, &marker), Err(BlockError::Crc));
    assert_eq!(Block::parse(b"", 0, Codec::Null, &marker), Err(BlockError::Malformed));
}

#[test]
fn the_index_lies_as_specified() {
    let index = Index {
        previous: 5,
        names: vec![("c".into(), Incarnation(6))],
        blocks: vec![IndexedBlock { offset: 1, length: 2, count: 3, first: Lsn(4), last: Lsn(5), crc: 6, name: 0 }],
    };
    let payload = index.payload();
    let rest = [
        &1_u32.to_le_bytes()[..],
        &1_u32.to_le_bytes(),
        &5_u64.to_le_bytes(),
        &1_u32.to_le_bytes(),
        b"c",
        &6_u64.to_le_bytes(),
        &1_u64.to_le_bytes(),
        &2_u32.to_le_bytes(),
        &3_u32.to_le_bytes(),
        &4_u64.to_le_bytes(),
        &5_u64.to_le_bytes(),
        &6_u32.to_le_bytes(),
        &0_u32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(payload, [&b"WALIDX01"[..], &crc32c::crc32c(&rest).to_le_bytes(), &rest].concat());
}

proptest! {
    #[test]
    fn an_index_comes_back_and_noise_never_panics(
        previous: u64,
        names in proptest::collection::vec((any::<String>(), any::<u64>()), 1..4),
        blocks in proptest::collection::vec((any::<[u64; 3]>(), any::<[u32; 3]>(), any::<prop::sample::Index>()), 0..5),
        noise: Vec<u8>,
        cut: prop::sample::Index,
    ) {
        let count = names.len();
        let index = Index {
            previous,
            names: names.into_iter().map(|(name, life)| (name, Incarnation(life))).collect(),
            blocks: blocks
                .into_iter()
                .map(|([offset, first, last], [length, entries, crc], name)| IndexedBlock {
                    offset,
                    length,
                    count: entries,
                    first: Lsn(first),
                    last: Lsn(last),
                    crc,
                    name: name.index(count) as u32,
                })
                .collect(),
        };
        let decode = |payload: &[u8]| {
            let mut buf = Vec::new();
            record::encode(&mut buf, &Fields { kind: Kind::Index, payload, ..Fields::default() }, []);
            Index::decode(&record::decode(&buf).unwrap().0)
        };
        let payload = index.payload();
        prop_assert_eq!(decode(&payload), Ok(index));
        prop_assert!(decode(&payload[..cut.index(payload.len())]).is_err());
        // Noise with a right checksum reaches the fields.
        let sealed = [&INDEX_MAGIC[..], &crc32c::crc32c(&noise).to_le_bytes(), &noise].concat();
        let _ = decode(&sealed);
    }
}
