//! Our encoder against Avro's own implementation: the schema parses, a record is encoded alike byte for byte, and a slot
//! is read like any object container file.

use apache_avro::types::Value;
use apache_avro::{Reader, Schema, from_avro_datum, to_avro_datum};
use proptest::prelude::*;

use super::facts::{Fact, GapCause, GapFact, Subject};
use super::fixture::{Stream, entry};
use super::record::{self, Fields, Kind};
use super::schema::SCHEMA;
use crate::types::{Epoch, Incarnation, Lsn};

const INC: Incarnation = Incarnation(1 << 20);

fn value(fields: &Fields<'_>, headers: &[(String, Vec<u8>)], crc: u32) -> Value {
    let long = |number: u64| Value::Long(i64::try_from(number).unwrap());
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let header = |(name, value): &(String, Vec<u8>)| {
        Value::Record(vec![("name".into(), Value::String(name.clone())), ("value".into(), bytes(value))])
    };
    let key = match fields.key {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(key) => Value::Union(1, Box::new(bytes(key))),
    };
    let kind = Value::Enum(fields.kind.number().into(), fields.kind.as_str().into());
    let all = [
        ("kind", kind),
        ("collection_id", Value::String(fields.collection_id.into())),
        ("incarnation", long(fields.incarnation.0)),
        ("lsn", long(fields.lsn.0)),
        ("timestamp", Value::TimestampMicros(fields.timestamp)),
        ("key", key),
        ("headers", Value::Array(headers.iter().map(header).collect())),
        ("producer_id", bytes(fields.producer_id)),
        ("producer_seq", long(fields.producer_seq)),
        ("batch_end", long(fields.batch_end.0)),
        ("ext", bytes(fields.ext)),
        ("epoch", long(fields.epoch.0)),
        ("crc", Value::Fixed(4, crc.to_le_bytes().to_vec())),
        ("payload", bytes(fields.payload)),
    ];
    Value::Record(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

proptest! {
    #[test]
    fn a_record_has_the_bytes_that_avro_gives_it(
        name: String,
        numbers in proptest::array::uniform5(0..=i64::MAX as u64),
        timestamp: i64,
        key: Option<Vec<u8>>,
        headers: Vec<(String, Vec<u8>)>,
        blobs: [Vec<u8>; 3],
        kind in 0_i64..16,
    ) {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let [incarnation, lsn, producer_seq, batch_end, epoch] = numbers;
        let fields = Fields {
            kind: Kind::from_number(kind).unwrap(),
            collection_id: &name,
            incarnation: Incarnation(incarnation),
            lsn: Lsn(lsn),
            timestamp,
            key: key.as_deref(),
            producer_id: &blobs[0],
            producer_seq,
            batch_end: Lsn(batch_end),
            ext: &blobs[1],
            epoch: Epoch(epoch),
            payload: &blobs[2],
        };
        let mut ours = Vec::new();
        let pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        record::encode(&mut ours, &fields, pairs);
        let (decoded, _) = record::decode(&ours).unwrap();
        let value = value(&fields, &headers, decoded.crc);
        prop_assert_eq!(&ours, &to_avro_datum(&schema, value.clone()).unwrap());
        prop_assert_eq!(from_avro_datum(&schema, &mut ours.as_slice(), None).unwrap(), value);
    }
}

#[test]
fn a_slot_is_read_like_any_object_container_file() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&(1..=70).map(|lsn| entry("c", INC, lsn, Epoch(1), &[lsn as u8; 200])).collect::<Vec<_>>());
    let mut gap = Vec::new();
    let subject = Subject { collection_id: "c", incarnation: INC, lsn: Lsn(71) };
    GapFact { last: Lsn(80), reason: GapCause::Damage }.encode(&mut gap, subject, Epoch(1));
    stream.frame(&[gap, entry("c", INC, 81, Epoch(1), b"")]);
    let bytes = stream.files[0].clone().unwrap();

    let mut lsns = Vec::new();
    let mut kinds = [0; 16];
    let reader = Reader::new(bytes.as_slice()).unwrap();
    assert_eq!(reader.user_metadata()["wal.kind"], b"journal");
    for one in reader {
        let Value::Record(fields) = one.unwrap() else { panic!() };
        let (Value::Enum(kind, _), Value::Long(lsn)) = (&fields[0].1, &fields[3].1) else { panic!() };
        kinds[*kind as usize] += 1;
        if *kind == 1 {
            lsns.push(*lsn);
        }
    }
    assert_eq!(lsns, (1..=70).chain([81]).collect::<Vec<_>>());
    assert_eq!(kinds[1..=8], [71, 3, 3, 1, 0, 0, 0, 1]);
}
