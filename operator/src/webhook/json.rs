//! Small ways through raw JSON. A pod is never a type here, so that fields that this build does not know survive.
//!
//! Reading takes what is not there, or is of another kind than the API server would send, for empty; writing makes it.

use std::mem;

use serde_json::{Map, Value};

/// The list at a pointer such as `/spec/containers`; empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at a pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The field `name` of an element of a list.
pub(crate) fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A label or annotation: `kind` is `labels` or `annotations`. Their keys have slashes, which pointers would have to escape.
pub(crate) fn meta<'a>(pod: &'a Value, kind: &str, key: &str) -> Option<&'a str> {
    pod.get("metadata")?.get(kind)?.get(key)?.as_str()
}

/// The object at this field, made when it is not there.
pub(crate) fn object_mut<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert_with(|| Value::Object(Map::new()));
    as_object_mut(value)
}

/// A value as an object; what is none becomes an empty one.
pub(crate) fn as_object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        // The value was made an object above.
        _ => unreachable!("an object"),
    }
}

/// Changes the list at this field; it is made when it is not there, and removed when it is empty afterwards, as the API
/// server does it.
pub(crate) fn edit_list<T>(parent: &mut Map<String, Value>, key: &str, edit: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    let mut list = match parent.get_mut(key) {
        Some(Value::Array(list)) => mem::take(list),
        _ => Vec::new(),
    };
    let done = edit(&mut list);
    if list.is_empty() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), Value::Array(list));
    }
    done
}

/// Changes the object at this field; made and removed like a list in [`edit_list`].
pub(crate) fn edit_object<T>(
    parent: &mut Map<String, Value>,
    key: &str,
    edit: impl FnOnce(&mut Map<String, Value>) -> T,
) -> T {
    let mut map = match parent.get_mut(key) {
        Some(Value::Object(map)) => mem::take(map),
        _ => Map::new(),
    };
    let done = edit(&mut map);
    if map.is_empty() {
        parent.remove(key);
    } else {
        parent.insert(key.to_owned(), Value::Object(map));
    }
    done
}

/// The same value with every key in the order of the alphabet, as one line: equal values have equal bytes.
pub(crate) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_becomes_empty_is_removed_and_what_is_missing_is_made() {
        let mut value = json!({"list": [1], "odd": 3});
        let map = as_object_mut(&mut value);
        edit_list(map, "list", Vec::clear);
        edit_list(map, "odd", |list| list.push(json!(4)));
        edit_object(map, "new", |object| object.insert("a".to_owned(), json!(1)));
        edit_object(map, "none", |_| ());
        assert_eq!(value, json!({"odd": [4], "new": {"a": 1}}));
    }

    #[test]
    fn equal_values_have_equal_bytes() {
        assert_eq!(
            canonical(&json!({"b": [1, {"d": null, "c": "\""}], "a": true})),
            r#"{"a":true,"b":[1,{"c":"\"","d":null}]}"#
        );
    }
}
