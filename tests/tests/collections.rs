//! Collections as their users see them: bounds, levels of acknowledgement, deletion, names and sizes at the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use walstorage_sidecar::proto::{
    AppendRequest, DeleteCollectionRequest, Entry, FlushRequest, GetCollectionRequest, Header, ReadRequest, item,
};
use walstorage_tests::harness::calls::{append, append_buffered, describe, payloads, refused, request, truncate};
use walstorage_tests::harness::grpc::{self, typed};
use walstorage_tests::harness::{Setup, Sidecar};

const MIB: usize = 1 << 20;

/// Appends entries of 512 KiB until one is refused; answers how many were acknowledged and the refusal. (A batch above
/// 1 MiB may use the allowance above the bound.)
async fn fill(sidecar: &Sidecar) -> (u64, grpc::Typed) {
    let mut client = sidecar.grpc();
    let payload = vec![b'x'; MIB / 2];
    for n in 0..400 {
        if let Err(status) = client.append_batch(request("c", &[&payload])).await {
            return (n, typed(&status));
        }
    }
    panic!("200 MiB were taken");
}

async fn truncation_makes_room(sidecar: &mut Sidecar, reason: &str, fits: std::ops::RangeInclusive<u64>) {
    let (acked, refusal) = fill(sidecar).await;
    assert_eq!((refusal.reason.as_str(), refusal.code), (reason, tonic::Code::ResourceExhausted));
    assert_eq!(refusal.durability, "not_written");
    assert!(fits.contains(&acked), "{acked} x 512 KiB were taken");
    let mut client = sidecar.grpc();
    assert_eq!(describe(&mut client, "c").await.durable_head, acked, "what was refused has no LSN");
    assert_eq!(truncate(&mut client, "c", acked).await, acked);
    for n in 1..=4 {
        assert_eq!(append(&mut client, "c", &[&vec![b'y'; MIB]]).await.first_lsn, acked + n);
    }
    sidecar.kill_and_restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await.len(), 4);
}

#[tokio::test]
async fn beyond_the_memory_bound_appends_are_refused_until_truncation_makes_room() {
    let setup = Setup::new(1).set(r#"memory_flush_size_bytes = "1Mi""#).set(r#"global_flush_threshold = "16Mi""#);
    let mut sidecar = Sidecar::ready(setup).await;
    sidecar.setup.block_segments("c");
    truncation_makes_room(&mut sidecar, "MEMORY_LIMIT", 16..=32).await;
    let memory = sidecar.status().await.memory.expect("memory");
    assert_eq!(memory.limit_bytes, 16 << 20);
}

#[tokio::test]
async fn beyond_the_journal_bound_appends_are_refused_until_truncation_frees_slots() {
    let mut sidecar = Sidecar::ready(Setup::new(1).set(r#"journal_max_bytes = "64Mi""#)).await;
    sidecar.setup.block_segments("c");
    truncation_makes_room(&mut sidecar, "JOURNAL_FULL", 48..=128).await;
}

#[tokio::test]
async fn freed_slots_leave_the_disk() {
    let sidecar = Sidecar::ready(Setup::new(1).set(r#"journal_max_bytes = "64Mi""#)).await;
    let mut client = sidecar.grpc();
    let payload = vec![b'x'; 4 * MIB];
    for n in 1..=100 {
        append(&mut client, "c", &[&payload]).await;
        truncate(&mut client, "c", n).await;
    }
    let bytes: u64 = std::fs::read_dir(sidecar.setup.journal(1))
        .expect("the journal")
        .map(|file| file.expect("a name").metadata().expect("its size").len())
        .sum();
    assert!(bytes <= 64 << 20, "{bytes} bytes after 400 MiB");
}

#[tokio::test]
async fn what_is_never_truncated_goes_through_a_small_memory_and_a_small_journal_and_is_read_back() {
    let setup = Setup::new(1).set(r#"memory_flush_size_bytes = "1Mi""#).set(r#"global_flush_threshold = "8Mi""#);
    let mut sidecar = Sidecar::ready(setup.set(r#"journal_max_bytes = "64Mi""#)).await;
    let mut client = sidecar.grpc();
    for n in 0..600_u32 {
        let mut payload = vec![b'x'; MIB / 4];
        payload[..4].copy_from_slice(&n.to_le_bytes());
        append(&mut client, &format!("c{}", n % 3), &[&payload]).await;
    }
    for life in 0..2 {
        let mut client = sidecar.grpc();
        for c in 0..3 {
            let read = payloads(&mut client, &format!("c{c}")).await;
            let numbers: Vec<u32> = read.iter().map(|p| u32::from_le_bytes(p[..4].try_into().unwrap())).collect();
            assert_eq!(numbers, (0..200).map(|n| n * 3 + c).collect::<Vec<_>>(), "life {life}");
        }
        let info = describe(&mut client, "c0").await;
        assert!(info.segments > 0 && info.bytes >= 200 * (MIB as u64) / 4, "{info:?}");
        let journal: u64 = std::fs::read_dir(sidecar.setup.journal(1))
            .expect("the journal")
            .map(|file| file.expect("a name").metadata().expect("its size").len())
            .sum();
        assert!(journal <= 64 << 20, "{journal} bytes of journal");
        sidecar.kill_and_restart().await;
    }
}

#[tokio::test]
async fn a_flush_and_a_truncation_leave_segments_that_are_needed_and_no_other() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    let segments = |sidecar: &Sidecar| {
        let folder = std::fs::read_dir(sidecar.setup.path("d1/c"));
        folder.map_or(0, |files| files.filter(|file| file.is_ok()).count())
    };
    append(&mut client, "c", &[b"one", b"two"]).await;
    let flushed = client.flush(FlushRequest { collection: "c".into() }).await.expect("flushed").into_inner();
    assert_eq!((flushed.flushed_to, segments(&sidecar)), (2, 1));
    append(&mut client, "c", &[b"three"]).await;
    assert_eq!(payloads(&mut client, "c").await, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    // A clean stop flushes the rest; the next start goes on in the same segment.
    sidecar.restart().await;
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, "c").await.len(), 3);
    assert_eq!((describe(&mut client, "c").await.segments, segments(&sidecar)), (1, 1));
    truncate(&mut client, "c", 3).await;
    append(&mut client, "c", &[b"four"]).await;
    sidecar.restart().await;
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, "c").await, [b"four"]);
    assert_eq!(segments(&sidecar), 1);
    client.delete_collection(DeleteCollectionRequest { collection: "c".into() }).await.expect("deleted");
    sidecar.restart().await;
    assert_eq!(segments(&sidecar), 0);
}

#[tokio::test]
async fn a_segment_that_is_damaged_is_told_from_one_that_cannot_be_reached() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"one"]).await;
    client.flush(FlushRequest { collection: "c".into() }).await.expect("flushed");
    append(&mut client, "c", &[b"two"]).await;
    let path = sidecar.setup.path("d1/c/wal_current.avro");
    let whole = std::fs::read(&path).expect("the segment");
    let at = whole.windows(3).position(|window| window == b"one").expect("not compressed that much");
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    std::fs::write(&path, &flipped).expect("flipped");
    let status = grpc::read(&mut client, "c", 1, 0).await.expect_err("damaged");
    assert_eq!((typed(&status).reason.as_str(), status.code()), ("DAMAGED", tonic::Code::DataLoss));
    assert!(status.message().contains("wal_current.avro") && status.message().contains("LSN 1"), "{status}");
    assert_eq!(grpc::read(&mut client, "c", 2, 0).await.expect("from memory").len(), 1);
    assert_eq!(sidecar.status().await.damage.len(), 1);
    std::fs::write(&path, &whole).expect("restored");
    assert_eq!(payloads(&mut client, "c").await.len(), 2);
    std::fs::rename(sidecar.setup.path("d1"), sidecar.setup.path("away")).expect("away");
    let error = typed(&grpc::read(&mut client, "c", 1, 0).await.expect_err("missing"));
    assert_eq!((error.reason.as_str(), error.code), ("DIRECTORY_MISSING", tonic::Code::Unavailable));
    std::fs::rename(sidecar.setup.path("away"), sidecar.setup.path("d1")).expect("back");
    assert_eq!(payloads(&mut client, "c").await.len(), 2);
}

#[tokio::test]
async fn a_buffered_entry_is_readable_when_it_is_durable() {
    let mut sidecar = Sidecar::ready(Setup::new(1).set("buffered_commit_interval_ms = 600000")).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"one"]).await;
    let buffered = append_buffered(&mut client, "c", b"two").await;
    assert_eq!((buffered.first_lsn, buffered.ack), (2, 1));
    let info = describe(&mut client, "c").await;
    assert_eq!((info.durable_head, info.assigned_head), (1, 2));
    assert_eq!(payloads(&mut client, "c").await, [b"one"], "only what is durable");
    let beyond = grpc::read(&mut client, "c", 3, 0).await.expect_err("beyond the durable head");
    assert_eq!(typed(&beyond).reason, "AHEAD_OF_LOG");
    append(&mut client, "c", &[b"three"]).await;
    assert_eq!(payloads(&mut client, "c").await.len(), 3, "a durable one takes it along");
    append_buffered(&mut client, "c", b"four").await;
    sidecar.kill_and_restart().await;
    let mut client = sidecar.grpc();
    let read = payloads(&mut client, "c").await;
    assert!((3..=4).contains(&read.len()), "{read:?}");
    assert_eq!(append(&mut client, "c", &[b"next"]).await.first_lsn, read.len() as u64 + 1);
}

#[tokio::test]
async fn a_buffered_entry_becomes_durable_by_itself() {
    let sidecar = Sidecar::ready(Setup::new(1).set("buffered_commit_interval_ms = 10")).await;
    let mut client = sidecar.grpc();
    append_buffered(&mut client, "c", b"one").await;
    let request = ReadRequest { collection: "c".into(), from: 1, limit: 1, follow: true };
    let mut replies = client.read(request).await.expect("a reader").into_inner();
    let reply = tokio::time::timeout(walstorage_tests::harness::DEADLINE, replies.message()).await;
    assert_eq!(reply.expect("in time").expect("no error").expect("an item").items.len(), 1);
}

#[tokio::test]
async fn a_follower_gets_what_is_appended_later_and_ends_when_overtaken() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"1"]).await;
    let follow = |from| ReadRequest { collection: "c".into(), from, limit: 0, follow: true };
    let mut replies = client.read(follow(1)).await.expect("a reader").into_inner();
    let mut next = 1;
    for n in 2..=20u64 {
        while next < n {
            let reply = tokio::time::timeout(walstorage_tests::harness::DEADLINE, replies.message()).await;
            for item in reply.expect("in time").expect("no error").expect("an open stream").items {
                let Some(item::Item::Entry(entry)) = item.item else { panic!("{item:?}") };
                assert_eq!(entry.lsn, next);
                next += 1;
            }
        }
        append(&mut client, "c", &[n.to_string().as_bytes()]).await;
    }
    let mut late = client.read(follow(21)).await.expect("a reader").into_inner();
    client.delete_collection(DeleteCollectionRequest { collection: "c".into() }).await.expect("deleted");
    let ended = async {
        loop {
            match late.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    };
    let ended = tokio::time::timeout(walstorage_tests::harness::DEADLINE, ended).await.expect("in time");
    assert_eq!(typed(&ended.expect_err("deleted under it")).reason, "COLLECTION_NOT_FOUND");
}

#[tokio::test]
async fn a_deleted_and_recreated_collection_never_shows_its_old_entries() {
    let mut sidecar = Sidecar::ready(Setup::new(2)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"old", b"older"]).await;
    let old = describe(&mut client, "c").await.incarnation;
    let delete = || DeleteCollectionRequest { collection: "c".into() };
    assert_eq!(client.delete_collection(delete()).await.expect("deleted").into_inner().incarnation, old);
    let gone = client.get_collection(GetCollectionRequest { collection: "c".into() }).await.expect_err("gone");
    assert_eq!(typed(&gone).reason, "COLLECTION_NOT_FOUND");
    let again = client.delete_collection(delete()).await.expect_err("gone");
    assert_eq!(typed(&again).reason, "COLLECTION_NOT_FOUND");
    sidecar.kill_and_restart().await;
    let mut client = sidecar.grpc();
    assert!(client.get_collection(GetCollectionRequest { collection: "c".into() }).await.is_err(), "still gone");
    assert_eq!(append(&mut client, "c", &[b"new"]).await.first_lsn, 1);
    assert!(describe(&mut client, "c").await.incarnation > old);
    for _ in 0..2 {
        sidecar.kill_and_restart().await;
        assert_eq!(payloads(&mut sidecar.grpc(), "c").await, [b"new"]);
    }
}

#[tokio::test]
async fn schedule_21_every_name_of_1_to_255_bytes_is_a_name() {
    let names = [
        "a",
        &"n".repeat(255),
        &"é".repeat(127),
        "..",
        ".",
        "a/b",
        "/",
        "_wal",
        "lost+found",
        "🦀",
        "with\0nul",
        "Case",
        "case",
        "CASE",
        " ",
        "100%",
        "~",
    ];
    let mut sidecar = Sidecar::ready(Setup::new(2)).await;
    let mut client = sidecar.grpc();
    for name in names {
        append(&mut client, name, &[name.as_bytes()]).await;
    }
    for bad in ["", &"n".repeat(256), &"é".repeat(128)] {
        assert_eq!(refused(&mut client, request(bad, &[b"x"])).await.reason, "INVALID_COLLECTION_NAME", "{bad:?}");
    }
    sidecar.kill_and_restart().await;
    let mut client = sidecar.grpc();
    for name in names {
        assert_eq!(payloads(&mut client, name).await, [name.as_bytes()], "{name:?}");
    }
    let mut http = sidecar.http().await;
    for name in names {
        let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = http.get(&format!("/v1/collections/{escaped}")).await.expect("a reply");
        assert_eq!((reply.status.as_u16(), reply.json()["name"].as_str()), (200, Some(name)));
    }
}

/// An entry that counts as `bytes`: payload, key and one header.
fn entry(bytes: usize) -> Entry {
    let header = Header { name: "h".into(), value: vec![3; 10].into() };
    let rest = bytes - 100 - (1 + 10 + 16);
    Entry { payload: vec![1; rest].into(), key: Some(vec![2; 100].into()), headers: vec![header] }
}

#[tokio::test]
async fn an_entry_at_the_limit_is_taken_and_one_byte_more_is_refused() {
    const LIMIT: usize = 16_777_216;
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    let one = |bytes| AppendRequest { entries: vec![entry(bytes)], ..request("c", &[]) };
    for bytes in [LIMIT - 1, LIMIT] {
        client.append_batch(one(bytes)).await.unwrap_or_else(|status| panic!("{bytes}: {status}"));
    }
    let refusal = refused(&mut client, one(LIMIT + 1)).await;
    assert_eq!((refusal.reason.as_str(), refusal.durability.as_str()), ("ENTRY_TOO_LARGE", "not_written"));
    sidecar.kill_and_restart().await;
    let sizes: Vec<_> = payloads(&mut sidecar.grpc(), "c").await.iter().map(Vec::len).collect();
    assert_eq!(sizes, [LIMIT - 1 - 127, LIMIT - 127]);
}

#[tokio::test]
async fn a_batch_up_to_the_limit_is_taken_whole_and_a_larger_one_is_refused() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    let batch = |count: usize| {
        let payload = vec![9u8; MIB];
        let entries: Vec<&[u8]> = (0..count).map(|_| payload.as_slice()).collect();
        request("c", &entries)
    };
    client.append_batch(batch(31)).await.expect("31 MiB");
    assert_eq!(refused(&mut client, batch(32)).await.reason, "BATCH_TOO_LARGE", "32 MiB and what is around them");
    sidecar.kill_and_restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await.len(), 31);
}

#[tokio::test]
async fn a_producers_retry_is_stored_once_also_after_a_kill_and_after_truncation() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let stamped = |seq| AppendRequest { producer_id: "p".into(), producer_seq: seq, ..request("c", &[b"a", b"b"]) };
    let mut client = sidecar.grpc();
    let first = client.append_batch(stamped(7)).await.expect("any first sequence").into_inner();
    client.append_batch(stamped(8)).await.expect("the next");
    let duplicate = |reply: walstorage_sidecar::proto::AppendReply| (reply.duplicate, reply.first_lsn, reply.last_lsn);
    for truncated in [false, true] {
        sidecar.kill_and_restart().await;
        let mut client = sidecar.grpc();
        let last = client.append_batch(stamped(8)).await.expect("a duplicate").into_inner();
        assert_eq!(duplicate(last), (true, 3, 4));
        let older = client.append_batch(stamped(7)).await.expect("a duplicate").into_inner();
        assert_eq!(duplicate(older), (true, 0, 0), "only the last one's LSN is known");
        assert_eq!(refused(&mut client, stamped(10)).await.reason, "OUT_OF_SEQUENCE");
        assert_eq!(describe(&mut client, "c").await.durable_head, 4);
        if !truncated {
            truncate(&mut client, "c", 4).await;
        }
    }
    assert_eq!((first.first_lsn, first.duplicate), (1, false));
    assert_eq!(append(&mut sidecar.grpc(), "c", &[b"x"]).await.first_lsn, 5);
}

#[tokio::test]
async fn a_clean_stop_answers_everybody_and_loses_nothing() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let socket = sidecar.setup.socket();
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = grpc::connect(&socket);
            tokio::spawn(async move {
                let mut acked = 0u64;
                loop {
                    match client.append_batch(request(&format!("c{n}"), &[b"x"])).await {
                        Ok(_) => acked += 1,
                        Err(_) => return acked,
                    }
                }
            })
        })
        .collect();
    let mut client = sidecar.grpc();
    let busy = tokio::time::timeout(walstorage_tests::harness::DEADLINE, async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while sidecar.status().await.unapplied_entries < 100 {
            ticks.tick().await;
        }
    });
    busy.await.expect("clients append");
    sidecar.stop().await;
    sidecar.start();
    sidecar.wait_ready().await;
    for (n, acked) in clients.into_iter().enumerate() {
        let acked = tokio::time::timeout(walstorage_tests::harness::DEADLINE, acked).await;
        let acked = acked.expect("nobody is left waiting").expect("no panic");
        let stored = describe(&mut client, &format!("c{n}")).await.durable_head;
        assert!(stored >= acked, "c{n}: {stored} stored, {acked} acknowledged");
    }
}
