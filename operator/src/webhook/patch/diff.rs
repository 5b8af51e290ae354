//! From what a pod was to what it becomes, as RFC 6902 operations that touch nothing else.
//!
//! Lists are compared from both ends, so that an element put in is one `add` and not a rewriting of all that follow: audit
//! logs show what was done.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

/// The operations that make `new` of `old`.
pub(crate) fn diff(old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(&mut PointerBuf::new(), old, new, &mut operations);
    Patch(operations)
}

fn below(path: &PointerBuf, token: &str) -> PointerBuf {
    let mut path = path.clone();
    path.push_back(token);
    path
}

fn compare(path: &mut PointerBuf, old: &Value, new: &Value, out: &mut Vec<PatchOperation>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                out.push(PatchOperation::Remove(RemoveOperation { path: below(path, key) }));
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(old) => compare(&mut below(path, key), old, value, out),
                    None => {
                        out.push(PatchOperation::Add(AddOperation { path: below(path, key), value: value.clone() }))
                    }
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => compare_lists(path, old, new, out),
        _ => out.push(PatchOperation::Replace(ReplaceOperation { path: path.clone(), value: new.clone() })),
    }
}

fn compare_lists(path: &PointerBuf, old: &[Value], new: &[Value], out: &mut Vec<PatchOperation>) {
    let head = old.iter().zip(new).take_while(|(old, new)| same(old, new)).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| same(old, new)).count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let shared = (old_end - head).min(new_end - head);
    // What is in both first, while the places of the old list still hold.
    for index in 0..head + shared {
        compare(&mut below(path, &index.to_string()), &old[index], &new[index], out);
    }
    for offset in 0..tail {
        compare(&mut below(path, &(old_end + offset).to_string()), &old[old_end + offset], &new[new_end + offset], out);
    }
    for index in (head + shared..old_end).rev() {
        out.push(PatchOperation::Remove(RemoveOperation { path: below(path, &index.to_string()) }));
    }
    for (index, value) in new.iter().enumerate().take(new_end).skip(head + shared) {
        out.push(PatchOperation::Add(AddOperation { path: below(path, &index.to_string()), value: value.clone() }));
    }
}

/// Whether two elements are one: by name where they have names.
fn same(old: &Value, new: &Value) -> bool {
    match (old.get("name"), new.get("name")) {
        (Some(old), Some(new)) => old == new,
        _ => old == new,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_element_put_in_is_one_operation() {
        let old = json!({"list": [{"name": "a"}, {"name": "b", "x": 1}]});
        let new = json!({"list": [{"name": "w"}, {"name": "a"}, {"name": "b", "x": 2}], "a/b": 1});
        assert_eq!(
            serde_json::to_value(diff(&old, &new)).unwrap(),
            json!([
                {"op": "add", "path": "/a~1b", "value": 1},
                {"op": "replace", "path": "/list/1/x", "value": 2},
                {"op": "add", "path": "/list/0", "value": {"name": "w"}},
            ])
        );
        assert!(diff(&new, &new).0.is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..4_i64).prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ab/~0]{0,2}|name", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_operations_make_the_new_of_the_old(old in value(), new in value()) {
            let mut patched = old.clone();
            json_patch::patch(&mut patched, &diff(&old, &new)).unwrap();
            prop_assert_eq!(patched, new);
        }
    }
}
