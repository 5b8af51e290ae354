//! What sidecars said at their admin ports, in the status.

use serde_json::json;

use super::*;
use crate::observe::{Directory, Observation};

const GIB: u64 = 1 << 30;

fn held(name: &str, uid: &str, volumes: Value) -> Arc<WalWriter> {
    writer(name, json!({"phase": "Active", "holder": {"podName": name, "podUid": uid}, "volumes": volumes}))
}

fn directory(url: &str, state: &str, used: u64) -> Directory {
    Directory { url: url.to_owned(), state: state.to_owned(), capacity: Some(100 * GIB), used, ..Directory::default() }
}

fn said(uid: &str, directories: Vec<Directory>) -> Observation {
    Observation { pod_uid: uid.to_owned(), directories, ..Observation::default() }
}

fn one_disk() -> Value {
    json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}]})
}

/// One disk, two writers.
fn two_writers() -> Found {
    let mut found = settled(one_disk());
    let volumes = || json!([{"name": "a", "url": "file:///wal/a"}]);
    found.writers = vec![held("orders-0", "u0", volumes()), held("orders-1", "u1", volumes())];
    found.pods = vec![pod("orders-0"), pod("orders-1")];
    found
}

fn hear(found: &mut Found, writer: &str, observation: Observation) {
    found.observed.insert(format!("orders.{writer}"), observation);
}

/// Looks, and keeps what was said for the next look.
fn look(found: &mut Found) -> WalStorageStatus {
    let status = looked(found);
    let kept = status.clone();
    change(found, |storage| storage.status = Some(kept));
    status
}

fn url(status: &WalStorageStatus, at: usize) -> (Option<&str>, Option<i64>, Option<i64>) {
    let url = &status.urls.as_ref().unwrap()[at];
    (url.state.as_deref(), url.used_bytes, url.as_of.as_ref().map(|time| time.0.as_second() - 1_800_000_000))
}

#[test]
fn used_bytes_are_summed_and_written_anew_only_when_they_moved() {
    let mut found = two_writers();
    let at = |gib: u64| said("u0", vec![directory("file:///wal/a", "healthy", gib * GIB)]);
    hear(&mut found, "orders-0", at(10));
    assert_eq!(url(&look(&mut found), 0).1, None, "the other one is still to be asked");
    hear(&mut found, "orders-1", said("u1", vec![directory("file:///wal/a", "healthy", 5 * GIB)]));
    let gib = |gib: i64| Some(gib << 30);
    assert_eq!(url(&look(&mut found), 0), (Some("healthy"), gib(15), Some(0)));
    // Of 200 GiB, 3 are nothing new, and 4 are.
    found.now = super::at(60);
    hear(&mut found, "orders-0", at(13));
    let before = found.storage.status.clone();
    assert_eq!(Some(look(&mut found)), before, "or each answer would be a write");
    hear(&mut found, "orders-0", at(14));
    assert_eq!(url(&look(&mut found), 0), (Some("healthy"), gib(19), Some(60)));
    // A new leader shows what the one before knew, until it has asked.
    found.observed.clear();
    found.now = super::at(90);
    assert_eq!(url(&look(&mut found), 0), (Some("healthy"), gib(19), Some(60)));
}

#[test]
fn a_url_that_a_pod_does_not_have_yet_is_shown_as_its_sidecar_sees_it() {
    let mut found =
        settled(json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]}));
    found.writers = vec![held("orders-0", "u0", json!([{"name": "a", "url": "file:///wal/a"}]))];
    let directories = vec![
        directory("file:///wal/a", "healthy", 0),
        Directory { capacity: None, ..directory("file:///wal/b", "not_mounted", 0) },
    ];
    hear(&mut found, "orders-0", said("u0", directories));
    let status = look(&mut found);
    assert_eq!((url(&status, 0).0, url(&status, 1).0), (Some("healthy"), Some("not_mounted")));
    assert_eq!((url(&status, 0).1, url(&status, 1).1), (Some(0), None));
    let (is, _, message) = super::said(&status, "DirectoriesHealthy");
    assert_eq!((is, message), ("False", "b of writer orders-0 is not_mounted (restart the pod)"));
}

#[test]
fn a_sidecars_own_reason_and_remedy_are_passed_on() {
    let mut found = two_writers();
    let failed = Directory {
        reason: "write: Input/output error".to_owned(),
        remedy: "repair or replace the device".to_owned(),
        ..directory("file:///wal/a", "failed", 0)
    };
    hear(&mut found, "orders-0", said("u0", vec![failed]));
    hear(&mut found, "orders-1", said("u1", vec![directory("file:///wal/a", "healthy", 0)]));
    let status = look(&mut found);
    let (is, reason, message) = super::said(&status, "DirectoriesHealthy");
    assert_eq!((is, reason), ("False", "DirectoryUnhealthy"));
    assert_eq!(message, "a of writer orders-0 is failed: write: Input/output error (repair or replace the device)");
    assert_eq!(directories::unwritable(&found), ["orders-0"]);
}

#[test]
fn a_sidecar_that_does_not_answer_is_named_with_what_may_be_in_the_way() {
    let mut found = two_writers();
    hear(&mut found, "orders-0", said("u0", vec![directory("file:///wal/a", "healthy", 0)]));
    let silent = |why: &str| Observation { pod_uid: "u1".into(), silent: Some(why.into()), ..Observation::default() };
    hear(&mut found, "orders-1", silent("10.0.0.7:9465: no answer within 3 s"));
    let status = look(&mut found);
    let (is, reason, message) = super::said(&status, "DirectoriesHealthy");
    assert_eq!((is, reason), ("Unknown", "NotObserved"));
    for part in ["1 writer (orders-1)", "10.0.0.7:9465: no answer within 3 s", "NetworkPolicy", "port wal-admin"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert!(directories::unwritable(&found).is_empty(), "nobody knows");
    assert_eq!(super::said(&status, "Ready").0, "True");
    // What is known to be bad comes first.
    hear(&mut found, "orders-0", said("u0", vec![directory("file:///wal/a", "full", 0)]));
    assert_eq!(super::said(&look(&mut found), "DirectoriesHealthy").0, "False");
}

#[test]
fn what_another_pod_said_is_not_shown_of_this_one() {
    let mut found = two_writers();
    hear(&mut found, "orders-0", said("before", vec![directory("file:///wal/a", "failed", 0)]));
    assert_eq!(super::said(&look(&mut found), "DirectoriesHealthy").0, "Unknown", "nobody has asked this one");
    hear(&mut found, "orders-0", said("u0", vec![directory("file:///wal/a", "healthy", 0)]));
    hear(&mut found, "orders-1", said("u1", vec![directory("file:///wal/a", "healthy", 0)]));
    assert_eq!(super::said(&look(&mut found), "DirectoriesHealthy").0, "True");
    // Neither what one said whose pod goes.
    hear(&mut found, "orders-0", said("u0", vec![directory("file:///wal/a", "failed", 0)]));
    found.writers[0] =
        writer("orders-0", json!({"phase": "Releasing", "holder": {"podName": "orders-0", "podUid": "u0"}}));
    assert_eq!(super::said(&look(&mut found), "DirectoriesHealthy").0, "True");
}

#[test]
fn what_is_well_is_in_no_ledger_and_stands_until_a_new_leader_has_asked() {
    let mut found = two_writers();
    for (writer, uid) in [("orders-0", "u0"), ("orders-1", "u1")] {
        hear(&mut found, writer, said(uid, vec![directory("file:///wal/a", "healthy", GIB)]));
    }
    let before = look(&mut found);
    assert_eq!(super::said(&before, "DirectoriesHealthy"), ("True", "Healthy", "2 directories"));
    found.observed.clear();
    found.now = super::at(90);
    assert_eq!(look(&mut found), before);
    // One is asked, and the other's ledger says what the leader before found.
    hear(&mut found, "orders-0", said("u0", vec![directory("file:///wal/a", "healthy", GIB)]));
    assert_eq!(look(&mut found), before);
    found.writers[1] = held("orders-1", "u1", json!([{"name": "a", "url": "file:///wal/a", "state": "full"}]));
    let status = look(&mut found);
    assert_eq!((super::said(&status, "DirectoriesHealthy").0, url(&status, 0).0), ("False", Some("full")));
}

#[test]
fn a_ledger_that_has_the_state_of_one_directory_says_that_the_others_are_well() {
    let mut found =
        settled(json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]}));
    let volumes = |b: Value| json!([{"name": "a", "url": "file:///wal/a", "state": "full"}, {"name": "b", "url": "file:///wal/b", "state": b}]);
    found.writers = vec![held("orders-0", "u0", volumes(Value::Null))];
    assert!(directories::unwritable(&found).is_empty(), "the other one takes entries");
    let status = look(&mut found);
    assert_eq!((url(&status, 0).0, url(&status, 1).0), (Some("full"), Some("healthy")));
    found.writers = vec![held("orders-0", "u0", volumes(json!("failed")))];
    assert_eq!(directories::unwritable(&found), ["orders-0"]);
}

#[test]
fn a_url_that_sidecars_have_emptied_waits_for_restarts() {
    let mut found = settled(one_disk());
    let volumes = json!([{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]);
    found.writers = vec![held("orders-0", "u0", volumes.clone()), held("orders-1", "u1", volumes)];
    let drains = |emptied| {
        vec![
            directory("file:///wal/a", "healthy", 0),
            Directory { emptied, ..directory("file:///wal/b", "draining", 0) },
        ]
    };
    for (one, two, sentence) in [
        (false, false, "configuration"),
        (true, false, "; 1 of 2 running sidecars have emptied it"),
        (true, true, "; running sidecars have emptied it: it leaves when their pods have restarted"),
    ] {
        hear(&mut found, "orders-0", said("u0", drains(one)));
        hear(&mut found, "orders-1", said("u1", drains(two)));
        let status = look(&mut found);
        let (_, reason, message) = super::said(&status, "Reconciling");
        assert_eq!(reason, "Draining");
        assert!(message.ends_with(sentence), "{message}");
        assert_eq!(url(&status, 1).0, Some("draining"));
    }
}

/// A bucket by Secret and authority, and one pod that holds, or is about to hold, its writer.
fn in_a_bucket(phase: &str, heard: Directory) -> Found {
    let bucket =
        json!({"credentials": {"secretName": "wal-s3"}, "caBundle": {"configMapName": "corp-ca", "key": "ca.crt"}});
    let mut found = settled(json!({"walUrls": [{"name": "b", "url": "s3://bucket/wal", "bucket": bucket}]}));
    let status = json!({"phase": phase, "holder": {"podName": "orders-0", "podUid": "u0"},
        "volumes": [{"name": "b", "url": "s3://bucket/wal"}]});
    found.writers = vec![writer("orders-0", status)];
    hear(&mut found, "orders-0", said("u0", vec![heard]));
    found
}

#[test]
fn what_is_wrong_with_a_bucket_is_the_reason_and_the_remedy_names_what_the_operator_cannot_read() {
    for (state, reason, remedy) in [
        ("no_credentials", "NoCredentials", "Secret wal-s3 (keys access_key_id, secret_access_key, session_token)"),
        ("wrong_credentials", "WrongCredentials", "Secret wal-s3"),
        ("expired_credentials", "ExpiredCredentials", "nothing has to be restarted"),
        ("misconfigured", "Misconfigured", "key ca.crt of ConfigMap corp-ca"),
        ("unreachable", "Unreachable", "key ca.crt of ConfigMap corp-ca"),
        ("missing_bucket", "MissingBucket", "its own remedy"),
        ("not_create_only", "NotCreateOnly", "its own remedy"),
    ] {
        let heard = Directory {
            reason: "its own reason".to_owned(),
            remedy: "its own remedy".to_owned(),
            ..directory("s3://bucket/wal", state, 0)
        };
        for phase in ["Pending", "Active"] {
            let mut found = in_a_bucket(phase, heard.clone());
            let status = look(&mut found);
            let (is, said, message) = super::said(&status, "DirectoriesHealthy");
            assert_eq!((is, said), ("False", reason), "{phase}: {message}");
            let begins = format!("b (s3://bucket/wal) of writer orders-0 is {state}: its own reason (");
            assert!(message.starts_with(&begins) && message.contains(remedy), "{message}");
            assert_eq!(url(&status, 0).0, Some(state));
            assert_eq!(directories::unwritable(&found), ["orders-0"]);
        }
    }
}

#[test]
fn writers_that_say_the_same_are_named_in_one_sentence() {
    let mut found = in_a_bucket("Active", directory("s3://bucket/wal", "missing_bucket", 0));
    for (name, uid) in [("orders-1", "u1"), ("orders-2", "u2")] {
        found.writers.push(held(name, uid, json!([{"name": "b", "url": "s3://bucket/wal"}])));
        hear(&mut found, name, said(uid, vec![directory("s3://bucket/wal", "missing_bucket", 0)]));
    }
    let status = look(&mut found);
    let (_, _, message) = super::said(&status, "DirectoriesHealthy");
    assert_eq!(message, "b (s3://bucket/wal) of 3 writers (orders-0, orders-1, orders-2) is missing_bucket");
}

#[test]
fn a_pod_that_starts_and_was_not_heard_is_no_reason_to_doubt() {
    let mut found = two_writers();
    for (writer, uid) in [("orders-0", "u0"), ("orders-1", "u1")] {
        hear(&mut found, writer, said(uid, vec![directory("file:///wal/a", "healthy", GIB)]));
    }
    look(&mut found);
    found
        .writers
        .push(writer("orders-2", json!({"phase": "Pending", "holder": {"podName": "orders-2", "podUid": "u2"}})));
    assert_eq!(super::said(&look(&mut found), "DirectoriesHealthy"), ("True", "Healthy", "2 directories"));
}
