//! Stock Avro readers of other languages read what a cleanly stopped sidecar left, and see what `walctl dump` shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use walstorage_sidecar::proto::{AppendRequest, Entry, Header};
use walstorage_tests::harness::binaries::{repository, walctl};
use walstorage_tests::harness::calls::{append, request, truncate};
use walstorage_tests::harness::{Setup, Sidecar, run};

/// The interpreter with the pinned packages.
fn python() -> PathBuf {
    match std::env::var_os("WALSTORAGE_PYTHON") {
        Some(path) => path.into(),
        None => run(repository().join("scripts/setup-python.sh"), [""; 0], b"").ok().trim().into(),
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn read_with(library: &str, file: &Path) -> Vec<Value> {
    let script = repository().join("tests/python/read_slot.py");
    let arguments = [script.as_os_str(), library.as_ref(), file.as_os_str()];
    lines(&run(python(), arguments, b"").ok())
}

/// All records of a slot; what was made ready behind its last frame is no block, and a stock reader may say so.
fn read_slot_with(library: &str, slot: &Path) -> Vec<Value> {
    let script = repository().join("tests/python/read_slot.py");
    let arguments = [script.as_os_str(), "--tail".as_ref(), library.as_ref(), slot.as_os_str()];
    lines(&run(python(), arguments, b"").ok())
}

/// What `walctl dump FILE --kind DATA` gives, without where it stands in the file.
fn dumped(slot: &Path) -> Vec<Value> {
    let arguments = ["dump".as_ref(), slot.as_os_str(), "--kind".as_ref(), "DATA".as_ref()];
    let mut records = lines(&run(walctl(), arguments, b"").ok());
    for record in &mut records {
        let record = record.as_object_mut().expect("an object");
        for place in ["frame", "offset"] {
            assert!(record.remove(place).is_some(), "{place}");
        }
    }
    records
}

async fn cleanly_stopped() -> Sidecar {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "plain", &[b"one", b"", b"three"]).await;
    append(&mut client, "näme/\u{1F980}", &[&[0, 255, 10, 13]]).await;
    append(&mut client, "large", &[&vec![7; 300_000]]).await;
    let header = |name: &str, value: &[u8]| Header { name: name.into(), value: value.to_vec().into() };
    let rich = Entry {
        payload: b"payload".to_vec().into(),
        key: Some(vec![1, 2, 3].into()),
        headers: vec![header("", b""), header("ü", &[255])],
    };
    let empty_key = Entry { key: Some(vec![].into()), ..Entry::default() };
    let stamped = AppendRequest {
        entries: vec![rich, empty_key],
        producer_id: "producer".into(),
        producer_seq: 1,
        ..request("rich", &[])
    };
    client.append_batch(stamped).await.expect("an acknowledgement");
    for n in 0..200u32 {
        append(&mut client, &format!("many{}", n % 5), &[&n.to_le_bytes()]).await;
    }
    truncate(&mut client, "plain", 1).await;
    sidecar.stop().await;
    sidecar
}

/// The journal's files; beside them lies what is kept for a full disk.
fn slots(sidecar: &Sidecar) -> Vec<PathBuf> {
    let files = std::fs::read_dir(sidecar.setup.journal(1)).expect("the journal");
    let mut slots: Vec<_> = files.map(|file| file.expect("a name").path()).collect();
    slots.retain(|path| path.extension().is_some_and(|extension| extension == "avro"));
    slots.sort();
    slots
}

#[tokio::test]
async fn stock_readers_see_the_records_that_dump_shows() {
    let sidecar = cleanly_stopped().await;
    let slots = slots(&sidecar);
    let mut seen = 0;
    for slot in &slots {
        let expected = dumped(slot);
        seen += expected.len();
        for library in ["fastavro", "avro"] {
            let read = read_slot_with(library, slot);
            for (n, (read, expected)) in read.iter().zip(&expected).enumerate() {
                let mut expected = expected.clone();
                if let (Some(expected), Some(read)) = (expected.as_object_mut(), read.as_object()) {
                    expected.retain(|key, _| read.contains_key(key));
                }
                assert_eq!(read, &expected, "{library}, record {n} of {}", slot.display());
            }
            assert_eq!(read.len(), expected.len(), "{library}, {}", slot.display());
        }
    }
    assert_eq!(seen, 3 + 1 + 1 + 2 + 200);
}

#[tokio::test]
async fn export_gives_clean_files_that_stock_readers_read_to_the_end() {
    let sidecar = cleanly_stopped().await;
    let to = sidecar.setup.path("export");
    let url = sidecar.setup.url("d1");
    run(walctl(), ["export", &url, "--to", to.to_str().expect("text")], b"").ok();
    let mut files = Vec::new();
    let mut folders = vec![to];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "avro"));
    let count = |library| files.iter().map(|path| read_with(library, path).len()).sum::<usize>();
    // One entry of `plain` is truncated.
    assert_eq!((count("fastavro"), count("avro")), (206, 206), "{files:?}");
}

#[tokio::test]
async fn verify_finds_nothing_wrong_after_a_clean_stop_and_names_a_flipped_bit() {
    let sidecar = cleanly_stopped().await;
    let url = sidecar.setup.url("d1");
    run(walctl(), ["verify", &url], b"").ok();
    let slot = &slots(&sidecar)[0];
    let mut bytes = std::fs::read(slot).expect("the slot");
    bytes[3 * 4096 + 1000] ^= 4;
    std::fs::write(slot, bytes).expect("written");
    let verified = run(walctl(), ["verify", &url], b"");
    assert_eq!(verified.code, 1);
    let said = format!("{}{}", verified.stdout, verified.stderr);
    let name = slot.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(said.contains(&name), "{said}");
}
