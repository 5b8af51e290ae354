//! What tests do with pods.

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, PostParams};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::{eventually, try_eventually};

/// A pod of one container `app` that passes the restricted pod security standard.
///
/// # Panics
/// Never: the pod is well-formed whatever the arguments are.
#[must_use]
pub fn pod(name: &str, image: &str, args: &[&str]) -> Pod {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "app", "image": image, "imagePullPolicy": "Never", "args": args,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    serde_json::from_value(pod).expect("a pod")
}

/// Gives a pod a volume of a claim, mounted in its first container.
///
/// # Panics
/// When the pod has no container.
#[must_use]
pub fn with_claim(pod: Pod, claim: &str, path: &str) -> Pod {
    let mut value: Value = serde_json::to_value(pod).expect("JSON");
    value["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    value["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": path}]);
    value["spec"]["securityContext"]["fsGroup"] = json!(65532);
    serde_json::from_value(value).expect("a pod")
}

/// Creates a pod and waits until it is ready.
///
/// # Panics
/// When the API server refuses it, or it is not ready in time.
pub async fn run(pods: &Api<Pod>, pod: &Pod) -> Pod {
    let made = pods.create(&PostParams::default(), pod).await.expect("the pod is accepted");
    ready(pods, made.metadata.name.as_deref().expect("a name")).await
}

/// Waits until a pod is ready, and returns it.
///
/// # Panics
/// When it is not in time; the message has its status.
pub async fn ready(pods: &Api<Pod>, name: &str) -> Pod {
    try_ready(pods, name).await.unwrap_or_else(|error| panic!("{error}"))
}

/// [`ready`] for what is no test.
///
/// # Errors
/// Where that panics.
pub async fn try_ready(pods: &Api<Pod>, name: &str) -> Result<Pod> {
    try_eventually(&format!("the pod {name} is ready"), || async {
        let pod = pods.get(name).await?;
        if is(&pod, "Ready") { Ok(pod) } else { bail!("{}", serde_json::to_string(&pod.status)?) }
    })
    .await
}

/// Whether a condition of a pod holds.
#[must_use]
pub fn is(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == condition && it.status == "True")
}

/// How often the container of this name was started again, an init container or another.
#[must_use]
pub fn restarts(pod: &Pod, container: &str) -> i32 {
    let status = pod.status.iter();
    let all =
        status.flat_map(|it| it.container_statuses.iter().flatten().chain(it.init_container_statuses.iter().flatten()));
    all.filter(|it| it.name == container).map(|it| it.restart_count).sum()
}

/// Deletes a pod and waits until it is gone, or another one has its name.
///
/// # Panics
/// When it is still there in time.
pub async fn delete(pods: &Api<Pod>, name: &str) {
    let uid = pods.get(name).await.expect("the pod").metadata.uid;
    pods.delete(name, &DeleteParams::default()).await.expect("deleted");
    eventually(&format!("the pod {name} is gone"), || async {
        match pods.get_opt(name).await? {
            Some(pod) if pod.metadata.uid == uid => Err(anyhow::anyhow!("{}", serde_json::to_string(&pod.status)?)),
            _ => Ok(()),
        }
    })
    .await;
}

/// Runs a command in a pod's container and returns its output.
///
/// # Errors
/// With its standard error when it fails.
pub async fn exec(pods: &Api<Pod>, name: &str, container: &str, command: &[&str]) -> Result<String> {
    let params = AttachParams::default().container(container).stderr(true);
    let mut process = pods.exec(name, command.to_vec(), &params).await.context("exec")?;
    let (mut stdout, mut stderr) = (process.stdout().context("stdout")?, process.stderr().context("stderr")?);
    let status = process.take_status().context("status")?;
    let (mut output, mut complaint) = (String::new(), String::new());
    let (read, complained, status) =
        tokio::join!(stdout.read_to_string(&mut output), stderr.read_to_string(&mut complaint), status);
    read.and(complained)?;
    let status = status.context("the connection broke")?;
    if status.status.as_deref() != Some("Success") {
        bail!("{command:?}: {}: {}{output}", status.message.unwrap_or_default(), complaint.trim());
    }
    Ok(output)
}
