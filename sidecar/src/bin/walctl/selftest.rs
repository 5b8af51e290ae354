//! `walctl selftest`: the main job once, end to end, in a collection of its own.

use serde_json::json;
use walstorage_sidecar::proto::{AppendRequest, DeleteCollectionRequest, Entry, ReadRequest, TruncateRequest, item};

use crate::Global;
use crate::connect::{Client, connect};
use crate::failure::Failure;
use crate::output::{self, Output};

/// How many entries go through.
const ENTRIES: u64 = 10;

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let collection = format!("walctl-selftest-{}", uuid::Uuid::new_v4());
    let outcome = test(&mut client, &collection).await;
    // Best effort: the collection may not have come into being.
    let deleted = client.delete_collection(DeleteCollectionRequest { collection: collection.clone() }).await;
    outcome?;
    deleted?;
    match global.output {
        Output::Json => output::json(&json!({ "entries": ENTRIES, "ok": true })),
        Output::Table | Output::Raw => output::line(&format!(
            "ok: {ENTRIES} entries appended, read back, compared, truncated; {collection} deleted"
        )),
    }
}

async fn test(client: &mut Client, collection: &str) -> Result<(), Failure> {
    let expected: Vec<String> = (1..=ENTRIES).map(|n| format!("selftest {n}")).collect();
    for (payload, id) in expected.iter().zip(1..) {
        let entries = vec![Entry { payload: payload.clone().into(), key: None, headers: Vec::new() }];
        let request = AppendRequest { id, collection: collection.into(), entries, ..AppendRequest::default() };
        let reply = client.append_batch(request).await?.into_inner();
        if (reply.first_lsn, reply.last_lsn) != (id, id) {
            let message = format!("entry {id} got LSN {}..{}", reply.first_lsn, reply.last_lsn);
            return Err(Failure::failed(message));
        }
    }
    let request = ReadRequest { collection: collection.into(), ..ReadRequest::default() };
    let mut parts = client.read(request).await?.into_inner();
    let mut read = Vec::new();
    while let Some(part) = parts.message().await? {
        for item in part.items {
            match item.item {
                Some(item::Item::Entry(entry)) => read.push(String::from_utf8_lossy(&entry.payload).into_owned()),
                other => return Err(Failure::failed(format!("read something that was not appended: {other:?}"))),
            }
        }
    }
    if read != expected {
        return Err(Failure::failed(format!("read back {read:?} instead of {expected:?}")));
    }
    let request = TruncateRequest { collection: collection.into(), up_to: ENTRIES };
    let truncated = client.truncate(request).await?.into_inner().truncated_to;
    if truncated != ENTRIES {
        return Err(Failure::failed(format!("truncated to LSN {truncated} instead of {ENTRIES}")));
    }
    Ok(())
}
