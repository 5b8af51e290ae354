//! The charts on a cluster of the tests.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::Cluster;
use crate::binaries::repository;
use crate::connection::Connection;

/// The release of the chart `walstorage`, and its namespace.
pub const RELEASE: &str = "walstorage";

/// What the API server calls the controller of that release.
pub const CONTROLLER: &str = "system:serviceaccount:walstorage:walstorage-controller";

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

/// Installs both charts with further arguments of `helm`, like `--set=controller.replicas=1`, into a restricted namespace,
/// and waits until the operator is ready.
///
/// # Errors
/// With what helm says.
pub fn install(connection: &Connection, args: &[&str]) -> Result<()> {
    connection.helm(&["install", "walstorage-crds", &chart("walstorage-crds"), "--wait"])?;
    connection.kubectl(&["create", "namespace", RELEASE])?;
    connection.kubectl(&["label", "namespace", RELEASE, "pod-security.kubernetes.io/enforce=restricted"])?;
    upgrade(connection, args)
}

/// Installs or upgrades the chart `walstorage`, and waits until the operator is ready.
///
/// # Errors
/// With what helm says, and with what is to be seen of the operator.
pub fn upgrade(connection: &Connection, args: &[&str]) -> Result<()> {
    let chart = chart("walstorage");
    let fixed = ["upgrade", "--install", RELEASE, &chart, "--namespace", RELEASE, "--wait", "--timeout=3m"];
    connection.helm(&[&fixed, args].concat()).map(drop).with_context(|| {
        let seen = connection.kubectl(&["--namespace", RELEASE, "get", "pods,events"]).unwrap_or_default();
        format!("the operator is not ready:\n{seen}")
    })
}

/// The cluster that all tests of this program share, with the charts: one replica of each part, which is enough for what
/// is not about replicas, and an orphan after two seconds. `None` where none can run, which is then said for `test`.
///
/// # Panics
/// When it does not start, or the charts cannot be installed.
pub async fn shared_or_skip(test: &str) -> Option<&'static Cluster> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    const VALUES: &str = "--set=controller.replicas=1,webhook.replicas=1,timing.orphanAfterSeconds=2";
    let cluster = Cluster::shared_or_skip(test).await?;
    INSTALLED.get_or_init(|| async { install(cluster, &[VALUES]).expect("the charts") }).await;
    Some(cluster)
}

/// Uninstalls the chart `walstorage`; resources and their types stay.
///
/// # Errors
/// With what helm says.
pub fn uninstall(connection: &Connection) -> Result<()> {
    connection.helm(&["uninstall", RELEASE, "--namespace", RELEASE, "--wait"]).map(drop)
}

/// Some templates of the chart `walstorage`, as they are rendered for this cluster.
///
/// # Errors
/// With what helm says.
pub fn rendered(connection: &Connection, templates: &[&str]) -> Result<String> {
    let mut args = vec!["template".to_owned(), RELEASE.to_owned(), chart("walstorage")];
    args.push(format!("--namespace={RELEASE}"));
    args.extend(templates.iter().map(|template| format!("--show-only=templates/{template}.yaml")));
    connection.helm(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What the chart `walstorage` says of the webhook, for one that is called at this URL instead of by its Service.
///
/// # Errors
/// With what helm says, and when there is no such webhook in it.
pub fn webhook(connection: &Connection, url: &str) -> Result<Value> {
    let mut configuration: Value = serde_yaml::from_str(&rendered(connection, &["webhook-configuration"])?)?;
    let hook = configuration.pointer_mut("/webhooks/0/clientConfig").context("no webhook")?;
    *hook = json!({"url": url});
    Ok(configuration["webhooks"][0].take())
}

/// Applies some templates of the chart `walstorage`, where the whole chart would wait for pods.
///
/// # Errors
/// With what helm or the API server says.
pub fn apply(connection: &Connection, templates: &[&str]) -> Result<()> {
    let rendered = rendered(connection, templates)?;
    let mut kubectl = connection
        .command("kubectl")
        .args(["apply", "--server-side", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run kubectl")?;
    kubectl.stdin.take().context("no input")?.write_all(rendered.as_bytes())?;
    let output = kubectl.wait_with_output()?;
    if !output.status.success() {
        bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
