//! The mapping as tables: what is printed, what is accepted besides, what is refused.

use serde_json::{Value, json};

use super::*;
use crate::proto::*;

fn to_json<T: serde::Serialize>(message: &T) -> Value {
    serde_json::to_value(message).unwrap()
}

#[test]
fn all_fields_are_printed_in_camel_case_with_strings_for_64_bits() {
    let reply = AppendReply { first_lsn: u64::MAX, ..AppendReply::default() };
    let expected = json!({"id": "0", "firstLsn": "18446744073709551615", "lastLsn": "0", "ack": "DURABLE", "epoch": "0",
                          "duplicate": false, "directory": ""});
    assert_eq!(to_json(&reply), expected);
    let request = AppendRequest { entries: vec![Entry::default()], ack: 1, ..AppendRequest::default() };
    let expected = json!({"id": "0", "collection": "", "entries": [{"payload": "", "key": null, "headers": []}],
                          "ack": "BUFFERED", "producerId": "", "producerSeq": "0"});
    assert_eq!(to_json(&request), expected);
    let page = ListCollectionsRequest { page_size: 7, page_token: "t".into() };
    assert_eq!(to_json(&page), json!({"pageSize": 7, "pageToken": "t"}));
    let directory = to_json(&Directory { since: None, commit_latency_us: 1.5, ..Directory::default() });
    assert_eq!((&directory["since"], &directory["commitLatencyUs"]), (&Value::Null, &json!(1.5)));
}

#[test]
fn items_are_objects_of_their_case() {
    let timestamp = Some(prost_types::Timestamp { seconds: 0, nanos: 1000 });
    let entry = StoredEntry { lsn: 7, timestamp, key: Some("k".into()), headers: vec![], payload: "\0".into() };
    let item = Item { item: Some(item::Item::Entry(entry)) };
    let entry = json!({"lsn": "7", "timestamp": "1970-01-01T00:00:00.000001Z", "key": "aw==", "headers": [],
                       "payload": "AA=="});
    assert_eq!(to_json(&item), json!({ "entry": entry }));
    assert_eq!(serde_json::from_value::<Item>(json!({ "entry": entry })).unwrap(), item);
    let gap = Item { item: Some(item::Item::Gap(Gap { first: 8, last: 9, reason: 2 })) };
    assert_eq!(to_json(&gap), json!({"gap": {"first": "8", "last": "9", "reason": "DIRECTORY_FORGOTTEN"}}));
}

#[test]
fn timestamps_have_six_digits_in_utc() {
    let table = [
        (0, 0, Some("1970-01-01T00:00:00.000000Z")),
        (-1, 999_999_000, Some("1969-12-31T23:59:59.999999Z")),
        (1_763_857_930, 123_456_789, Some("2025-11-23T00:32:10.123456Z")),
        (i64::MAX, 0, None),
        (0, -1_500_000_000, None),
    ];
    for (seconds, nanos, expected) in table {
        let text = format_timestamp(&prost_types::Timestamp { seconds, nanos });
        assert_eq!(text.as_deref(), expected, "{seconds} {nanos}");
    }
}

#[test]
fn what_is_accepted_besides_what_is_printed() {
    let numbers = [
        (json!("7"), 7),
        (json!(7), 7),
        (json!(7.0), 7),
        (json!("0"), 0),
        (Value::Null, 0),
        (json!((1u64 << 53) - 1), (1 << 53) - 1),
        (json!("18446744073709551615"), u64::MAX),
    ];
    for (value, expected) in numbers {
        for name in ["upTo", "up_to"] {
            let request: TruncateRequest = serde_json::from_value(json!({ name: value })).unwrap();
            assert_eq!(request.up_to, expected, "{value}");
        }
    }
    for text in ["+/8=", "+/8", "-_8=", "-_8"] {
        let entry: Entry = serde_json::from_value(json!({ "payload": text })).unwrap();
        assert_eq!(entry.payload, [0xfb, 0xff].as_slice(), "{text}");
    }
    let acks = [(json!("BUFFERED"), 1), (json!(1), 1), (json!("DURABLE"), 0), (Value::Null, 0)];
    for (value, expected) in acks {
        let request: AppendRequest = serde_json::from_value(json!({ "ack": value })).unwrap();
        assert_eq!(request.ack, expected);
    }
    let nulls =
        json!({"id": null, "collection": null, "entries": null, "ack": null, "producerId": null, "producerSeq": null});
    assert_eq!(serde_json::from_value::<AppendRequest>(nulls).unwrap(), AppendRequest::default());
    let keys = [
        (json!({}), None),
        (json!({"key": null}), None),
        (json!({"key": ""}), Some("")),
        (json!({"key": "aw"}), Some("k")),
    ];
    for (value, expected) in keys {
        let entry: Entry = serde_json::from_value(value).unwrap();
        assert_eq!(entry.key, expected.map(Bytes::from));
    }
}

#[test]
fn what_is_refused() {
    let table = [
        json!({"upto": "7"}),
        json!({"UpTo": "7"}),
        json!({"upTo": ""}),
        json!({"upTo": " 7"}),
        json!({"upTo": "+7"}),
        json!({"upTo": "-7"}),
        json!({"upTo": "7.0"}),
        json!({"upTo": "0x7"}),
        json!({"upTo": "18446744073709551616"}),
        json!({"upTo": -7}),
        json!({"upTo": 7.5}),
        json!({"upTo": 1e300}),
        json!({"upTo": 1u64 << 53}),
        json!({"upTo": true}),
        json!({"upTo": []}),
        json!({"upTo": {}}),
        json!({"upTo": "7", "up_to": "7"}),
    ];
    for value in table {
        assert!(serde_json::from_value::<TruncateRequest>(value.clone()).is_err(), "{value}");
    }
    let table = [
        json!({"payload": "a"}),
        json!({"payload": "*==="}),
        json!({"payload": "+_8="}),
        json!({"payload": "AA==\n"}),
        json!({"payload": 0}),
        json!({"payload": []}),
        json!({"headers": {}}),
        json!({"headers": [[]]}),
        json!({"headers": [null]}),
        json!({"headers": [{"name": 1}]}),
    ];
    for value in table {
        assert!(serde_json::from_value::<Entry>(value.clone()).is_err(), "{value}");
    }
    for value in [json!("durable"), json!(-1), json!(1.0), json!("")] {
        assert!(serde_json::from_value::<AppendRequest>(json!({ "ack": value })).is_err(), "{value}");
    }
}
