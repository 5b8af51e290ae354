//! A controller whose cache has not heard of something.

use anyhow::ensure;
use walstorage_cluster_tests::eventually;
use walstorage_cluster_tests::gateway::{Gateway, Log, is_watch};
use walstorage_cluster_tests::operator::Operator;

use super::{HOME, Shop, TIMERS, class, drains, leader, one, two, volumes};

const WRITERS: &str = "/apis/walstorage.dev/v1alpha1/walwriters";

/// By its cache no writer has entries in the URL that was removed. One has, and without its URL its sidecar would not be given
/// that directory again.
#[tokio::test]
async fn a_url_is_not_let_go_by_what_the_cache_says() {
    let plane = leader::plane().await;
    class(&plane).await;
    let mut first = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    first.ready().await;
    let shop = Shop::on(&plane, "lag").await;
    shop.apply(&two()).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    shop.writer(volumes("Unknown")).await;
    shop.apply(&one()).await.unwrap();
    eventually("the URL drains", || async { drains(&shop.text().await?) }).await;
    let ended = tokio::task::spawn_blocking(move || first.stop()).await.unwrap();
    assert_eq!(ended.unwrap(), 0);

    shop.report(volumes("True")).await;
    let door = Gateway::open(&plane, &Log::default()).await.unwrap();
    let _watches = door.hold(|uri| uri.path() == WRITERS && is_watch(uri));
    let own = WRITERS.replace("walwriters", &format!("namespaces/{}/walwriters", shop.namespace));
    let asks = door.hold(move |uri| uri.path() == own);
    let mut second = Operator::behind(&door, "controller", &plane, HOME, None, &TIMERS).unwrap();
    second.ready().await;
    eventually("it asks what the writers have", || async {
        ensure!(asks.has_caught(), "not yet");
        Ok(())
    })
    .await;
    shop.report(volumes("Unknown")).await;
    drop(asks);
    eventually("it has looked at the storage", || async {
        let done = second.metric("walstorage_operator_reconciles_total{kind=\"WalStorage\",result=\"ok\"}").await?;
        ensure!(done.is_some(), "not yet");
        Ok(())
    })
    .await;
    drains(&shop.text().await.unwrap()).unwrap();
}
