//! What the status says.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use super::*;
use crate::webhook::patch::{Origin, Proposal, Storage, inject};

fn claim(name: &str, url: &str, size: &str, phase: &str) -> Arc<PersistentVolumeClaim> {
    let claim = json!({
        "metadata": {"name": name, "labels": {"walstorage.dev/storage": "orders", "walstorage.dev/url": url}},
        "spec": {"resources": {"requests": {"storage": size}}},
        "status": {"phase": phase},
    });
    Arc::new(serde_json::from_value(claim).unwrap())
}

#[test]
fn a_new_storage_is_ready_before_a_pod_asks_for_it() {
    let status = looked(&found(json!({})));
    let all: Vec<(&str, &str, &str)> = status
        .conditions
        .iter()
        .flatten()
        .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("Ready", "True", "NoPods"),
            ("Accepted", "True", "Valid"),
            ("ConfigRendered", "True", "Rendered"),
            ("ClaimsReady", "True", "Ready"),
            ("PodsUpToDate", "True", "UpToDate"),
            ("DirectoriesHealthy", "Unknown", "NotObserved"),
            ("UndrainedData", "False", "None"),
            ("Reconciling", "False", "Done"),
            ("Stalled", "False", "Progressing"),
        ]
    );
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.summary.as_deref(), Some("0/0"));
    assert!(status.config_hash.is_some());
}

#[test]
fn a_status_that_says_what_it_said_is_the_same() {
    let mut found = settled(json!({}));
    found.writers = vec![writer(
        "orders-0",
        json!({"phase": "Active", "volumes": [
        {"name": "data", "url": "file:///workspace/data/wal", "state": "healthy"}]}),
    )];
    found.pods = vec![pod("orders-0")];
    let first = looked(&found);
    change(&mut found, |storage| storage.status = Some(first.clone()));
    found.now = at(500);
    assert_eq!(looked(&found), first, "or each look would be a write, and each write a look");
}

#[test]
fn the_time_of_a_condition_changes_with_its_status_alone() {
    let mut found = settled(json!({}));
    let first = looked(&found);
    let since = |status: &WalStorageStatus, kind: &str| {
        let conditions = status.conditions.as_ref().unwrap();
        conditions.iter().find(|one| one.type_ == kind).unwrap().last_transition_time.0
    };
    change(&mut found, |storage| storage.status = Some(first));
    // Another reason and another generation, the same status.
    found.pods = vec![pod("orders-0")];
    found.now = at(10);
    change(&mut found, |storage| storage.metadata.generation = Some(4));
    let second = looked(&found);
    assert_eq!(said(&second, "Ready").1, "Ready");
    assert_eq!(since(&second, "Ready"), at(0));
    let ready = second.conditions.as_ref().unwrap().iter().find(|one| one.type_ == "Ready").unwrap();
    assert_eq!(ready.observed_generation, Some(4));
    // Another status.
    change(&mut found, |storage| storage.status = Some(second));
    found.classes.clear();
    found.now = at(20);
    let third = looked(&found);
    assert_eq!(said(&third, "Ready").0, "False");
    assert_eq!((since(&third, "Ready"), since(&third, "Accepted")), (at(20), at(0)));
}

#[test]
fn claims_that_cannot_be_made_or_grow_are_named_with_the_remedy() {
    let class = |immediate, expands| ClassView { immediate, expands, default: true };
    let two = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]});
    let fast = json!({"volumeDefaults": {"storageClassName": "fast"}});
    type Edit = Box<dyn Fn(&mut Found)>;
    let table: Vec<(Value, Edit, &str, &str)> = vec![
        (fast.clone(), Box::new(|_| {}), "ClassMissing", "StorageClass fast does not exist; the cluster has standard"),
        (
            json!({}),
            Box::new(|found| found.classes.clear()),
            "ClassMissing",
            "no default StorageClass; the cluster has none",
        ),
        (
            json!({}),
            Box::new(|found| {
                found.classes.clear();
                found.claims = vec![claim("c", "data", "10Gi", "Bound")];
            }),
            "Ready",
            "1 claims",
        ),
        (
            two.clone(),
            Box::new(move |found| found.classes.extend([("standard".to_owned(), class(true, true))])),
            "ImmediateBinding",
            "a (standard) and b (standard) bind claims before the pod has a node",
        ),
        (
            two.clone(),
            Box::new(move |found| {
                found.classes.insert("standard".to_owned(), class(true, true));
                found.pods = vec![PodView { allows_immediate: true, gated: true, ..pod("orders-0") }];
            }),
            "Ready",
            "",
        ),
        (
            json!({}),
            Box::new(move |found| found.classes.extend([("standard".to_owned(), class(true, true))])),
            "Ready",
            "",
        ),
        (
            json!({"walUrls": [{"name": "data", "url": "file:///wal/a", "volume": {"size": "20Gi"}}]}),
            Box::new(move |found| {
                found.classes.insert("standard".to_owned(), class(false, false));
                found.claims = vec![claim("wal-orders--data-orders-0", "data", "10Gi", "Bound")];
            }),
            "ClassCannotExpand",
            "claim wal-orders--data-orders-0 cannot grow to 20Gi: StorageClass standard has no allowVolumeExpansion",
        ),
        (
            json!({}),
            Box::new(|found| found.writers = vec![writer("orders-0", json!({"phase": "Lost"}))]),
            "ClaimLost",
            "1 writer (orders.orders-0) lost a claim",
        ),
        (
            json!({}),
            Box::new(|found| {
                found.writers = vec![writer(
                    "orders-0",
                    json!({"phase": "Pending", "conditions": [{"type": "ClaimsReady",
                    "status": "False", "reason": "QuotaExceeded", "message": "claim c: exceeded quota",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                )];
            }),
            "QuotaExceeded",
            "writer orders-0: claim c: exceeded quota",
        ),
        (
            json!({"walUrls": [{"name": "a", "url": "s3://bucket/wal"}]}),
            Box::new(|found| found.classes.clear()),
            "NoClaims",
            "",
        ),
    ];
    for (spec, edit, reason, sentence) in table {
        let mut found = found(spec.clone());
        edit(&mut found);
        let status = looked(&found);
        let (is, why, message) = said(&status, "ClaimsReady");
        assert_eq!(why, reason, "{spec}: {message}");
        assert!(message.contains(sentence), "{message}");
        assert_eq!(is == "True", matches!(why, "Ready" | "NoClaims"));
        assert_eq!(said(&status, "Ready").0, is, "what claims lack, the storage lacks");
    }
}

/// A pod as the webhook makes it, or one that had another image.
fn injected(name: &str, workload: &str, image: &str) -> PodView {
    let effective = judge(&found(json!({}))).0.effective.unwrap();
    let raw = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "app", "image": "x"}]}});
    let storage = Storage { name: "orders", effective: &effective };
    let proposal = Proposal { namespace: "shop", writer: name, workload, seal: "v1-0", ledger: &[] };
    let settings = Settings { image: image.to_owned(), ..settings() };
    let made = inject(&raw, Origin::User, storage, &proposal, &settings).unwrap();
    let pod: Pod = serde_json::from_value(made).unwrap();
    PodView { gated: false, ready: true, ..PodView::of(&Arc::new(pod)) }
}

#[test]
fn outdated_pods_come_with_the_command_that_renews_them() {
    let (now, old) = (settings().image, "registry.example/walstorage:0".to_owned());
    let mut found = settled(json!({}));
    found.pods = vec![
        injected("orders-0", "apps/StatefulSet/orders", &old),
        injected("orders-1", "apps/StatefulSet/orders", &old),
        injected("web-x", "apps/Deployment/web", &old),
        PodView { live: false, ..injected("done", "apps/StatefulSet/orders", &old) },
        injected("orders-2", "apps/StatefulSet/orders", &now),
    ];
    let status = looked(&found);
    let (is, reason, message) = said(&status, "PodsUpToDate");
    assert_eq!((is, reason), ("False", "RestartNeeded"));
    assert!(message.starts_with("3 of 4 pods have another sidecar"), "{message}");
    assert!(message.ends_with("kubectl rollout restart -n shop deployment/web statefulset/orders"), "{message}");
    assert_eq!(said(&status, "Ready").0, "True", "it does not wait for a restart");
    assert_eq!(status.pods.as_ref().unwrap().outdated, Some(3));
    found.pods = vec![injected("solo", "core/Pod/solo", &old)];
    assert!(said(&looked(&found), "PodsUpToDate").2.ends_with("kubectl delete pod -n shop solo"));
    found.pods = vec![injected("orders-2", "apps/StatefulSet/orders", &now)];
    assert_eq!(said(&looked(&found), "PodsUpToDate").0, "True");
    found.sidecar = None;
    assert_eq!(said(&looked(&found), "PodsUpToDate").1, "NotObserved");
}

#[test]
fn a_setting_that_a_running_sidecar_reads_again_makes_no_pod_outdated() {
    let now = settings().image;
    let mut found = settled(json!({"memoryFlushSize": "2Mi", "distributionStrategy": "Hash"}));
    found.pods = vec![injected("orders-0", "apps/StatefulSet/orders", &now)];
    assert_eq!(said(&looked(&found), "PodsUpToDate").0, "True");
    change(&mut found, |storage| {
        storage.spec = serde_json::from_value(json!({"globalFlushThreshold": "1Gi"})).unwrap()
    });
    assert_eq!(said(&looked(&found), "PodsUpToDate").0, "False", "its memory follows that one");
}

#[test]
fn orphans_are_counted_and_named_with_the_two_ways_out() {
    let mut found = settled(json!({}));
    let orphan = |left: Value| json!({"phase": "Orphaned", "lastReport": {"unappliedEntries": left}});
    found.writers = vec![writer("orders-3", orphan(json!(1204))), writer("orders-4", orphan(json!(null)))];
    let status = looked(&found);
    let (is, reason, message) = said(&status, "UndrainedData");
    assert_eq!((is, reason), ("True", "OrphanedWriters"));
    for part in [
        "2 writers (orders.orders-3, orders.orders-4) without a pod",
        "1204 entries and more that nobody counted",
        "kubectl annotate walwriter -n shop orders.orders-3 walstorage.dev/abandon=0d2f6f3e",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    let writers = status.writers.unwrap();
    assert_eq!((writers.orphaned, writers.unapplied), (Some(2), Some(1204)));
}

#[test]
fn an_orphans_disks_can_be_emptied_where_there_is_a_bucket() {
    let (disk, bucket) = (json!({"name": "a", "url": "file:///wal/a"}), json!({"name": "b", "url": "s3://bucket/wal"}));
    let line =
        "kubectl get walwriters,walstorages -n shop -o yaml | walstorage-operator render drain orders.orders-0 -f -";
    for (urls, empty, told) in [
        (json!([disk, bucket]), "False", true),
        (json!([disk, bucket]), "True", false),
        (json!([disk]), "False", false),
    ] {
        let mut found = settled(json!({"walUrls": urls}));
        let volume =
            json!({"name": "a", "url": "file:///wal/a", "claimName": "wal-orders--a-orders-0", "empty": empty});
        found.writers = vec![writer("orders-0", json!({"phase": "Orphaned", "volumes": [volume]}))];
        let status = looked(&found);
        assert_eq!(said(&status, "UndrainedData").2.contains(line), told, "{urls} {empty}");
    }
}

#[test]
fn what_sidecars_report_is_shown_and_a_missing_secret_leads_to_its_name() {
    let spec = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"},
        {"name": "b", "url": "s3://bucket/wal", "bucket": {"credentials": {"secretName": "wal-s3"}}}]});
    let mut found = settled(spec);
    let with = |a: &str, b: &str| {
        json!({"phase": "Active", "volumes": [{"name": "a", "url": "file:///wal/a", "state": a},
            {"name": "b", "url": "s3://bucket/wal", "state": b}]})
    };
    found.writers = vec![writer("orders-0", with("healthy", "failed")), writer("orders-1", with("full", "slow"))];
    let status = looked(&found);
    let (is, reason, message) = said(&status, "DirectoriesHealthy");
    assert_eq!((is, reason), ("False", "DirectoryUnhealthy"));
    assert!(
        message.contains("b (s3://bucket/wal) of writer orders-0 is failed (credentials come from Secret wal-s3"),
        "{message}"
    );
    assert!(message.contains("a of writer orders-1 is full (raise the URL's volume.size"), "{message}");
    let states: Vec<_> = status.urls.iter().flatten().map(|url| url.state.as_deref().unwrap()).collect();
    assert_eq!(states, ["full", "failed"], "the worst of each");
    found.writers = vec![writer("orders-0", with("healthy", "slow"))];
    assert_eq!(said(&looked(&found), "DirectoriesHealthy").0, "True");
    change(&mut found, |storage| {
        storage.spec.sidecar = serde_json::from_value(json!({"adminPort": 0})).unwrap();
    });
    assert_eq!(said(&looked(&found), "DirectoriesHealthy").1, "NotObserved");
}

#[test]
fn a_writer_that_can_write_nowhere_for_long_makes_the_storage_not_ready() {
    let mut found = settled(json!({}));
    found.pods = vec![pod("orders-0")];
    found.writers = vec![writer(
        "orders-0",
        json!({"phase": "Active", "volumes": [
        {"name": "data", "url": "file:///workspace/data/wal", "state": "failed"}]}),
    )];
    let (judged, built) = judge(&found);
    found.now = at(59);
    let (status, next) = status::status(&found, &judged, &built, Some(at(0)), GRACE);
    assert_eq!(said(&status, "Ready").0, "True");
    assert_eq!(next, Some(Duration::from_secs(1)));
    found.now = at(60);
    let (status, next) = status::status(&found, &judged, &built, Some(at(0)), GRACE);
    assert_eq!((said(&status, "Ready").1, next), ("NoWritableDirectory", None));
}

#[test]
fn a_draining_url_stays_in_the_status_until_it_is_gone() {
    let mut found = settled(json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}]}));
    found.writers = vec![writer(
        "orders-0",
        json!({"phase": "Active", "volumes": [
        {"name": "a", "url": "file:///wal/a", "state": "healthy"}, {"name": "b", "url": "file:///wal/b", "state": "healthy"}]}),
    )];
    let status = looked(&found);
    let urls: Vec<_> =
        status.urls.iter().flatten().map(|url| (url.name.as_str(), url.state.as_deref(), url.writers)).collect();
    assert_eq!(urls, [("a", Some("healthy"), Some(1)), ("b", Some("draining"), Some(1))]);
    assert_eq!(said(&status, "Reconciling").1, "Draining");
}
