use super::*;

fn slot() -> SlotHeader {
    SlotHeader {
        writer: Uuid::from_u128(1),
        directory: Uuid::from_u128(2),
        stream: StreamId([7; 16]),
        key: StreamKey { epoch: Epoch(3), session: 1 },
        file: 12,
        marker: [9; 16],
    }
}

fn segment(of: SegmentOf, codec: Codec) -> SegmentHeader {
    SegmentHeader {
        writer: Uuid::from_u128(1),
        directory: Uuid::from_u128(2),
        segment: Uuid::from_u128(3),
        key: StreamKey { epoch: Epoch(3), session: 0 },
        file: 0,
        codec,
        of,
        marker: [9; 16],
    }
}

type Metadata<'a> = Vec<(&'a str, &'a [u8])>;

fn with_metadata(change: impl Fn(&mut Metadata<'_>)) -> Vec<u8> {
    let mut texts = <[String; 6]>::default();
    let header = slot();
    let mut metadata = header.metadata(&mut texts);
    change(&mut metadata);
    build(&metadata, &header.marker)
}

#[test]
fn a_slots_header_is_one_page_and_comes_back() {
    for header in [
        slot(),
        SlotHeader {
            key: StreamKey { epoch: Epoch(u64::MAX), session: u32::MAX },
            file: u64::MAX,
            writer: Uuid::max(),
            ..slot()
        },
    ] {
        let bytes = header.build_slot();
        assert_eq!(bytes.len(), PAGE);
        assert_eq!(SlotHeader::parse_slot(&bytes), Ok(header.clone()));
        assert_eq!(bytes[PAGE - 16..], header.marker);
        let object = header.build_object();
        assert!(object.len() < PAGE);
        assert_eq!(SlotHeader::parse_object(&object), Ok((header, object.len())));
    }
}

#[test]
fn the_metadata_stands_in_the_order_of_the_specification() {
    let bytes = slot().build_slot();
    let keys: Vec<_> = Raw::parse(&bytes).unwrap().metadata.iter().map(|(key, _)| *key).collect();
    assert_eq!(
        keys,
        [
            "avro.schema",
            "avro.codec",
            "wal.format",
            "wal.features",
            "wal.kind",
            "wal.writer",
            "wal.directory",
            "wal.stream",
            "wal.epoch",
            "wal.session",
            "wal.file",
            "wal.crc",
            "wal.pad",
        ]
    );
    let of = SegmentOf::Collection { name: "é".into(), incarnation: Incarnation(5), first: Lsn(1) };
    let bytes = segment(of, Codec::Snappy).build();
    let keys: Vec<_> = Raw::parse(&bytes).unwrap().metadata.iter().map(|(key, _)| *key).collect();
    assert_eq!(
        keys[5..],
        [
            "wal.writer",
            "wal.directory",
            "wal.segment",
            "wal.epoch",
            "wal.session",
            "wal.file",
            "wal.collection",
            "wal.incarnation",
            "wal.first",
            "wal.crc",
        ]
    );
}

#[test]
fn a_segments_header_comes_back() {
    for codec in [Codec::Null, Codec::Snappy, Codec::Zstandard] {
        let name = "🦀".repeat(63);
        for of in [SegmentOf::Shared, SegmentOf::Collection { name, incarnation: Incarnation(1), first: Lsn(9) }] {
            let header = segment(of, codec);
            let mut bytes = header.build();
            let length = bytes.len();
            bytes.extend([1; 50]);
            assert_eq!(SegmentHeader::parse(&bytes), Ok((header, length)));
        }
    }
}

#[test]
fn every_changed_bit_of_a_header_is_noticed() {
    let good = slot().build_slot();
    for bit in 0..PAGE * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = SlotHeader::parse_slot(&bytes).unwrap_err();
        assert!(!error.must_stop(), "bit {bit}: rot is not a later version: {error}");
    }
}

#[test]
fn every_shorter_file_is_noticed() {
    let good = slot().build_slot();
    for length in 0..PAGE {
        assert_eq!(SlotHeader::parse_slot(&good[..length]), Err(HeaderError::Short(length)));
    }
    let object = slot().build_object();
    for length in 0..object.len() {
        assert_eq!(SlotHeader::parse_object(&object[..length]), Err(HeaderError::Short(length)));
    }
}

#[test]
fn a_later_version_stops_the_reader() {
    let bytes = with_metadata(|metadata| metadata[2].1 = b"2");
    let error = SlotHeader::parse_object(&bytes).unwrap_err();
    assert_eq!(error, HeaderError::Format("2".into()));
    assert!(error.must_stop());
    let bytes = with_metadata(|metadata| metadata[3].1 = b"encryption");
    let error = SlotHeader::parse_object(&bytes).unwrap_err();
    assert_eq!(error, HeaderError::Feature("encryption".into()));
    assert!(error.must_stop());
}

#[test]
fn wrong_headers_say_what_is_wrong() {
    let parse = |change: &dyn Fn(&mut Metadata<'_>)| SlotHeader::parse_object(&with_metadata(change)).unwrap_err();
    assert_eq!(
        parse(&|metadata| metadata[4].1 = b"segment"),
        HeaderError::Kind { expected: "journal", found: "segment".into() }
    );
    assert_eq!(parse(&|metadata| metadata[0].1 = b"\"string\""), HeaderError::Field("avro.schema"));
    assert_eq!(parse(&|metadata| metadata[1].1 = b"snappy"), HeaderError::Field("avro.codec"));
    assert_eq!(parse(&|metadata| metadata[5].1 = b"x"), HeaderError::Field("wal.writer"));
    assert_eq!(parse(&|metadata| metadata[7].1 = b"x"), HeaderError::Field("wal.stream"));
    assert_eq!(parse(&|metadata| metadata[10].1 = b"+1"), HeaderError::Field("wal.file"));
    assert_eq!(parse(&|metadata| metadata[10].1 = b"01"), HeaderError::Field("wal.file"));
    assert_eq!(parse(&|metadata| metadata[9].0 = "wal.other"), HeaderError::Field("wal.session"));
    let object = slot().build_object();
    let page = [&object[..], &vec![0; PAGE]].concat();
    assert_eq!(SlotHeader::parse_slot(&page), Err(HeaderError::Field("wal.pad")));
}
