//! Reading and printing a WalStorage as a user writes it.
//!
//! An unknown field is an error here, as it is for `kubectl apply`: a misspelt field would silently keep its default. So
//! is an empty (null) one, because `compression: null` means the codec to a reader and nothing at all to YAML.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::{Map, Value};
use walstorage_crds::manifests;
use walstorage_crds::names::API_VERSION;
use walstorage_crds::walstorage::{WalStorage, WalStorageSpec};

use crate::yaml;

fn is_storage(value: &Value) -> bool {
    value.get("kind").and_then(Value::as_str) == Some("WalStorage")
}

/// Whether a stream of documents has a WalStorage in it; what is no YAML has none.
#[must_use]
pub fn has_storage(text: &str) -> bool {
    yaml::documents(text).is_ok_and(|documents| documents.iter().any(|(_, value)| is_storage(value)))
}

/// The one WalStorage of a stream of documents; documents of other kinds are left alone.
///
/// # Errors
/// Everything that is wrong, one sentence each.
pub fn read(text: &str) -> Result<WalStorage, Vec<String>> {
    let documents = yaml::documents(text).map_err(|error| vec![format!("not YAML: {error}")])?;
    let mut storages = documents.iter().filter(|(_, value)| is_storage(value));
    let Some((index, value)) = storages.next() else {
        return Err(vec!["no document of kind WalStorage; allowed: exactly one".to_owned()]);
    };
    let more = storages.count();
    if more > 0 {
        return Err(vec![format!("{} documents of kind WalStorage; allowed: exactly one", more + 1)]);
    }
    let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if version != API_VERSION {
        return Err(vec![format!("apiVersion = {version:?}: not known to this version; allowed: {API_VERSION}")]);
    }
    let fields = check_fields(value)?;
    match yaml::document(text, *index) {
        Ok(storage) if fields.is_empty() => Ok(storage),
        Ok(_) => Err(fields),
        Err(error) => Err([vec![error], fields].concat()),
    }
}

/// What a resource is printed as: no status, no empty metadata.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    spec: &'a WalStorageSpec,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
}

/// The resource as a document, fields in the order of the documentation.
///
/// # Errors
/// When a value has no form in YAML.
pub fn print(storage: &WalStorage) -> Result<String, String> {
    let name = storage.metadata.name.as_deref().unwrap_or_default();
    yaml::print(&Printed {
        api_version: API_VERSION,
        kind: "WalStorage",
        metadata: Metadata { name },
        spec: &storage.spec,
    })
}

/// The schema of `spec`, made once.
static SPEC: LazyLock<Result<Value, String>> = LazyLock::new(|| {
    let manifests = manifests::all()?;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let spec = manifests.first().and_then(|manifest| manifest.definition.pointer(path));
    spec.cloned().ok_or_else(|| "the manifest has no schema of spec".to_owned())
});

/// Every field that the schema does not have, and every empty one.
fn check_fields(storage: &Value) -> Result<Vec<String>, Vec<String>> {
    let schema = SPEC.as_ref().map_err(|error| vec![error.clone()])?;
    let mut found = Vec::new();
    for key in storage.as_object().into_iter().flat_map(Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.as_str()) {
            found.push(format!("{key}: unknown field; allowed: apiVersion, kind, metadata, spec"));
        }
    }
    if let Some(spec) = storage.get("spec") {
        walk("spec", spec, schema, &mut found);
    }
    Ok(found)
}

fn walk(path: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    match value {
        Value::Null => {
            let names = schema.get("enum").and_then(Value::as_array);
            let quoted = names.is_some_and(|names| names.iter().any(|name| name == "null"));
            let remedy = if quoted { "; for the value of that name write \"null\" in quotes" } else { "" };
            found.push(format!("{path}: empty, which YAML reads as not given; leave it out{remedy}"));
        }
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, value) in map {
                let below = properties.and_then(|properties| properties.get(key));
                let field = format!("{path}.{key}");
                match below.or_else(|| schema.get("additionalProperties")) {
                    Some(below) => walk(&field, value, below, found),
                    None => {
                        let mut known: Vec<&str> =
                            properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                        known.sort_unstable();
                        found.push(format!("{field}: unknown field; allowed: {}", known.join(", ")));
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{path}[{index}]"), item, schema.get("items").unwrap_or(&Value::Null), found);
            }
        }
        // The library would take `name: 1` for a text, the API server would not.
        Value::Bool(_) | Value::Number(_) if schema.get("type").and_then(Value::as_str) == Some("string") => {
            found.push(format!("{path} = {value}: not a string; allowed: the same in quotes"));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(spec: &str) -> String {
        format!("apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata: {{name: orders}}\nspec: {spec}\n")
    }

    fn errors(text: &str) -> Vec<String> {
        read(text).map(|storage| format!("{storage:?}")).unwrap_err()
    }

    #[test]
    fn documents_of_other_kinds_are_left_alone() {
        let text = format!("---\n---\nkind: Deployment\nspec: {{anything: [1]}}\n---\n{}", storage("{}"));
        assert_eq!(read(&text).unwrap().metadata.name.unwrap(), "orders");
    }

    #[test]
    fn exactly_one_storage_is_rendered() {
        assert_eq!(errors("kind: Pod"), ["no document of kind WalStorage; allowed: exactly one"]);
        assert_eq!(errors(""), ["no document of kind WalStorage; allowed: exactly one"]);
        let two = format!("{}---\n{}", storage("{}"), storage("{}"));
        assert_eq!(errors(&two), ["2 documents of kind WalStorage; allowed: exactly one"]);
    }

    #[test]
    fn wrong_documents_say_where_and_what() {
        for (text, expected) in [
            ("a: [", "not YAML: did not find expected node content at line 2 column 1, while parsing a flow node"),
            (
                "kind: WalStorage\napiVersion: walstorage.dev/v2",
                "apiVersion = \"walstorage.dev/v2\": not known to this version; allowed: walstorage.dev/v1alpha1",
            ),
            (
                &storage("{compression: gzip}"),
                "spec.compression: unknown variant `gzip`, expected one of `null`, `snappy`, `zstandard` at line 4 column 21",
            ),
            (
                &storage("{memoryFlushSize: 2e6}"),
                "spec.memoryFlushSize: invalid type: floating point `2000000.0`, expected a whole number, or a quantity in quotes at line 4 column 25",
            ),
            (
                &storage("{walUrls: [{name: 1, url: 'file:///a'}]}"),
                "spec.walUrls[0].name = 1: not a string; allowed: the same in quotes",
            ),
        ] {
            assert_eq!(errors(text), [expected]);
        }
    }

    #[test]
    fn unknown_and_empty_fields_are_errors() {
        let spec =
            "{walUrls: [{name: a, url: 'file:///a', size: 1Gi}], sidecar: {image: x}, compression: null, journal: }";
        assert_eq!(
            errors(&format!("{}extra: 1\n", storage(spec))),
            [
                "extra: unknown field; allowed: apiVersion, kind, metadata, spec",
                "spec.compression: empty, which YAML reads as not given; leave it out; for the value of that name write \"null\" in quotes",
                "spec.journal: empty, which YAML reads as not given; leave it out",
                "spec.sidecar.image: unknown field; allowed: adminPort, drainSeconds, logLevel, resources",
                "spec.walUrls[0].size: unknown field; allowed: bucket, name, url, volume",
            ]
        );
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let text = storage("{walUrls: [{name: a, url: 'file:///a'}], compression: 'null', memoryFlushSize: 5}");
        let printed = print(&read(&text).unwrap()).unwrap();
        assert_eq!(
            printed,
            "apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata:\n  name: orders\nspec:\n  walUrls:\n  - name: a\n    \
             url: file:///a\n  memoryFlushSize: 5\n  compression: 'null'\n"
        );
        assert_eq!(print(&read(&printed).unwrap()).unwrap(), printed);
    }
}
