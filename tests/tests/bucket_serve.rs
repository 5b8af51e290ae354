//! The sidecar on a bucket, before the emulators of three clouds: a process without a disk keeps its log there over kills,
//! takeovers and refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::process::Signal;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use walstorage_sidecar::directory::bucket::Bucket as _;
use walstorage_sidecar::directory::store::Limits;
use walstorage_sidecar::proto::{FlushRequest, Status};
use walstorage_tests::emulators::gate::Gate;
use walstorage_tests::emulators::{Cloud, Emulated, tls};
use walstorage_tests::harness::calls::{append, describe, payloads, request, truncate};
use walstorage_tests::harness::{Setup, Sidecar, binaries, run};

walstorage_tests::on_every_cloud! {
    what_was_acknowledged_survives_kills
    a_zombie_that_wakes_after_a_takeover_is_never_answered
    walctl_reads_a_bucket_without_a_sidecar
}

const WRITER: &str = "shop/orders.orders-0";

/// A sidecar whose only URL is a path of the bucket, reached at `address`.
fn setup(emulated: &Emulated, address: &str) -> Setup {
    emulated.only_url("wal", address).set("bucket_commit_interval_ms = 20")
}

fn text(n: usize) -> Vec<u8> {
    format!("entry {n} {}", "x".repeat(n % 700)).into_bytes()
}

async fn what_was_acknowledged_survives_kills(emulated: &Emulated) {
    let setup = setup(emulated, &emulated.address).set("memory_flush_size_bytes = 4096");
    let mut sidecar = Sidecar::ready(setup).await;
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for round in 0..4 {
        for n in 0..12 {
            let payload = text(100 * round + n);
            let reply = append(&mut sidecar.grpc(), "orders/ü", &[&payload]).await;
            sent.push(payload);
            assert_eq!(reply.last_lsn as usize, sent.len());
            assert_eq!(reply.directory, emulated.url("wal").to_string());
        }
        sidecar.kill_and_restart().await;
        assert_eq!(payloads(&mut sidecar.grpc(), "orders/ü").await, sent, "round {round}");
    }
    let up_to = sent.len() as u64 - 3;
    assert_eq!(truncate(&mut sidecar.grpc(), "orders/ü", up_to).await, up_to);
    sidecar.restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "orders/ü").await, sent[up_to as usize..]);
    assert_eq!(describe(&mut sidecar.grpc(), "orders/ü").await.truncated_to, up_to);
    sidecar.stop().await;

    let store = emulated.store(&emulated.url("wal"), &emulated.address, Limits::default());
    let keys = store.list("").await.unwrap();
    let journal: BTreeSet<_> = keys.iter().filter(|key| key.starts_with("_wal/journal/")).collect();
    let claims = journal.iter().filter(|key| key.ends_with("/000000000000.avro")).count();
    assert_eq!(claims, 6, "a claim for each start, for ever: {keys:#?}");
    assert!(!keys.iter().any(|key| key.contains("probe") || key.contains("wal_current")), "{keys:#?}");
}

async fn walctl_reads_a_bucket_without_a_sidecar(emulated: &Emulated) {
    let setup = setup(emulated, &emulated.address).set("memory_flush_size_bytes = 4096");
    let environment = setup.environment.clone();
    let mut sidecar = Sidecar::ready(setup).await;
    let mut sent = Vec::new();
    for n in 0..30 {
        sent.push(text(n));
        append(&mut sidecar.grpc(), "orders/ü", &[&sent[n]]).await;
    }
    assert_eq!(truncate(&mut sidecar.grpc(), "orders/ü", 4).await, 4);
    sidecar.restart().await;
    sidecar.stop().await;

    let store = emulated.store(&emulated.url("wal"), &emulated.address, Limits::default());
    let (mut keys, config) = (store.list("").await.unwrap(), sidecar.setup.write());
    keys.sort();
    let directory = format!("{}/{WRITER}", emulated.url("wal"));
    let walctl = |arguments: &[&str]| {
        let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
        let program = binaries::walctl().display().to_string();
        let options = ["--config".to_owned(), config.display().to_string()];
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        run("/usr/bin/env", variables.chain([program]).chain(arguments).chain(options), b"").ok()
    };
    let report: serde_json::Value = serde_json::from_str(&walctl(&["verify", &directory, "-o", "json"])).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["collections"][0]["head"], 30, "{report:#}");
    let to = tempfile::tempdir().unwrap();
    let folder = to.path().join("out");
    walctl(&["export", &directory, "--to", folder.to_str().unwrap()]);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(read_by_fastavro(&files), sent[4..], "{files:?}");
    let commit = keys.iter().rev().find(|key| key.contains("_wal/journal/")).unwrap();
    let lines = walctl(&["dump", &format!("{directory}/{commit}"), "--kind", "EPOCH"]);
    assert!(lines.lines().all(|line| line.contains("\"kind\":\"EPOCH\"")), "{lines}");
    let mut after = store.list("").await.unwrap();
    after.sort();
    assert_eq!(after, keys, "something was written");
}

async fn a_zombie_that_wakes_after_a_takeover_is_never_answered(emulated: &Emulated) {
    let mut zombie = Sidecar::ready(setup(emulated, &emulated.address)).await;
    append(&mut zombie.grpc(), "c", &[b"of the first"]).await;
    let mut client = zombie.grpc();
    zombie.signal(Signal::STOP);
    // On its way when the process wakes up.
    let call = tokio::spawn(async move { client.append_batch(request("c", &[b"of the zombie"])).await });

    let second = Sidecar::ready(setup(emulated, &emulated.address)).await;
    assert_eq!(payloads(&mut second.grpc(), "c").await, [b"of the first".to_vec()]);
    append(&mut second.grpc(), "c", &[b"of the second"]).await;

    zombie.signal(Signal::CONT);
    let answer = call.await.unwrap();
    assert!(answer.is_err(), "a zombie acknowledged: {answer:?}");
    assert_eq!(zombie.exit().await.code(), Some(3), "fenced: {}", zombie.log());
    append(&mut second.grpc(), "c", &[b"once more"]).await;
    let expected = ["of the first", "of the second", "once more"].map(|text| text.as_bytes().to_vec());
    assert_eq!(payloads(&mut second.grpc(), "c").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_credentials_is_said_and_repairing_their_file_is_enough() {
    let Some(emulated) = Emulated::new("repairing_their_file_is_enough", Cloud::Azure).await else { return };
    let key = emulated.credentials.path().join("account_key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, "d3Jvbmc=").unwrap();
    let mut sidecar = Sidecar::new(setup(&emulated, &emulated.address));
    sidecar.start();
    let waiting = |status: &Status| status.phase == "waiting" && !status.waiting_for.is_empty();
    let status = sidecar.wait_status("waiting for credentials", waiting).await;
    let directory = &status.directories[0];
    assert_eq!(directory.state, "failed", "{status:#?}");
    assert!(directory.reason.contains("account_key"), "{status:#?}");
    std::fs::write(&key, right).unwrap();
    sidecar.wait_ready().await;
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    sidecar.stop().await;
}

/// A server's side of TLS before an address: its own, and the certificate of who vouches for it. Serves until the set is dropped.
async fn behind_tls(upstream: &str, serving: &mut JoinSet<()>) -> (String, String) {
    let (acceptor, authority) = tls::private();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let upstream = upstream.to_owned();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            connections.spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (endpoint, authority)
}

/// AWS's web identity, as a pod has it: the token of a service account, in a file, for the keys of a role. Tokens travel by HTTPS
/// only, here under an authority of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projected_token_is_exchanged_for_keys_of_a_role() {
    let Some(emulated) = Emulated::new("a_projected_token_is_exchanged", Cloud::S3).await else { return };
    let mut serving = JoinSet::new();
    let (endpoint, authority) = behind_tls(&emulated.address, &mut serving).await;
    let folder = tempfile::tempdir().unwrap();
    let (token, ca, url) = (folder.path().join("token"), folder.path().join("ca.crt"), emulated.url("wal").to_string());
    std::fs::write(&ca, authority).unwrap();
    let mut setup = Setup::new(0).set("bucket_commit_interval_ms = 20");
    setup.urls(std::slice::from_ref(&url));
    setup.add(&format!("writer_id = {WRITER:?}"));
    setup.table(&format!(
        "[storage.wal_config.url_options.{url:?}]\nendpoint = {endpoint:?}\nregion = \"us-east-1\"\nca_file = {ca:?}\n\
         token_file = {token:?}\nrole_arn = \"arn:aws:iam::123456789012:role/orders\"\naudience = \"sts.amazonaws.com\"\n"
    ));
    setup.environment = vec![("AWS_ENDPOINT_URL_STS".to_owned(), endpoint)];
    let mut sidecar = Sidecar::new(setup);
    sidecar.start();
    let waiting = |status: &Status| status.phase == "waiting" && !status.waiting_for.is_empty();
    let status = sidecar.wait_status("waiting for the token", waiting).await;
    let reason = &status.directories[0].reason;
    assert!(reason.contains("token_file") && reason.ends_with("(no_credentials)"), "{status:#?}");
    std::fs::write(&token, "of.the.cluster").unwrap();
    sidecar.wait_ready().await;
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    sidecar.kill_and_restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await, [b"x".to_vec()]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_for_a_store_stops_when_it_is_told_to() {
    let Some(emulated) = Emulated::new("stops_when_it_is_told_to", Cloud::Google).await else { return };
    // Nobody listens there.
    let mut sidecar = Sidecar::new(setup(&emulated, "127.0.0.1:9"));
    sidecar.start();
    let said = |status: &Status| status.directories.iter().any(|directory| directory.reason.contains("127.0.0.1:9"));
    sidecar.wait_status("what is wrong is said", said).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pandas_reads_segments_straight_from_the_store_as_the_documentation_shows() {
    let Some(emulated) = Emulated::new("pandas_reads_segments", Cloud::S3).await else { return };
    let mut sidecar = Sidecar::ready(setup(&emulated, &emulated.address).set("compression = \"zstandard\"")).await;
    let mut sent = Vec::new();
    for n in 0..30 {
        sent.push(text(n));
        append(&mut sidecar.grpc(), "orders", &[&sent[n]]).await;
        if n % 10 == 9 {
            sidecar.grpc().flush(FlushRequest { collection: "orders".into() }).await.unwrap();
        }
    }
    sidecar.stop().await;
    let shown = include_str!("../../docs/buckets.md").split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    assert!(shown.contains("serverless-wal-bucket") && shown.contains("proximadb/wal/"), "{shown}");
    let shown =
        shown.replace("serverless-wal-bucket", &emulated.bucket).replace("proximadb/wal/", &format!("wal/{WRITER}/"));
    let script = format!("{shown}\nfor payload in entries[\"payload\"]: print(payload.hex())");
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{}", emulated.address)),
        ("AWS_ACCESS_KEY_ID", "AKIATEST".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_DEFAULT_REGION", "us-east-1".into()),
    ];
    let variables = variables.into_iter().map(|(name, value)| format!("{name}={value}"));
    let python = std::env::var("WALSTORAGE_PYTHON").expect("what serves the emulator");
    let read = run("/usr/bin/env", variables.chain([python, "-c".into(), script]), b"").ok();
    assert_eq!(bytes_of(&read), sent);
}

/// Lines of hexadecimal digits.
fn bytes_of(hex: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// The payloads of entries in objects that hold them in order, as another reader of Avro sees them.
fn read_by_fastavro(objects: &[PathBuf]) -> Vec<Vec<u8>> {
    const SCRIPT: &str = "import fastavro, sys\n\
        for path in sys.argv[1:]:\n    \
        for entry in fastavro.reader(open(path, 'rb')):\n        \
        if entry['kind'] == 'DATA': print(entry['payload'].hex())";
    let python = std::env::var_os("WALSTORAGE_PYTHON").expect("what serves the emulator");
    let arguments = [OsStr::new("-c"), OsStr::new(SCRIPT)].into_iter().chain(objects.iter().map(AsRef::as_ref));
    bytes_of(&run(PathBuf::from(python), arguments, b"").ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_a_bucket_is_ridden_out_by_the_disk_beside_it() {
    let Some(emulated) = Emulated::new("an_outage_of_a_bucket_is_ridden_out", Cloud::S3).await else { return };
    let gate = Gate::before(&emulated.address).await;
    let mut setup = setup(&emulated, &gate.address).set("distribution_strategy = \"RoundRobin\"");
    let (disk, bucket) = (setup.url("d1"), emulated.url("wal").to_string());
    setup.urls(&[disk.clone(), bucket.clone()]);
    let mut sidecar = Sidecar::ready(setup).await;
    let mut of_bucket = None;
    for n in 0..2 {
        let collection = format!("c{n}");
        if append(&mut sidecar.grpc(), &collection, &[b"before"]).await.directory == bucket {
            of_bucket = Some(collection);
        }
    }
    let collection = of_bucket.expect("one lives in the bucket");
    gate.set_open(false);
    // Nobody knows whether it was committed there; ten seconds later it is committed on the disk, with the same LSN.
    let moved = append(&mut sidecar.grpc(), &collection, &[b"during"]).await;
    assert_eq!((moved.directory, moved.last_lsn), (disk, 2));
    append(&mut sidecar.grpc(), &collection, &[b"behind"]).await;
    let expected = ["before", "during", "behind"].map(|text| text.as_bytes().to_vec());
    assert_eq!(payloads(&mut sidecar.grpc(), &collection).await, expected);
    sidecar.kill();
    sidecar.start();
    let waits = |status: &Status| {
        status.directories.iter().any(|directory| directory.url == bucket && !directory.reason.is_empty())
    };
    sidecar.wait_status("the bucket is waited for by name", waits).await;
    gate.set_open(true);
    sidecar.wait_ready().await;
    assert_eq!(payloads(&mut sidecar.grpc(), &collection).await, expected);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_disk_acknowledges_what_is_kept_in_a_bucket() {
    let Some(emulated) = Emulated::new("a_fast_disk_acknowledges", Cloud::S3).await else { return };
    let gate = Gate::before(&emulated.address).await;
    let mut setup = setup(&emulated, &gate.address).set("memory_flush_size_bytes = 4096");
    let journal = setup.url("journal");
    setup.add(&format!("journal_url = {journal:?}"));
    let mut sidecar = Sidecar::ready(setup).await;
    let mut sent = Vec::new();
    for n in 0..40 {
        sent.push(text(n));
        let reply = append(&mut sidecar.grpc(), "c", &[&sent[n]]).await;
        assert_eq!(reply.directory, journal);
        if n == 20 {
            // What is acknowledged on the disk does not wait for the bucket.
            gate.set_open(false);
        }
    }
    gate.set_open(true);
    sidecar.grpc().flush(FlushRequest { collection: "c".into() }).await.unwrap();
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await, sent);
    let store = emulated.store(&emulated.url("wal"), &emulated.address, Limits::default());
    let mut keys = store.list("c/").await.unwrap();
    // By their names in the order of their entries.
    keys.sort();
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let path = folder.path().join(n.to_string());
        std::fs::write(&path, store.read(key, 0..u64::MAX).await.unwrap().unwrap()).unwrap();
        files.push(path);
    }
    assert_eq!(read_by_fastavro(&files), sent, "its segments are in the bucket: {keys:#?}");
    sidecar.kill_and_restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await, sent);
    sidecar.stop().await;
}
