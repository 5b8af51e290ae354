//! Who a pod is: the table of the design, row by row, and what is refused with which remedy.

use proptest::prelude::*;
use serde_json::{Value, json};
use walstorage_crds::walwriter::Identity;

use super::super::*;
use super::pod;

const STATEFUL_SET: [&str; 4] = ["apps/v1", "StatefulSet", "orders", "u1"];
const REPLICA_SET: [&str; 4] = ["apps/v1", "ReplicaSet", "web-7d9f", "u2"];
const JOB: [&str; 4] = ["batch/v1", "Job", "load", "u3"];

/// Answers the lookups of a pod from these objects, by kind.
fn judged(pod: &PodFacts, objects: &[(&str, Value)]) -> Verdict {
    let mut lookups = Lookups::of(pod);
    while let Some(lookup) = lookups.next() {
        lookups.answer(objects.iter().find(|(kind, _)| *kind == lookup.kind).map(|(_, object)| object));
    }
    classify(pod, lookups.above())
}

fn owned(uid: &str, owner: Option<[&str; 3]>) -> Value {
    let references = owner.map(|[version, kind, name]| {
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "up", "controller": true}])
    });
    json!({"metadata": {"uid": uid, "ownerReferences": references}})
}

fn deployment(strategy: Value) -> Value {
    json!({"metadata": {"uid": "up"}, "spec": {"strategy": strategy}})
}

fn shown(verdict: &Verdict) -> String {
    let of = |workload: &walstorage_crds::walwriter::Workload| {
        format!("{}/{}/{}", workload.group, workload.kind, workload.name)
    };
    match verdict {
        Verdict::Named { writer, workload } => format!("named {writer} of {}", of(workload)),
        Verdict::Pooled { workload } => format!("pooled of {}", of(workload)),
        Verdict::Drains { writer_uid, workload } => format!("drains {writer_uid} of {}", of(workload)),
        Verdict::Refused(refused) => format!("refused: {refused}"),
    }
}

#[test]
fn every_row_of_the_table() {
    let recreate = || {
        vec![
            ("ReplicaSet", owned("u2", Some(["apps/v1", "Deployment", "web"]))),
            ("Deployment", deployment(json!({"type": "Recreate"}))),
        ]
    };
    let index = json!({"batch.kubernetes.io/job-completion-index": "4"});
    let rendered = json!({"walstorage.dev/rendered": "v1"});
    let drain = json!({"walstorage.dev/drain": "0a"});
    for (meta, owner, objects, expected) in [
        (json!({"name": "orders-0"}), Some(STATEFUL_SET), vec![], "named orders-0 of apps/StatefulSet/orders"),
        (
            json!({"name": "orders-0", "generateName": "orders-"}),
            Some(STATEFUL_SET),
            vec![],
            "named orders-0 of apps/StatefulSet/orders",
        ),
        (json!({"name": "cli"}), None, vec![], "named cli of /Pod/cli"),
        (json!({"name": "pg-1"}), Some(["pg.io/v1", "Cluster", "pg", "u"]), vec![], "named pg-1 of pg.io/Cluster/pg"),
        (json!({"generateName": "web-7d9f-"}), Some(REPLICA_SET), recreate(), "pooled of apps/Deployment/web"),
        (
            json!({"generateName": "web-7d9f-"}),
            Some(REPLICA_SET),
            vec![("ReplicaSet", owned("u2", None))],
            "pooled of apps/ReplicaSet/web-7d9f",
        ),
        (
            json!({"generateName": "rc-"}),
            Some(["v1", "ReplicationController", "rc", "u"]),
            vec![],
            "pooled of /ReplicationController/rc",
        ),
        (json!({"generateName": "load-"}), Some(JOB), vec![("Job", owned("u3", None))], "pooled of batch/Job/load"),
        (
            json!({"generateName": "load-"}),
            Some(JOB),
            vec![("Job", owned("u3", Some(["batch/v1", "CronJob", "nightly"])))],
            "pooled of batch/CronJob/nightly",
        ),
        (
            json!({"generateName": "load-4-", "annotations": index}),
            Some(JOB),
            vec![("Job", owned("u3", Some(["batch/v1", "CronJob", "nightly"])))],
            "named load-4 of batch/Job/load",
        ),
        (
            json!({"generateName": "w-", "annotations": {"walstorage.dev/allow-surge": "true"}}),
            Some(["kruise.io/v1", "CloneSet", "w", "u"]),
            vec![],
            "pooled of kruise.io/CloneSet/w",
        ),
        (
            json!({"generateName": "web-7d9f-", "annotations": rendered}),
            Some(REPLICA_SET),
            recreate(),
            "named web of apps/Deployment/web",
        ),
        (
            json!({"generateName": "load-", "annotations": drain}),
            Some(JOB),
            vec![("Job", owned("u3", None))],
            "drains 0a of batch/Job/load",
        ),
    ] {
        assert_eq!(shown(&judged(&pod(meta, owner), &objects)), expected);
    }
}

#[test]
fn a_long_name_is_shortened_alike_each_time() {
    let name = format!("{}-0", "a".repeat(80));
    let Verdict::Named { writer, .. } = judged(&pod(json!({"name": name}), Some(STATEFUL_SET)), &[]) else {
        panic!("not named")
    };
    assert_eq!(writer, walstorage_crds::names::short(&name));
    assert!(writer.len() <= 63);
}

#[test]
fn what_cannot_have_a_log_is_refused_with_the_remedy() {
    let label = |value: &str| json!({"name": "a", "labels": {"walstorage.dev/storage": value}});
    for (meta, owner, objects, problem, remedy) in [
        (
            json!({"generateName": "d-"}),
            Some(["apps/v1", "DaemonSet", "d", "u"]),
            vec![],
            "DaemonSet d",
            "use a StatefulSet",
        ),
        (json!({"generateName": "a-"}), None, vec![], "without a controller", "metadata.name"),
        (json!({"name": "a/../b"}), None, vec![], "\"a/../b\"", "lower-case"),
        (json!({"name": "A"}), None, vec![], "\"A\"", "lower-case"),
        (json!({"name": "a..b"}), None, vec![], "\"a..b\"", "lower-case"),
        (json!({"generateName": "../"}), Some(STATEFUL_SET), vec![], "\"../\"", "lower-case"),
        (json!({"name": "a"}), Some(["apps/v1", "StatefulSet", "a,b", "u"]), vec![], "\"a,b\"", "lower-case"),
        (json!({"name": "a"}), Some(["apps/v1", "State/Set", "a", "u"]), vec![], "State/Set", "ownerReferences"),
        (label("a--b"), None, vec![], "\"a--b\"", "the name of one"),
        (label(""), None, vec![], "\"\"", "the name of one"),
        (label("Orders"), None, vec![], "\"Orders\"", "the name of one"),
        (label(&"a".repeat(41)), None, vec![], "aaa", "the name of one"),
        (json!({"generateName": "web-"}), Some(REPLICA_SET), vec![], "ReplicaSet web-7d9f is gone", "successor"),
        (
            json!({"generateName": "web-"}),
            Some(REPLICA_SET),
            vec![("ReplicaSet", owned("another", None))],
            "ReplicaSet web-7d9f is gone",
            "successor",
        ),
        (
            json!({"generateName": "load-", "annotations": {"batch.kubernetes.io/job-completion-index": "1/2"}}),
            Some(JOB),
            vec![("Job", owned("u3", None))],
            "\"1/2\" is not a number",
            "Job controller",
        ),
        (
            json!({"name": "a", "annotations": {"walstorage.dev/drain": "0a"}}),
            None,
            vec![],
            "pods of a Job",
            "render drain",
        ),
        (
            json!({"generateName": "a-", "annotations": {"walstorage.dev/rendered": "v1"}}),
            Some(JOB),
            vec![("Job", owned("u3", None))],
            "a rendered pod needs a name",
            "leave out the annotation",
        ),
        (
            json!({"generateName": "w-"}),
            Some(["kruise.io/v1", "CloneSet", "w", "u"]),
            vec![],
            "CloneSet w may start new pods",
            "walstorage.dev/allow-surge",
        ),
        (
            json!({"generateName": "w-"}),
            Some(REPLICA_SET),
            vec![("ReplicaSet", owned("u2", Some(["argoproj.io/v1", "Rollout", "web"])))],
            "Rollout web may start new pods",
            "walstorage.dev/allow-surge",
        ),
    ] {
        let shown = shown(&judged(&pod(meta, owner), &objects));
        assert!(shown.starts_with("refused: ") && shown.contains(problem) && shown.contains(remedy), "{shown}");
    }
    let scheduled =
        json!({"metadata": {"name": "a", "labels": {"walstorage.dev/storage": "orders"}}, "spec": {"nodeName": "n"}});
    let shown = shown(&judged(&PodFacts::of(&scheduled, "shop"), &[]));
    assert!(shown.contains("spec.nodeName is set") && shown.contains("nodeSelector"), "{shown}");
}

#[test]
fn a_rollout_that_surges_is_refused_unless_it_is_accepted() {
    for (strategy, accepted, refused) in [
        (json!(null), "", true),
        (json!({"type": "RollingUpdate"}), "", true),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}), "", true),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), "", true),
        (json!({"rollingUpdate": {"maxSurge": "25%"}}), "", true),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), "false", true),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}), "true", false),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}}), "", false),
        (json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "0%"}}), "", false),
        (json!({"type": "Recreate"}), "", false),
    ] {
        let objects = [
            ("ReplicaSet", owned("u2", Some(["apps/v1", "Deployment", "web"]))),
            ("Deployment", deployment(strategy.clone())),
        ];
        let meta = json!({"generateName": "web-", "annotations": {"walstorage.dev/allow-surge": accepted}});
        let shown = shown(&judged(&pod(meta, Some(REPLICA_SET)), &objects));
        assert_eq!(shown.contains("maxSurge: 0"), refused, "{strategy}: {shown}");
        assert_eq!(shown == "pooled of apps/Deployment/web", !refused, "{strategy}: {shown}");
    }
}

#[test]
fn a_stored_pod_shows_whether_it_names_its_writer() {
    let index = json!({"batch.kubernetes.io/job-completion-index": "4"});
    for (meta, owner, expected) in [
        (json!({"name": "orders-0"}), Some(STATEFUL_SET), Identity::Named),
        (json!({"name": "cli"}), None, Identity::Named),
        (json!({"name": "web-7d9f-x", "generateName": "web-7d9f-"}), Some(REPLICA_SET), Identity::Pooled),
        (json!({"name": "load-x", "generateName": "load-"}), Some(JOB), Identity::Pooled),
        (json!({"name": "load-4-x", "generateName": "load-4-", "annotations": index}), Some(JOB), Identity::Named),
        (json!({"name": "c-x", "generateName": "c-"}), Some(["k.io/v1", "CloneSet", "c", "u"]), Identity::Pooled),
    ] {
        assert_eq!(identity(&pod(meta.clone(), owner)), expected, "{meta}");
    }
}

#[test]
fn the_seal_is_the_published_hash() {
    // printf 'shop\0u2\0web-\0orders\0web-bcdfg\0' | sha256sum
    let sealed =
        Sealed { namespace: "shop", controller_uid: "u2", name: "web-", storage: "orders", writer: "web-bcdfg" };
    assert_eq!(seal(&sealed), "v1-dd8078e11c02d18a52689b8202110b85");
}

#[test]
fn only_our_own_work_is_kept() {
    let owner = Some(REPLICA_SET);
    let fresh = pod(json!({"generateName": "web-"}), owner);
    let seal = fresh.seal_for("web-bcdfg").unwrap();
    let with = |writer: &str, seal: &str, name: &str, owner| {
        let annotations = json!({"walstorage.dev/writer": writer, "walstorage.dev/seal": seal});
        pod(json!({"generateName": name, "annotations": annotations}), owner)
    };
    assert_eq!(kept(&with("orders.web-bcdfg", &seal, "web-", owner)), Some("web-bcdfg"));
    // The API server completes the name; the seal holds on.
    let stored = json!({"walstorage.dev/writer": "orders.web-bcdfg", "walstorage.dev/seal": seal});
    let stored = pod(json!({"generateName": "web-", "name": "web-x7k2p", "annotations": stored}), owner);
    assert_eq!(kept(&stored), Some("web-bcdfg"));
    // A copy: another owner, another name, another writer, another storage, another namespace, no seal.
    assert_eq!(kept(&with("orders.web-bcdfg", &seal, "web-", Some(["apps/v1", "ReplicaSet", "web-7d9f", "u9"]))), None);
    assert_eq!(kept(&with("orders.web-bcdfg", &seal, "web2-", owner)), None);
    assert_eq!(kept(&with("orders.web-zzzzz", &seal, "web-", owner)), None);
    assert_eq!(kept(&with("others.web-bcdfg", &seal, "web-", owner)), None);
    assert_eq!(kept(&with("orders.web-bcdfg", "", "web-", owner)), None);
    assert_eq!(kept(&PodFacts { namespace: "other".into(), ..with("orders.web-bcdfg", &seal, "web-", owner) }), None);
}

#[test]
fn a_pod_is_read_from_its_json() {
    let json = json!({
        "metadata": {
            "name": "web-x", "namespace": "shop", "uid": "p1", "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:05:00Z",
            "deletionGracePeriodSeconds": 60,
            "labels": {"walstorage.dev/storage": "orders"},
        },
        "spec": {
            "nodeName": "n1", "schedulingGates": [{"name": "walstorage.dev/writer"}, {"name": "x"}],
            "volumes": [{"name": "wal-orders--data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "tmp"}],
            "initContainers": [{"name": "walstorage"}, {"name": "setup"}], "containers": [{"name": "app"}],
        },
        "status": {
            "phase": "Failed", "podIP": "10.0.0.7",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}],
            "initContainerStatuses": [
                {"name": "walstorage", "started": true, "state": {"terminated": {"reason": "Completed", "message": "{}"}}},
                {"name": "setup", "state": {"waiting": {}}},
            ],
        },
    });
    let facts = PodFacts::of(&json, "");
    assert_eq!((facts.namespace.as_str(), facts.name.as_str(), facts.uid.as_str()), ("shop", "web-x", "p1"));
    assert_eq!(facts.deletion.unwrap() - facts.created.unwrap(), 55_000);
    assert_eq!((facts.grace_seconds, facts.phase), (60, PodPhase::Failed));
    assert!(facts.is_gated() && facts.is_ending() && facts.sidecar_started);
    assert_eq!(facts.claims, [("wal-orders--data".to_owned(), "c".to_owned())]);
    assert_eq!(facts.termination_message(), Some("{}"));
    let states: Vec<_> = facts.containers.iter().map(|container| &container.state).collect();
    assert!(matches!(
        states[..],
        [ContainerState::Terminated { .. }, ContainerState::Waiting, ContainerState::Unreported]
    ));
    assert!(!facts.all_terminated());
    assert_eq!(facts.unschedulable.as_deref(), Some("no node"));
    assert_eq!((facts.ip.as_str(), facts.node_name.as_str()), ("10.0.0.7", "n1"));
}

proptest! {
    /// Whatever stands in a request, the writer is a label's value and a part of claims' names.
    #[test]
    fn a_pod_that_is_not_refused_has_a_writer_that_can_be_a_name(
        name in "[a-zA-Z0-9./-]{0,90}", generate in "[a-z0-9.-]{0,12}", kind in 0..4usize, owner in "[a-z0-9.-]{1,70}", index in "[0-9a/]{0,3}",
    ) {
        let owners = [None, Some(["apps/v1", "StatefulSet"]), Some(["batch/v1", "Job"]), Some(["v1", "ReplicationController"])];
        let owner = owners[kind].map(|[version, kind]| [version, kind, owner.as_str(), "u"]);
        let annotations = if index.is_empty() { json!({}) } else { json!({"batch.kubernetes.io/job-completion-index": index}) };
        let pod = pod(json!({"name": name, "generateName": generate, "annotations": annotations}), owner);
        let objects = [("Job", owned("u", None))];
        let writer = match judged(&pod, &objects) {
            Verdict::Named { writer, .. } => writer,
            Verdict::Pooled { workload } => walstorage_crds::names::pooled(&workload.name, "bcdfg"),
            Verdict::Drains { .. } | Verdict::Refused(_) => return Ok(()),
        };
        prop_assert!(is_name(&writer) && writer.len() <= 63, "{writer}");
        prop_assert!(is_name(&walstorage_crds::names::claim("orders", "data", &writer)));
    }

    #[test]
    fn any_json_is_read(json in any::<i64>(), text in ".{0,20}") {
        for value in [json!(json), json!(text), json!([text]), json!({"metadata": text, "spec": [json], "status": {"phase": json}})] {
            prop_assert!(PodFacts::of(&value, "shop").name.is_empty());
        }
    }
}
