//! Messages to the engine's types and back: pure functions. What a request may say is checked here, once.

use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use crate::engine::api::{
    self, Ack, Append, Appended, CollectionInfo, GapReason, NewEntry, ProducerStamp, StoredEntry,
};
use crate::error::{ApiError, Reason};
use crate::proto;
use crate::types::{CollectionName, DirectoryId};

/// Most bytes of a producer's id.
const MAX_PRODUCER_ID: usize = 64;

/// Most collections of one page, and the default.
pub const MAX_PAGE: usize = 1000;

/// A collection's name.
///
/// # Errors
/// INVALID_COLLECTION_NAME.
pub fn collection_name(name: &str) -> Result<CollectionName, ApiError> {
    CollectionName::new(name).map_err(|e| ApiError::new(Reason::InvalidCollectionName, e.to_string()))
}

/// A directory's uuid.
///
/// # Errors
/// INVALID_REQUEST.
pub fn directory_id(text: &str) -> Result<DirectoryId, ApiError> {
    text.parse().map(DirectoryId).map_err(|_| {
        ApiError::new(
            Reason::InvalidRequest,
            format!("{text:?} is not a directory's uuid: `walctl directory list` shows them"),
        )
    })
}

/// An append as the engine takes it. A detail `requestId` is added to errors of requests that have an id.
///
/// # Errors
/// INVALID_REQUEST, INVALID_COLLECTION_NAME.
pub fn append(request: proto::AppendRequest) -> Result<Append, ApiError> {
    let id = request.id;
    parse_append(request).map_err(|e| with_request_id(e, id))
}

/// Adds the id of the request that an error refuses.
#[must_use]
pub fn with_request_id(error: ApiError, id: u64) -> ApiError {
    if id == 0 { error } else { error.with("requestId", id) }
}

/// The level that a request asks for; DURABLE where it asks for something unknown.
#[must_use]
pub fn level(ack: i32) -> Ack {
    if ack == proto::Ack::Buffered as i32 { Ack::Buffered } else { Ack::Durable }
}

fn parse_append(request: proto::AppendRequest) -> Result<Append, ApiError> {
    let proto::AppendRequest { id: _, collection, entries, ack, producer_id, producer_seq } = request;
    let collection = collection_name(&collection)?;
    if entries.is_empty() {
        return Err(ApiError::new(Reason::InvalidRequest, "a request has at least one entry, this one has none"));
    }
    let ack = match proto::Ack::try_from(ack) {
        Ok(proto::Ack::Durable) => Ack::Durable,
        Ok(proto::Ack::Buffered) => Ack::Buffered,
        Err(_) => {
            let message = format!("ack {ack} is unknown: DURABLE (0) or BUFFERED (1)");
            return Err(ApiError::new(Reason::InvalidRequest, message));
        }
    };
    let producer = producer(producer_id, producer_seq)?;
    Ok(Append { collection, entries: entries.into_iter().map(entry).collect(), ack, producer })
}

fn producer(id: String, seq: u64) -> Result<Option<ProducerStamp>, ApiError> {
    let wrong = |message: String| Err(ApiError::new(Reason::InvalidRequest, message));
    match (id.len(), seq) {
        (0, 0) => Ok(None),
        (0, _) => wrong(format!("producer_seq {seq} without producer_id: give both or neither")),
        (_, 0) => {
            wrong(format!("producer_id {id:?} without producer_seq: give both or neither; the first one is >= 1"))
        }
        (n, _) if n > MAX_PRODUCER_ID => {
            wrong(format!("producer_id has 1 to {MAX_PRODUCER_ID} bytes, this one has {n}"))
        }
        _ => Ok(Some(ProducerStamp { id: id.into_bytes().into(), seq })),
    }
}

fn entry(entry: proto::Entry) -> NewEntry {
    let proto::Entry { payload, key, headers } = entry;
    NewEntry { payload, key, headers: headers.into_iter().map(|h| (h.name, h.value)).collect() }
}

/// The answer to the append with this id.
#[must_use]
pub fn appended(id: u64, appended: Appended) -> proto::AppendReply {
    let Appended { first_lsn, last_lsn, ack, epoch, duplicate, directory } = appended;
    proto::AppendReply {
        id,
        first_lsn: first_lsn.0,
        last_lsn: last_lsn.0,
        ack: match ack {
            Ack::Durable => proto::Ack::Durable,
            Ack::Buffered => proto::Ack::Buffered,
        } as i32,
        epoch: epoch.0,
        duplicate,
        directory: directory.as_str().to_owned(),
    }
}

/// An item of a read.
#[must_use]
pub fn item(item: api::Item) -> proto::Item {
    let item = match item {
        api::Item::Entry(StoredEntry { lsn, timestamp_micros, key, headers, payload }) => {
            proto::item::Item::Entry(proto::StoredEntry {
                lsn: lsn.0,
                timestamp: Some(timestamp_from_micros(timestamp_micros)),
                key,
                headers: headers.into_iter().map(|(name, value)| proto::Header { name, value }).collect(),
                payload,
            })
        }
        api::Item::Gap { first, last, reason } => proto::item::Item::Gap(proto::Gap {
            first: first.0,
            last: last.0,
            reason: match reason {
                GapReason::Damage => proto::Reason::Damage,
                GapReason::DirectoryForgotten => proto::Reason::DirectoryForgotten,
            } as i32,
        }),
    };
    proto::Item { item: Some(item) }
}

fn timestamp_from_micros(micros: i64) -> Timestamp {
    // The remainder of a million is below 2^31 even in nanoseconds.
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as i32 }
}

/// A point in time as a message says it.
#[must_use]
pub fn timestamp(at: SystemTime) -> Timestamp {
    let micros = match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
    };
    timestamp_from_micros(micros)
}

/// A collection as it stands.
#[must_use]
pub fn collection(info: CollectionInfo) -> proto::Collection {
    let CollectionInfo {
        name,
        incarnation,
        first_lsn,
        truncated_to,
        durable_head,
        assigned_head,
        bytes,
        directory,
        segments,
    } = info;
    proto::Collection {
        name: name.as_str().to_owned(),
        incarnation: incarnation.0,
        first_lsn: first_lsn.0,
        truncated_to: truncated_to.0,
        durable_head: durable_head.0,
        assigned_head: assigned_head.0,
        bytes,
        directory: directory.as_str().to_owned(),
        segments,
    }
}

/// How many collections a page has.
#[must_use]
pub fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => MAX_PAGE,
        n => n.min(MAX_PAGE),
    }
}

/// The token of the page after this name.
#[must_use]
pub fn page_token(last: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(last)
}

/// The name after which a page starts; `None` for the first page.
///
/// # Errors
/// INVALID_REQUEST.
pub fn parse_page_token(token: &str) -> Result<Option<String>, ApiError> {
    if token.is_empty() {
        return Ok(None);
    }
    let name = proto::json::decode_base64(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.map(Some).ok_or_else(|| {
        let message = format!("{token:?} is not a page token: take nextPageToken of the page before");
        ApiError::new(Reason::InvalidRequest, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> proto::AppendRequest {
        proto::AppendRequest {
            id: 9,
            collection: "c".into(),
            entries: vec![proto::Entry { payload: "p".into(), key: Some("k".into()), headers: vec![] }],
            ..Default::default()
        }
    }

    #[test]
    fn a_request_becomes_an_append() {
        let parsed = append(proto::AppendRequest {
            ack: 1,
            producer_id: "π".into(),
            producer_seq: 3,
            entries: vec![proto::Entry {
                payload: "p".into(),
                key: Some("".into()),
                headers: vec![proto::Header { name: "n".into(), value: "v".into() }],
            }],
            ..request()
        })
        .unwrap();
        assert_eq!(parsed.ack, Ack::Buffered);
        assert_eq!(parsed.producer, Some(ProducerStamp { id: "π".into(), seq: 3 }));
        let headers = vec![("n".to_owned(), "v".into())];
        assert_eq!(parsed.entries, [NewEntry { payload: "p".into(), key: Some("".into()), headers }]);
    }

    #[test]
    fn wrong_requests_are_refused_with_their_id() {
        let long = "x".repeat(65);
        let table = [
            (proto::AppendRequest { entries: vec![], ..request() }, Reason::InvalidRequest, "at least one entry"),
            (proto::AppendRequest { ack: 2, ..request() }, Reason::InvalidRequest, "ack 2 is unknown"),
            (proto::AppendRequest { ack: -1, ..request() }, Reason::InvalidRequest, "ack -1 is unknown"),
            (proto::AppendRequest { producer_seq: 1, ..request() }, Reason::InvalidRequest, "without producer_id"),
            (
                proto::AppendRequest { producer_id: "p".into(), ..request() },
                Reason::InvalidRequest,
                "without producer_seq",
            ),
            (
                proto::AppendRequest { producer_id: long, producer_seq: 1, ..request() },
                Reason::InvalidRequest,
                "1 to 64 bytes, this one has 65",
            ),
            (
                proto::AppendRequest { collection: String::new(), ..request() },
                Reason::InvalidCollectionName,
                "this one is empty",
            ),
            (
                proto::AppendRequest { collection: "x".repeat(256), ..request() },
                Reason::InvalidCollectionName,
                "this one has 256",
            ),
        ];
        for (request, reason, message) in table {
            let error = append(request).unwrap_err();
            assert_eq!(error.reason, reason);
            assert!(error.message.contains(message), "{:?} says not {message:?}", error.message);
            assert_eq!(error.details.get("requestId").map(String::as_str), Some("9"));
        }
    }

    #[test]
    fn timestamps_before_1970_keep_positive_nanoseconds() {
        assert_eq!(timestamp_from_micros(-1), Timestamp { seconds: -1, nanos: 999_999_000 });
        assert_eq!(timestamp_from_micros(1_500_000), Timestamp { seconds: 1, nanos: 500_000_000 });
    }

    #[test]
    fn page_tokens_round_trip_any_name() {
        for name in ["a", "a/b\0🦀", &"é".repeat(127)] {
            assert_eq!(parse_page_token(&page_token(name)).unwrap().as_deref(), Some(name));
        }
        assert_eq!(parse_page_token("").unwrap(), None);
        assert_eq!(parse_page_token("!").unwrap_err().reason, Reason::InvalidRequest);
        assert_eq!(parse_page_token("_w").unwrap_err().reason, Reason::InvalidRequest);
    }

    #[test]
    fn a_page_has_at_most_1000() {
        assert_eq!([page_size(0), page_size(1), page_size(1000), page_size(u32::MAX)], [1000, 1, 1000, 1000]);
    }
}
