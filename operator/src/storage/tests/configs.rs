//! The ConfigMap: made, kept, reverted, and what is said about it.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::render;

const THREE: &str = r#"{"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"},
    {"name": "c", "url": "s3://bucket/wal", "bucket": {"region": "eu-west-1", "credentials": {"secretName": "s"}}}]}"#;

fn three() -> Value {
    serde_json::from_str(THREE).unwrap()
}

#[test]
fn the_config_map_holds_just_what_render_prints() {
    for spec in [json!({}), three(), json!({"memoryFlushSize": "2Mi", "compression": "zstandard"})] {
        let (judged, built) = judge(&found(spec.clone()));
        let document = json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage",
            "metadata": {"name": "orders"}, "spec": spec});
        let rendered = render::config(&document.to_string(), None).unwrap();
        assert_eq!(text(&judged), rendered.text);
        let map = made(&built);
        assert_eq!(map.text.as_deref(), Some(rendered.text.as_str()));
        let line = rendered.text.lines().next().unwrap();
        assert_eq!(line, format!("# walstorage v1 {}", built.hash.unwrap()));
        assert_eq!(map.owner, Some(("WalStorage".to_owned(), "orders".to_owned(), "uid-1".to_owned())));
    }
}

#[test]
fn what_stands_as_it_must_is_not_written() {
    let (_, built) = judge(&settled(json!({})));
    assert_eq!(built.config, ConfigStep::Leave);
    assert!(built.hash.is_some());
}

#[test]
fn a_changed_spec_is_written_over_ours_and_is_no_drift() {
    let mut found = settled(json!({}));
    change(&mut found, |storage| storage.spec = serde_json::from_value(json!({"memoryFlushSize": "2Mi"})).unwrap());
    let (_, built) = judge(&found);
    assert!(matches!(&built.config, ConfigStep::Apply { uid, .. } if uid == "map-1"), "{built:?}");
    assert_eq!(reasons(&built), ["Accepted"]);
}

#[test]
fn what_somebody_else_changed_is_reverted_and_said() {
    let by_hand = |map: &mut FoundMap| map.text = map.text.as_ref().map(|text| format!("{text}# mine\n"));
    let by_name = |map: &mut FoundMap| {
        by_hand(map);
        map.written_by = Some("kubectl-edit".to_owned());
    };
    let emptied = |map: &mut FoundMap| map.text = None;
    type Edit<'e> = &'e dyn Fn(&mut FoundMap);
    let cases: [(Edit<'_>, &str); 3] =
        [(&by_hand, "was changed and is"), (&by_name, "was changed by kubectl-edit"), (&emptied, "was changed and is")];
    for (edit, expected) in cases {
        let mut found = settled(json!({}));
        edit(found.config_map.as_mut().unwrap());
        let (_, built) = judge(&found);
        assert!(matches!(built.config, ConfigStep::Apply { .. }), "{built:?}");
        let note = built.notes.iter().find(|note| note.reason == "DriftReverted").unwrap();
        assert!(note.text.contains(expected), "{}", note.text);
        assert_eq!(built.drift().unwrap().kind, "ConfigMap");
    }
}

#[test]
fn a_config_map_that_somebody_deleted_is_made_anew_and_said() {
    let mut found = settled(json!({}));
    let status = looked(&found);
    change(&mut found, |storage| storage.status = Some(status));
    found.config_map = None;
    let (_, built) = judge(&found);
    assert!(matches!(built.config, ConfigStep::Create(_)));
    assert_eq!(reasons(&built), ["DriftReverted"]);
}

#[test]
fn a_lost_label_is_put_back() {
    let mut found = settled(json!({}));
    found.config_map.as_mut().unwrap().labels.clear();
    assert!(matches!(judge(&found).1.config, ConfigStep::Apply { .. }));
}

#[test]
fn a_removed_url_drains_until_no_writer_may_have_entries_there() {
    let mut found = settled(three());
    let with = |empty: Value| {
        json!({"phase": "Active", "volumes": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b",
            "claimName": "x", "empty": empty}]})
    };
    change(&mut found, |storage| {
        storage.spec.wal_urls.as_mut().unwrap().retain(|url| url.name != "b");
    });
    // (empty in the ledger of two writers) -> still there
    for (one, two, drains) in [
        (json!("Unknown"), json!("True"), true),
        (json!("False"), json!("True"), true),
        (json!(null), json!("True"), true),
        (json!("True"), json!("True"), false),
    ] {
        found.writers = vec![writer("orders-0", with(one)), writer("orders-1", with(two))];
        let (judged, built) = judge(&found);
        let drained = r#"[storage.wal_config.url_options."file:///wal/b"]"#.to_owned() + "\ndrain = true\n";
        assert_eq!(text(&judged).contains(&drained), drains, "{}", text(&judged));
        assert_eq!(text(&judged).contains("file:///wal/b"), drains);
        assert_eq!(built.let_go.is_empty(), drains, "{:?}", built.let_go);
        let event = built.notes.iter().find(|note| note.reason == "UrlDraining");
        assert_eq!(event.map(|note| note.text.contains("1 writer (orders-0)")), drains.then_some(true));
    }
}

#[test]
fn a_draining_bucket_is_reached_as_it_was_before() {
    let mut found = settled(three());
    found.writers = vec![writer("orders-0", json!({"volumes": [{"name": "c", "url": "s3://bucket/wal"}]}))];
    change(&mut found, |storage| storage.spec.wal_urls.as_mut().unwrap().retain(|url| url.name != "c"));
    let (judged, built) = judge(&found);
    for part in ["region = \"eu-west-1\"", "credentials_dir = \"/etc/walstorage/credentials/c\"", "drain = true"] {
        assert!(text(&judged).contains(part), "{part} is not in {}", text(&judged));
    }
    found.config_map = Some(made(&built));
    assert_eq!(judge(&found).1.config, ConfigStep::Leave, "it stays so");
    // Empty at last.
    found.writers =
        vec![writer("orders-0", json!({"volumes": [{"name": "c", "url": "s3://bucket/wal", "empty": "True"}]}))];
    let (judged, built) = judge(&found);
    assert!(!text(&judged).contains("s3://bucket/wal"));
    assert!(reasons(&built).contains(&"UrlDrained"), "{:?}", built.notes);
}

#[test]
fn a_removed_journal_drains_too() {
    let mut found = settled(json!({"journal": {"name": "j", "url": "file:///wal/j"}}));
    found.writers =
        vec![writer("orders-0", json!({"volumes": [{"name": "j", "url": "file:///wal/j", "empty": "False"}]}))];
    change(&mut found, |storage| storage.spec.journal = None);
    let (judged, _) = judge(&found);
    assert!(text(&judged).contains("\"file:///wal/j\""), "{}", text(&judged));
    assert!(!text(&judged).contains("journal_url"));
    assert!(text(&judged).contains("drain = true"));
}

proptest! {
    /// Whatever the order in which things were found, and however often it is done: the same bytes.
    #[test]
    fn building_is_deterministic(
        urls in proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..5),
        ledger in proptest::collection::vec((0..5_usize, 0..3_usize), 0..12),
        region in "[a-z]{1,8}",
    ) {
        let listed: Vec<Value> = urls.iter().map(|name| json!({"name": name, "url": format!("s3://{name}{name}{name}/wal"),
            "bucket": {"region": region}})).collect();
        let mut one = found(json!({"walUrls": listed}));
        one.writers = ledger.iter().enumerate().map(|(index, (url, empty))| {
            let name = ["a", "b", "c", "d", "e"][*url];
            let empty = ["True", "False", "Unknown"][*empty];
            let url = format!("s3://{name}{name}{name}/wal");
            writer(&format!("w{index}"), json!({"volumes": [{"name": name, "url": url, "empty": empty}]}))
        }).collect();
        let mut other = one.clone();
        other.writers.reverse();
        let ((first, built), (second, again)) = (judge(&one), judge(&other));
        prop_assert_eq!(&first.text, &second.text);
        prop_assert_eq!(built.hash, again.hash);
        if let Ok(_effective) = &first.effective {
            let loaded = walstorage_crds::config::Config::parse(text(&first), true).unwrap();
            for name in &urls {
                let url = walstorage_crds::url::WalUrl::parse(&format!("s3://{name}{name}{name}/wal")).unwrap();
                prop_assert!(!loaded.config.wal.url_options[&url].drain, "a URL of the spec never drains");
            }
        }
    }
}
