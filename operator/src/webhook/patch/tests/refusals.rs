//! Every refusal of a pod with its sentence: the whole of what its reader sees.

use serde_json::{Value, json};

use super::{Case, Origin, pod};

/// A pod with one value changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    pod
}

fn refused(pod: &Value, sentence: &str) {
    let refusal = Case::standard().inject(pod, Origin::User).expect_err(sentence);
    assert_eq!(refusal.to_string(), sentence);
}

fn admitted(pod: &Value) {
    if let Err(refusal) = Case::standard().inject(pod, Origin::User) {
        panic!("{refusal}\n{pod:#}");
    }
}

#[test]
fn a_pod_that_cannot_have_a_sidecar_is_told_why_and_what_to_do() {
    let container = |fields: Value| {
        let mut app = json!({"name": "app"});
        app.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        with("/spec/containers", json!([app]))
    };
    let mount = |path: &str| container(json!({"volumeMounts": [{"name": "x", "mountPath": path}]}));
    let annotation = |key: &str, value: &str| with("/metadata/annotations", json!({key: value}));
    let taken = "the pod has a container called walstorage that the operator did not add here: rename it, or, if the pod was copied from a \
                 cluster, remove that container, the volumes walstorage-* and wal-* and the annotations walstorage.dev/*";
    let volume = |name: &str| with("/spec/volumes", json!([{"name": name, "emptyDir": {}}]));
    let volume_taken = |name: &str| {
        format!("the pod has a volume called {name}, which is the name of a volume that the operator adds: rename it")
    };
    let windows = "the pod is for Windows nodes, and the WalStorage sidecar runs on Linux only: remove the label walstorage.dev/storage";
    let mounted = |path: &str| {
        format!(
            "container app mounts a volume at {path}, where the socket of the write-ahead log is mounted (/run/walstorage): mount it elsewhere"
        )
    };
    let port = |port: &str| {
        format!(
            "container app has port {port}, which is the admin port of WalStorage orders: set spec.sidecar.adminPort of the WalStorage to \
             another port, or to 0 for none"
        )
    };
    let group = "the pod has volume data and no spec.securityContext.fsGroup, which the sidecar needs to write to its claims: set it (any group, \
                 such as 65532); setting it for you would change the ownership of your data";
    for (pod, sentence) in [
        (with("/spec/containers", json!([{"name": "walstorage"}])), taken),
        (with("/spec/initContainers", json!([{"name": "walstorage", "restartPolicy": "Always"}])), taken),
        (Case::standard().first(&pod()), taken),
        (volume("walstorage-socket"), &volume_taken("walstorage-socket")),
        (volume("walstorage-config"), &volume_taken("walstorage-config")),
        (volume("wal-orders--nvme1"), &volume_taken("wal-orders--nvme1")),
        (mount("/run/walstorage"), &mounted("/run/walstorage")),
        (mount("/run//walstorage/below"), &mounted("/run//walstorage/below")),
        (mount("/var/run/walstorage/"), &mounted("/var/run/walstorage/")),
        (with("/spec/os", json!({"name": "windows"})), windows),
        (with("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"})), windows),
        (container(json!({"ports": [{"containerPort": 9465}]})), &port("9465")),
        (container(json!({"ports": [{"containerPort": 9465, "protocol": "TCP"}]})), &port("9465")),
        (container(json!({"ports": [{"containerPort": 80, "name": "wal-admin"}]})), &port("wal-admin")),
        (
            annotation("walstorage.dev/containers", "app, ap"),
            "the annotation walstorage.dev/containers names \"ap\", and the pod has no such container: name some of app, or remove the annotation",
        ),
        (
            annotation("walstorage.dev/containers", ""),
            "the annotation walstorage.dev/containers names \"\", and the pod has no such container: name some of app, or remove the annotation",
        ),
        (
            annotation("walstorage.dev/sidecar-image", " "),
            "the annotation walstorage.dev/sidecar-image is empty: name an image, or remove the annotation for the operator's own",
        ),
        (with("/spec/volumes", json!([{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}])), group),
        (with("/spec/volumes", json!([{"name": "data", "iscsi": {}}])), group),
        (
            with("/spec/resources", json!({"limits": {"memory": "much"}})),
            "spec.resources.limits.memory = \"much\" of the pod is not an amount that the sidecar's share can be added to: write it as a plain \
             quantity, such as 2Gi or 500m",
        ),
        (with("/spec", json!(3)), "spec is not an object: the pod cannot be given a sidecar; correct the manifest"),
        (
            with("/spec/containers", json!([])),
            "spec.containers is not a list of containers: the pod cannot be given a sidecar; correct the manifest",
        ),
    ] {
        refused(&pod, sentence);
    }
}

#[test]
fn what_only_looks_like_a_clash_is_admitted() {
    let mount = |path: &str| {
        with("/spec/containers", json!([{"name": "app", "volumeMounts": [{"name": "x", "mountPath": path}]}]))
    };
    let ports = |port: Value| with("/spec/containers", json!([{"name": "app", "ports": [port]}]));
    let data = |volume: Value| {
        let mut pod = with("/spec/volumes", json!([volume]));
        pod["spec"]["securityContext"]["fsGroup"] = json!(1000);
        pod
    };
    for pod in [
        mount("/run/walstorage2"),
        mount("/run"),
        mount("/data/run/walstorage"),
        ports(json!({"containerPort": 9465, "protocol": "UDP"})),
        ports(json!({"containerPort": 9464})),
        with("/spec/os", json!({"name": "linux"})),
        with("/spec/volumes", json!([{"name": "wal-orders--other", "emptyDir": {}}])),
        with("/spec/volumes", json!([{"name": "scratch", "ephemeral": {}}, {"name": "s", "csi": {}}])),
        data(json!({"name": "data", "persistentVolumeClaim": {"claimName": "d"}})),
    ] {
        admitted(&pod);
    }
}

#[test]
fn without_an_admin_port_nothing_clashes_with_it() {
    let pod =
        with("/spec/containers", json!([{"name": "app", "ports": [{"containerPort": 9465, "name": "wal-admin"}]}]));
    let case = Case::new(&json!({"sidecar": {"adminPort": 0}}));
    assert!(case.first(&pod).pointer("/spec/initContainers/0/ports").is_none());
}

#[test]
fn a_workload_identity_does_not_speak_for_the_operator_nor_with_two_tongues() {
    let bucket = |name: &str, variable: &str, value: &str| {
        json!({"name": name, "url": format!("s3://{name}/wal"), "bucket": {"credentials": {"workloadIdentity": {
            "audience": "sts", "env": [{"name": variable, "value": value}]
        }}}})
    };
    let refuse = |urls: Value, sentence: &str| {
        let refusal = Case::new(&json!({"walUrls": urls})).inject(&pod(), Origin::User).unwrap_err();
        assert_eq!(refusal.to_string(), sentence);
    };
    refuse(
        json!([bucket("a", "WALSTORAGE_GRANT", "x")]),
        "WalStorage orders gives the sidecar the variable WALSTORAGE_GRANT in a bucket's workloadIdentity.env (names that begin with WALSTORAGE_ are \
         the operator's): rename it or make the values equal",
    );
    refuse(
        json!([bucket("a", "AWS_REGION", "x"), bucket("b", "AWS_REGION", "y")]),
        "WalStorage orders gives the sidecar the variable AWS_REGION in a bucket's workloadIdentity.env with two values: rename it or make the values \
         equal",
    );
    let same = Case::new(&json!({"walUrls": [bucket("a", "AWS_REGION", "x"), bucket("b", "AWS_REGION", "x")]}));
    let out = same.first(&pod());
    let variables = out.pointer("/spec/initContainers/0/env").unwrap().as_array().unwrap();
    assert_eq!(variables.iter().filter(|variable| variable["name"] == "AWS_REGION").count(), 1);
}
