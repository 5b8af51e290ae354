//! `walctl verify`, `export` and `dump` over what a real sidecar left, or is writing: journals and segments together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use walstorage_tests::harness::calls::append;
use walstorage_tests::harness::{Output, Setup, binaries, run};
use walstorage_tests::load::verify::segments;
use walstorage_tests::segments::{Truth, loaded};

/// Runs `walctl COMMAND d1 d2 ARGUMENT...`.
fn walctl(setup: &Setup, command: &str, arguments: &[&str]) -> Output {
    let urls = [setup.url("d1"), setup.url("d2")];
    let all = [command].into_iter().chain(urls.iter().map(String::as_str)).chain(arguments.iter().copied());
    run(binaries::walctl(), all, b"")
}

fn verified(setup: &Setup) -> (i32, Value) {
    let output = walctl(setup, "verify", &["--output", "json"]);
    let report = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code, report)
}

/// What an export holds, each entry once and in order.
fn exported(folder: &Path) -> Truth {
    use apache_avro::types::Value as Avro;
    let mut read = Truth::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let mut before = 0;
        for record in apache_avro::Reader::new(std::fs::File::open(file.unwrap().path()).unwrap()).unwrap() {
            let Avro::Record(fields) = record.unwrap() else { panic!("no record") };
            let mut fields: std::collections::HashMap<_, _> = fields.into_iter().collect();
            let mut take = |name: &str| fields.remove(name).unwrap();
            let (Avro::String(name), Avro::Long(lsn), Avro::Bytes(payload)) =
                (take("collection_id"), take("lsn"), take("payload"))
            else {
                panic!("other types")
            };
            let lsn = u64::try_from(lsn).unwrap();
            assert!(lsn > before, "{name}: {lsn} after {before}");
            before = lsn;
            read.insert((name, lsn), payload);
        }
    }
    read
}

fn export(setup: &Setup, name: &str) -> (Output, Truth) {
    let to = setup.path(name);
    let output = walctl(setup, "export", &["--to", to.to_str().unwrap()]);
    let read = exported(&to);
    (output, read)
}

/// A sealed segment all of whose entries count: the start of `large/0` is truncated.
fn sealed(setup: &Setup) -> PathBuf {
    let mut all = segments(&setup.path("d1")).into_iter().chain(segments(&setup.path("d2")));
    let found = all.find(|(name, _)| name.contains("/wal_0") && !name.contains("/large%2F0/"));
    PathBuf::from(found.expect("a sealed segment").0)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_and_after_a_kill_all_is_well_and_an_export_has_each_entry_once() {
    for (codec, stopped) in [("zstandard", true), ("null", false)] {
        let (mut sidecar, truth) = loaded(codec).await;
        if stopped {
            sidecar.stop().await;
        } else {
            sidecar.kill();
        }
        let (code, report) = verified(&sidecar.setup);
        assert_eq!((code, &report["problems"]), (0, &Value::Array(Vec::new())), "{report}");
        let all = report["segments"].as_array().unwrap();
        for (field, wanted) in [("sealed", true), ("sealed", false), ("shared", true), ("shared", false)] {
            assert!(all.iter().any(|segment| segment[field] == wanted), "{field} = {wanted}: {all:?}");
        }
        assert!(all.iter().all(|segment| segment["codec"] == codec));
        let said: u64 =
            report["collections"].as_array().unwrap().iter().map(|one| one["entries"].as_u64().unwrap()).sum();
        assert_eq!(said, truth.len() as u64);
        let (output, read) = export(&sidecar.setup, "export");
        output.ok();
        assert!(read == truth, "{} entries of {}", read.len(), truth.len());
        let text = walctl(&sidecar.setup, "verify", &[]).ok();
        let summary = text.lines().rev().nth(1).unwrap();
        assert!(summary.starts_with("read ") && summary.contains(&format!("{} segments", all.len())), "{text}");
        assert_eq!(text.lines().last(), Some("all is well"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_and_a_missing_segment_are_named_and_the_rest_is_exported() {
    let (mut sidecar, truth) = loaded("snappy").await;
    sidecar.stop().await;
    let path = sealed(&sidecar.setup);
    let name = path.display().to_string();
    let whole = std::fs::read(&path).unwrap();
    let dumped = run(binaries::walctl(), ["dump", &name, "--kind", "DATA"], b"").ok();
    let first: Value = serde_json::from_str(dumped.lines().next().unwrap()).unwrap();
    let (offset, collection) = (first["offset"].as_u64().unwrap(), first["collection_id"].as_str().unwrap());

    let mut flipped = whole.clone();
    flipped[offset as usize + 40] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    let (code, report) = verified(&sidecar.setup);
    assert_eq!(code, 1);
    let problem = &report["problems"][0];
    assert_eq!((&problem["file"], problem["offset"].as_u64()), (&Value::from(name.as_str()), Some(offset)));
    assert_eq!(problem["lost"][0]["collection"], collection);
    let lost = |problem: &Value| {
        let lost = &problem["lost"][0];
        lost["first"].as_u64().unwrap()..=lost["last"].as_u64().unwrap()
    };
    let range = lost(problem);
    assert!(range.contains(&first["lsn"].as_u64().unwrap()));
    let text = walctl(&sidecar.setup, "verify", &[]);
    assert!(text.stdout.contains(&format!("WRONG: {name}: offset {offset}: ")), "{text:?}");
    let dump = run(binaries::walctl(), ["dump", &name], b"");
    assert_eq!(dump.code, 1, "{}", dump.stderr);

    let (output, read) = export(&sidecar.setup, "flipped");
    assert_eq!(output.code, 1);
    let gone = |(name, lsn): &(String, u64)| name == collection && range.contains(lsn);
    let left: Truth = truth.iter().filter(|(entry, _)| !gone(entry)).map(|(k, v)| (k.clone(), v.clone())).collect();
    // What a copy in the journal or in another segment saves is exported too.
    assert!(read.iter().all(|(entry, payload)| truth.get(entry) == Some(payload)));
    assert!(left.keys().all(|entry| read.contains_key(entry)));

    std::fs::remove_file(&path).unwrap();
    let (code, report) = verified(&sidecar.setup);
    assert_eq!(code, 1);
    let problem = &report["problems"][0];
    assert!(problem["what"].as_str().unwrap().contains("is not there"), "{problem}");
    assert_eq!(problem["lost"][0]["collection"], collection);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verified(&sidecar.setup).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_sidecar_that_flushes_nothing_is_wrong() {
    let (sidecar, _) = loaded("snappy").await;
    let mut client = sidecar.grpc();
    let load = tokio::spawn(async move {
        let payload = vec![b'x'; 64 << 10];
        loop {
            append(&mut client, "hot", &[&payload, &payload]).await;
        }
    });
    let held = walctl(&sidecar.setup, "verify", &[]);
    assert_eq!(held.code, 3, "{held:?}");
    for _ in 0..5 {
        let output = walctl(&sidecar.setup, "verify", &["--live"]);
        assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    }
    assert!(!load.is_finished());
    load.abort();
}
