//! The control plane of the tests: it is its test's own, and nothing of it is left.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use walstorage_cluster_tests::{ControlPlane, eventually};

fn folder(plane: &ControlPlane) -> PathBuf {
    plane.kubeconfig().parent().and_then(Path::parent).unwrap().to_owned()
}

/// Processes whose command line contains `text`.
fn processes(text: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(text) {
            found.push((id, command));
        }
    }
    found
}

fn parent(process: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn control_planes_do_not_know_each_other_and_leave_nothing() {
    let (first, second) = tokio::join!(ControlPlane::start(), ControlPlane::start());
    let (first, second) = (first.unwrap(), second.unwrap());
    let namespace = first.namespace("only-here").await;
    let namespaces = |plane: &ControlPlane| plane.kubectl(&["get", "namespaces", "-o", "name"]).unwrap();
    assert!(namespaces(&first).contains(&namespace));
    assert!(!namespaces(&second).contains(&namespace));
    let gone = folder(&first);
    let name = gone.to_str().unwrap().to_owned();
    assert_eq!(processes(&name).len(), 2, "etcd and the API server");
    drop(first);
    assert_eq!(processes(&name), []);
    assert!(!gone.exists());
    namespaces(&second);
}

/// A supervisor that is itself killed takes its daemons with it; the next one removes its folder.
#[tokio::test]
async fn a_killed_supervisor_leaves_a_folder_only_and_the_next_removes_it() {
    let plane = ControlPlane::start().await.unwrap();
    let folder = folder(&plane);
    let name = folder.to_str().unwrap().to_owned();
    let daemons = processes(&name);
    let supervisor = parent(daemons[0].0);
    assert!(daemons.iter().all(|(id, _)| parent(*id) == supervisor), "{daemons:?}");
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    eventually("its daemons are gone", || async {
        let left = processes(&name);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert!(folder.exists());
    let _next = ControlPlane::start().await.unwrap();
    assert!(!folder.exists());
}
