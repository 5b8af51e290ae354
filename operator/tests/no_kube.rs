//! The sidecar knows no Kubernetes: no crate of it is in the sidecar's dependency tree.

#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Names of the crates that a package links, and the packages that it builds with.
fn dependencies(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--edges", "normal,build", "--package", package])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn of_kubernetes(name: &str) -> bool {
    name == "kube" || name.starts_with("kube-") || name == "k8s-openapi" || name.starts_with("schemars")
}

#[test]
fn the_sidecars_dependency_tree_has_no_kubernetes() {
    let sidecar = dependencies("walstorage-sidecar");
    assert!(sidecar.iter().any(|name| name == "walstorage-crds"), "{sidecar:?}");
    let found: Vec<_> = sidecar.iter().filter(|name| of_kubernetes(name)).collect();
    assert!(found.is_empty(), "the sidecar depends on {found:?}");
}

#[test]
fn the_operators_dependency_tree_shows_that_the_check_sees_it() {
    let operator = dependencies("walstorage-operator");
    for name in ["kube", "kube-core", "k8s-openapi", "schemars"] {
        assert!(operator.iter().any(|found| found == name) && of_kubernetes(name), "{name} is not in {operator:?}");
    }
}
