//! Reads everything back and has the ledger judge it; also over the folders of a sidecar that is not running.

use std::path::Path;

use walstorage_sidecar::proto::{Collection, GetCollectionRequest, ListCollectionsRequest, StoredEntry, item};

use super::ledger::{Ledger, Seen};
use crate::harness::grpc;
use crate::oracle::{self, Merged, SegmentFile, SlotFile, Verdict};

/// Reads every collection and answers all that is wrong.
pub async fn over_the_socket(client: &mut grpc::Client, collections: &[String], ledger: &Ledger) -> Vec<String> {
    let mut wrong = Vec::new();
    for name in collections {
        let info = match client.get_collection(GetCollectionRequest { collection: name.clone() }).await {
            Ok(info) => info.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => Collection::default(),
            Err(status) => return vec![format!("{name}: {status}")],
        };
        let items = match grpc::read(client, name, 0, 0).await {
            Ok(items) => items,
            Err(status) if status.code() == tonic::Code::NotFound && info.name.is_empty() => Vec::new(),
            Err(status) => return vec![format!("{name}: {status}")],
        };
        let mut seen = Vec::new();
        for item in items {
            match item.item {
                Some(item::Item::Entry(entry)) => seen.push(of_proto(entry)),
                other => wrong.push(format!("{name}: {other:?} instead of an entry")),
            }
        }
        if info.durable_head != info.truncated_to + seen.len() as u64 {
            wrong.push(format!("{name}: {} entries, but {info:?}", seen.len()));
        }
        wrong.extend(ledger.check(name, info.truncated_to, &seen));
    }
    let listed = client.list_collections(ListCollectionsRequest::default()).await.expect("a list").into_inner();
    for found in listed.collections {
        if collections.contains(&found.name) || found.name.starts_with(super::churn::PREFIX) {
            continue;
        }
        wrong.push(format!("a collection that nobody wrote: {}", found.name));
    }
    wrong
}

fn of_proto(entry: StoredEntry) -> Seen {
    Seen {
        lsn: entry.lsn,
        payload: entry.payload.to_vec(),
        key: entry.key.map(|key| key.to_vec()),
        headers: entry.headers.into_iter().map(|h| (h.name, h.value.to_vec())).collect(),
    }
}

/// The oracle's verdict over one journal folder.
#[must_use]
pub fn journal(folder: &Path) -> Verdict {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|file| file.expect("a name").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a readable slot"))
        })
        .collect();
    files.sort();
    let slots: Vec<_> = files.iter().map(|(name, bytes)| SlotFile { name, bytes }).collect();
    oracle::classify(&slots)
}

/// Every file of a directory that may be a segment: its path and its bytes.
#[must_use]
pub fn segments(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a name").path();
            if path.is_dir() {
                if !path.ends_with("_wal/journal") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "avro") {
                files.push((path.display().to_string(), std::fs::read(&path).expect("a readable segment")));
            }
        }
    }
    files.sort();
    files
}

/// Has the oracle read the journals and segments of a writer whose process is gone, and the ledger judge that.
#[must_use]
pub fn over_the_folders(journals: &[std::path::PathBuf], collections: &[String], ledger: &Ledger) -> Vec<String> {
    let verdicts: Vec<Verdict> = journals.iter().map(|folder| journal(folder)).collect();
    let directories = journals.iter().filter_map(|journal| journal.parent()?.parent());
    let stored: Vec<_> = directories.flat_map(segments).collect();
    let files: Vec<_> = stored.iter().map(|(name, bytes)| SegmentFile { name, bytes }).collect();
    let merged: Merged = oracle::merge_with_segments(&verdicts, &files);
    let mut wrong: Vec<String> = verdicts.iter().flat_map(|v| &v.damage).map(|d| format!("damage: {d:?}")).collect();
    for name in collections {
        let view = merged.get(name).cloned().unwrap_or_default();
        if !(view.holes.is_empty() && view.conflicts.is_empty() && view.gaps.is_empty() && view.broken.is_empty()) {
            let oracle::CollectionView { holes, conflicts, gaps, broken, .. } = &view;
            wrong.push(format!("{name}: holes {holes:?} conflicts {conflicts:?} gaps {gaps:?} broken {broken:?}"));
        }
        let seen: Vec<Seen> = view
            .entries
            .values()
            .map(|record| Seen {
                lsn: record.lsn,
                payload: record.payload.clone(),
                key: record.key.clone(),
                headers: record.headers.clone(),
            })
            .collect();
        wrong.extend(ledger.check(name, view.truncated_to, &seen).into_iter().map(|what| format!("on disk: {what}")));
    }
    wrong
}
