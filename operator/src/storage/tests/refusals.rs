//! What is refused, with which reason, and that a refusal changes nothing.

use serde_json::json;

use super::*;

fn with(volumes: Value) -> Vec<Arc<WalWriter>> {
    vec![writer("orders-0", json!({"phase": "Active", "volumes": volumes}))]
}

/// Spec, what writers have, whether the ConfigMap is a stranger's, reason.
fn table() -> Vec<(Value, Vec<Arc<WalWriter>>, bool, &'static str)> {
    let urls = |url: &str| json!({"walUrls": [{"name": "a", "url": url}]});
    vec![
        (urls("file:///wal/b"), with(json!([{"name": "a", "url": "file:///wal/a"}])), false, "UrlChanged"),
        (
            json!({"walUrls": [{"name": "b", "url": "file:///wal/a"}]}),
            with(json!([{"name": "a", "url": "file:///wal/a", "empty": "False"}])),
            false,
            "UrlChanged",
        ),
        (
            json!({"walUrls": [{"name": "a", "url": "file:///wal/a", "volume": {"size": "1Gi"}}]}),
            with(json!([{"name": "a", "url": "file:///wal/a", "claimName": "c", "size": "2Gi"}])),
            false,
            "SizeShrinks",
        ),
        (json!({"sidecar": {"resources": {"limits": {"memory": "64Mi"}}}}), vec![], false, "MemoryTooSmall"),
        (json!({"memoryFlushSize": "2Gi"}), vec![], false, "InvalidConfig"),
        (urls("file:///etc/wal"), vec![], false, "InvalidConfig"),
        (
            json!({"walUrls": [{"name": "a", "url": "file:///wal"}, {"name": "b", "url": "file:///wal/b"}]}),
            vec![],
            false,
            "InvalidConfig",
        ),
        (json!({}), vec![], true, "NameConflict"),
    ]
}

#[test]
fn a_refused_spec_changes_nothing_but_the_status() {
    for (spec, writers, strange, reason) in table() {
        let mut found = settled(json!({}));
        let before = looked(&found);
        let hash = before.config_hash.clone();
        change(&mut found, |storage| {
            storage.spec = serde_json::from_value(spec.clone()).unwrap();
            storage.status = Some(before);
            storage.metadata.generation = Some(4);
        });
        found.writers = writers;
        if strange {
            found.config_map.as_mut().unwrap().owner = Some(("App".to_owned(), "x".to_owned(), "y".to_owned()));
        }
        let (judged, built) = judge(&found);
        assert_eq!(built.config, ConfigStep::Leave, "{spec}");
        assert_eq!(reasons(&built), ["Refused"], "{spec}");
        let status = looked(&found);
        let (is, why, message) = said(&status, "Accepted");
        assert_eq!((is, why), ("False", reason), "{spec}: {message}");
        assert_eq!(message, judged.effective.unwrap_err().message);
        assert_eq!(said(&status, "Ready"), ("False", reason, message));
        assert_eq!(said(&status, "Stalled").0, "True");
        assert_eq!(said(&status, "ConfigRendered").0, "True", "the old one stands");
        let rendered = status.conditions.as_ref().unwrap().iter().find(|one| one.type_ == "ConfigRendered").unwrap();
        assert_eq!(rendered.observed_generation, Some(3), "and does not speak of the refused generation");
        if !strange {
            assert_eq!(status.config_hash, hash);
        }
    }
}

#[test]
fn a_sentence_is_an_event_once_and_again_when_it_changes() {
    let mut found = settled(json!({}));
    change(&mut found, |storage| storage.spec = serde_json::from_value(json!({"memoryFlushSize": "2Gi"})).unwrap());
    assert_eq!(reasons(&judge(&found).1), ["Refused"]);
    let status = looked(&found);
    change(&mut found, |storage| storage.status = Some(status));
    assert_eq!(reasons(&judge(&found).1), Vec::<&str>::new());
    change(&mut found, |storage| storage.spec = serde_json::from_value(json!({"memoryFlushSize": "3Gi"})).unwrap());
    assert_eq!(reasons(&judge(&found).1), ["Refused"]);
    change(&mut found, |storage| storage.spec = serde_json::from_value(json!({})).unwrap());
    assert_eq!(reasons(&judge(&found).1), ["Accepted"]);
}

#[test]
fn a_strangers_config_map_is_named_and_left_alone() {
    let stranger = |owner: Option<(&str, &str, &str)>, deleting, text: Option<&str>| FoundMap {
        uid: "map-2".to_owned(),
        owner: owner.map(|(kind, name, uid)| (kind.to_owned(), name.to_owned(), uid.to_owned())),
        deleting,
        text: text.map(str::to_owned),
        ..FoundMap::default()
    };
    for (map, expected) in [
        (stranger(None, false, Some("mine")), "is not this WalStorage's; it is left as it is. Delete it, or give"),
        (stranger(None, false, None), "is not this WalStorage's"),
        (stranger(Some(("App", "x", "y")), false, None), "is controlled by App x; it is left as it is"),
        (stranger(Some(("WalStorage", "orders", "uid-0")), false, None), "of an earlier WalStorage of this name"),
        (stranger(Some(("WalStorage", "orders", "uid-1")), true, None), "is being deleted; it is made anew after that"),
    ] {
        let mut found = found(json!({}));
        found.config_map = Some(map);
        let (judged, built) = judge(&found);
        assert_eq!(built.config, ConfigStep::Leave);
        let refused = judged.effective.unwrap_err();
        assert_eq!(refused.reason.as_str(), "NameConflict");
        assert!(refused.message.contains(expected), "{}", refused.message);
    }
}

#[test]
fn a_config_map_that_was_rendered_offline_is_good_as_it_is() {
    let mut found = found(json!({}));
    let rendered = judge(&found).0.text;
    found.config_map = Some(FoundMap { text: rendered, ..FoundMap::default() });
    let (judged, built) = judge(&found);
    assert!(judged.effective.is_ok());
    assert_eq!(built.config, ConfigStep::Leave);
    assert_eq!(said(&looked(&found), "ConfigRendered").0, "True");
    assert_eq!(looked(&found).config_hash, built.hash);
}
