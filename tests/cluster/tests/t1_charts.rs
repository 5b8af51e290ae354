//! The charts on a real API server: every object is accepted, upgraded and taken away as promised, and the service
//! accounts may do what they need, and no more.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use walstorage_cluster_tests::binaries::repository;
use walstorage_cluster_tests::{ControlPlane, eventually};

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

/// Installs or upgrades both charts, the operator's as release `wal` in the namespace `system`.
fn install(plane: &ControlPlane, values: &[&str]) {
    plane.helm(&["upgrade", "--install", "types", &chart("walstorage-crds")]).expect("the types are accepted");
    let chart = chart("walstorage");
    let mut arguments = vec!["upgrade", "--install", "wal", &chart, "--namespace", "system", "--create-namespace"];
    arguments.extend(values);
    plane.helm(&arguments).expect("the chart is accepted");
}

#[tokio::test]
async fn the_charts_install_upgrade_and_leave_what_users_have() {
    let plane = ControlPlane::start().await.expect("a control plane");
    // What is off by itself, as far as its types are the API server's own.
    let more = ["--set=networkPolicy.enabled=true,dashboard.enabled=true", "--set=webhook.replicas=1"];
    install(&plane, &[]);
    install(&plane, &more);
    let storage = "apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata: {name: orders}\nspec: {}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), storage).unwrap();
    let path = file.path().display().to_string();
    eventually("the type is served", || async { plane.kubectl(&["apply", "-f", &path]) }).await;
    plane.helm(&["uninstall", "wal", "--namespace", "system"]).expect("uninstalled");
    plane.helm(&["uninstall", "types"]).expect("uninstalled");
    let left = plane
        .kubectl(&["get", "mutatingwebhookconfigurations,validatingadmissionpolicies,clusterroles", "-o", "name"])
        .unwrap();
    assert!(!left.contains("/wal-"), "{left}");
    assert_eq!(plane.kubectl(&["get", "walstorages", "-o", "name"]).unwrap(), "walstorage.walstorage.dev/orders\n");
    install(&plane, &[]);
    assert_eq!(plane.kubectl(&["get", "wal", "-o", "name"]).unwrap(), "walstorage.walstorage.dev/orders\n");
    let dry = plane.helm(&["upgrade", "wal", &chart("walstorage"), "--namespace", "system", "--dry-run=server"]);
    assert!(dry.expect("rendered against the server").contains("kubectl apply -f -"), "the notes are printed");
}

#[tokio::test]
async fn what_the_types_of_others_are_needed_for_is_as_they_want_it() {
    let plane = ControlPlane::start().await.expect("a control plane");
    for (group, kind, plural) in [
        ("monitoring.coreos.com", "PodMonitor", "podmonitors"),
        ("monitoring.coreos.com", "PrometheusRule", "prometheusrules"),
        ("cert-manager.io", "Certificate", "certificates"),
        ("cert-manager.io", "Issuer", "issuers"),
    ] {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), definition.to_string()).unwrap();
        plane.kubectl(&["create", "-f", &file.path().display().to_string()]).expect("a stand-in of the type");
        eventually("it is served", || async { plane.kubectl(&["get", plural]) }).await;
    }
    install(&plane, &["--set=podMonitor.enabled=true,prometheusRule.enabled=true,certificates.mode=certManager"]);
    let names = plane
        .kubectl(&["-n", "system", "get", "podmonitors,prometheusrules,certificates,issuers", "-o", "name"])
        .unwrap();
    assert_eq!(names.lines().count(), 5, "{names}");
}

#[tokio::test]
async fn the_service_accounts_may_do_what_they_need_and_no_more() {
    let plane = ControlPlane::start().await.expect("a control plane");
    install(&plane, &[]);
    let may = |account: &str, what: &[&str]| -> anyhow::Result<bool> {
        let user = format!("--as=system:serviceaccount:system:wal-{account}");
        let output = plane.command("kubectl").args(["auth", "can-i"]).args(what).arg(user).output()?;
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => bail!("{}", String::from_utf8_lossy(&output.stderr)),
        }
    };
    let table: [(&str, &[&str], bool); 27] = [
        ("controller", &["patch", "pods", "-n", "shop"], true),
        ("controller", &["delete", "pods", "-n", "shop"], true),
        ("controller", &["create", "pods", "-n", "shop"], false),
        ("controller", &["create", "pods/exec", "-n", "shop"], false),
        ("controller", &["create", "jobs.batch", "-n", "shop"], false),
        ("controller", &["delete", "persistentvolumeclaims", "-n", "shop"], true),
        ("controller", &["create", "configmaps", "-n", "shop"], true),
        ("controller", &["patch", "walwriters/status", "-n", "shop"], true),
        ("controller", &["update", "walstorages/finalizers", "-n", "shop"], true),
        ("controller", &["list", "storageclasses"], true),
        ("controller", &["get", "secrets", "-n", "shop"], false),
        ("controller", &["get", "secrets/other", "-n", "system"], false),
        ("controller", &["get", "secrets/wal-webhook-tls", "-n", "system"], true),
        ("controller", &["update", "leases/walstorage-controller", "-n", "system"], true),
        ("controller", &["update", "leases/other", "-n", "system"], false),
        ("controller", &["patch", "mutatingwebhookconfigurations/wal-webhook"], true),
        ("controller", &["patch", "mutatingwebhookconfigurations/other"], false),
        ("controller", &["get", "customresourcedefinitions/walstorages.walstorage.dev"], true),
        ("controller", &["patch", "customresourcedefinitions/walstorages.walstorage.dev"], false),
        ("controller", &["escalate", "clusterroles"], false),
        ("webhook", &["watch", "pods", "-n", "shop"], true),
        ("webhook", &["watch", "walwriters", "-n", "shop"], true),
        ("webhook", &["patch", "pods", "-n", "shop"], false),
        ("webhook", &["create", "walwriters", "-n", "shop"], false),
        ("webhook", &["get", "secrets/wal-webhook-tls", "-n", "system"], true),
        ("webhook", &["update", "secrets/wal-webhook-tls", "-n", "system"], false),
        ("webhook", &["get", "secrets", "-n", "shop"], false),
    ];
    for (account, what, expected) in table {
        eventually(&format!("{account}: {what:?} is {expected}"), || async {
            let may = may(account, what).context("kubectl auth can-i")?;
            if may == expected { Ok(()) } else { Err(anyhow!("it is {may}")) }
        })
        .await;
    }
}
