//! YAML in and out. The only module that knows which library reads it, so that it can be replaced in an hour.

use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;

/// The documents of a stream, empty ones left out, each with its place in the stream.
///
/// # Errors
/// What is wrong and where, as the library words it.
pub(crate) fn documents(text: &str) -> Result<Vec<(usize, Value)>, String> {
    let mut documents = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document).map_err(|error| error.to_string())?;
        if !value.is_null() {
            documents.push((index, value));
        }
    }
    Ok(documents)
}

/// A document that remembers the order of its keys, which JSON need not.
#[derive(Clone, Debug)]
pub(crate) struct Ordered(serde_yaml::Value);

/// The documents of a stream, empty ones left out.
///
/// # Errors
/// What is wrong and where, as the library words it.
pub(crate) fn ordered(text: &str) -> Result<Vec<Ordered>, String> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let documents = documents.map(|document| serde_yaml::Value::deserialize(document).map(Ordered));
    let documents: Vec<_> = documents.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    Ok(documents.into_iter().filter(|document| !document.0.is_null()).collect())
}

impl Ordered {
    /// The document as JSON.
    ///
    /// # Errors
    /// When a value has no form in JSON.
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::to_value(&self.0).map_err(|error| error.to_string())
    }

    /// Prints what has become of the document: keys that it had in their old order, new ones behind them.
    ///
    /// # Errors
    /// When a value has no form in YAML.
    pub(crate) fn print_as(&self, value: &Value) -> Result<String, String> {
        print(&like(Some(&self.0), value))
    }
}

fn like(old: Option<&serde_yaml::Value>, new: &Value) -> serde_yaml::Value {
    match new {
        Value::Object(map) => {
            let old = old.and_then(serde_yaml::Value::as_mapping);
            let known = old.into_iter().flat_map(serde_yaml::Mapping::keys).filter_map(serde_yaml::Value::as_str);
            let mut keys: Vec<&str> = known.filter(|key| map.contains_key(*key)).collect();
            let mut added: Vec<&str> = map.keys().map(String::as_str).filter(|key| !keys.contains(key)).collect();
            added.sort_unstable();
            keys.extend(added);
            let below = |key: &str| like(old.and_then(|old| old.get(key)), &map[key]);
            serde_yaml::Value::Mapping(keys.into_iter().map(|key| (key.into(), below(key))).collect())
        }
        Value::Array(items) => {
            let old = old.and_then(serde_yaml::Value::as_sequence);
            let named = |item: &Value| {
                let name = item.get("name")?.as_str()?;
                old?.iter().find(|old| old.get("name").and_then(serde_yaml::Value::as_str) == Some(name))
            };
            serde_yaml::Value::Sequence(items.iter().map(|item| like(named(item), item)).collect())
        }
        _ => sorted(new),
    }
}

/// One document of a stream as a type.
///
/// # Errors
/// What does not fit and where: path, line and column.
pub(crate) fn document<T: DeserializeOwned>(text: &str, index: usize) -> Result<T, String> {
    let document = serde_yaml::Deserializer::from_str(text).nth(index).ok_or("no such document")?;
    T::deserialize(document).map_err(|error| error.to_string())
}

/// A document, its keys in the order of the type.
///
/// # Errors
/// When a value has no form in YAML.
pub(crate) fn print<T: Serialize>(value: &T) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|error| error.to_string())
}

/// A document, its keys in the order of the alphabet.
///
/// # Errors
/// When a value has no form in YAML.
pub(crate) fn print_sorted(value: &Value) -> Result<String, String> {
    print(&sorted(value))
}

/// Sorts by hand: the order of a JSON map depends on which features of its library other crates of a build ask for.
fn sorted(value: &Value) -> serde_yaml::Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries = entries.into_iter().map(|(key, value)| (key.as_str().into(), sorted(value)));
            serde_yaml::Value::Mapping(entries.collect())
        }
        Value::Array(items) => serde_yaml::Value::Sequence(items.iter().map(sorted).collect()),
        Value::String(text) => text.as_str().into(),
        Value::Bool(yes) => (*yes).into(),
        Value::Null => serde_yaml::Value::Null,
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().unwrap_or_default().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_document_keeps_the_order_of_its_keys() {
        let text = "kind: Pod\nspec:\n  z: 1\n  list:\n  - value: 2\n    name: b\n  a: 3\n---\n---\nx: 1\n";
        let documents = ordered(text).unwrap();
        assert_eq!(documents.len(), 2);
        let mut value = documents[0].json().unwrap();
        value["spec"]["list"].as_array_mut().unwrap().insert(0, json!({"value": 4, "name": "new"}));
        value["spec"]["new"] = json!({});
        assert_eq!(
            documents[0].print_as(&value).unwrap(),
            "kind: Pod\nspec:\n  z: 1\n  list:\n  - name: new\n    value: 4\n  - value: 2\n    name: b\n  a: 3\n  new: {}\n"
        );
    }
}
