//! When the finalizer goes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::finalizer::{Finalizer, decide};
use super::*;

fn deleted(policy: &str, users: &[&str], writers: Vec<Arc<WalWriter>>) -> Found {
    let mut found = settled(json!({"reclaimPolicy": {"whenDeleted": policy}}));
    change(&mut found, |storage| storage.metadata.deletion_timestamp = Some(Time(at(0))));
    found.users = Some(users.iter().map(|user| (*user).to_owned()).collect());
    found.writers = writers;
    found
}

fn with(phase: &str, claims: bool, held: bool) -> Arc<WalWriter> {
    let volumes = if claims {
        json!([{"name": "data", "url": "file:///workspace/data/wal", "claimName": "c"}])
    } else {
        json!(null)
    };
    let holder = if held { json!({"podName": "p", "podUid": "u"}) } else { json!(null) };
    writer("orders-0", json!({"phase": phase, "volumes": volumes, "holder": holder}))
}

#[test]
fn the_finalizer_is_put_on_before_anything_else_is_made() {
    let mut found = found(json!({}));
    change(&mut found, |storage| storage.metadata.finalizers = None);
    assert_eq!(decide(&found), Finalizer::Add);
    // Also on one that is refused: its pods of before it was may be there.
    change(&mut found, |storage| storage.spec = serde_json::from_value(json!({"memoryFlushSize": "2Gi"})).unwrap());
    assert_eq!(decide(&found), Finalizer::Add);
    found.namespace_ends = true;
    assert_eq!(decide(&found), Finalizer::Keep);
}

#[test]
fn the_finalizer_goes_when_no_pod_is_left_and_the_policy_is_done() {
    // policy, live pods, phase, claims, held -> goes
    let table = [
        ("Retain", false, "Orphaned", true, false, true),
        ("Retain", false, "Active", true, true, true),
        ("Retain", true, "Active", true, true, false),
        ("DeleteDrained", false, "Drained", true, false, false),
        ("DeleteDrained", false, "Drained", false, false, true),
        ("DeleteDrained", false, "Reclaiming", true, false, false),
        ("DeleteDrained", false, "Orphaned", true, false, true),
        ("DeleteDrained", false, "Releasing", true, true, false),
        ("Delete", false, "Orphaned", true, false, false),
        ("Delete", false, "Lost", true, false, false),
        ("Delete", false, "Reclaiming", false, false, false),
        ("Delete", false, "Drained", false, false, true),
        ("Delete", true, "Drained", false, false, false),
    ];
    for (policy, pods, phase, claims, held, goes) in table {
        let users: &[&str] = if pods { &["orders-0"] } else { &[] };
        let decided = decide(&deleted(policy, users, vec![with(phase, claims, held)]));
        assert_eq!(decided == Finalizer::Remove, goes, "{policy} {pods} {phase} {claims} {held}: {decided:?}");
        assert_eq!(matches!(decided, Finalizer::Wait(_)), !goes);
    }
}

#[test]
fn a_namespace_that_ends_waits_for_pods_and_for_nothing_else() {
    for (users, goes) in [(&["orders-0"][..], false), (&[][..], true)] {
        let mut found = deleted("Delete", users, vec![with("Orphaned", true, false)]);
        found.namespace_ends = true;
        assert_eq!(decide(&found) == Finalizer::Remove, goes);
    }
}

#[test]
fn nothing_is_decided_by_a_list_that_was_not_made() {
    let mut found = deleted("Retain", &[], vec![]);
    found.users = None;
    assert!(matches!(decide(&found), Finalizer::Wait(_)));
}

#[test]
fn where_the_finalizer_is_gone_nothing_is_done() {
    let mut found = deleted("Retain", &[], vec![]);
    change(&mut found, |storage| storage.metadata.finalizers = Some(vec!["foreign".to_owned()]));
    found.config_map = None;
    let (_, built) = judge(&found);
    assert_eq!((built.finalizer, built.config), (Finalizer::Nothing, ConfigStep::Leave));
}

#[test]
fn while_a_pod_uses_a_deleted_storage_its_config_map_stays_true() {
    let mut found = deleted("Retain", &["orders-0"], vec![]);
    found.config_map.as_mut().unwrap().text = None;
    let (_, built) = judge(&found);
    assert!(matches!(built.config, ConfigStep::Apply { .. }), "{built:?}");
    let status = looked(&found);
    let (is, reason, message) = said(&status, "Reconciling");
    assert_eq!((is, reason), ("True", "Deleting"));
    assert!(message.contains("1 pod (orders-0) still uses it"), "{message}");
}
