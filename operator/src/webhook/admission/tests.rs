//! Decisions against a cluster in memory.

use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::webhook::json::name;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What the caches and the API server would say.
#[derive(Default)]
struct Fake {
    storages: Vec<WalStorage>,
    /// Only the API server has them.
    fresh: Vec<WalStorage>,
    writers: Vec<Arc<WalWriter>>,
    pods: Vec<Arc<PodFacts>>,
    /// As the API server has them.
    true_pods: Vec<PodFacts>,
    objects: Vec<Value>,
    down: bool,
}

impl Cluster for Fake {
    fn storage(&self, _: &str, wanted: &str) -> Option<Arc<WalStorage>> {
        self.storages.iter().find(|one| one.metadata.name.as_deref() == Some(wanted)).cloned().map(Arc::new)
    }

    async fn read_storage(&self, _: &str, wanted: &str) -> Result<Option<WalStorage>, String> {
        if self.down {
            return Err("no answer".to_owned());
        }
        Ok(self.fresh.iter().find(|one| one.metadata.name.as_deref() == Some(wanted)).cloned())
    }

    async fn look_up(&self, _: &str, what: &Lookup) -> Result<Option<Value>, String> {
        if self.down {
            return Err("no answer".to_owned());
        }
        let found = self.objects.iter().find(|one| one["kind"] == what.kind && one["metadata"]["name"] == what.name);
        Ok(found.cloned())
    }

    fn writers(&self, _: &str) -> Vec<Arc<WalWriter>> {
        self.writers.clone()
    }

    fn pods(&self, _: &str) -> Vec<Arc<PodFacts>> {
        self.pods.clone()
    }

    async fn read_pods(&self, _: &str, _: &str) -> Result<Vec<PodFacts>, String> {
        if self.down { Err("no answer".to_owned()) } else { Ok(self.true_pods.clone()) }
    }
}

fn storage(spec: Value) -> WalStorage {
    WalStorage::new("orders", serde_json::from_value(spec).unwrap())
}

fn standard() -> Fake {
    Fake { storages: vec![storage(json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}]}))], ..Fake::default() }
}

/// With a Deployment `web` and its ReplicaSet.
fn deployed(max_surge: Value) -> Fake {
    let owner = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let replica_set = json!({
        "kind": "ReplicaSet", "metadata": {"name": "web-1", "uid": "rs", "ownerReferences": owner("Deployment", "web", "d")},
    });
    let deployment = json!({
        "kind": "Deployment", "metadata": {"name": "web", "uid": "d"},
        "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": max_surge}}},
    });
    Fake { objects: vec![replica_set, deployment], ..standard() }
}

fn pooled() -> Value {
    json!({
        "metadata": {
            "generateName": "web-1-", "namespace": "shop", "labels": {"walstorage.dev/storage": "orders"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs", "controller": true}],
        },
        "spec": {"containers": [{"name": "app"}]},
    })
}

fn bare() -> Value {
    json!({
        "metadata": {"name": "orders-0", "namespace": "shop", "labels": {"walstorage.dev/storage": "orders"}},
        "spec": {"containers": [{"name": "app"}]},
    })
}

fn writer(writer: &str, status: Value) -> Arc<WalWriter> {
    let value = json!({
        "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalWriter",
        "metadata": {"name": format!("orders.{writer}"), "namespace": "shop"},
        "spec": {
            "storage": "orders", "writer": writer, "writerUid": "00000000-0000-4000-8000-000000000000", "identity": "Pooled",
            "workload": {"group": "apps", "kind": "Deployment", "name": "web"},
        },
        "status": status,
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn review(object: &Value) -> Review {
    Review {
        uid: "u".to_owned(),
        namespace: "shop".to_owned(),
        dry_run: false,
        creates_pod: true,
        object: object.clone(),
    }
}

fn admission(cluster: Fake) -> Admission<Fake> {
    let settings = Settings { image: "walstorage:1".to_owned(), pull_policy: "IfNotPresent".to_owned() };
    Admission::new(cluster, settings, 30_000)
}

/// The pod that becomes of a request.
async fn patched(admission: &Admission<Fake>, review: &Review) -> Value {
    match admission.answer(review, NOW).await {
        Answer::Patch(patch) => {
            let mut pod = review.object.clone();
            json_patch::patch(&mut pod, &patch).unwrap();
            pod
        }
        other => panic!("{other:?}"),
    }
}

async fn refused(cluster: Fake, pod: &Value) -> String {
    match admission(cluster).answer(&review(pod), NOW).await {
        Answer::Refuse(sentence) => sentence,
        other => panic!("{other:?}"),
    }
}

fn writer_of(pod: &Value) -> String {
    pod["metadata"]["labels"]["walstorage.dev/writer"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_pod_without_the_label_and_a_static_pod_are_left_alone() {
    let admission = admission(standard());
    let mut plain = bare();
    plain["metadata"]["labels"] = json!({"app": "x"});
    assert_eq!(admission.answer(&review(&plain), NOW).await, Answer::Admit { warning: "" });
    let update = Review { creates_pod: false, ..review(&bare()) };
    assert_eq!(admission.answer(&update, NOW).await, Answer::Admit { warning: "" });
    let mut mirror = bare();
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let Answer::Admit { warning } = admission.answer(&review(&mirror), NOW).await else { panic!("not admitted") };
    assert!(warning.contains("static pod"));
}

#[tokio::test]
async fn a_named_pod_gets_its_own_writer_and_a_pooled_one_a_fresh_one() {
    let out = patched(&admission(standard()), &review(&bare())).await;
    assert_eq!(writer_of(&out), "orders-0");
    let annotations = &out["metadata"]["annotations"];
    assert_eq!(annotations["walstorage.dev/writer"], "orders.orders-0");
    assert_eq!(annotations["walstorage.dev/workload"], "core/Pod/orders-0");
    let seal = PodFacts::of(&bare(), "shop").seal_for("orders-0").unwrap();
    assert_eq!(annotations["walstorage.dev/seal"], seal);

    let out = patched(&admission(deployed(json!(0))), &review(&pooled())).await;
    assert!(writer_of(&out).starts_with("web-"), "{}", writer_of(&out));
    assert_eq!(out["metadata"]["annotations"]["walstorage.dev/workload"], "apps/Deployment/web");
}

#[tokio::test]
async fn ten_pods_of_one_burst_get_ten_writers_and_entries_go_first() {
    let mut cluster = deployed(json!(0));
    cluster.objects[1]["spec"]["replicas"] = json!(10);
    cluster.writers = (0..4).map(|i| writer(&format!("web-old{i}"), json!({"phase": "Orphaned"}))).collect();
    let mut admission = admission(cluster);
    let mut all = Vec::new();
    for index in 0..10 {
        let mut pod = patched(&admission, &review(&pooled())).await;
        all.push(writer_of(&pod));
        // It is stored; no cache knows of it yet.
        pod["metadata"]["uid"] = json!(index.to_string());
        admission.cluster.true_pods.push(PodFacts::of(&pod, "shop"));
    }
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 10, "{all:?}");
    assert!(all[..4].iter().all(|writer| writer.starts_with("web-old")), "{all:?}");
}

/// Its controller makes another pod as soon as it has seen that one is to go, which the webhook's cache may see later.
#[tokio::test]
async fn a_pod_gets_the_writer_of_one_that_was_just_deleted_although_the_cache_does_not_say_so_yet() {
    let pod = |deletion: Option<&str>| {
        let mut pod = pooled();
        pod["metadata"]["name"] = json!("web-1-a");
        pod["metadata"]["uid"] = json!("a");
        pod["metadata"]["labels"]["walstorage.dev/writer"] = json!("web-x");
        if let Some(time) = deletion {
            pod["metadata"]["deletionTimestamp"] = json!(time);
        }
        PodFacts::of(&pod, "")
    };
    let held = writer("web-x", json!({"phase": "Active", "holder": {"podName": "web-1-a", "podUid": "a"}}));
    let lagging = |now: PodFacts| Fake {
        writers: vec![held.clone()],
        pods: vec![Arc::new(pod(None))],
        true_pods: vec![now],
        ..deployed(json!(0))
    };
    let review = review(&pooled());
    let after = admission(lagging(pod(Some("2026-01-01T00:00:00Z"))));
    assert_eq!(writer_of(&patched(&after, &review).await), "web-x");
    let answer = after.answer(&review, NOW).await;
    assert!(
        matches!(&answer, Answer::Fail(why) if why.contains("is not there yet")),
        "it is proposed once: {answer:?}"
    );
    let beside = admission(lagging(pod(None)));
    assert_ne!(writer_of(&patched(&beside, &review).await), "web-x", "a pod that stays keeps its writer");
}

/// A rollout lowers one ReplicaSet and raises the other; nothing makes the deletion come before the creation.
#[tokio::test]
async fn a_pod_that_comes_before_the_one_that_it_replaces_is_told_to_end_is_to_be_tried_again() {
    let pod = |index: usize, ends: bool| {
        let mut pod = pooled();
        pod["metadata"]["name"] = json!(format!("web-1-{index}"));
        pod["metadata"]["uid"] = json!(index.to_string());
        pod["metadata"]["labels"]["walstorage.dev/writer"] = json!(format!("web-{index}"));
        pod["metadata"]["annotations"] = json!({"walstorage.dev/workload": "apps/Deployment/web"});
        if ends {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        PodFacts::of(&pod, "shop")
    };
    let held = |index: usize| {
        let holder = json!({"podName": format!("web-1-{index}"), "podUid": index.to_string()});
        writer(&format!("web-{index}"), json!({"phase": "Active", "holder": holder}))
    };
    let rolling = |replicas: usize, ends: [bool; 2]| {
        let mut cluster = deployed(json!(0));
        cluster.objects[1]["spec"]["replicas"] = json!(replicas);
        cluster.writers = vec![held(0), held(1)];
        cluster.true_pods = vec![pod(0, ends[0]), pod(1, ends[1])];
        cluster.pods = cluster.true_pods.iter().cloned().map(Arc::new).collect();
        cluster
    };
    let waits = admission(rolling(2, [false, false]));
    let sentence = "Deployment web asks for 2 pods and has 2: this one is to have the log of one that ends, try again";
    for later in [0, 29_999] {
        let now = Timestamp::from_millisecond(NOW.as_millisecond() + later).unwrap();
        assert_eq!(waits.answer(&review(&pooled()), now).await, Answer::Fail(sentence.to_owned()));
    }
    // Nobody tells one to end: they are of a Deployment of this name that is there no more.
    let now = Timestamp::from_millisecond(NOW.as_millisecond() + 30_000).unwrap();
    assert!(matches!(waits.answer(&review(&pooled()), now).await, Answer::Patch(_)));
    let replaces = patched(&admission(rolling(2, [true, false])), &review(&pooled())).await;
    assert_eq!(writer_of(&replaces), "web-0");
    let mut released = rolling(2, [false, false]);
    released.true_pods[0].controller = None;
    let beside = writer_of(&patched(&admission(released), &review(&pooled())).await);
    assert!(!["web-0", "web-1"].contains(&beside.as_str()), "{beside}: one that its ReplicaSet let go is replaced");
    // One more than before is one more.
    let third = writer_of(&patched(&admission(rolling(3, [false, false])), &review(&pooled())).await);
    assert!(!["web-0", "web-1"].contains(&third.as_str()), "{third}");
}

/// A quota, or another webhook, refuses the pod after us. Its controller tries again at once, and again.
#[tokio::test]
async fn the_entries_that_a_refused_pod_was_to_have_are_the_next_ones() {
    let mut cluster = deployed(json!(0));
    cluster.writers =
        vec![writer("web-old", json!({"phase": "Orphaned"})), writer("web-done", json!({"phase": "Drained"}))];
    let admission = admission(cluster);
    let at = |later: i64| Timestamp::from_millisecond(NOW.as_millisecond() + later).unwrap();
    let proposed = async |later: i64| match admission.answer(&review(&pooled()), at(later)).await {
        Answer::Patch(patch) => {
            let mut pod = pooled();
            json_patch::patch(&mut pod, &patch).unwrap();
            Some(writer_of(&pod))
        }
        Answer::Fail(_) => None,
        other => panic!("{other:?}"),
    };
    let old = Some("web-old".to_owned());
    assert_eq!(proposed(0).await, old);
    for later in [5, 15, 2_999] {
        assert_eq!(proposed(later).await, None, "whether it comes is not known yet");
    }
    assert_eq!(proposed(3_000).await, old, "it is not coming");
    assert_eq!(proposed(3_001).await, None);
    // Days later too.
    assert_eq!(proposed(200_000_000).await, old);
}

#[tokio::test]
async fn a_dry_run_reserves_nothing() {
    let mut cluster = deployed(json!(0));
    cluster.writers = vec![writer("web-old", json!({"phase": "Released"}))];
    let admission = admission(cluster);
    let dry = Review { dry_run: true, ..review(&pooled()) };
    for _ in 0..3 {
        assert_eq!(writer_of(&patched(&admission, &dry).await), "web-old");
    }
    assert_eq!(writer_of(&patched(&admission, &review(&pooled())).await), "web-old");
    let answer = admission.answer(&dry, NOW).await;
    assert!(matches!(answer, Answer::Fail(_)), "{answer:?}");
}

#[tokio::test]
async fn a_second_call_keeps_the_writer_and_a_copy_does_not() {
    let admission = admission(deployed(json!(0)));
    let first = patched(&admission, &review(&pooled())).await;
    assert_eq!(patched(&admission, &review(&first)).await, first);

    // The same YAML in another namespace, or of another ReplicaSet: the seal does not hold.
    let elsewhere = Review { namespace: "other".to_owned(), ..review(&first) };
    let Answer::Refuse(sentence) = admission.answer(&elsewhere, NOW).await else { panic!("not refused") };
    assert!(
        sentence.starts_with("the pod has a container called walstorage that the operator did not add here"),
        "{sentence}"
    );
}

#[tokio::test]
async fn a_rendered_pod_is_rebuilt_in_place() {
    let effective = validate("orders", &standard().storages[0].spec, []).unwrap();
    let storage = Storage { name: "orders", effective: &effective };
    let settings = Settings { image: "offline:1".to_owned(), pull_policy: "Always".to_owned() };
    let rendered = crate::webhook::patch::render(&bare(), storage, Some("orders-0"), &settings).unwrap();
    let out = patched(&admission(standard()), &review(&rendered)).await;
    let expected = patched(&admission(standard()), &review(&bare())).await;
    assert_eq!(out["spec"], expected["spec"], "as if it had not been rendered");
    assert_eq!(out["metadata"]["annotations"]["walstorage.dev/rendered"], "v1");
    assert_eq!(writer_of(&out), "orders-0");
}

#[tokio::test]
async fn what_the_ledger_has_stays_mounted() {
    let mut cluster = deployed(json!(0));
    let volumes =
        json!([{"name": "old", "url": "file:///wal/old", "claimName": "wal-orders--old-web-x", "empty": "False"}]);
    cluster.writers = vec![writer("web-x", json!({"phase": "Orphaned", "volumes": volumes}))];
    let out = patched(&admission(cluster), &review(&pooled())).await;
    let volumes = out["spec"]["volumes"].as_array().unwrap();
    let old = volumes.iter().find(|volume| name(volume) == "wal-orders--old").unwrap();
    assert_eq!(old["persistentVolumeClaim"]["claimName"], "wal-orders--old-web-x");
}

#[tokio::test]
async fn a_storage_made_a_moment_ago_is_asked_for_once() {
    let mut cluster = standard();
    cluster.fresh = std::mem::take(&mut cluster.storages);
    assert_eq!(writer_of(&patched(&admission(cluster), &review(&bare())).await), "orders-0");
}

#[tokio::test]
async fn refusals_name_the_remedy() {
    assert_eq!(
        refused(Fake::default(), &bare()).await,
        "there is no WalStorage orders in namespace shop: create it, or correct the pod's label walstorage.dev/storage"
    );
    let mut deleted = standard();
    deleted.storages[0].metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOW));
    assert_eq!(
        refused(deleted, &bare()).await,
        "WalStorage orders is being deleted: create it again once it is gone, or remove the pod's label walstorage.dev/storage"
    );
    let wrong = Fake { storages: vec![storage(json!({"memoryFlushSize": "1Gi"}))], ..Fake::default() };
    assert_eq!(
        refused(wrong, &bare()).await,
        "WalStorage orders is not accepted: spec.memoryFlushSize = 1Gi: above globalFlushThreshold = 512Mi; allowed: at most 512Mi"
    );
    let mut changed = deployed(json!(0));
    let volumes = json!([{"name": "a", "url": "file:///wal/b", "empty": "False"}]);
    changed.writers = vec![writer("web-x", json!({"phase": "Orphaned", "volumes": volumes}))];
    let sentence = refused(changed, &pooled()).await;
    assert!(sentence.starts_with("WalStorage orders is not accepted: spec.walUrls[name=a].url = file:///wal/a: writer web-x has file:///wal/b"), "{sentence}");
    let sentence = refused(deployed(json!("25%")), &pooled()).await;
    assert!(sentence.contains("maxSurge: 0, maxUnavailable: 1"), "{sentence}");
    let mut daemon = bare();
    daemon["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]);
    assert!(refused(standard(), &daemon).await.starts_with("DaemonSet d has a pod on each node"));
    let mut bound = bare();
    bound["spec"]["nodeName"] = json!("node1");
    assert!(refused(standard(), &bound).await.starts_with("spec.nodeName is set"));
}

#[tokio::test]
async fn a_drain_job_needs_a_bucket_and_a_writer_without_a_pod() {
    let mut job = bare();
    job["metadata"] = json!({
        "generateName": "drain-", "namespace": "shop", "labels": {"walstorage.dev/storage": "orders"},
        "annotations": {"walstorage.dev/drain": "00000000-0000-4000-8000-000000000000"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "drain", "uid": "j", "controller": true}],
    });
    let object = json!({"kind": "Job", "metadata": {"name": "drain", "uid": "j"}});
    let cluster = |urls: Value, phase: &str| Fake {
        storages: vec![storage(json!({"walUrls": urls}))],
        writers: vec![writer("web-x", json!({"phase": phase}))],
        objects: vec![object.clone()],
        ..Fake::default()
    };
    let disk = json!({"name": "a", "url": "file:///wal/a"});
    assert_eq!(
        refused(cluster(json!([disk]), "Orphaned"), &job).await,
        "WalStorage orders has no bucket that a writer's entries could be moved to: add one to spec.walUrls first"
    );
    let both = json!([disk, {"name": "b", "url": "s3://b/wal"}]);
    assert!(refused(cluster(both.clone(), "Active"), &job).await.starts_with("writer web-x is Active"));
    let out = patched(&admission(cluster(both, "Orphaned")), &review(&job)).await;
    assert_eq!(writer_of(&out), "web-x");
}

#[tokio::test]
async fn when_nobody_can_say_the_pod_is_to_be_tried_again() {
    let down = Fake { down: true, ..Fake::default() };
    let answer = admission(down).answer(&review(&bare()), NOW).await;
    assert_eq!(answer, Answer::Fail("WalStorage orders cannot be read now, try again: no answer".to_owned()));
    assert_eq!(answer.write("u")["response"]["status"]["code"], 503);
    let down = Fake { down: true, ..deployed(json!(0)) };
    let answer = admission(down).answer(&review(&pooled()), NOW).await;
    assert_eq!(answer, Answer::Fail("ReplicaSet web-1 cannot be read now, try again: no answer".to_owned()));
}
