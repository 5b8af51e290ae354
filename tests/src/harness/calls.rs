//! The calls that most tests make, in a line each.

use walstorage_sidecar::proto::{
    Ack, AppendReply, AppendRequest, Collection, Directory, Entry, GetCollectionRequest, Item, Reason, Status,
    TruncateRequest, item,
};

use super::grpc::{Client, Typed, read, typed};

/// A request with these payloads, DURABLE, without producer.
#[must_use]
pub fn request(collection: &str, payloads: &[&[u8]]) -> AppendRequest {
    let entries = payloads.iter().map(|payload| Entry { payload: payload.to_vec().into(), ..Entry::default() });
    AppendRequest { collection: collection.into(), entries: entries.collect(), ..AppendRequest::default() }
}

/// Appends one batch that must be acknowledged.
pub async fn append(client: &mut Client, collection: &str, payloads: &[&[u8]]) -> AppendReply {
    client.append_batch(request(collection, payloads)).await.expect("an acknowledgement").into_inner()
}

/// Appends one entry at BUFFERED.
pub async fn append_buffered(client: &mut Client, collection: &str, payload: &[u8]) -> AppendReply {
    let request = AppendRequest { ack: Ack::Buffered as i32, ..request(collection, &[payload]) };
    client.append_batch(request).await.expect("an acknowledgement").into_inner()
}

/// Appends one batch that must be refused or fail.
pub async fn refused(client: &mut Client, request: AppendRequest) -> Typed {
    typed(&client.append_batch(request).await.expect_err("an error"))
}

/// Describes a collection that must exist.
pub async fn describe(client: &mut Client, collection: &str) -> Collection {
    let request = GetCollectionRequest { collection: collection.into() };
    client.get_collection(request).await.expect("a collection").into_inner()
}

/// Truncates; must be acknowledged.
pub async fn truncate(client: &mut Client, collection: &str, up_to: u64) -> u64 {
    let request = TruncateRequest { collection: collection.into(), up_to };
    client.truncate(request).await.expect("truncated").into_inner().truncated_to
}

/// An entry or a gap, for comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// LSN and payload.
    Entry(u64, Vec<u8>),
    /// First and last LSN and the reason.
    Gap(u64, u64, Reason),
}

/// Everything of a collection from the earliest readable LSN.
pub async fn lines(client: &mut Client, collection: &str) -> Vec<Line> {
    read(client, collection, 0, 0).await.expect("a read").into_iter().map(line).collect()
}

/// Payloads of a collection that has no gap.
pub async fn payloads(client: &mut Client, collection: &str) -> Vec<Vec<u8>> {
    let only_entries = |line| match line {
        Line::Entry(_, payload) => payload,
        Line::Gap(..) => panic!("a gap: {line:?}"),
    };
    lines(client, collection).await.into_iter().map(only_entries).collect()
}

fn line(item: Item) -> Line {
    match item.item.expect("an item") {
        item::Item::Entry(entry) => Line::Entry(entry.lsn, entry.payload.to_vec()),
        item::Item::Gap(gap) => Line::Gap(gap.first, gap.last, gap.reason()),
    }
}

/// The directory of a URL.
#[must_use]
pub fn directory<'a>(status: &'a Status, url: &str) -> &'a Directory {
    status.directories.iter().find(|directory| directory.url == url).unwrap_or_else(|| panic!("{url}: {status:#?}"))
}
