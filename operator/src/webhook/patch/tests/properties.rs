//! What holds of every pod: generated ones, with everything that matters to a sidecar in all combinations.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::restricted::breaches_of_ours;
use super::{Case, Origin};
use crate::webhook::json::{list, name};

fn amounts() -> impl Strategy<Value = Value> {
    let amount = |texts: &'static [&'static str]| prop::sample::select(texts);
    let both = (amount(&["500m", "1", "2.5"]), amount(&["1Gi", "900Mi", "1000000"]));
    prop_oneof![
        Just(json!({})),
        both.clone().prop_map(|(cpu, memory)| {
            let all = json!({"cpu": cpu, "memory": memory});
            json!({"requests": all, "limits": all})
        }),
        both.clone().prop_map(|(cpu, memory)| json!({"limits": {"cpu": cpu, "memory": memory}})),
        both.prop_map(|(cpu, memory)| json!({"requests": {"cpu": cpu}, "limits": {"memory": memory}})),
    ]
}

fn container(named: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let env = prop::collection::vec(
        prop::sample::select(&[
            ("A", "1"),
            ("WALSTORAGE_SOCKET", "/run/walstorage/wal.sock"),
            ("WALSTORAGE_SOCKET", "/elsewhere"),
        ]),
        0..3,
    );
    (prop::sample::select(named), amounts(), env, any::<bool>(), any::<bool>()).prop_map(
        |(name, resources, env, mounts, unknown)| {
            let mut container = json!({"name": name, "image": "x", "resources": resources});
            if !env.is_empty() {
                container["env"] = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            }
            if mounts {
                container["volumeMounts"] = json!([{"name": "kube-api-access", "mountPath": "/token"}]);
            }
            if unknown {
                container["later"] = json!({"deep": [{"unknown": name}]});
            }
            container
        },
    )
}

fn optional(key: &'static str, values: Vec<Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::option::of(prop::sample::select(values)).prop_map(move |value| match value {
        Some(value) => Map::from_iter([(key.to_owned(), value)]),
        None => Map::new(),
    })
}

fn pods() -> impl Strategy<Value = Value> {
    let annotations = prop::collection::btree_map(
        prop::sample::select(&[
            "linkerd.io/inject",
            "traffic.sidecar.istio.io/excludeInboundPorts",
            "config.linkerd.io/skip-inbound-ports",
            "walstorage.dev/patch",
            "walstorage.dev/grant",
            "walstorage.dev/rendered",
            "other",
        ]),
        prop::sample::select(&["enabled", "80,9465", "80", "{}", ""]),
        0..4,
    );
    let spec = (
        optional(
            "initContainers",
            vec![
                json!([]),
                json!([{"name": "migrate"}]),
                json!([{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}, {"name": "migrate", "later": 1}]),
            ],
        ),
        optional(
            "securityContext",
            vec![
                json!({}),
                json!({"fsGroup": 1000}),
                json!({"runAsUser": 0, "fsGroupChangePolicy": "Always"}),
                json!({"fsGroup": 65532}),
            ],
        ),
        optional("terminationGracePeriodSeconds", vec![json!(0), json!(30), json!(600)]),
        optional(
            "resources",
            vec![
                json!({}),
                json!({"limits": {"cpu": "2", "memory": "4Gi"}, "requests": {"cpu": "2", "memory": "4Gi"}}),
                json!({"requests": {"memory": "1000M"}, "later": true}),
            ],
        ),
        optional(
            "volumes",
            vec![
                json!([{"name": "kube-api-access", "projected": {"later": 1}}]),
                json!([{"name": "wal-orders--mine", "emptyDir": {}}]),
            ],
        ),
        optional("schedulingGates", vec![json!([{"name": "other"}]), json!([{"name": "walstorage.dev/writer"}])]),
        optional("laterField", vec![json!([{"name": "kept"}])]),
    );
    let containers = prop::collection::vec(container(&["app"]), 1..2)
        .prop_flat_map(|apps| (Just(apps), prop::option::of(container(&["linkerd-proxy", "second"]))));
    (annotations, spec, containers).prop_map(|(annotations, spec, (mut containers, more))| {
        containers.extend(more);
        let (a, b, c, d, e, f, g) = spec;
        let mut spec: Map<String, Value> = [a, b, c, d, e, f, g].into_iter().flatten().collect();
        spec.insert("containers".to_owned(), Value::from(containers));
        json!({
            "metadata": {"name": "orders-0", "labels": {"walstorage.dev/storage": "orders"}, "annotations": annotations, "later": 1},
            "spec": spec,
            "later": {"kept": true},
        })
    })
}

fn storages() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({}),
        json!({"sidecar": {"adminPort": 0, "drainSeconds": 0}}),
        json!({"sidecar": {"resources": {"requests": {"cpu": "0.25", "example.com/x": 1}, "limits": {"memory": "2Gi"}}}}),
        json!({"walUrls": [
            {"name": "a", "url": "file:///wal/a"},
            {"name": "b", "url": "s3://b/wal", "bucket": {"credentials": {"secretName": "s"}, "caBundle": {"configMapName": "ca", "key": "k"}}},
            {"name": "c", "url": "gcs://c/wal", "bucket": {"credentials": {"workloadIdentity": {"audience": "x", "env": [{"name": "E", "value": "1"}]}}}},
        ], "journal": {"name": "j", "url": "file:///wal/j"}}),
    ])
}

/// A webhook of a mesh: it adds containers, volumes, annotations, and looks at nobody else.
fn mesh(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().unwrap();
    let mut add = |key: &str, value: Value, first: bool| {
        let all = spec.entry(key).or_insert(json!([])).as_array_mut().unwrap();
        if all.iter().all(|item| item["name"] != value["name"]) {
            all.insert(if first { 0 } else { all.len() }, value);
        }
    };
    add("initContainers", json!({"name": "linkerd-init", "image": "x", "resources": {}}), true);
    add(
        "containers",
        json!({"name": "istio-proxy", "image": "x", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}),
        false,
    );
    add("volumes", json!({"name": "mesh-identity", "emptyDir": {}}), false);
    pod["metadata"]["annotations"]["mesh"] = json!("yes");
    pod
}

/// The same without what we may change or add: what is left must be what there was.
fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let metadata = pod["metadata"].as_object_mut().unwrap();
    for kind in ["labels", "annotations"] {
        if let Some(map) = metadata.get_mut(kind).and_then(Value::as_object_mut) {
            map.retain(|key, _| {
                !key.starts_with("walstorage.dev/") && !key.contains("nboundPorts") && !key.contains("inbound-ports")
            });
        }
    }
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.remove("terminationGracePeriodSeconds");
    for (key, ours) in [("schedulingGates", "walstorage.dev/writer"), ("initContainers", "walstorage")] {
        let all = spec.entry(key).or_insert(json!([])).as_array_mut().unwrap();
        all.retain(|item| item["name"] != ours);
    }
    let volumes = spec.entry("volumes").or_insert(json!([])).as_array_mut().unwrap();
    volumes.retain(|volume| {
        !name(volume).starts_with("walstorage-")
            && (!name(volume).starts_with("wal-") || name(volume) == "wal-orders--mine")
    });
    let context = spec.entry("securityContext").or_insert(json!({})).as_object_mut().unwrap();
    context.remove("fsGroup");
    context.remove("fsGroupChangePolicy");
    if let Some(resources) = spec.get_mut("resources") {
        for kind in ["requests", "limits"] {
            if let Some(amounts) = resources.get_mut(kind).and_then(Value::as_object_mut) {
                amounts.remove("cpu");
                amounts.remove("memory");
            }
        }
    }
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array_mut().unwrap() {
            let container = container.as_object_mut().unwrap();
            for key in ["env", "volumeMounts"] {
                let all = container.entry(key).or_insert(json!([])).as_array_mut().unwrap();
                all.retain(|item| name(item) != "WALSTORAGE_SOCKET" && name(item) != "walstorage-socket");
            }
        }
    }
    pod
}

fn guaranteed(pod: &Value) -> bool {
    let all = list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers"));
    all.into_iter().all(|container| {
        let limits = container.pointer("/resources/limits").cloned().unwrap_or_default();
        let requests = container.pointer("/resources/requests").cloned().unwrap_or_else(|| limits.clone());
        limits.get("cpu").is_some()
            && limits.get("memory").is_some()
            && ["cpu", "memory"].iter().all(|key| limits[key] == requests[key])
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_second_call_changes_nothing(pod in pods(), spec in storages()) {
        let case = Case::new(&spec);
        let first = case.first(&pod);
        prop_assert_eq!(case.again(&first), first.clone());
        // Nor does the rebuilding of what was rendered.
        let rendered = case.inject(&first, Origin::Rendered).unwrap();
        prop_assert_eq!(case.again(&rendered), rendered);
    }

    #[test]
    fn another_webhook_may_come_before_or_between(pod in pods(), spec in storages()) {
        let case = Case::new(&spec);
        let before = case.first(&mesh(&pod));
        let between = case.again(&mesh(&case.first(&pod)));
        prop_assert_eq!(between, before);
    }

    #[test]
    fn what_is_not_ours_survives(pod in pods(), spec in storages()) {
        let out = Case::new(&spec).first(&pod);
        prop_assert_eq!(without_ours(&out), without_ours(&pod));
    }

    #[test]
    fn what_is_added_is_restricted_and_a_guaranteed_pod_stays_so(pod in pods(), spec in storages()) {
        let out = Case::new(&spec).first(&pod);
        prop_assert_eq!(breaches_of_ours(&out), Vec::<String>::new());
        if guaranteed(&pod) && pod.pointer("/spec/resources/requests").is_none() {
            prop_assert!(guaranteed(&out), "{out:#}");
        }
    }

    #[test]
    fn no_pod_makes_the_patch_panic(noise in noise(), patch in "[{}\":a-z0-9,]{0,30}") {
        let case = Case::standard();
        for origin in [Origin::User, Origin::Sealed, Origin::Rendered] {
            let _ = case.inject(&noise, origin);
            let mut pod = noise.clone();
            if let Some(pod) = pod.as_object_mut() {
                pod.insert("metadata".to_owned(), json!({"annotations": {"walstorage.dev/patch": patch}}));
            }
            let _ = case.inject(&pod, origin);
        }
    }
}

/// JSON with the keys of pods in the wrong places.
fn noise() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        prop::sample::select(&["walstorage", "walstorage-socket", "/run/walstorage", "9Ei", ""]).prop_map(Value::from),
    ];
    let keys = prop::sample::select(&[
        "spec",
        "metadata",
        "annotations",
        "labels",
        "containers",
        "initContainers",
        "volumes",
        "volumeMounts",
        "env",
        "name",
        "resources",
        "limits",
        "requests",
        "memory",
        "cpu",
        "securityContext",
        "fsGroup",
        "ports",
        "containerPort",
        "mountPath",
        "schedulingGates",
    ]);
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(keys.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}
