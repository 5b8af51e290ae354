//! Sidecars that are played by sockets, and the steps between their answers as tables.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const UID: &str = "0d2f6f3e-9b1f-4b58-9c53-2f36f1b6a9aa";
const INTERVAL: Duration = Duration::from_secs(30);

fn writer(status: Value) -> WalWriter {
    serde_json::from_value(json!({
        "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalWriter",
        "metadata": {"name": "orders.orders-0", "namespace": "shop", "uid": "w"},
        "spec": {"storage": "orders", "writer": "orders-0", "writerUid": UID, "identity": "Named",
            "workload": {"group": "apps", "kind": "StatefulSet", "name": "orders"}},
        "status": status,
    }))
    .unwrap()
}

fn pod(ports: Value, ip: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "orders-0", "uid": "u"},
        "spec": {"containers": [{"name": "app", "ports": [{"name": "wal-admin", "containerPort": 80}]}],
            "initContainers": [{"name": "walstorage", "restartPolicy": "Always", "ports": ports}]},
        "status": {"podIP": ip},
    }))
    .unwrap()
}

fn directory(url: &str, state: &str) -> Directory {
    Directory { url: url.to_owned(), state: state.to_owned(), ..Directory::default() }
}

/// Answers every question with this status.
async fn sidecar(body: String) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, server)
}

fn status(uid: &str) -> String {
    json!({"writer": {"uid": uid}, "directories": [{"url": "file:///wal", "state": "full", "capacityBytes": "10",
        "freeBytes": "1"}]})
    .to_string()
}

#[tokio::test]
async fn the_first_that_is_there_is_heard_and_only_if_it_is_the_writer() {
    let longest = Duration::from_secs(60);
    let (there, ours) = sidecar(status(UID)).await;
    let (strange, anothers) = sidecar(status("other")).await;
    // An address that refuses: nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let heard = hear(&[gone, there], UID, longest).await.unwrap();
    assert_eq!((heard.len(), heard[0].state.as_str(), heard[0].used), (1, "full", 9));
    let not = hear(&[strange, there], UID, longest).await;
    assert!(matches!(&not, Err(NoAnswer::Unusable(why)) if why.ends_with("writer other answers there")), "{not:?}");
    let nobody = hear(&[gone], UID, longest).await;
    assert!(matches!(&nobody, Err(NoAnswer::Unreachable(why)) if why.starts_with(&gone.to_string())), "{nobody:?}");
    assert_eq!([result(&Ok(heard)), result(&not), result(&nobody)], ["ok", "unusable", "unreachable"]);
    ours.abort();
    anothers.abort();
}

#[test]
fn a_sidecar_is_asked_where_its_container_says_then_where_the_spec_does() {
    let named = json!([{"name": "other", "containerPort": 1}, {"name": "wal-admin", "containerPort": 9465}]);
    let at = |ports: &[u16]| {
        Target::At(ports.iter().map(|port| SocketAddr::new("10.0.0.7".parse().unwrap(), *port)).collect())
    };
    let pod_there = pod(named.clone(), json!("10.0.0.7"));
    assert_eq!(target(Some(&pod_there), "u", None), at(&[9465]));
    assert_eq!(target(Some(&pod_there), "u", Some(9465)), at(&[9465]));
    assert_eq!(target(Some(&pod_there), "u", Some(9500)), at(&[9465, 9500]));
    assert_eq!(target(Some(&pod(json!(null), json!("10.0.0.7"))), "u", Some(9500)), Target::None);
    assert!(matches!(target(Some(&pod(named, json!(null))), "u", None), Target::Nowhere(_)));
    assert!(matches!(target(Some(&pod_there), "v", None), Target::Nowhere(_)), "another pod of that name");
    assert!(matches!(target(None, "u", None), Target::Nowhere(_)));
}

#[test]
fn one_that_does_not_answer_is_asked_less_often_and_is_silent_in_time() {
    let begin = Instant::now();
    let heard = Observation {
        pod_uid: "u".into(),
        directories: vec![directory("file:///wal", "full")],
        ..Observation::default()
    };
    let refused = || Err(NoAnswer::Unreachable("refused".to_owned()));
    let (mut known, mut failing, mut now) = (heard.clone(), None, begin);
    let mut waits = Vec::new();
    for _ in 0..10 {
        let (next, failed, wait) = follow(&known, failing, refused(), now, INTERVAL);
        let elapsed = now.duration_since(begin);
        assert_eq!(next.silent.is_some(), elapsed >= INTERVAL * SILENT, "after {elapsed:?}");
        assert_eq!(next.directories.is_empty(), next.silent.is_some(), "what it said long ago is not shown");
        (known, failing, now) = (next, failed, now + wait);
        waits.push(wait.as_secs());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 64, 120, 120, 120]);
    // One answer ends it.
    let answer = Ok(vec![directory("file:///wal", "healthy")]);
    let (next, failed, wait) = follow(&known, failing, answer, now, INTERVAL);
    assert_eq!((next.silent, failed, wait), (None, None, INTERVAL));
    assert!(heard.is_known() && !Observation::default().is_known());
}

#[test]
fn the_ledger_is_written_where_a_state_changed_and_only_for_the_pod_that_was_asked() {
    let volumes = |a: Value, b: Value| {
        json!({"phase": "Active", "holder": {"podName": "orders-0", "podUid": "u"}, "volumes": [
            {"name": "a", "url": "file:///a", "state": a}, {"name": "b", "url": "file:///b", "state": b}]})
    };
    let said = |directories| Observation { pod_uid: "u".into(), directories, ..Observation::default() };
    let both = said(vec![directory("file:///a", "slow"), directory("file:///b", "full"), directory("file:///c", "x")]);
    assert_eq!(ledger_patch(&writer(volumes(json!("slow"), json!("full"))), &both), None);
    let patch = ledger_patch(&writer(volumes(json!(null), json!("full"))), &both).unwrap();
    assert_eq!(
        patch,
        json!([
            {"op": "test", "path": "/metadata/uid", "value": "w"},
            {"op": "test", "path": "/status/phase", "value": "Active"},
            {"op": "test", "path": "/status/holder/podUid", "value": "u"},
            {"op": "test", "path": "/status/volumes/0/name", "value": "a"},
            {"op": "add", "path": "/status/volumes/0/state", "value": "slow"},
        ])
    );
    // Nothing is shown of a silent one, nor of a directory that it does not speak of.
    let silent = Observation { pod_uid: "u".into(), silent: Some("refused".into()), ..Observation::default() };
    for heard in [silent, said(vec![directory("file:///b", "full")])] {
        let patch = ledger_patch(&writer(volumes(json!("slow"), json!(null))), &heard).unwrap();
        assert!(patch.to_string().contains(r#"{"op":"remove","path":"/status/volumes/0/state"}"#), "{patch}");
    }
    // Nobody has been heard yet: what a leader before wrote stands.
    let nobody = Observation { pod_uid: "u".into(), ..Observation::default() };
    assert_eq!(ledger_patch(&writer(volumes(json!("slow"), json!("full"))), &nobody), None);
}

#[test]
fn that_a_directory_is_well_is_not_written_and_that_it_is_well_again_is() {
    let volume = |state: Value| {
        json!({"phase": "Active", "holder": {"podName": "orders-0", "podUid": "u"},
            "volumes": [{"name": "a", "url": "file:///a", "state": state}]})
    };
    let well = vec![directory("file:///a", "healthy")];
    let heard = Observation { pod_uid: "u".into(), directories: well, ..Observation::default() };
    for stands in [json!(null), json!("healthy")] {
        assert_eq!(ledger_patch(&writer(volume(stands)), &heard), None);
    }
    let patch = ledger_patch(&writer(volume(json!("full"))), &heard).unwrap();
    assert_eq!(patch[4], json!({"op": "remove", "path": "/status/volumes/0/state"}));
}

#[test]
fn the_pod_of_a_writer_that_starts_or_runs_is_asked_and_once_more_when_it_has_started() {
    let with = |phase: &str| writer(json!({"phase": phase, "holder": {"podName": "orders-0", "podUid": "u"}}));
    let (active, pending) = (with("Active"), with("Pending"));
    let (active, pending) = (held(&active).unwrap(), held(&pending).unwrap());
    assert_eq!((active.pod_uid, active.starting, pending.starting), ("u", false, true));
    for phase in ["Releasing", "Released", "Lost"] {
        assert_eq!(held(&with(phase)), None, "{phase}");
    }
    assert_eq!(held(&writer(json!({"phase": "Active"}))), None);
    let heard = |pod: &str, starting| Observation { pod_uid: pod.into(), starting, ..Observation::default() };
    for (held, known, new) in [
        (pending, heard("u", true), false),
        (active, heard("u", true), true),
        (active, heard("u", false), false),
        (active, heard("v", false), true),
    ] {
        assert_eq!(held.is_new_after(&known), new, "{held:?} after {known:?}");
    }
}

#[test]
fn what_is_not_well_is_asked_about_sooner() {
    let known = Observation { pod_uid: "u".into(), ..Observation::default() };
    for (state, wait) in [("healthy", INTERVAL), ("missing_bucket", INTERVAL / SOONER)] {
        let answer = Ok(vec![directory("s3://a", "healthy"), directory("s3://b", state)]);
        assert_eq!(follow(&known, None, answer, Instant::now(), INTERVAL).2, wait, "{state}");
    }
}
