//! Second calls: after the API server, after other webhooks, on copies and on restored pods.

use serde_json::{Value, json};

use super::{Case, pod};
use crate::webhook::json::{list, name};
use crate::webhook::patch::{Origin, Settings, pod_hash};

fn ours(pod: &Value) -> &Value {
    list(pod, "/spec/initContainers").iter().find(|container| name(container) == "walstorage").unwrap()
}

fn ours_mut(pod: &mut Value) -> &mut Value {
    let all = pod["spec"]["initContainers"].as_array_mut().unwrap();
    all.iter_mut().find(|container| container["name"] == "walstorage").unwrap()
}

#[test]
fn what_others_add_to_our_container_stays() {
    let case = Case::standard();
    let mut pod = case.first(&pod());
    let container = ours_mut(&mut pod);
    // A cloud's webhook, a LimitRange, AlwaysPullImages, a field of a later version.
    container["env"].as_array_mut().unwrap().push(json!({"name": "AWS_ROLE_ARN", "value": "arn"}));
    container["volumeMounts"].as_array_mut().unwrap().push(json!({"name": "aws-iam-token", "mountPath": "/aws"}));
    container["resources"]["limits"]["cpu"] = json!("2");
    container["imagePullPolicy"] = json!("Always");
    container["laterField"] = json!({"a": [1]});
    assert_eq!(case.again(&pod), pod);
}

#[test]
fn what_others_change_in_our_container_is_put_right() {
    let case = Case::standard();
    let first = case.first(&pod());
    let mut pod = first.clone();
    let container = ours_mut(&mut pod);
    container["image"] = json!("evil");
    container["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    container["env"][1]["value"] = json!("false");
    container["volumeMounts"][0]["mountPath"] = json!("/elsewhere");
    container["resources"]["limits"]["memory"] = json!("1Mi");
    assert_eq!(case.again(&pod), first);
}

#[test]
fn a_grant_never_survives_and_the_gate_is_put_back() {
    let case = Case::standard();
    for origin in [Origin::Sealed, Origin::Rendered] {
        let first = case.first(&pod());
        let mut restored = first.clone();
        restored["metadata"]["annotations"]["walstorage.dev/grant"] = json!("{}");
        restored["spec"].as_object_mut().unwrap().remove("schedulingGates");
        assert_eq!(case.inject(&restored, origin).unwrap(), first);
    }
    let mut granted = pod();
    granted["metadata"]["annotations"] = json!({"walstorage.dev/grant": "{}"});
    assert_eq!(case.first(&granted), case.first(&pod()));
}

#[test]
fn another_gate_stays_beside_ours() {
    let mut pod = pod();
    pod["spec"]["schedulingGates"] = json!([{"name": "example.com/quota"}]);
    let out = Case::standard().first(&pod);
    assert_eq!(
        out["spec"]["schedulingGates"],
        json!([{"name": "example.com/quota"}, {"name": "walstorage.dev/writer"}])
    );
}

#[test]
fn a_pod_that_is_no_longer_guaranteed_gives_its_cpu_back() {
    let case = Case::standard();
    let mut pod = pod();
    pod["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
    let mut out = case.first(&pod);
    assert_eq!(ours(&out)["resources"]["requests"], json!({"cpu": "500m", "memory": "832Mi"}));
    // A mesh's container comes, without limits.
    out["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "istio-proxy", "resources": {}}));
    assert_eq!(ours(&case.again(&out))["resources"]["requests"], json!({"memory": "832Mi"}));
}

#[test]
fn a_value_that_somebody_wrote_anew_is_theirs() {
    let case = Case::standard();
    let mut pod = case.first(&pod());
    pod["spec"]["terminationGracePeriodSeconds"] = json!(10);
    pod["spec"]["securityContext"] = json!({"fsGroup": 2000, "fsGroupChangePolicy": "Always"});
    let out = case.again(&pod);
    assert_eq!(out["spec"]["terminationGracePeriodSeconds"], json!(40));
    assert_eq!(out["spec"]["securityContext"], json!({"fsGroup": 2000, "fsGroupChangePolicy": "Always"}));
}

#[test]
fn a_users_own_socket_variable_stays_and_a_container_left_out_gets_nothing() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"walstorage.dev/containers": "app"});
    pod["spec"]["containers"] = json!([
        {"name": "app", "env": [{"name": "A", "value": "$(WALSTORAGE_SOCKET)"}]},
        {"name": "other"},
    ]);
    let case = Case::standard();
    let out = case.first(&pod);
    assert_eq!(out["spec"]["containers"][0]["env"][0]["name"], "WALSTORAGE_SOCKET");
    assert_eq!(out["spec"]["containers"][0]["env"][1]["name"], "A");
    assert_eq!(out["spec"]["containers"][1], json!({"name": "other"}));

    pod["spec"]["containers"][0]["env"] = json!([{"name": "WALSTORAGE_SOCKET", "value": "/elsewhere/wal.sock"}]);
    assert_eq!(case.first(&pod)["spec"]["containers"][0]["env"], pod["spec"]["containers"][0]["env"]);
}

#[test]
fn the_hash_is_of_the_sidecar_and_not_of_its_writer() {
    let hash = |case: &Case, pod: &Value| pod_hash(pod, case.storage(), &case.ledger, &case.settings).unwrap();
    let case = Case::standard();
    let first = case.first(&pod());
    let known = first["metadata"]["annotations"]["walstorage.dev/pod-hash"].as_str().unwrap();
    assert_eq!(known.len(), 16);
    assert_eq!(hash(&case, &first), known);
    assert_eq!(hash(&case, &pod()), known);

    let mut other = Case::standard();
    other.writer = "orders-1".to_owned();
    assert_eq!(hash(&other, &first), known, "writers have one hash");
    // Others have added to it, and the API server has bound it.
    let mut running = first.clone();
    ours_mut(&mut running)["env"].as_array_mut().unwrap().push(json!({"name": "AWS_ROLE_ARN", "value": "arn"}));
    running["spec"]["nodeName"] = json!("node1");
    running["metadata"]["annotations"]["walstorage.dev/grant"] = json!("{}");
    assert_eq!(hash(&case, &running), known);

    let mut newer = Case::standard();
    newer.settings = Settings { image: "registry.example.com/walstorage:2".to_owned(), ..newer.settings };
    assert_ne!(hash(&newer, &first), known, "a new image");
    let urls = json!([{"name": "nvme1", "url": "file:///wal/nvme1"}, {"name": "b", "url": "file:///wal/b"}]);
    assert_ne!(hash(&Case::new(&json!({"walUrls": urls})), &first), known, "a new URL");
    let memory = json!({"walUrls": [urls[0]], "globalFlushThreshold": "1Gi"});
    assert_ne!(hash(&Case::new(&memory), &first), known, "more memory");
    let hot = json!({"walUrls": [urls[0]], "segmentSize": "1Mi", "distributionStrategy": "Hash", "onDamage": "gap"});
    assert_eq!(hash(&Case::new(&hot), &first), known, "settings that are read again");
}
