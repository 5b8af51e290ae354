//! One request over one transport, and what its answer means.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use walstorage_sidecar::proto::{Ack, AppendReply, AppendRequest, Entry, Header};

use super::ledger::{Outcome, RequestId, decoration, payload};
use crate::harness::{grpc, http};

/// A request that is to be sent, or sent again.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) id: RequestId,
    pub(super) collection: String,
    pub(super) size: u32,
    pub(super) rich: bool,
    pub(super) durable: bool,
    /// Producer and its sequence.
    pub(super) producer: Option<(String, u64)>,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// The outcome, and whether it was a duplicate.
    Told(Outcome, bool),
    /// Refused with this reason; nothing was written.
    Refused(String),
    /// The connection broke, or the outcome is unknown.
    Broken,
    /// An error that these clients can never cause.
    Fault(String),
}

/// The refusals that a correct client must expect.
const EXPECTED: [&str; 5] = ["SHUTTING_DOWN", "NOT_READY", "MEMORY_LIMIT", "JOURNAL_FULL", "NO_HEALTHY_DIRECTORY"];

impl Planned {
    pub(super) fn message(&self) -> AppendRequest {
        let entry = |index| {
            let (key, headers) = decoration(self.id, index);
            Entry {
                payload: payload(self.id, index, self.size).into(),
                key: self.rich.then(|| key.into()),
                headers: headers
                    .into_iter()
                    .filter(|_| self.rich)
                    .map(|(name, value)| Header { name, value: value.into() })
                    .collect(),
            }
        };
        let (producer_id, producer_seq) = self.producer.clone().unwrap_or_default();
        AppendRequest {
            id: self.id.1,
            collection: self.collection.clone(),
            entries: (0..self.size).map(entry).collect(),
            ack: if self.durable { Ack::Durable } else { Ack::Buffered } as i32,
            producer_id,
            producer_seq,
        }
    }

    fn ack(&self) -> &'static str {
        if self.durable { "DURABLE" } else { "BUFFERED" }
    }

    fn json(&self) -> Value {
        let message = self.message();
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let entries: Vec<Value> = message
            .entries
            .iter()
            .map(|entry| {
                let header = |h: &Header| json!({"name": h.name, "value": base64(&h.value)});
                json!({
                    "payload": base64(&entry.payload),
                    "key": entry.key.as_ref().map(|key| base64(key)),
                    "headers": entry.headers.iter().map(header).collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut body = json!({"entries": entries, "ack": self.ack()});
        if let Some((id, seq)) = &self.producer {
            body["producerId"] = json!(id);
            body["producerSeq"] = json!(seq.to_string());
        }
        body
    }
}

/// A reply as an outcome. `first` and `last` must span the request.
pub(super) fn told(planned: &Planned, reply: &AppendReply) -> Answer {
    let durable = reply.ack == Ack::Durable as i32;
    if planned.durable && !durable {
        return Answer::Fault(format!("{planned:?} was answered as BUFFERED"));
    }
    if reply.duplicate && planned.producer.is_none() {
        return Answer::Fault(format!("{planned:?} is called a duplicate"));
    }
    if reply.duplicate && reply.first_lsn == 0 {
        return Answer::Told(Outcome::Duplicate, true);
    }
    if reply.first_lsn == 0 || reply.last_lsn + 1 - reply.first_lsn != u64::from(planned.size) {
        return Answer::Fault(format!("{planned:?} was answered with {reply:?}"));
    }
    Answer::Told(Outcome::Acked { first: reply.first_lsn, durable, epoch: reply.epoch }, reply.duplicate)
}

/// An error's reason and durability as an answer.
pub(super) fn error(reason: &str, durability: &str, what: impl FnOnce() -> String) -> Answer {
    match (reason, durability) {
        ("", _) | ("UNKNOWN_OUTCOME", "unknown") => Answer::Broken,
        (reason, "not_written") if EXPECTED.contains(&reason) => Answer::Refused(reason.to_owned()),
        _ => Answer::Fault(what()),
    }
}

pub(super) async fn unary(client: &mut grpc::Client, planned: &Planned) -> Answer {
    match client.append_batch(planned.message()).await {
        Ok(reply) => told(planned, reply.get_ref()),
        Err(status) => {
            let typed = grpc::typed(&status);
            error(&typed.reason, &typed.durability, || format!("{planned:?}: {status}"))
        }
    }
}

/// HTTP, as JSON or as lines.
pub(super) async fn http(
    connection: &mut Option<http::Connection>,
    socket: &Path,
    planned: &Planned,
    lines: bool,
) -> Answer {
    if connection.is_none() {
        *connection = http::Connection::open(socket).await.ok();
    }
    let Some(open) = connection.as_mut() else { return Answer::Broken };
    let path = format!("/v1/collections/{}/entries", planned.collection);
    let sent = if lines {
        let mut body = Vec::new();
        for index in 0..planned.size {
            body.extend(payload(planned.id, index, planned.size));
            body.push(b'\n');
        }
        let producer = planned.producer.as_ref();
        let producer = producer.map(|(id, seq)| format!("&producerId={id}&producerSeq={seq}")).unwrap_or_default();
        let path = format!("{path}?ack={}{producer}", planned.ack());
        open.send("POST", &path, Some("application/x-ndjson"), body).await
    } else {
        open.post(&path, &planned.json()).await
    };
    let Ok(reply) = sent else {
        *connection = None;
        return Answer::Broken;
    };
    let body = reply.json();
    if reply.status.is_success() {
        return match serde_json::from_value(body.clone()) {
            Ok(parsed) => told(planned, &parsed),
            Err(wrong) => Answer::Fault(format!("{wrong}: {body}")),
        };
    }
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    error(&text("reason"), &text("durability"), || format!("{planned:?}: {} {body}", reply.status))
}
