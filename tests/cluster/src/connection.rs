//! A cluster as its users see it: clients, `kubectl`, `helm`, namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::binaries::repository;
use crate::eventually;

/// Where a cluster's API is, and the programs that speak to it.
#[derive(Clone, Debug)]
pub struct Connection {
    kubeconfig: PathBuf,
    tools: PathBuf,
    config: Config,
}

impl Connection {
    /// Reads an administrator's kubeconfig.
    pub(crate) async fn read(kubeconfig: &Path, tools: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self { kubeconfig: kubeconfig.to_owned(), tools: tools.to_owned(), config })
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder of `kubectl` and `helm`.
    #[must_use]
    pub fn tools(&self) -> &Path {
        &self.tools
    }

    /// The configuration of an administrator's client.
    #[must_use]
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A client of an administrator. Its connections belong to the runtime that it is made in: every test makes its
    /// own.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("a client of a configuration that was read before")
    }

    /// A client of `user`, with the groups that the API server gives to everybody who is known: it may do what roles
    /// bound to that user allow. A service account is `system:serviceaccount:<namespace>:<name>`.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn client_as(&self, user: &str) -> Client {
        let mut config = self.config();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        Client::try_from(config).expect("a client of a configuration that was read before")
    }

    /// A command that runs a tool of the cluster (`kubectl`, `helm`) as an administrator.
    #[must_use]
    pub fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(self.tools.join(tool));
        command.env("KUBECONFIG", &self.kubeconfig);
        // Both keep caches. Those of the user are not ours to fill, and remember another cluster at the same address.
        let home = self.kubeconfig.with_file_name("home");
        command.env("KUBECACHEDIR", home.join("kube"));
        command.env("HELM_CACHE_HOME", home.join("cache"));
        command.env("HELM_CONFIG_HOME", home.join("config"));
        command.env("HELM_DATA_HOME", home.join("data"));
        command
    }

    /// Runs `kubectl` and returns what it prints.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.tool("kubectl", args)
    }

    /// Applies objects in a namespace, as a user does.
    ///
    /// # Errors
    /// With what `kubectl` says.
    pub fn apply(&self, namespace: &str, objects: &[serde_json::Value]) -> Result<()> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), list.to_string())?;
        let path = file.path().display().to_string();
        self.kubectl(&["--namespace", namespace, "apply", "--filename", &path]).map(drop)
    }

    /// Runs `helm` and returns what it prints.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool("helm", args)
    }

    fn tool(&self, tool: &str, args: &[&str]) -> Result<String> {
        let output = self.command(tool).args(args).output().with_context(|| format!("cannot run {tool}"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("{tool} {}: {}: {}", args.join(" "), output.status, complaint.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a namespace with a name that begins with `prefix` and that no other test has.
    ///
    /// # Panics
    /// When the API server refuses it.
    pub async fn namespace(&self, prefix: &str) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let wanted = Namespace {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let made = namespaces.create(&PostParams::default(), &wanted).await.expect("a namespace");
        made.metadata.name.expect("the server names it")
    }

    /// Installs the resource types as they are committed, and waits until they are served.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub async fn install_types(&self) {
        let types: Api<CustomResourceDefinition> = Api::all(self.client());
        for name in ["walstorages.walstorage.dev", "walwriters.walstorage.dev"] {
            let file = repository().join(format!("crds/{name}.yaml"));
            let text = std::fs::read_to_string(&file).expect("a committed type");
            let wanted: CustomResourceDefinition = serde_yaml::from_str(&text).expect("a type");
            let manager = PatchParams::apply("walstorage-cluster-tests").force();
            types.patch(name, &manager, &Patch::Apply(&wanted)).await.expect("the type is accepted");
            eventually(&format!("{name} is served"), || async {
                let status = types.get(name).await?.status.unwrap_or_default();
                let served =
                    status.conditions.iter().flatten().any(|it| it.type_ == "Established" && it.status == "True");
                served.then_some(()).with_context(|| format!("{:?}", status.conditions))
            })
            .await;
        }
    }

    /// Waits until pods can be made in a namespace: its service account is there. Only where controllers run.
    pub async fn accounts(&self, namespace: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        eventually("the default service account", || accounts.get("default")).await;
    }
}
