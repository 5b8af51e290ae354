//! The committed manifests are those of the types.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use walstorage_operator::manifests;

#[test]
fn the_committed_manifests_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let files = manifests::files().unwrap();
    assert_eq!(files.len(), 2);
    for (name, text) in &files {
        let committed = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            committed == *text,
            "crds/{name} differs from the types; write it anew with: cargo run -p walstorage-operator -- crds --dir crds"
        );
    }
    let yaml = |name: &std::ffi::OsStr| Path::new(name).extension().is_some_and(|extension| extension == "yaml");
    let found = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<String> = found.filter(|name| yaml(name)).map(|name| name.into_string().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, files.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>(), "files without a type");
}
