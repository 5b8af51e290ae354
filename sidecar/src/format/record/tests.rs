use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Owned {
    kind: u8,
    collection_id: String,
    numbers: [u64; 5],
    timestamp: i64,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    blobs: [Vec<u8>; 3],
}

impl Owned {
    fn fields(&self) -> Fields<'_> {
        let [incarnation, lsn, producer_seq, batch_end, epoch] = self.numbers;
        Fields {
            kind: Kind::from_number(i64::from(self.kind)).unwrap(),
            collection_id: &self.collection_id,
            incarnation: Incarnation(incarnation),
            lsn: Lsn(lsn),
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            producer_id: &self.blobs[0],
            producer_seq,
            batch_end: Lsn(batch_end),
            ext: &self.blobs[1],
            epoch: Epoch(epoch),
            payload: &self.blobs[2],
        }
    }

    fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

fn owned() -> impl Strategy<Value = Owned> {
    (
        0..16_u8,
        any::<String>(),
        proptest::array::uniform5(0..=i64::MAX as u64),
        any::<i64>(),
        proptest::option::of(blob()),
        proptest::collection::vec((any::<String>(), blob()), 0..4),
        [blob(), blob(), blob()],
    )
        .prop_map(|(kind, collection_id, numbers, timestamp, key, headers, blobs)| Owned {
            kind,
            collection_id,
            numbers,
            timestamp,
            key,
            headers,
            blobs,
        })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(owned in owned(), tail in blob()) {
        let fields = owned.fields();
        let mut buf = Vec::new();
        let length = encode(&mut buf, &fields, owned.headers());
        prop_assert_eq!(length, buf.len());
        prop_assert_eq!(length, encoded_len(&fields, owned.headers()));
        buf.extend(tail);
        let (record, used) = decode(&buf).unwrap();
        prop_assert_eq!(used, length);
        prop_assert_eq!(record.raw(), &buf[..length]);
        prop_assert!(record.crc_holds());
        prop_assert_eq!(record.kind, fields.kind);
        prop_assert_eq!(record.collection_id, fields.collection_id);
        prop_assert_eq!(record.incarnation, fields.incarnation);
        prop_assert_eq!(record.lsn, fields.lsn);
        prop_assert_eq!(record.timestamp, fields.timestamp);
        prop_assert_eq!(record.key, fields.key);
        prop_assert_eq!(record.producer_id, fields.producer_id);
        prop_assert_eq!(record.producer_seq, fields.producer_seq);
        prop_assert_eq!(record.batch_end, fields.batch_end);
        prop_assert_eq!(record.ext, fields.ext);
        prop_assert_eq!(record.epoch, fields.epoch);
        prop_assert_eq!(record.payload, fields.payload);
        prop_assert_eq!(record.headers.iter().collect::<Vec<_>>(), owned.headers().collect::<Vec<_>>());
        prop_assert_eq!(record.headers.len(), owned.headers.len());
        for end in 0..length {
            prop_assert!(decode(&buf[..end]).is_err(), "a prefix of {} bytes decodes", end);
        }
    }

    #[test]
    fn bytes_that_decode_encode_to_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok((record, length)) = decode(&bytes) {
            let fields = Fields {
                kind: record.kind,
                collection_id: record.collection_id,
                incarnation: record.incarnation,
                lsn: record.lsn,
                timestamp: record.timestamp,
                key: record.key,
                producer_id: record.producer_id,
                producer_seq: record.producer_seq,
                batch_end: record.batch_end,
                ext: record.ext,
                epoch: record.epoch,
                payload: record.payload,
            };
            let mut buf = Vec::new();
            let headers: Vec<_> = record.headers.iter().collect();
            prop_assert_eq!(encode(&mut buf, &fields, headers), length);
            let crc_at = record.payload_at - 4;
            buf[crc_at..crc_at + 4].copy_from_slice(&record.crc.to_le_bytes());
            prop_assert_eq!(&buf[..], &bytes[..length]);
        }
    }

    #[test]
    fn a_changed_bit_fails_the_crc_unless_it_is_the_epoch(owned in owned(), bit: prop::sample::Index) {
        let fields = Fields { kind: Kind::Data, ..owned.fields() };
        let mut buf = Vec::new();
        encode(&mut buf, &fields, owned.headers());
        let (record, _) = decode(&buf).unwrap();
        let epoch = record.covered..record.payload_at - 4;
        let bit = bit.index(buf.len() * 8);
        buf[bit / 8] ^= 1 << (bit % 8);
        if let Ok((changed, length)) = decode(&buf) {
            let whole = length == buf.len() && !matches!(changed.kind, Kind::Frame | Kind::Pad);
            prop_assert!(!whole || !changed.crc_holds() || epoch.contains(&(bit / 8)));
        }
    }
}

#[test]
pub(crate) fn the_epoch_is_outside_the_crc_and_all_else_inside() {
    let crc = |fields: Fields<'_>| {
        let mut buf = Vec::new();
        encode(&mut buf, &fields, []);
        decode(&buf).unwrap().0.crc
    };
    let plain = Fields { collection_id: "c", lsn: Lsn(7), payload: b"x", ..Fields::default() };
    assert_eq!(crc(plain), crc(Fields { epoch: Epoch(900), ..plain }));
    for other in [
        Fields { kind: Kind::Gap, ..plain },
        Fields { collection_id: "d", ..plain },
        Fields { incarnation: Incarnation(1), ..plain },
        Fields { lsn: Lsn(8), ..plain },
        Fields { timestamp: 1, ..plain },
        Fields { key: Some(b""), ..plain },
        Fields { producer_id: b"p", ..plain },
        Fields { producer_seq: 1, ..plain },
        Fields { batch_end: Lsn(1), ..plain },
        Fields { ext: b"e", ..plain },
        Fields { payload: b"y", ..plain },
    ] {
        assert_ne!(crc(plain), crc(other), "{other:?}");
    }
}

#[test]
fn a_record_with_nothing_in_it_has_17_bytes() {
    let mut buf = Vec::new();
    let pad = Fields { kind: Kind::Pad, ..Fields::default() };
    assert_eq!(encode(&mut buf, &pad, []), super::super::limits::MIN_RECORD);
    assert_eq!(buf, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn kinds_have_the_numbers_and_symbols_of_the_schema() {
    let schema: serde_json::Value = serde_json::from_str(super::super::schema::SCHEMA).unwrap();
    let symbols = schema["fields"][0]["type"]["symbols"].as_array().unwrap();
    assert_eq!(symbols.len(), 16);
    for (number, symbol) in symbols.iter().enumerate() {
        let kind = Kind::from_number(number as i64).unwrap();
        assert_eq!(kind.as_str(), symbol.as_str().unwrap());
        assert_eq!(usize::from(kind.number()), number);
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::from_number(16), None);
    assert_eq!(Kind::from_number(-1), None);
    assert_eq!(Kind::parse("data"), None);
}

#[test]
fn wrong_bytes_name_their_field() {
    for (bytes, error) in [
        (&[][..], DecodeError::End("kind")),
        (&[0x22], DecodeError::Range { field: "kind", value: 17 }),
        (&[2, 1], DecodeError::Range { field: "collection_id", value: -1 }),
        (&[2, 2, 0xff], DecodeError::Utf8("collection_id")),
        (&[2, 0, 0, 1], DecodeError::Range { field: "lsn", value: -1 }),
        (&[2, 0, 0, 0, 0, 4], DecodeError::Range { field: "key", value: 2 }),
        (&[2, 0, 0, 0, 0, 0, 2, 0, 0, 2], DecodeError::Range { field: "headers", value: 1 }),
        (&[2, 0, 0, 0, 0, 0, 3], DecodeError::Range { field: "headers", value: -2 }),
    ] {
        assert_eq!(decode(bytes).unwrap_err(), error, "{bytes:?}");
    }
}
