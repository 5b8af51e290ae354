//! The manifests of the resources: the schemas of the types, finished.
//!
//! What the derived schema cannot say is added here, all in one table: rules in CEL, keys of lists. And two things are
//! taken away: `default`, so that no default of today is frozen into stored objects, and `nullable`, so that the API
//! server drops a `null` before a rule sees it. No rule refers to the status. The rules are the fast message; the
//! operator judges again, with the ledger at hand.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::names::{ANNOTATION_SCHEMA_REVISION, SCHEMA_REVISION};
use crate::walstorage::WalStorage;
use crate::walwriter::WalWriter;

/// A manifest and the file that holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name in `crds/`.
    pub file: &'static str,
    /// What is applied.
    pub definition: Value,
}

/// A rule of one place in a schema.
struct Rule {
    /// Properties from the root; `[]` is the items of a list.
    at: &'static [&'static str],
    rule: &'static str,
    message: &'static str,
}

const ITEM: &[&str] = &["spec", "walUrls", "[]"];
const JOURNAL: &[&str] = &["spec", "journal"];

/// Rules of one URL, in `walUrls` and as `journal`.
const URL_RULES: [(&str, &str); 8] = [
    (
        r"!self.url.startsWith('file://') || self.url.matches('^file://(/[A-Za-z0-9._-]+)+$')",
        "a file:// URL is file:// and an absolute path of A-Z, a-z, 0-9, ., _ and -, without a slash at its end",
    ),
    (r"!self.url.matches('/[.][.]?(/|$)')", "a URL has no segment . or .."),
    (
        r"!self.url.matches('^file:///(proc|sys|dev|etc|run|tmp)(/|$)')",
        "a claim is not mounted at or below /proc, /sys, /dev, /etc, /run or /tmp",
    ),
    (r"!self.url.matches('[?#]|^(s3|gcs|gs|adls)://[^/]*@')", "a URL has no user info, query or fragment"),
    ("!has(self.volume) || self.url.startsWith('file://')", "volume belongs to file:// URLs only"),
    ("!has(self.bucket) || !self.url.startsWith('file://')", "bucket belongs to bucket URLs only"),
    (
        "!has(self.volume) || !has(self.volume.size) || quantity(self.volume.size).isGreaterThan(quantity('0'))",
        "a volume's size is above zero",
    ),
    (
        "!has(self.bucket) || !has(self.bucket.credentials) || !has(self.bucket.credentials.secretName) || \
         !has(self.bucket.credentials.workloadIdentity)",
        "credentials are a secretName or a workloadIdentity, not both",
    ),
];

/// Rules of a change of one URL: list items are matched by name, the journal only with one of the same name.
const URL_CHANGE_RULES: [(&str, &str); 3] = [
    ("self.url == oldSelf.url", "the url of a name is immutable: add another name, then remove this one to drain it"),
    (
        "(has(self.volume) && has(self.volume.storageClassName)) == \
         (has(oldSelf.volume) && has(oldSelf.volume.storageClassName)) && \
         (!has(self.volume) || !has(self.volume.storageClassName) || \
         self.volume.storageClassName == oldSelf.volume.storageClassName)",
        "storageClassName is immutable: add another name, then remove this one to drain it",
    ),
    (
        "!has(self.volume) || !has(self.volume.size) || !has(oldSelf.volume) || !has(oldSelf.volume.size) || \
         quantity(self.volume.size).compareTo(quantity(oldSelf.volume.size)) >= 0",
        "a volume's size may only grow",
    ),
];

const STORAGE_RULES: [Rule; 7] = [
    Rule {
        at: &[],
        rule: "self.metadata.name.size() <= 40 && !self.metadata.name.contains('--') && !self.metadata.name.contains('.')",
        message: "the name is a DNS label of at most 40 characters without --",
    },
    Rule {
        at: &["spec"],
        rule: "!has(self.walUrls) || self.walUrls.all(a, self.walUrls.all(b, a.name == b.name || \
               (a.url != b.url && !a.url.startsWith(b.url + '/'))))",
        message: "each URL stands once in walUrls, and none is inside of another",
    },
    Rule {
        at: &["spec"],
        rule: "!has(self.journal) || !has(self.walUrls) || self.walUrls.all(u, u.name != self.journal.name && \
               u.url != self.journal.url && !u.url.startsWith(self.journal.url + '/') && \
               !self.journal.url.startsWith(u.url + '/'))",
        message: "the journal has a name and a URL of its own, not inside of another and with none inside",
    },
    Rule {
        at: &["spec", "volumeDefaults"],
        rule: "!has(self.size) || quantity(self.size).isGreaterThan(quantity('0'))",
        message: "a volume's size is above zero",
    },
    Rule {
        at: &["spec"],
        rule: "(has(self.volumeDefaults) && has(self.volumeDefaults.storageClassName)) == \
               (has(oldSelf.volumeDefaults) && has(oldSelf.volumeDefaults.storageClassName)) && \
               (!has(self.volumeDefaults) || !has(self.volumeDefaults.storageClassName) || \
               self.volumeDefaults.storageClassName == oldSelf.volumeDefaults.storageClassName)",
        message: "storageClassName is immutable: name it for each new URL",
    },
    Rule {
        at: &["spec", "volumeDefaults"],
        rule: "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
        message: "a volume's size may only grow",
    },
    Rule {
        at: &["spec", "sidecar", "adminPort"],
        rule: "self == 0 || self >= 1024",
        message: "adminPort is 0 (none) or 1024 to 65535",
    },
];

const WRITER_RULES: [Rule; 1] =
    [Rule { at: &["spec"], rule: "self == oldSelf", message: "the operator's record of a writer is immutable" }];

/// Lists whose items have a key, so that two appliers can own an item each and rules can compare an item with itself.
const STORAGE_LISTS: [(&[&str], &str); 4] = [
    (&["spec", "walUrls"], "name"),
    (&["spec", "walUrls", "[]", "bucket", "credentials", "workloadIdentity", "env"], "name"),
    (&["status", "conditions"], "type"),
    (&["status", "urls"], "name"),
];
const WRITER_LISTS: [(&[&str], &str); 2] = [(&["status", "conditions"], "type"), (&["status", "volumes"], "name")];

/// Every manifest, in the order in which they are applied.
///
/// # Errors
/// When a rule names a place that the schema does not have; the text says which. A test keeps that from happening.
pub fn all() -> Result<Vec<Manifest>, String> {
    let mut storage = finished(&WalStorage::crd())?;
    for (rule, message) in URL_RULES {
        add_rule(&mut storage, ITEM, rule, message)?;
        add_rule(&mut storage, JOURNAL, rule, message)?;
    }
    for (rule, message) in URL_CHANGE_RULES {
        add_rule(&mut storage, ITEM, rule, message)?;
        add_rule(&mut storage, JOURNAL, &format!("self.name != oldSelf.name || ({rule})"), message)?;
    }
    for Rule { at, rule, message } in STORAGE_RULES {
        add_rule(&mut storage, at, rule, message)?;
    }
    key_lists(&mut storage, &STORAGE_LISTS)?;
    let journal_env = &["spec", "journal", "bucket", "credentials", "workloadIdentity", "env"];
    key_lists(&mut storage, &[(journal_env, "name")])?;
    let mut writer = finished(&WalWriter::crd())?;
    for Rule { at, rule, message } in WRITER_RULES {
        add_rule(&mut writer, at, rule, message)?;
    }
    key_lists(&mut writer, &WRITER_LISTS)?;
    Ok(vec![
        Manifest { file: "walstorages.walstorage.dev.yaml", definition: storage },
        Manifest { file: "walwriters.walstorage.dev.yaml", definition: writer },
    ])
}

/// The definition as a value, without what must not be in it.
fn finished(definition: &CustomResourceDefinition) -> Result<Value, String> {
    let mut value = serde_json::to_value(definition).map_err(|error| error.to_string())?;
    strip(&mut value);
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut).ok_or("a manifest has metadata")?;
    metadata.insert("annotations".to_owned(), json!({ANNOTATION_SCHEMA_REVISION: SCHEMA_REVISION.to_string()}));
    Ok(value)
}

/// Removes `default` and `nullable`, and writes whole numbers as such.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("nullable");
            map.remove("default");
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        // Bounds are floating point in the derived schema.
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15) {
                *value = json!(whole as i64);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The schema of one place.
fn schema_at<'v>(definition: &'v mut Value, at: &[&str]) -> Result<&'v mut Map<String, Value>, String> {
    let mut schema = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema");
    for step in at {
        schema = schema.and_then(|schema| match *step {
            "[]" => schema.get_mut("items"),
            property => schema.get_mut("properties").and_then(|properties| properties.get_mut(property)),
        });
    }
    schema.and_then(Value::as_object_mut).ok_or_else(|| format!("the schema has no {}", at.join(".")))
}

fn add_rule(definition: &mut Value, at: &[&str], rule: &str, message: &str) -> Result<(), String> {
    let rules = schema_at(definition, at)?.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({"rule": rule, "message": message}));
    }
    Ok(())
}

fn key_lists(definition: &mut Value, lists: &[(&[&str], &str)]) -> Result<(), String> {
    for (at, key) in lists {
        let schema = schema_at(definition, at)?;
        schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
        schema.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
