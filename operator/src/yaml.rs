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
