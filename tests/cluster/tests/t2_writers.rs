//! The WalWriter controller and the webhook, the real programs under the rights of the chart, on a real API server with
//! workload controllers, a scheduler and nodes on paper: who gets which writer, whatever ends, competes or is refused.
//!
//! Everything that the controllers write passes a gateway; each scenario ends with the invariants of the grant held
//! against that log and against what stands in the API ([`audit`]).

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "writers/rig.rs"]
mod rig;
#[path = "writers/scenarios.rs"]
mod scenarios;
#[path = "writers/told.rs"]
mod told;

use std::collections::BTreeSet;

use http::Method;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;
use walstorage_cluster_tests::gateway::{Side, resource_of};
use walstorage_cluster_tests::{DEADLINE, audit};
use walstorage_crds::walwriter::{Phase, WalWriter};

use self::rig::{Rig, Shop, lease_of};

/// One cluster for all scenarios that leave the controllers alone; each has a namespace of its own.
#[tokio::test]
async fn writers_on_a_real_api_server() {
    let rig = Rig::start().await;
    rig.lead(0).await;
    tokio::join!(
        scenarios::ten_orphans_are_adopted_by_ten_new_pods(&rig),
        scenarios::a_stateful_set_that_shrinks_and_grows_finds_its_writers(&rig),
        scenarios::a_used_up_quota_is_said_and_waited_out(&rig),
        scenarios::a_pod_that_a_quota_refuses_has_the_entries_when_it_comes(&rig),
        scenarios::a_drain_job_has_the_orphan_that_it_names_until_it_completes(&rig),
        scenarios::a_deleted_claim_is_lost_until_the_loss_is_accepted(&rig),
        scenarios::an_abandoned_writer_goes_with_its_claims(&rig),
        scenarios::what_is_drained_goes_after_its_time_where_its_storage_says_so(&rig),
        scenarios::a_pod_that_does_not_end_is_stuck_until_it_is_deleted_by_force(&rig),
        scenarios::what_a_sidecar_says_is_shown(&rig),
        scenarios::a_dry_run_leaves_nothing(&rig),
        told::a_pod_waits_for_a_storage_that_is_not_accepted(&rig),
        told::claims_that_bind_before_the_pod_has_a_node_are_made_when_somebody_says_so(&rig),
        told::a_claim_in_the_way_is_left_alone_until_its_labels_say_whose_it_is(&rig),
        told::a_writer_of_another_workload_is_not_given_away(&rig),
        told::a_workload_is_told_of_a_pod_that_begins_beside_a_lost_log(&rig),
        told::an_edit_grows_claims_and_names_the_pods_that_it_makes_outdated(&rig),
    );
    let counts = rig.audit().await;
    assert!(counts.ungated >= 20 && counts.grants >= counts.ungated && counts.deleted_claims >= 1, "{counts:?}");
}

/// Two hundred pods take all processors: one test has them at a time.
static CROWD: Mutex<()> = Mutex::const_new(());

/// Two controllers that both believe to lead: each has a Lease in a namespace of its own.
#[tokio::test]
async fn two_leaders_grant_two_hundred_pods_once_each_as_they_come_roll_and_scale() {
    let _crowd = CROWD.lock().await;
    let rig = Rig::start().await;
    rig.lead(0).await;
    rig.lead(1).await;
    let shop = Shop::open(&rig, "crowd", json!({})).await;
    for set in 0..10 {
        shop.stateful_set(&format!("set{set}"), 10, None).await;
        shop.deployment(&format!("web{set}"), 10, None).await;
    }
    shop.active(200).await;
    rig.at_rest(&shop).await;
    let uids = |writers: Vec<WalWriter>| -> BTreeSet<String> {
        writers.into_iter().map(|writer| writer.spec.writer_uid).collect()
    };
    let made = uids(shop.list().await);
    assert_eq!(made.len(), 200);

    // All pods of the pools give way to others, which take over their writers; those of the sets go and come back.
    let old = shop.uids("app=pool").await;
    shop.as_told("kubectl rollout restart deployment");
    for set in 0..10 {
        shop.scale(&format!("statefulset/set{set}"), 4);
    }
    shop.others("app=pool", 100, &old).await;
    shop.active(140).await;
    for set in 0..10 {
        shop.scale(&format!("statefulset/set{set}"), 10);
    }
    shop.active(200).await;
    rig.at_rest(&shop).await;
    let now = uids(shop.list().await);
    // A few pods begin beside writers that wait for a pod; those stay.
    assert!(now.is_superset(&made), "who has entries is there");
    let counts = rig.audit().await;
    assert!(counts.ungated >= 360 && counts.grants >= counts.ungated, "{counts:?}");
    // Both had a hand in it.
    for leader in 0..2 {
        let granted = rig.metric(leader, "walstorage_operator_grants_total{result=\"granted\"}").await;
        assert!(granted > 0.0, "leader {leader} granted nothing");
    }
}

/// One pool without a surge, half of it at a time: whoever comes takes over from whoever goes, and nobody waits for ever.
#[tokio::test]
async fn a_deployment_of_two_hundred_rolls_and_its_pods_take_over_each_others_writers() {
    let _crowd = CROWD.lock().await;
    let rig = Rig::start().await;
    rig.lead(0).await;
    let shop = Shop::open(&rig, "rolls", json!({})).await;
    shop.deployment("web", 200, Some(3)).await;
    shop.active(200).await;
    let made: BTreeSet<String> = shop.list().await.into_iter().map(|writer| writer.spec.writer_uid).collect();
    assert_eq!(made.len(), 200);

    let old = shop.uids("app=pool").await;
    shop.as_told("kubectl rollout restart deployment");
    shop.others("app=pool", 200, &old).await;
    shop.active(200).await;
    rig.at_rest(&shop).await;
    let writers = shop.list().await;
    let held: BTreeSet<String> =
        writers.iter().filter_map(|writer| Some(writer.status.as_ref()?.holder.as_ref()?.pod_uid.clone())).collect();
    assert_eq!(held, shop.uids("app=pool").await, "each pod has a writer of its own, and no writer has an old pod");
    let again = writers.iter().filter(|writer| made.contains(&writer.spec.writer_uid));
    let again: Vec<&WalWriter> =
        again.filter(|one| one.status.as_ref().is_some_and(|it| it.holder.is_some())).collect();
    println!("{} of 200 writers were taken over, {} are fresh", again.len(), writers.len() - made.len());
    assert!(again.iter().all(|writer| writer.status.as_ref().is_some_and(|it| it.phase == Some(Phase::Active))));
    // Where two webhooks propose one writer twice, and the one that lost gives up waiting, a pod begins a log of its own.
    assert!(again.len() >= 150, "the entries of {} pods wait for another", 200 - again.len());
    let counts = rig.audit().await;
    assert!(counts.ungated >= 400 && counts.grants >= counts.ungated, "{counts:?}");
}

/// A call of a grant: name, method, resource, and what tells it from others of the kind.
type Step = (&'static str, Method, &'static str, fn(&Value) -> bool);

/// The calls of a grant, in their order.
const STEPS: [Step; 4] = [
    ("G1, the ledger is made", Method::POST, "walwriters", |_| true),
    ("G4, a claim is made", Method::POST, "persistentvolumeclaims", |_| true),
    ("G3, the holder is swapped in, with its claims", Method::PUT, "walwriters/status", |sent| {
        sent["status"]["volumes"][0]["claimUid"].is_string()
    }),
    ("G5, the pod is let go", Method::PATCH, "pods", |sent| sent.as_array().is_some_and(|steps| steps.len() > 3)),
];

#[tokio::test]
async fn a_leader_that_is_killed_at_any_step_of_a_grant_is_succeeded() {
    let rig = Rig::start().await;
    rig.lead(0).await;
    let shop = Shop::open(&rig, "killed", json!({})).await;
    let mut named = 0;
    for (what, method, resource, is) in STEPS {
        for side in [Side::Before, Side::After] {
            let name = format!("step{named}");
            named += 1;
            let (wanted, resource) = (method.clone(), resource.to_owned());
            let of_this = name.clone();
            let caught = rig.gateway(0).stop_at(side, move |method, path, sent| {
                let about = path.contains(&of_this) || sent["metadata"]["name"].to_string().contains(&of_this);
                *method == wanted && resource_of(path) == resource && about && is(sent)
            });
            shop.stateful_set(&name, 1, None).await;
            timeout(DEADLINE, caught).await.unwrap_or_else(|_| panic!("{what}: nobody came there")).unwrap();
            rig.kill(0).await;
            let pod = shop.pods().get(&format!("{name}-0")).await.unwrap();
            let gated = !pod.spec.unwrap().scheduling_gates.unwrap_or_default().is_empty();
            let let_go = what.starts_with("G5") && side == Side::After;
            assert_eq!(gated, !let_go, "{what}, {side:?}");
            // Who comes next does not wait for the Lease of the dead.
            lease_of(&rig, 0).await;
            rig.lead(0).await;
            shop.active(named).await;
            rig.at_rest(&shop).await;
        }
    }
    let writers: Vec<WalWriter> = shop.list().await;
    assert!(writers.iter().all(|writer| writer.status.as_ref().is_some_and(|it| it.phase == Some(Phase::Active))));
    let claims = shop.claims().list(&ListParams::default()).await.unwrap().items;
    assert_eq!((writers.len(), claims.len()), (named, named), "nothing is left over, nothing is there twice");
    let counts = audit::log(&rig.log()).unwrap();
    assert_eq!((counts.ungated, counts.grants), (named, named));
}
