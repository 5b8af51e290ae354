//! What is said once is heard, although the API server does not answer.

use anyhow::ensure;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use walstorage_cluster_tests::eventually;
use walstorage_cluster_tests::gateway::{Gateway, Log, Side, resource_of};
use walstorage_cluster_tests::operator::Operator;
use walstorage_crds::walstorage::WalStorage;

use super::leader::{leads, plane};
use super::{HOME, TIMERS};

#[tokio::test]
async fn an_event_whose_write_is_not_answered_is_there_in_the_end_and_once() {
    let plane = plane().await;
    let door = Gateway::open(&plane, &Log::default()).await.unwrap();
    let mut operator = Operator::behind(&door, "controller", &plane, HOME, None, &TIMERS).unwrap();
    operator.ready().await;
    leads(&operator, true).await;
    let storages: Api<WalStorage> = Api::namespaced(plane.client(), HOME);
    let maps: Api<ConfigMap> = Api::namespaced(plane.client(), HOME);
    let events: Api<Event> = Api::namespaced(plane.client(), HOME);
    for (name, side) in [("orders", Side::Before), ("others", Side::After)] {
        let caught = door.stop_at(side, |method, path, _| *method == Method::POST && resource_of(path) == "events");
        let storage = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {}})).unwrap();
        storages.create(&PostParams::default(), &storage).await.unwrap();
        caught.await.unwrap();
        let map = format!("{name}-walstorage");
        eventually("it is rendered", || maps.get(&map)).await;
        let mine = Patch::Merge(json!({"data": {"config.toml": "mine"}}));
        maps.patch(&map, &PatchParams::default(), &mine).await.unwrap();
        // One after the other: what is said later is there when the first has been seen to.
        let said = |reason: &'static str| {
            let events = &events;
            async move {
                let all = events.list(&ListParams::default().fields(&format!("reason={reason}"))).await?.items;
                let of = |event: &&Event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(name);
                anyhow::Ok(all.iter().filter(of).count())
            }
        };
        eventually("what is said next is there", || async {
            ensure!(said("DriftReverted").await? > 0, "not yet");
            Ok(())
        })
        .await;
        assert_eq!(said("Accepted").await.unwrap(), 1, "{side:?}");
    }
    assert_eq!(operator.metric("walstorage_operator_events_dropped_total").await.unwrap(), Some(0.0));
}
