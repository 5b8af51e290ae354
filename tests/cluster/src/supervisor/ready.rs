//! When a cluster can be used.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Node, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// How long a cluster may take to start, on a machine that compiles meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);

/// A client for a kubeconfig file.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Polls `probe` until it finds what it looks for; `check` fails early, when that cannot happen any more.
pub(crate) async fn wait<F>(
    what: &str,
    mut check: impl FnMut() -> Result<()>,
    mut probe: impl FnMut() -> F,
) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut last = "it is not".to_owned();
    while tokio::time::Instant::now() < deadline {
        check()?;
        // An answer may never come from a server that starts.
        match tokio::time::timeout(Duration::from_secs(5), probe()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "it is not".clone_into(&mut last),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => "no answer".clone_into(&mut last),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("waited {PATIENCE:?} in vain until {what}; at last: {last}")
}

/// Whether the API server is ready.
pub(crate) async fn api_server(client: &Client) -> Result<bool> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    Ok(client.request_text(request).await? == "ok")
}

/// Whether pods can be made in the namespace `default`.
pub(crate) async fn accounts(client: &Client) -> Result<bool> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let authorities: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    Ok(accounts.get_opt("default").await?.is_some() && authorities.get_opt("kube-root-ca.crt").await?.is_some())
}

/// Whether a node runs under this boot id and takes pods: ready is not yet schedulable, the taint goes later.
pub(crate) async fn node(client: &Client, name: &str, boot_id: Option<&str>) -> Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    let Some(node) = nodes.get_opt(name).await? else { return Ok(false) };
    let status = node.status.unwrap_or_default();
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let booted = boot_id.is_none_or(|id| status.node_info.as_ref().is_some_and(|info| info.boot_id == id));
    let tainted = node.spec.and_then(|spec| spec.taints).is_some_and(|taints| !taints.is_empty());
    Ok(ready && booted && !tainted)
}
