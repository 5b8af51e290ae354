//! Pods as they were deleted: what their containers said at the end stands in them and, once a pod is gone, nowhere else.
//!
//! 1. Only what a DELETED event had is kept, never an earlier copy: it is the last that was ever stored of a pod.
//! 2. A pod is kept before it leaves the cache. Whoever looks into the cache first, and here afterwards, finds it in one
//!    of both; but for a pod that went while the watch was interrupted, of which nobody heard.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use walstorage_crds::names::{LABEL_STORAGE, LABEL_WRITER};

/// Pods that are kept: more than can be deleted before their writers are looked at.
const MOST: usize = 4096;

/// Namespace, storage and writer.
type Of = [String; 3];

/// The pods. Cloned freely.
#[derive(Clone, Debug, Default)]
pub struct LastWords(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The oldest of each writer first.
    pods: HashMap<Of, VecDeque<Arc<Pod>>>,
    order: VecDeque<Of>,
}

impl LastWords {
    /// Keeps a pod, if it is one of a writer; of too many, the oldest goes.
    pub(super) fn keep(&self, pod: Arc<Pod>) {
        let label = |key| pod.labels().get(key).cloned();
        let (Some(storage), Some(writer)) = (label(LABEL_STORAGE), label(LABEL_WRITER)) else { return };
        let of = [pod.namespace().unwrap_or_default(), storage, writer];
        let mut kept = self.0.lock();
        kept.order.push_back(of.clone());
        kept.pods.entry(of).or_default().push_back(pod);
        if kept.order.len() > MOST
            && let Some(oldest) = kept.order.pop_front()
            && let Some(pods) = kept.pods.get_mut(&oldest)
        {
            pods.pop_front();
            if pods.is_empty() {
                kept.pods.remove(&oldest);
            }
        }
    }

    /// The deleted pods of a writer.
    #[must_use]
    pub fn of(&self, namespace: &str, storage: &str, writer: &str) -> Vec<Arc<Pod>> {
        let of = [namespace, storage, writer].map(str::to_owned);
        self.0.lock().pods.get(&of).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(writer: &str, uid: usize) -> Arc<Pod> {
        let labels = json!({LABEL_STORAGE: "orders", LABEL_WRITER: writer});
        let pod = json!({"metadata": {"namespace": "shop", "name": "p", "uid": uid.to_string(), "labels": labels}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn uids(words: &LastWords, writer: &str) -> Vec<String> {
        words.of("shop", "orders", writer).iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
    }

    #[test]
    fn a_writers_deleted_pods_are_kept_and_of_too_many_the_oldest_go() {
        let words = LastWords::default();
        words.keep(pod("a", 0));
        words.keep(pod("b", 1));
        words.keep(pod("a", 2));
        words.keep(Arc::new(Pod::default()));
        assert_eq!(
            (uids(&words, "a"), uids(&words, "b")),
            (vec!["0".to_owned(), "2".to_owned()], vec!["1".to_owned()])
        );
        assert!(words.of("another", "orders", "a").is_empty());
        for uid in 3..MOST + 2 {
            words.keep(pod("c", uid));
        }
        assert_eq!((uids(&words, "a"), uids(&words, "b")), (vec!["2".to_owned()], vec![]));
        let kept = words.0.lock();
        assert_eq!((kept.order.len(), kept.pods.len()), (MOST, 2), "a writer without pods leaves nothing");
    }
}
