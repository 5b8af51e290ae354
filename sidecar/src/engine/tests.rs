use std::path::Path;

use bytes::Bytes;

use super::api::{Ack, DirectoryState, Item, NewEntry, Phase, ProducerStamp};
use super::fault_tests::{name, until};
use super::*;

struct Silent;
impl Observer for Silent {
    fn committed(&self, _: &WalUrl, _: Duration, _: u64, _: u64) {}
}

fn options(toml: &str) -> Options {
    let config = Config::parse(toml, true).unwrap().config;
    Options { config, require_mounts: false, grant: None, observer: Arc::new(Silent) }
}

fn urls(root: &Path, names: &[&str], more: &str) -> String {
    let urls: Vec<String> = names.iter().map(|name| format!("\"file://{}/{name}\"", root.display())).collect();
    format!("[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [{}]\n{more}\n", urls.join(", "))
}

fn batch(collection: &str, payloads: &[&str]) -> Append {
    let entry =
        |payload: &&str| NewEntry { payload: Bytes::copy_from_slice(payload.as_bytes()), ..NewEntry::default() };
    Append {
        collection: name(collection),
        entries: payloads.iter().map(entry).collect(),
        ack: Ack::Durable,
        producer: None,
    }
}

async fn ready(options: Options) -> Engine {
    let engine = Engine::start(options).unwrap();
    until(&engine, Phase::Ready).await;
    engine
}

async fn contents(engine: &Engine, collection: &str) -> Vec<(u64, String)> {
    let mut reader = engine.read(&name(collection), Lsn(0), 0, false).unwrap();
    let mut out = Vec::new();
    while let Some(items) = reader.next().await {
        for item in items.unwrap() {
            match item {
                Item::Entry(entry) => out.push((entry.lsn.0, String::from_utf8(entry.payload.to_vec()).unwrap())),
                Item::Gap { first, last, .. } => out.push((first.0, format!("gap to {last}"))),
            }
        }
    }
    out
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let toml = urls(root.path(), &["a", "b"], "");
    let engine = ready(options(&toml)).await;
    for n in 0..50 {
        let one = format!("one {n}");
        let done = engine.append(batch(&format!("c{}", n % 5), &[&one, "two"]), None).await.unwrap();
        assert_eq!((done.first_lsn.0, done.last_lsn.0), (n / 5 * 2 + 1, n / 5 * 2 + 2));
    }
    let before = contents(&engine, "c3").await;
    assert_eq!(before.len(), 20);
    assert_eq!(engine.truncate(&name("c3"), Lsn(7)).await.unwrap(), Lsn(7));
    let deleted = engine.delete(&name("c4")).await.unwrap();
    assert_eq!(engine.shutdown().await, Ended::Clean);

    let engine = ready(options(&toml)).await;
    assert_eq!(contents(&engine, "c3").await, before[7..]);
    assert_eq!(engine.collection(&name("c4")).unwrap_err().reason, Reason::CollectionNotFound);
    let again = engine.append(batch("c4", &["new"]), None).await.unwrap();
    assert_eq!(again.first_lsn, Lsn(1));
    assert!(engine.collection(&name("c4")).unwrap().incarnation > deleted);
    assert_eq!(engine.append(batch("c3", &["x"]), None).await.unwrap().first_lsn, Lsn(21));
    assert_eq!(engine.list(None, 10).unwrap().len(), 5);
    assert_eq!(engine.shutdown().await, Ended::Clean);
}

#[tokio::test]
async fn a_retry_with_a_producer_is_stored_once_across_restarts() {
    let root = tempfile::tempdir().unwrap();
    let toml = urls(root.path(), &["a"], "");
    let stamped =
        |seq| Append { producer: Some(ProducerStamp { id: Bytes::from_static(b"p"), seq }), ..batch("c", &["x", "y"]) };
    let engine = ready(options(&toml)).await;
    let first = engine.append(stamped(5), None).await.unwrap();
    let second = engine.append(stamped(6), None).await.unwrap();
    engine.truncate(&name("c"), second.last_lsn).await.unwrap();
    engine.shutdown().await;
    let engine = ready(options(&toml)).await;
    let again = engine.append(stamped(6), None).await.unwrap();
    assert_eq!((again.first_lsn, again.last_lsn, again.duplicate), (second.first_lsn, second.last_lsn, true));
    let older = engine.append(stamped(5), None).await.unwrap();
    assert_eq!((older.first_lsn, older.duplicate), (Lsn(0), true));
    assert_eq!(first.last_lsn, Lsn(2));
    assert_eq!(engine.append(stamped(8), None).await.unwrap_err().reason, Reason::OutOfSequence);
    assert_eq!(engine.append(stamped(7), None).await.unwrap().first_lsn, Lsn(5));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_missing_directory_is_waited_for_and_can_be_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let toml = urls(root.path(), &["a", "b"], "distribution_strategy = \"RoundRobin\"");
    let engine = ready(options(&toml)).await;
    for collection in ["c1", "c2"] {
        engine.append(batch(collection, &["x", "y"]), None).await.unwrap();
    }
    let lost = engine.collection(&name("c1")).unwrap().directory;
    let lost_id = engine.status().directories.iter().find(|dir| dir.url == lost).unwrap().uuid.unwrap();
    // The other directory learns of the collection in its next frame.
    engine.append(batch("c2", &["z"]), None).await.unwrap();
    engine.shutdown().await;
    let path = lost.file_path().unwrap();
    std::fs::rename(&path, path.with_extension("away")).unwrap();

    let engine = Engine::start(options(&toml)).unwrap();
    until(&engine, Phase::Waiting).await;
    let status = engine.status();
    assert!(status.waiting_for[0].contains(lost.as_str()), "{:?}", status.waiting_for);
    assert!(status.directories.iter().any(|dir| dir.state == DirectoryState::Missing && dir.uuid == Some(lost_id)));
    assert_eq!(engine.append(batch("c1", &["x"]), None).await.unwrap_err().reason, Reason::NotReady);
    let other = status.directories.iter().find(|dir| dir.uuid != Some(lost_id)).unwrap().uuid.unwrap();
    assert_eq!(engine.forget_directory(other).await.unwrap_err().reason, Reason::InvalidRequest);
    engine.forget_directory(lost_id).await.unwrap();
    let read = contents(&engine, "c1").await;
    assert_eq!(read.len(), 1, "{read:?}");
    assert!(read[0].1.starts_with("gap to"));
    assert_eq!(contents(&engine, "c2").await.len(), 3);
    let next = engine.append(batch("c1", &["after"]), None).await.unwrap();
    assert!(next.first_lsn.0 > 1 << 40);
    // Its place was taken by a new directory: the old one is not taken back.
    engine.shutdown().await;
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    let engine = Engine::start(options(&toml)).unwrap();
    until(&engine, Phase::Waiting).await;
    assert!(engine.status().waiting_for[0].contains("is at its place"), "{:?}", engine.status().waiting_for);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_forgotten_directory_is_neither_read_nor_written() {
    let root = tempfile::tempdir().unwrap();
    let toml = urls(root.path(), &["a", "b"], "distribution_strategy = \"RoundRobin\"");
    let engine = ready(options(&toml)).await;
    engine.append(batch("c1", &["x"]), None).await.unwrap();
    engine.append(batch("c2", &["y"]), None).await.unwrap();
    let lost = engine.collection(&name("c1")).unwrap().directory;
    let uuid = engine.status().directories.iter().find(|dir| dir.url == lost).unwrap().uuid.unwrap();
    engine.shutdown().await;
    let journal = lost.file_path().unwrap().join("_wal/journal");
    for file in std::fs::read_dir(&journal).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let engine = Engine::start(options(&toml)).unwrap();
    until(&engine, Phase::Waiting).await;
    assert!(engine.status().directories.iter().any(|dir| dir.state == DirectoryState::Lost));
    engine.forget_directory(uuid).await.unwrap();
    for _ in 0..2 {
        let status = engine.status();
        assert!(status.directories.iter().any(|dir| dir.state == DirectoryState::Forgotten), "{status:#?}");
        let on = engine.append(batch("c3", &["z"]), None).await.unwrap().directory;
        assert_ne!(on, lost);
        assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0);
    }
    engine.shutdown().await;
    let engine = ready(options(&toml)).await;
    assert_eq!(contents(&engine, "c3").await.len(), 2);
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_directory_that_comes_back_is_kept_though_it_was_to_be_forgotten_with_another() {
    let root = tempfile::tempdir().unwrap();
    let toml = urls(root.path(), &["a", "b", "c"], "distribution_strategy = \"RoundRobin\"");
    let engine = ready(options(&toml)).await;
    for collection in ["c1", "c2", "c3"] {
        engine.append(batch(collection, &["x"]), None).await.unwrap();
    }
    let uuid = engine.status().directories.iter().find(|dir| dir.url.as_str().ends_with("/a")).unwrap().uuid.unwrap();
    engine.shutdown().await;
    for away in ["a", "b"] {
        std::fs::rename(root.path().join(away), root.path().join(format!("{away}.away"))).unwrap();
    }
    let engine = Engine::start(options(&toml)).unwrap();
    until(&engine, Phase::Waiting).await;
    let error = engine.forget_directory(uuid).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotReady, "the other one is missing still");
    for back in ["a", "b"] {
        std::fs::rename(root.path().join(format!("{back}.away")), root.path().join(back)).unwrap();
    }
    until(&engine, Phase::Ready).await;
    for collection in ["c1", "c2", "c3"] {
        assert_eq!(contents(&engine, collection).await, [(1, "x".to_owned())]);
    }
    assert_eq!(engine.forget_directory(uuid).await.unwrap_err().reason, Reason::InvalidRequest, "it is well");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_directory_where_segments_cannot_be_written_says_so() {
    let root = tempfile::tempdir().unwrap();
    let engine = ready(options(&urls(root.path(), &["a"], ""))).await;
    engine.append(batch("c", &["waits in the journal"]), None).await.unwrap();
    let said = || engine.status().directories[0].reason.clone();
    assert_eq!(said(), "");
    // Neither the collection's own folder nor the shared one can be made.
    for path in ["c", "_wal/shared"] {
        std::fs::write(root.path().join("a").join(path), "in the way").unwrap();
    }
    let error = engine.flush(&name("c")).await.unwrap_err();
    assert_eq!(error.reason, Reason::NoHealthyDirectory);
    let status = engine.status();
    let shown = &status.directories[0];
    assert_eq!(shown.state, DirectoryState::Healthy, "entries go on: {shown:?}");
    assert!(shown.reason.starts_with("the last flush failed: cannot"), "{shown:?}");
    assert!(!shown.remedy.is_empty());
    engine.append(batch("c", &["so does this"]), None).await.unwrap();
    engine.shutdown().await;
}
