use super::*;
use proptest::prelude::*;

fn comes_back<F: Fact + PartialEq + std::fmt::Debug>(fact: &F, tail: &[u8]) {
    comes_back_or(fact, None, tail);
}

/// A payload that is cut is no fact, or the one that it is without its last field.
fn comes_back_or<F: Fact + PartialEq + std::fmt::Debug>(fact: &F, without_last: Option<&F>, tail: &[u8]) {
    let subject = Subject { collection_id: "orders", incarnation: Incarnation(3 << 20), lsn: Lsn(17) };
    let mut buf = Vec::new();
    let length = fact.encode(&mut buf, subject, Epoch(4));
    let (record, used) = record::decode(&buf).unwrap();
    assert_eq!(used, length);
    assert!(record.crc_holds());
    assert_eq!(record.kind, F::KIND);
    assert_eq!((record.collection_id, record.incarnation, record.lsn), ("orders", Incarnation(3 << 20), Lsn(17)));
    assert_eq!((record.epoch, record.timestamp), (Epoch(4), 0));
    assert_eq!(&F::decode(&record).unwrap(), fact);

    for end in 0..record.payload.len() {
        let cut = F::get(&mut Cursor::new(&record.payload[..end])).ok();
        assert!(cut.is_none() || cut.as_ref() == without_last, "{end} bytes of {fact:?}");
    }
    let longer = [record.payload, tail].concat();
    assert_eq!(&F::get(&mut Cursor::new(&longer)).unwrap(), fact, "later fields are ignored");
}

fn epoch_fact() -> impl Strategy<Value = EpochFact> {
    let member = (any::<u128>(), "[ -~]{0,30}", any::<bool>()).prop_map(|(uuid, url, in_use)| Member {
        uuid: Uuid::from_u128(uuid),
        url,
        in_use,
    });
    let close = (any::<[u8; 16]>(), 0..1_u64 << 43, any::<u32>(), 0..1_u64 << 60, any::<u32>()).prop_map(
        |(stream, epoch, session, frame_seq, crc)| Close {
            stream: StreamId(stream),
            key: StreamKey { epoch: Epoch(epoch), session: session >> 1 },
            frame_seq,
            crc,
        },
    );
    let accepted = (any::<[u8; 16]>(), 0..1_u64 << 60, 0..1_u64 << 60)
        .prop_map(|(stream, first_seq, last_seq)| AcceptedDamage { stream: StreamId(stream), first_seq, last_seq });
    (
        (0..1_u64 << 43, 0..1000_u32, any::<u128>(), 0..1_u64 << 60, any::<String>()),
        proptest::collection::vec(member, 0..4),
        proptest::collection::vec(any::<u128>(), 0..3),
        proptest::collection::vec(close, 0..4),
        proptest::collection::vec(accepted, 0..3),
        (1..1_u64 << 60, proptest::collection::vec(any::<u128>(), 0..3)),
    )
        .prop_map(
            |((epoch, session, run, grant, holder), members, forgotten, closes, accepted, (version, mixed))| {
                EpochFact {
                    key: StreamKey { epoch: Epoch(epoch), session },
                    run: Uuid::from_u128(run),
                    format: 1,
                    grant,
                    holder,
                    members,
                    forgotten: forgotten.into_iter().map(Uuid::from_u128).collect(),
                    closes,
                    accepted,
                    version,
                    mixed: mixed.into_iter().map(Uuid::from_u128).collect(),
                }
            },
        )
}

proptest! {
    #[test]
    fn epoch_comes_back(fact in epoch_fact(), tail: Vec<u8>) {
        let without = EpochFact { version: 0, mixed: Vec::new(), ..fact.clone() };
        comes_back_or(&fact, Some(&without), &tail);
    }

    #[test]
    fn collection_comes_back(
        home: u128,
        numbers in proptest::array::uniform2(0..1_u64 << 60),
        producers in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 1..64), proptest::array::uniform3(0..1_u64 << 60)), 0..4),
        tail: Vec<u8>,
    ) {
        let producers = producers
            .into_iter()
            .map(|(id, [last_seq, first, count])| Producer { id, last_seq, first_lsn: Lsn(first), count })
            .collect();
        let [move_number, placement] = numbers;
        comes_back(&CollectionFact { home: Uuid::from_u128(home), move_number, placement, producers }, &tail);
    }

    #[test]
    fn flushed_comes_back(
        uuids: [u128; 2],
        numbers in proptest::array::uniform3(0..1_u64 << 60),
        index_crc: u32,
        flags: [bool; 2],
        bytes in 1..1_u64 << 60,
        tail: Vec<u8>,
    ) {
        let fact = FlushedFact {
            segment: Uuid::from_u128(uuids[0]),
            directory: Uuid::from_u128(uuids[1]),
            first_lsn: Lsn(numbers[0]),
            length: numbers[1],
            index_offset: numbers[2],
            index_crc,
            sealed: flags[0],
            shared: flags[1],
            bytes,
        };
        let without_bytes = FlushedFact { bytes: 0, ..fact };
        comes_back_or(&fact, Some(&without_bytes), &tail);
        comes_back(&without_bytes, &[]);
    }

    #[test]
    fn truncate_gap_and_delete_come_back(lsn in 0..1_u64 << 62, number in 3..i32::MAX, tail: Vec<u8>) {
        comes_back(&TruncateFact { head: Lsn(lsn) }, &tail);
        for reason in [GapCause::Damage, GapCause::DirectoryForgotten, GapCause::Other(number)] {
            comes_back(&GapFact { last: Lsn(lsn), reason }, &tail);
        }
        comes_back(&DeleteFact, &tail);
    }

    #[test]
    fn random_payloads_never_panic(bytes: Vec<u8>) {
        let at = || Cursor::new(&bytes);
        let _ = EpochFact::get(&mut at());
        let _ = CollectionFact::get(&mut at());
        let _ = FlushedFact::get(&mut at());
        let _ = GapFact::get(&mut at());
        let _ = TruncateFact::get(&mut at());
    }
}

#[test]
fn a_fact_is_not_read_from_a_record_of_another_kind() {
    let mut buf = Vec::new();
    let subject = Subject { collection_id: "c", incarnation: Incarnation(1), lsn: Lsn(1) };
    TruncateFact { head: Lsn(1) }.encode(&mut buf, subject, Epoch(1));
    let (record, _) = record::decode(&buf).unwrap();
    assert_eq!(DeleteFact::decode(&record), Err(DecodeError::Range { field: "kind", value: 6 }));
}
