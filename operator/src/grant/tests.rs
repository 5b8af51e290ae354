//! Tables: what is gone, which message is believed, what a grant looks like.

use serde_json::json;

use super::annotation::{Grant, GrantedUrl};
use super::fate::{Fate, fate};
use super::losers::LoserDelays;
use super::message::TerminationMessage;
use crate::identity::{ContainerFacts, ContainerState, PodFacts, PodPhase};

fn pod(phase: PodPhase, states: &[ContainerState]) -> PodFacts {
    let containers = states.iter().map(|state| ContainerFacts { name: "c".into(), init: false, state: state.clone() });
    PodFacts { uid: "p".into(), node_name: "n".into(), phase, containers: containers.collect(), ..PodFacts::default() }
}

#[test]
fn only_a_name_without_the_pod_or_a_last_phase_with_every_container_ended_is_gone() {
    let ended = |reason: &str| ContainerState::Terminated { reason: reason.into(), message: String::new() };
    let (done, guessed) = (ended("Completed"), ended("ContainerStatusUnknown"));
    let deleted = |pod: PodFacts| PodFacts { deletion: Some(1), ..pod };
    use ContainerState::{Running, Unreported, Waiting};
    use PodPhase::{Failed, Pending, Succeeded, Unknown};
    for (read, expected) in [
        (None, "gone"),
        (Some(PodFacts { uid: "other".into(), ..pod(PodPhase::Running, &[Running]) }), "gone"),
        (Some(pod(Succeeded, &[done.clone(), done.clone()])), "gone"),
        (Some(pod(Failed, &[done.clone(), ended("OOMKilled")])), "gone"),
        (Some(PodFacts { node_name: String::new(), ..pod(Failed, &[Unreported]) }), "gone"),
        (Some(pod(Failed, &[done.clone(), guessed])), "ending"),
        (Some(pod(Failed, &[done.clone(), Unreported])), "ending"),
        (Some(pod(Failed, &[done.clone(), Waiting])), "ending"),
        (Some(pod(Succeeded, &[done.clone(), Running])), "ending"),
        (Some(deleted(pod(PodPhase::Running, &[Running]))), "ending"),
        (Some(deleted(pod(PodPhase::Running, std::slice::from_ref(&done)))), "ending"),
        (Some(deleted(pod(Pending, &[Unreported]))), "ending"),
        (Some(pod(PodPhase::Running, std::slice::from_ref(&done))), "live"),
        (Some(pod(PodPhase::Running, &[Running])), "live"),
        (Some(pod(Pending, &[Unreported])), "live"),
        (Some(pod(Unknown, &[done])), "live"),
    ] {
        let shown = format!("{read:?}");
        let found = match fate("p", read) {
            Fate::Gone(_) => "gone",
            Fate::Ending(_) => "ending",
            Fate::Live(_) => "live",
        };
        assert_eq!(found, expected, "{shown}");
    }
}

#[test]
fn a_message_is_believed_from_the_process_of_this_grant_only() {
    let message = json!({
        "v": 1, "writerUid": "w", "granted": 7, "exit": "clean", "unappliedEntries": 3, "unappliedBytes": 9, "empty": ["a"],
        "later": true,
    });
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = message.clone();
        changed[key] = value;
        changed.to_string()
    };
    let believed = |text: &str| TerminationMessage::believed(text, "w", 7);
    assert_eq!(believed(&message.to_string()).unwrap().unapplied_entries, 3);
    assert!(believed(&with("exit", json!("fenced"))).is_some());
    for wrong in [
        with("exit", json!("refused")),
        with("exit", json!("crashed")),
        with("granted", json!(6)),
        with("granted", json!(8)),
        with("writerUid", json!("another")),
        with("v", json!(2)),
        with("unappliedEntries", json!(-1)),
        with("unappliedEntries", json!(null)),
        "panicked at src/main.rs".to_owned(),
        String::new(),
    ] {
        assert_eq!(believed(&wrong), None, "{wrong}");
    }
}

#[test]
fn a_grant_is_one_line_of_published_json() {
    let grant = Grant {
        v: 1,
        writer_uid: "w".into(),
        epoch: 1_763_857_930_123,
        urls: vec![
            GrantedUrl { name: "nvme1".into(), url: "file:///wal/nvme1".into(), claim: Some("c".into()) },
            GrantedUrl { name: "b1".into(), url: "s3://bucket/wal".into(), claim: None },
        ],
        init: vec!["nvme1".into()],
        forget: vec![],
    };
    let line = r#"{"v":1,"writerUid":"w","epoch":1763857930123,"urls":[{"name":"nvme1","url":"file:///wal/nvme1","claim":"c"},{"name":"b1","url":"s3://bucket/wal"}],"init":["nvme1"],"forget":[]}"#;
    assert_eq!(grant.to_line(), line);
    assert_eq!(Grant::parse(line).unwrap(), grant);
    assert_eq!(Grant::parse(&line.replace("\"v\":1", "\"v\":2")), None);
    assert!(Grant::parse(&line.replace("\"forget\"", "\"later\":[],\"forget\"")).is_some());
    assert!(grant.started().init.is_empty());
}

#[test]
fn losers_wait_two_seconds_then_twice_as_long_up_to_thirty() {
    let mut delays = LoserDelays::default();
    let mut seen = vec![delays.delay("web")];
    for _ in 0..5 {
        delays.lost("web");
        seen.push(delays.delay("web"));
    }
    assert_eq!(seen, [2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    assert_eq!(delays.delay("other"), 2_000);
    delays.granted("web");
    assert_eq!(delays.delay("web"), 2_000);
}
