//! The pod security standard "restricted", as Kubernetes words it, for pods as raw JSON.

use serde_json::{Value, json};

use super::{Case, Origin, pod};
use crate::webhook::json::{list, name, text};

const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// Everything in a pod that the standard does not admit.
pub(super) fn breaches(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.pointer(&format!("/spec/{key}")) == Some(&json!(true)) {
            found.push(key.to_owned());
        }
    }
    for volume in list(pod, "/spec/volumes") {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        found.extend(kinds.filter(|kind| !VOLUMES.contains(&kind.as_str())).map(|kind| format!("volume {kind}")));
    }
    let context = pod.pointer("/spec/securityContext").cloned().unwrap_or_default();
    for container in list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")) {
        let own = container.get("securityContext").cloned().unwrap_or_default();
        let either = |key: &str| own.get(key).or_else(|| context.get(key)).cloned().unwrap_or_default();
        let mut check = |fine: bool, what: &str| {
            if !fine {
                found.push(format!("{}: {what}", name(container)));
            }
        };
        check(own.get("allowPrivilegeEscalation") == Some(&json!(false)), "allowPrivilegeEscalation");
        check(own.get("privileged").is_none_or(|yes| yes == false), "privileged");
        check(either("runAsNonRoot") == json!(true), "runAsNonRoot");
        check(either("runAsUser") != json!(0), "runAsUser");
        let seccomp = either("seccompProfile");
        check(["RuntimeDefault", "Localhost"].contains(&text(&seccomp, "/type").unwrap_or_default()), "seccompProfile");
        check(list(&own, "/capabilities/drop").contains(&json!("ALL")), "capabilities.drop");
        check(list(&own, "/capabilities/add").iter().all(|add| add == "NET_BIND_SERVICE"), "capabilities.add");
        let ports = list(container, "/ports");
        check(ports.iter().all(|port| port.get("hostPort").is_none_or(|port| port == 0)), "hostPort");
    }
    found
}

/// The same for our container and its volumes alone.
pub(super) fn breaches_of_ours(pod: &Value) -> Vec<String> {
    let container = list(pod, "/spec/initContainers").iter().find(|container| name(container) == "walstorage").unwrap();
    let mounted: Vec<_> = list(container, "/volumeMounts").iter().map(name).collect();
    let volumes: Vec<_> =
        list(pod, "/spec/volumes").iter().filter(|volume| mounted.contains(&name(volume))).cloned().collect();
    let context = pod.pointer("/spec/securityContext");
    let ours = json!({"spec": {"initContainers": [container], "volumes": volumes, "securityContext": context}});
    breaches(&ours)
}

#[test]
fn what_is_added_is_restricted_whatever_the_pod_is() {
    for context in [
        json!({}),
        json!({"runAsUser": 0}),
        json!({"runAsNonRoot": false}),
        json!({"seccompProfile": {"type": "Unconfined"}}),
    ] {
        let mut pod = pod();
        pod["spec"]["securityContext"] = context;
        let out = Case::standard().inject(&pod, Origin::User).unwrap();
        assert_eq!(breaches_of_ours(&out), Vec::<String>::new());
        assert!(!breaches(&out).is_empty(), "the user's own container is not");
    }
}
