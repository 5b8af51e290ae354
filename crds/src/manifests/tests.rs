//! What the API server will be given.

use super::*;

/// Every schema of a manifest, with its path.
fn schemas<'v>(path: &str, schema: &'v Value, found: &mut Vec<(String, &'v Value)>) {
    found.push((path.to_owned(), schema));
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        schemas(&format!("{path}.{name}"), property, found);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(below) = schema.get(key) {
            schemas(&format!("{path}{suffix}"), below, found);
        }
    }
}

fn versions() -> Vec<Value> {
    all().unwrap().into_iter().map(|manifest| manifest.definition["spec"]["versions"][0].clone()).collect()
}

#[test]
fn no_schema_has_a_default_or_takes_null() {
    for manifest in all().unwrap() {
        let text = manifest.definition.to_string();
        assert!(!text.contains("\"default\"") && !text.contains("\"nullable\""), "{}", manifest.file);
    }
}

#[test]
fn every_list_map_and_text_of_a_spec_is_bounded() {
    for version in versions() {
        let mut found = Vec::new();
        schemas("", &version["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
        assert!(found.len() > 5);
        for (path, schema) in found {
            let bounded = match schema["type"].as_str() {
                Some("array") => schema["maxItems"].is_u64(),
                Some("string") => schema["maxLength"].is_u64() || schema["enum"].is_array(),
                Some("object") => schema["maxProperties"].is_u64() || schema["additionalProperties"].is_null(),
                Some("integer") => schema["maximum"].is_i64(),
                None => schema["x-kubernetes-int-or-string"] == true && schema["maxLength"].is_u64(),
                Some(_) => true,
            };
            assert!(bounded, "spec{path} is not bounded: {schema}");
        }
    }
}

#[test]
fn every_list_with_names_is_a_map_by_them() {
    for version in versions() {
        let mut found = Vec::new();
        schemas("", &version["schema"]["openAPIV3Schema"], &mut found);
        for (path, schema) in found.iter().filter(|(_, schema)| schema["items"]["type"] == "object") {
            assert_eq!(schema["x-kubernetes-list-type"], "map", "{path}");
            let key = schema["x-kubernetes-list-map-keys"][0].as_str().unwrap();
            let required = schema["items"]["required"].as_array().unwrap();
            assert!(required.iter().any(|name| name == key), "{path}: {key}");
        }
    }
}

#[test]
fn no_rule_refers_to_the_status_and_every_rule_has_a_message() {
    let mut count = 0;
    for version in versions() {
        let mut found = Vec::new();
        schemas("", &version["schema"]["openAPIV3Schema"], &mut found);
        for (path, schema) in found {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(!path.starts_with(".status") && !rule["rule"].as_str().unwrap().contains("status"), "{rule}");
                assert!(rule["message"].as_str().is_some_and(|message| !message.is_empty()), "{rule}");
                count += 1;
            }
        }
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn fields_with_a_default_name_it() {
    let version = &versions()[0];
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for (field, default) in [
        ("walUrls", "Default: [{name: data, url: \"file:///workspace/data/wal\"}]"),
        ("distributionStrategy", "Default: LoadBalanced"),
        ("collectionAffinity", "Default: true"),
        ("memoryFlushSize", "Default: 1Mi"),
        ("globalFlushThreshold", "Default: 512Mi"),
        ("segmentSize", "Default: 64Mi"),
        ("compression", "Default: snappy"),
        ("bucketCommitInterval", "Default: 250ms"),
        ("onDamage", "Default: fail"),
    ] {
        let description = spec[field]["description"].as_str().unwrap();
        assert!(description.contains(default), "{field}: {description}");
    }
}

#[test]
fn names_columns_and_scope_are_those_of_the_documentation() {
    let manifests = all().unwrap();
    let columns = |index: usize| {
        let columns = &manifests[index].definition["spec"]["versions"][0]["additionalPrinterColumns"];
        columns.as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(columns(0), ["Ready", "Pods", "Outdated", "Orphaned", "Unapplied", "Age"]);
    assert_eq!(columns(1), ["Phase", "Pod", "Workload", "Unapplied", "Drained", "Age"]);
    for (manifest, short) in manifests.iter().zip(["wal", "walw"]) {
        let spec = &manifest.definition["spec"];
        assert_eq!(spec["names"]["shortNames"], json!([short]));
        assert_eq!(spec["names"]["categories"], json!(["walstorage-dev"]));
        assert_eq!(spec["scope"], "Namespaced");
        assert_eq!(spec["versions"][0]["subresources"], json!({"status": {}}));
        assert_eq!(manifest.definition["metadata"]["annotations"][ANNOTATION_SCHEMA_REVISION], "1");
        assert_eq!(manifest.file, format!("{}.yaml", manifest.definition["metadata"]["name"].as_str().unwrap()));
    }
}

#[test]
fn a_rule_for_a_place_that_is_not_there_is_an_error() {
    let mut manifest = all().unwrap().remove(0).definition;
    assert_eq!(add_rule(&mut manifest, &["spec", "gone"], "true", ""), Err("the schema has no spec.gone".to_owned()));
}
