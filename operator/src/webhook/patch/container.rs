//! The container `walstorage`: everything about it that is written, defaults included, so that what the API server makes of
//! it is what was written, and a second call changes nothing.

use serde_json::{Map, Value, json};
use walstorage_crds::names::{
    ADMIN_PORT_NAME, ANNOTATION_GRANT, ANNOTATION_SIDECAR_IMAGE, CONFIG_DIR, CONFIG_FILE, CONTAINER, writer_id,
};
use walstorage_crds::walstorage::{Effective, LogLevel, Place};

use super::{Settings, security};
use crate::webhook::json::{meta, name};
use crate::webhook::refusal::Refusal;

/// The program in the image.
const PROGRAM: &str = "/walstorage-sidecar";
/// What only we set.
const RESERVED: &str = "WALSTORAGE_";

/// Where a sidecar learns its writer's id from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriterId<'a> {
    /// It is known.
    Known {
        /// Of the pod.
        namespace: &'a str,
        /// The writer.
        writer: &'a str,
    },
    /// Written offline: the namespace is not known, nor the writer where it is the pod.
    Rendered {
        /// The writer; the pod's name where there is none.
        writer: Option<&'a str>,
    },
}

impl WriterId<'_> {
    fn variables(&self, storage: &str) -> Vec<Value> {
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": field_ref(path)});
        let id = |id: String| json!({"name": "WALSTORAGE_WRITER_ID", "value": id});
        match self {
            Self::Known { namespace, writer } => vec![id(writer_id(namespace, storage, writer))],
            Self::Rendered { writer } => vec![
                field("WALSTORAGE_POD_NAMESPACE", "metadata.namespace"),
                field("WALSTORAGE_POD_NAME", "metadata.name"),
                id(writer_id("$(WALSTORAGE_POD_NAMESPACE)", storage, writer.unwrap_or("$(WALSTORAGE_POD_NAME)"))),
            ],
        }
    }
}

fn field_ref(path: &str) -> Value {
    json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}})
}

/// The container, without what depends on the other containers.
pub(super) fn build(
    pod: &Value,
    storage: &str,
    effective: &Effective,
    id: &WriterId<'_>,
    mounts: Vec<Value>,
    resources: &Value,
    settings: &Settings,
) -> Result<Value, Refusal> {
    let image = meta(pod, "annotations", ANNOTATION_SIDECAR_IMAGE).unwrap_or(&settings.image).trim();
    if image.is_empty() {
        return Err(Refusal::NoImage);
    }
    let exec = |arguments: &[&str]| {
        let command = [&[PROGRAM], arguments].concat();
        json!({"command": command})
    };
    let probe = |check: &str, period: u32, failures: u32, timeout: u32| {
        json!({
            "exec": exec(&["check", check]),
            "periodSeconds": period,
            "failureThreshold": failures,
            "successThreshold": 1,
            "timeoutSeconds": timeout,
        })
    };
    let mut container = json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.pull_policy,
        "command": [PROGRAM],
        "args": ["serve", "--config", format!("{CONFIG_DIR}/{CONFIG_FILE}")],
        "restartPolicy": "Always",
        "env": variables(storage, effective, id)?,
        "resources": resources,
        "volumeMounts": mounts,
        // A long replay is not a failure: a day of seconds.
        "startupProbe": probe("started", 1, 86_400, 5),
        "readinessProbe": probe("ready", 10, 3, 5),
        // `check live` itself waits five seconds for an answer.
        "livenessProbe": probe("live", 20, 6, 10),
        "lifecycle": {"preStop": {"exec": exec(&["prestop"])}},
        "securityContext": security::context(pod),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    });
    if let Some(port) = effective.admin_port {
        container["ports"] = json!([{"name": ADMIN_PORT_NAME, "containerPort": port, "protocol": "TCP"}]);
    }
    Ok(container)
}

fn variables(storage: &str, effective: &Effective, id: &WriterId<'_>) -> Result<Vec<Value>, Refusal> {
    let level = match effective.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let grant = field_ref(&format!("metadata.annotations['{ANNOTATION_GRANT}']"));
    let mut all = id.variables(storage);
    all.extend([
        json!({"name": "WALSTORAGE_REQUIRE_GRANT", "value": "true"}),
        json!({"name": "WALSTORAGE_REQUIRE_MOUNTS", "value": "true"}),
        json!({"name": "WALSTORAGE_POD_UID", "valueFrom": field_ref("metadata.uid")}),
        json!({"name": "WALSTORAGE_GRANT", "valueFrom": grant}),
        json!({"name": "WALSTORAGE_LOG", "value": level}),
    ]);
    let ours = all.len();
    for (variable, value) in identity_variables(effective) {
        let refuse =
            |problem| Refusal::VariableTaken { storage: storage.to_owned(), variable: variable.to_owned(), problem };
        if variable.starts_with(RESERVED) {
            return Err(refuse("(names that begin with WALSTORAGE_ are the operator's)"));
        }
        match all[ours..].iter().find(|other| name(other) == variable) {
            Some(other) if other.get("value").and_then(Value::as_str) == Some(value) => {}
            Some(_) => return Err(refuse("with two values")),
            None => all.push(json!({"name": variable, "value": value})),
        }
    }
    Ok(all)
}

/// What the clients of workload identities read from the environment.
fn identity_variables(effective: &Effective) -> impl Iterator<Item = (&str, &str)> {
    let buckets = effective.urls.iter().chain(&effective.journal).filter_map(|url| match &url.place {
        Place::Disk(_) => None,
        Place::Bucket(bucket) => bucket.spec.credentials.as_ref()?.workload_identity.as_ref(),
    });
    buckets.flat_map(|identity| identity.env.iter().flatten()).map(|env| (env.name.as_str(), env.value.as_str()))
}

/// Our container laid over the one that was there: what other webhooks and the API server have added to it since, such as the
/// credentials of a cloud, a default of a LimitRange or a pull policy, stays; what is ours is what it is now.
pub(super) fn over(mut old: Value, new: Value, storage: &str, own_cpu: Option<&str>) -> Value {
    if let Some(old) = old.as_object_mut() {
        forget_ours(old, storage, own_cpu);
    }
    let always = old.get("imagePullPolicy").is_some_and(|policy| policy == "Always");
    let mut merged = overlay(old, new);
    if always {
        // A cluster that always asks the registry would refuse anything less.
        merged["imagePullPolicy"] = "Always".into();
    }
    merged
}

/// Takes out of an earlier container what was ours and may not be now.
fn forget_ours(old: &mut Map<String, Value>, storage: &str, own_cpu: Option<&str>) {
    old.remove("ports");
    let mut retain = |key: &str, keep: &dyn Fn(&Value) -> bool| {
        if let Some(Value::Array(items)) = old.get_mut(key) {
            items.retain(|item| keep(item));
        }
    };
    retain("env", &|variable| !name(variable).starts_with(RESERVED));
    retain("volumeMounts", &|mount| !super::volumes::is_ours(storage, name(mount)));
    if let Some(own) = own_cpu {
        for kind in ["requests", "limits"] {
            let amounts = old.get_mut("resources").and_then(|resources| resources.get_mut(kind));
            if let Some(Value::Object(amounts)) = amounts
                && amounts.get("cpu").and_then(Value::as_str) == Some(own)
            {
                amounts.remove("cpu");
            }
        }
    }
    if let Some(context) = old.get_mut("securityContext").and_then(Value::as_object_mut)
        && context.get("runAsUser").and_then(Value::as_u64) == Some(security::NOBODY.into())
    {
        context.remove("runAsUser");
    }
}

/// `new` wins; what only `old` has stays. Elements of lists are told apart by name; other lists are replaced.
fn overlay(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(mut old), Value::Object(new)) => {
            for (key, value) in new {
                let merged = match old.remove(&key) {
                    Some(below) => overlay(below, value),
                    None => value,
                };
                old.insert(key, merged);
            }
            Value::Object(old)
        }
        (Value::Array(old), Value::Array(mut new)) if new.iter().all(|item| !name(item).is_empty()) => {
            let theirs = old.into_iter().filter(|item| !name(item).is_empty());
            // Mounts may name one volume twice, so that only what is in the new list is ours.
            let theirs: Vec<_> = theirs.filter(|item| new.iter().all(|ours| name(ours) != name(item))).collect();
            new.extend(theirs);
            Value::Array(new)
        }
        (_, new) => new,
    }
}
