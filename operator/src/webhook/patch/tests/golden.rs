//! Pods of every kind, committed as they go in and as they come out. `WALSTORAGE_WRITE_GOLDEN=1` writes what comes out anew.
//!
//! `tests/golden/pods/<case>.yaml` holds two documents: what is known about the pod, and the pod. What comes out is in
//! `<case>.out.yaml`. Every case is also held to what holds of every pod.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use walstorage_crds::walwriter::WriterVolume;

use super::restricted::{breaches, breaches_of_ours};
use super::{Case, Origin};
use crate::webhook::patch::patch;
use crate::yaml;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Known {
    /// What the case shows.
    #[expect(dead_code, reason = "for readers")]
    shows: String,
    spec: Value,
    writer: String,
    workload: String,
    #[serde(default)]
    ledger: Vec<WriterVolume>,
    #[serde(default)]
    rendered: bool,
    /// The namespace enforces the standard "restricted".
    #[serde(default)]
    restricted: bool,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pods")
}

fn cases() -> Vec<(String, Known, Value)> {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".yaml")?.to_owned()).filter(|name| !name.ends_with(".out")))
        .collect();
    names.sort();
    let case = |name: String| {
        let text = fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
        let documents = yaml::documents(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let [known, pod] = documents.as_slice() else { panic!("{name}: two documents") };
        let known = yaml::document(&text, known.0).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, known, pod.1.clone())
    };
    names.into_iter().map(case).collect()
}

#[test]
fn every_kind_of_pod_becomes_what_is_committed() {
    let write = std::env::var_os("WALSTORAGE_WRITE_GOLDEN").is_some();
    let all = cases();
    assert!(all.len() >= 20, "{} cases", all.len());
    let mut wrong = Vec::new();
    for (name, known, pod) in all {
        let mut case = Case::new(&known.spec);
        case.writer = known.writer;
        case.workload = known.workload;
        case.ledger = known.ledger;
        let origin = if known.rendered { Origin::Rendered } else { Origin::User };
        let out = case.inject(&pod, origin).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));

        let mut patched = pod.clone();
        let operations = patch(&pod, origin, case.storage(), &case.proposal(), &case.settings).unwrap();
        json_patch::patch(&mut patched, &operations).unwrap();
        assert_eq!(patched, out, "{name}: the operations make the pod");
        assert_eq!(case.again(&out), out, "{name}: a second call changes nothing");
        assert_eq!(breaches_of_ours(&out), Vec::<String>::new(), "{name}: what we add is restricted");
        if known.restricted {
            assert_eq!(
                breaches(&out),
                Vec::<String>::new(),
                "{name}: the pod is admitted where the standard is enforced"
            );
        }

        let text = yaml::print_sorted(&out).unwrap();
        let path = folder().join(format!("{name}.out.yaml"));
        if write {
            fs::write(&path, text).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(name);
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "WALSTORAGE_WRITE_GOLDEN=1 writes these anew; look at the difference");
}
