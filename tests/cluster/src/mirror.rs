//! Pods as a watch tells of them: every change is one moment of the API server's own order, and looking costs it nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{Config, Event, watcher};

/// Pods by namespace and name.
pub(crate) type Pods = BTreeMap<(String, String), Arc<Pod>>;

/// Shows all pods of a selection after each change of one, until it is dropped.
pub(crate) async fn follow(client: Client, selection: Config, mut see: impl FnMut(&Pods)) {
    let events = watcher(Api::<Pod>::all(client), selection).default_backoff();
    pin_mut!(events);
    let (mut pods, mut listed) = (Pods::new(), Pods::new());
    let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => {
                pods.insert(key(&pod), Arc::new(pod));
            }
            Ok(Event::Delete(pod)) => {
                pods.remove(&key(&pod));
            }
            Ok(Event::InitDone) => pods = std::mem::take(&mut listed),
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(pod)) => {
                listed.insert(key(&pod), Arc::new(pod));
                continue;
            }
            // It begins anew.
            Err(_) => continue,
        }
        see(&pods);
    }
}
