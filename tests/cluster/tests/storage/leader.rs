//! Of several controllers one works: it alone, as long as it has the Lease, and another as soon as it has not.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use walstorage_cluster_tests::gateway::{Gateway, Log, Side, resource_of};
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, eventually};
use walstorage_crds::walstorage::WalStorage;

use super::{HOME, TIMERS, home};

/// A plane of its own: the shared one has its leader.
pub(crate) async fn plane() -> ControlPlane {
    let plane = ControlPlane::start().await.unwrap();
    plane.install_types().await;
    home(&plane).await;
    plane
}

fn leases(plane: &ControlPlane) -> Api<Lease> {
    Api::namespaced(plane.client(), HOME)
}

/// Who has the Lease; empty when it was let go of.
async fn holder(leases: &Api<Lease>) -> Result<String> {
    let lease = leases.get("walstorage-controller").await?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
}

/// Waits until a controller leads, or does not.
pub(crate) async fn leads(operator: &Operator, leads: bool) {
    eventually(&format!("it leads: {leads}"), || async {
        let said = operator.metric("walstorage_operator_leader").await?;
        ensure!(said == Some(f64::from(u8::from(leads))), "{said:?}");
        Ok(())
    })
    .await;
}

/// Makes a WalStorage, and waits until somebody works on it.
async fn is_worked_on(plane: &ControlPlane) {
    let storages: Api<WalStorage> = Api::namespaced(plane.client(), HOME);
    let storage = serde_json::from_value(json!({"metadata": {"name": "orders"}, "spec": {}})).unwrap();
    storages.create(&PostParams::default(), &storage).await.unwrap();
    eventually("somebody works", || async {
        let status = storages.get("orders").await?.status.unwrap_or_default();
        status.config_hash.context("not rendered")
    })
    .await;
}

#[tokio::test]
async fn of_two_controllers_one_leads_and_the_other_takes_over() {
    let plane = plane().await;
    let leases = leases(&plane);
    let mut first = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    first.ready().await;
    leads(&first, true).await;
    let one = holder(&leases).await.unwrap();
    let mut second = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    second.ready().await;
    assert_eq!(second.metric("walstorage_operator_leader").await.unwrap(), Some(0.0));
    // One that ends well lets go; one that is killed is waited for.
    assert_eq!(first.stop().unwrap(), 0);
    assert_ne!(holder(&leases).await.unwrap(), one, "nobody has to wait");
    leads(&second, true).await;
    let mut third = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    third.ready().await;
    second.kill().unwrap();
    leads(&third, true).await;
    is_worked_on(&plane).await;
}

/// The leader hangs: nobody works until its time is over, and then the other does.
#[tokio::test]
async fn one_that_waits_for_the_lease_writes_nothing_before_it_has_it() {
    let plane = plane().await;
    let mut first = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    first.ready().await;
    leads(&first, true).await;
    let log = Log::default();
    let door = Gateway::open(&plane, &log).await.unwrap();
    let mut second = Operator::behind(&door, "controller", &plane, HOME, None, &TIMERS).unwrap();
    second.ready().await;
    first.freeze().unwrap();
    is_worked_on(&plane).await;
    let wrote: Vec<String> = log.read().iter().map(|call| resource_of(&call.path)).collect();
    assert_eq!(wrote[0], "leases", "{wrote:?}");
    assert!(wrote.contains(&"walstorages/status".to_owned()), "{wrote:?}");
}

#[tokio::test]
async fn a_leader_that_the_lease_was_taken_from_works_no_more() {
    let plane = plane().await;
    let leases = leases(&plane);
    let mut operator = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    operator.ready().await;
    leads(&operator, true).await;
    let give = |holder: &'static str| {
        let spec = Patch::Merge(json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 3600}}));
        let leases = &leases;
        async move { leases.patch("walstorage-controller", &PatchParams::default(), &spec).await.unwrap() }
    };
    give("somebody").await;
    leads(&operator, false).await;
    assert_eq!(operator.get("/readyz").await.unwrap().0, 200, "it takes over at any time");
    give("").await;
    leads(&operator, true).await;
}

#[tokio::test]
async fn a_leader_that_ends_in_the_middle_of_a_renewal_lets_go_of_the_lease() {
    let plane = plane().await;
    let door = Gateway::open(&plane, &Log::default()).await.unwrap();
    let mut operator = Operator::behind(&door, "controller", &plane, HOME, None, &TIMERS).unwrap();
    operator.ready().await;
    leads(&operator, true).await;
    let renewed = door.stop_at(Side::After, |_, path, _| resource_of(path) == "leases");
    renewed.await.unwrap();
    let ended = tokio::task::spawn_blocking(move || operator.stop()).await.unwrap();
    assert_eq!(ended.unwrap(), 0);
    assert_eq!(holder(&leases(&plane)).await.unwrap(), "", "nobody has to wait");
}
