//! A team's namespace on a cluster with the charts: all that is in it was applied as a user applies it, and all that is done
//! there a user could do.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;

use crate::numbered::Verdict;
use crate::{Cluster, pods, try_eventually};

/// A namespace, and what its team does.
#[derive(Clone, Debug)]
pub struct Team<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Team<'a> {
    /// Makes a restricted namespace with a name that begins with `prefix`.
    ///
    /// # Errors
    /// With what `kubectl` says.
    pub async fn new(cluster: &'a Cluster, prefix: &str) -> Result<Self> {
        let team = Self::unrestricted(cluster, prefix).await;
        let standard = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl(&["label", "namespace", &team.namespace, standard])?;
        Ok(team)
    }

    /// Makes a namespace in which any pod may run.
    pub async fn unrestricted(cluster: &'a Cluster, prefix: &str) -> Self {
        let namespace = cluster.namespace(prefix).await;
        cluster.accounts(&namespace).await;
        Self { cluster, namespace }
    }

    /// Where it works.
    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// The name of its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What came of something that was done here; where that is an error, with what is to be seen in the namespace.
    ///
    /// # Errors
    /// That error.
    pub fn explained<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.with_context(|| {
            let kinds = "walstorages,walwriters,deployments,replicasets,statefulsets,jobs,pods,events.events.k8s.io";
            self.kubectl(&["get", kinds, "--output=wide"]).unwrap_or_else(|error| error.to_string())
        })
    }

    /// Runs `kubectl` in its namespace and returns what it prints.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    /// Its pods, over connections of their own: those of another client may have gone with a server.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// `kubectl apply` of some objects.
    ///
    /// # Errors
    /// With what the API server says.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.cluster.apply(&self.namespace, objects)
    }

    /// Waits until a pod is ready, and returns it.
    ///
    /// # Errors
    /// When it is not in time; with its status.
    pub async fn ready(&self, name: &str) -> Result<Pod> {
        pods::try_ready(&self.pods(), name).await
    }

    /// Waits until another pod has the name of `before` and is ready, and returns it.
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn another(&self, before: &Pod) -> Result<Pod> {
        let (pods, name) = (self.pods(), before.metadata.name.as_deref().context("a pod has a name")?);
        try_eventually(&format!("another {name}"), || async {
            let pod = pods.get(name).await?;
            ensure!(pod.metadata.uid != before.metadata.uid, "the old one is still there");
            ensure!(pods::is(&pod, "Ready"), "{}", serde_json::to_string(&pod.status)?);
            Ok(pod)
        })
        .await
    }

    /// Waits until `kubectl` with these arguments prints what is looked for, and returns all of it.
    ///
    /// # Errors
    /// When it does not in time; with what it prints instead.
    pub async fn shows(&self, args: &[&str], wanted: &str) -> Result<String> {
        try_eventually(&format!("kubectl {} shows {wanted:?}", args.join(" ")), || async {
            let shown = self.kubectl(args)?;
            ensure!(shown.contains(wanted), "{shown}");
            Ok(shown)
        })
        .await
    }

    /// Waits until nothing is there under a name, given a type that `kubectl` knows.
    ///
    /// # Errors
    /// With what is there.
    pub async fn gone(&self, kind: &str, name: &str) -> Result<()> {
        try_eventually(&format!("{kind} {name} is gone"), || async {
            let found = self.kubectl(&["get", kind, name, "--ignore-not-found", "--output", "yaml"])?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        })
        .await
    }

    /// The last number that the log of a pod says was acknowledged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn acknowledged(&self, pod: &str) -> Result<u64> {
        let log = self.kubectl(&["logs", pod, "--container", "app"])?;
        Ok(log.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0))
    }

    /// Waits until a pod has appended up to a number; gives the last that was acknowledged.
    ///
    /// # Errors
    /// With how far it is.
    pub async fn append_until(&self, pod: &str, number: u64) -> Result<u64> {
        try_eventually(&format!("{pod} has appended {number} entries"), || async {
            let acknowledged = self.acknowledged(pod)?;
            ensure!(acknowledged >= number, "{acknowledged}");
            Ok(acknowledged)
        })
        .await
    }

    /// Reads the log of a pod back through its socket: whole, with every number up to `acknowledged`.
    ///
    /// # Errors
    /// With the verdict, where something is lost, doubled or out of order.
    pub async fn read_back(&self, pod: &str, collections: &str, acknowledged: u64) -> Result<Verdict> {
        let acknowledged = acknowledged.to_string();
        let command = ["/wal-app", "check", collections, "--acknowledged", &acknowledged];
        let said = try_eventually(&format!("the log of {pod} is read"), || async {
            match pods::exec(&self.pods(), pod, "app", &command).await {
                // The judgement is final, whatever it is; a broken connection is not.
                Err(error) if error.to_string().contains("\"lost\"") => Ok(Err(error)),
                other => other.map(Ok),
            }
        })
        .await?;
        let said = said.with_context(|| format!("the log of {pod} is not whole"))?;
        Ok(serde_json::from_str(said.trim())?)
    }
}
