//! Logs in buckets, from nothing but the charts: pods without a disk in restricted namespaces, with keys from Secrets,
//! authorities from ConfigMaps, tokens of their service accounts. What is wrong is named where users look, and repairing it is
//! enough.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use walstorage_cluster_tests::images::WALSTORAGE;
use walstorage_cluster_tests::numbered::Verdict;
use walstorage_cluster_tests::objects::{disk, stateful_set, storage, template};
use walstorage_cluster_tests::store::{KEY, Refusal, Store, secret};
use walstorage_cluster_tests::team::Team;
use walstorage_cluster_tests::witness::Witness;
use walstorage_cluster_tests::{Cluster, binaries, charts, pods, try_eventually};

const TWO: &str = "orders,payments";
/// So many more entries show that an app goes on.
const MORE: u64 = 20;
/// One of each part is enough; an orphan after two seconds; sidecars are asked every two.
const VALUES: [&str; 2] = [
    "--set=controller.replicas=1,webhook.replicas=1,timing.orphanAfterSeconds=2",
    r#"--set-json=controller.extraArgs=["--poll-interval=2s"]"#,
];

/// A restricted namespace of a cluster with the charts, a store that its pods reach, and who hears their apps.
struct Cloud<'a> {
    team: Team<'a>,
    store: Store,
    witness: Witness,
}

impl<'a> Cloud<'a> {
    async fn new(cluster: &'a Cluster, store: Store, prefix: &str) -> Result<Self> {
        Ok(Self { team: Team::new(cluster, prefix).await?, store, witness: Witness::listen(cluster).await? })
    }

    /// A WalStorage `orders` of these URLs and a StatefulSet `app` of one pod, which appends to two collections.
    fn begin(&self, urls: &[Value]) -> Result<()> {
        let pods = template("app", "orders", &["append", TWO, "--every", "20"], Some(&self.witness));
        self.team.apply(&[storage("orders", &spec(urls)), stateful_set("app", 1, &pods)])
    }

    /// The pod goes, and the next one goes on after all that was acknowledged.
    async fn another_life(&self) -> Result<()> {
        let before = self.witness.lives("app-0").len();
        self.team.kubectl(&["delete", "pod", "app-0", "--wait=false"])?;
        self.witness.reborn("app-0", before, MORE).await
    }

    /// Every acknowledged entry is there, once and in order.
    async fn is_whole(&self) -> Result<()> {
        let verdict = self.team.read_back("app-0", TWO, self.witness.acknowledged("app-0")).await?;
        println!("read back     {verdict}");
        ensure!(verdict.is_whole(), "{verdict}");
        self.witness.judge()
    }

    /// Waits until `kubectl describe` of the WalStorage says all of this.
    async fn described(&self, wanted: &[&str]) -> Result<String> {
        let mut shown = String::new();
        for wanted in wanted {
            shown = self.team.shows(&["describe", "wal", "orders"], wanted).await?;
        }
        Ok(shown)
    }

    /// Waits until an Event of the WalStorage says each of this, and returns all of them.
    async fn told(&self, wanted: &[&str]) -> Result<String> {
        try_eventually(&format!("Events say {wanted:?}"), || async {
            let shown = self.team.kubectl(&["describe", "wal", "orders"])?;
            let events = shown.split_once("Events:").context("no Events")?.1;
            match wanted.iter().find(|wanted| !events.contains(**wanted)) {
                None => Ok(events.to_owned()),
                Some(lacking) => Err(anyhow!("no Event says {lacking}: {events}")),
            }
        })
        .await
    }

    /// Waits until the condition DirectoriesHealthy is so, with this reason.
    async fn healthy(&self, is: &str, reason: &str) -> Result<()> {
        let condition =
            r#"--output=jsonpath={range .status.conditions[?(@.type=="DirectoriesHealthy")]}{.status} {.reason}{end}"#;
        self.team.shows(&["get", "wal", "orders", condition], &format!("{is} {reason}")).await.map(drop)
    }

    /// How often the sidecar and the app were started again.
    async fn restarts(&self) -> Result<[i32; 2]> {
        let pod = self.team.pods().get("app-0").await?;
        Ok(["walstorage", "app"].map(|container| pods::restarts(&pod, container)))
    }

    async fn exec(&self, command: &[&str]) -> Result<String> {
        pods::exec(&self.team.pods(), "app-0", "app", command).await
    }
}

/// What the WalStorage of these tests says, with these URLs.
fn spec(urls: &[Value]) -> Value {
    json!({
        "walUrls": urls, "distributionStrategy": "RoundRobin", "globalFlushThreshold": "64Mi", "bucketCommitInterval": "50ms",
    })
}

async fn shared_or_skip(test: &str) -> Result<Option<&'static Cluster>> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return Ok(None) };
    INSTALLED.get_or_try_init(|| async { charts::install(cluster, &VALUES) }).await?;
    Ok(Some(cluster))
}

/// A namespace whose store speaks HTTP.
async fn cloud_or_skip(test: &str, prefix: &str) -> Result<Option<Cloud<'static>>> {
    let Some(cluster) = shared_or_skip(test).await? else { return Ok(None) };
    let Some(store) = Store::open_or_skip(test, cluster).await? else { return Ok(None) };
    Cloud::new(cluster, store, prefix).await.map(Some)
}

/// One whose store speaks HTTPS, under an authority that nobody knows.
async fn private_cloud_or_skip(test: &str, prefix: &str) -> Result<Option<Cloud<'static>>> {
    let Some(cluster) = shared_or_skip(test).await? else { return Ok(None) };
    let Some(store) = Store::private_or_skip(test, cluster).await? else { return Ok(None) };
    Cloud::new(cluster, store, prefix).await.map(Some)
}

/// The certificate of a store's authority, as a team keeps it.
fn config_map(store: &Store) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corp-ca"}, "data": {"ca.crt": store.authority()}})
}

fn by_config_map() -> Value {
    json!({"configMapName": "corp-ca", "key": "ca.crt"})
}

fn by_secret() -> Value {
    json!({"credentials": {"secretName": "wal-s3"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_disk_keeps_its_log_in_a_bucket() -> Result<()> {
    let test = "a_pod_without_a_disk_keeps_its_log_in_a_bucket";
    let Some(cloud) = cloud_or_skip(test, "serverless").await? else { return Ok(()) };
    let outcome = lives_without_a_disk(&cloud).await;
    cloud.team.explained(outcome)
}

async fn lives_without_a_disk(cloud: &Cloud<'_>) -> Result<()> {
    cloud.store.make("serverless").await?;
    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    cloud.begin(&[cloud.store.url("cloud", "serverless", &by_secret())])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.another_life().await?;

    let pod = cloud.team.pods().get("app-0").await?;
    let uid = pod.metadata.uid.context("a uid")?;
    cloud.team.cluster().kill("node1", &uid, "walstorage-side").await?;
    cloud.witness.goes_on("app-0", MORE).await?;
    cloud.is_whole().await?;

    // What was applied is forgotten, and stays so.
    let applied = 2 * MORE;
    let up_to = applied.to_string();
    for collection in TWO.split(',') {
        cloud.exec(&["/wal-app", "truncate", collection, &up_to]).await?;
    }
    cloud.another_life().await?;
    let acknowledged = cloud.witness.acknowledged("app-0").to_string();
    let said = cloud.exec(&["/wal-app", "check", TWO, "--acknowledged", &acknowledged, "--truncated", &up_to]).await?;
    let verdict: Verdict = serde_json::from_str(said.trim()).with_context(|| said.clone())?;
    ensure!(verdict.is_whole() && verdict.entries > 0, "{verdict}");

    let claims = cloud.team.kubectl(&["get", "persistentvolumeclaims", "--output=name"])?;
    ensure!(claims.is_empty(), "{claims}");
    cloud.healthy("True", "Healthy").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_beside_a_bucket_has_one_half_of_the_log() -> Result<()> {
    let test = "a_disk_beside_a_bucket_has_one_half_of_the_log";
    let Some(cloud) = cloud_or_skip(test, "mixed").await? else { return Ok(()) };
    let outcome = lives_on_both(&cloud).await;
    cloud.team.explained(outcome)
}

async fn lives_on_both(cloud: &Cloud<'_>) -> Result<()> {
    cloud.store.make("mixed").await?;
    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    cloud.begin(&[disk("fast", "64Mi"), cloud.store.url("cloud", "mixed", &by_secret())])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    let homes =
        pods::exec(&cloud.team.pods(), "app-0", "walstorage", &["/walctl", "collections", "--output", "json"]).await?;
    for home in ["file:///wal/fast", "s3://mixed/wal"] {
        ensure!(homes.contains(home), "no collection is in {home}: {homes}");
    }
    cloud.another_life().await?;
    cloud.is_whole().await?;
    let states = "--output=jsonpath={range .status.urls[*]}{.name} {.state},{end}";
    cloud.team.shows(&["get", "wal", "orders", states], "fast healthy,cloud healthy,").await.map(drop)
}

/// A pod that lacks its Secret waits without being started again and again, and says what it lacks; a key that is replaced under a
/// pod that runs is taken up by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_may_come_late_and_may_be_replaced() -> Result<()> {
    let test = "a_secret_may_come_late_and_may_be_replaced";
    let Some(cloud) = cloud_or_skip(test, "secret").await? else { return Ok(()) };
    let outcome = waits_for_its_secret(&cloud).await;
    cloud.team.explained(outcome)
}

async fn waits_for_its_secret(cloud: &Cloud<'_>) -> Result<()> {
    cloud.store.make("secret").await?;
    cloud.begin(&[cloud.store.url("cloud", "secret", &by_secret())])?;
    let lacks = ["NoCredentials", "cloud (s3://secret/wal) of writer app-0 is no_credentials", "Secret wal-s3"];
    println!("{}", cloud.described(&lacks).await?);
    println!("{}", cloud.told(&["DirectoryUnhealthy", "no_credentials"]).await?);
    let pod = cloud.team.shows(&["describe", "pod", "app-0"], "DirectoryUnhealthy").await?;
    println!("{}", pod.split_once("Events:").context("no events")?.1);
    ensure!(pod.contains("Secret wal-s3"), "{pod}");
    ensure!(cloud.restarts().await? == [0, 0], "it waits");

    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.healthy("True", "Healthy").await?;

    // The key is withdrawn, and another one given out.
    cloud.store.give_out_only("AKIASECOND");
    cloud.healthy("False", "WrongCredentials").await?;
    let shown = cloud.described(&["is wrong_credentials", "AKIAFIRST", "Secret wal-s3"]).await?;
    println!("{shown}");
    cloud.team.apply(&[secret("wal-s3", "AKIASECOND")])?;
    cloud.witness.goes_on("app-0", MORE).await?;
    cloud.healthy("True", "Healthy").await?;
    ensure!(cloud.restarts().await? == [0, 0], "nothing had to be started again");
    cloud.told(&["DirectoryHealthy"]).await?;
    cloud.is_whole().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_by_its_config_map() -> Result<()> {
    let test = "an_authority_of_ones_own_is_trusted_by_its_config_map";
    let Some(cloud) = private_cloud_or_skip(test, "authority").await? else { return Ok(()) };
    let outcome = trusts_its_config_map(&cloud).await;
    cloud.team.explained(outcome)
}

async fn trusts_its_config_map(cloud: &Cloud<'_>) -> Result<()> {
    cloud.store.make("authority").await?;
    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    let mut more = by_secret();
    more["caBundle"] = by_config_map();
    cloud.begin(&[cloud.store.url("cloud", "authority", &more)])?;
    cloud.described(&["is misconfigured", "ConfigMap corp-ca"]).await?;
    cloud.team.apply(&[config_map(&cloud.store)])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.healthy("True", "Healthy").await?;
    ensure!(cloud.restarts().await? == [0, 0], "nothing had to be started again");
    cloud.is_whole().await
}

/// A token that the kubelet projects is exchanged for keys of a role, by moto's STS: tokens travel by HTTPS only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_let_in_as_its_service_account() -> Result<()> {
    let test = "a_pod_is_let_in_as_its_service_account";
    let Some(cloud) = private_cloud_or_skip(test, "identity").await? else { return Ok(()) };
    let outcome = comes_as_its_service_account(&cloud).await;
    cloud.team.explained(outcome)
}

async fn comes_as_its_service_account(cloud: &Cloud<'_>) -> Result<()> {
    cloud.store.make("identity").await?;
    let identity = json!({
        "roleArn": "arn:aws:iam::123456789012:role/orders", "audience": "sts.amazonaws.com",
        "env": [{"name": "AWS_ENDPOINT_URL_STS", "value": cloud.store.endpoint()}],
    });
    let more = json!({"credentials": {"workloadIdentity": identity}, "caBundle": by_config_map()});
    cloud.team.apply(&[config_map(&cloud.store)])?;
    cloud.begin(&[cloud.store.url("cloud", "identity", &more)])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.another_life().await?;
    cloud.is_whole().await?;
    let tokens = cloud.store.tokens();
    let subject = format!("system:serviceaccount:{}:default", cloud.team.namespace());
    let as_meant = |token: &Value| token["aud"] == json!(["sts.amazonaws.com"]) && token["sub"] == json!(subject);
    ensure!(!tokens.is_empty() && tokens.iter().all(as_meant), "{tokens:?}");
    Ok(())
}

/// What a store says no with has a name, a remedy and an Event each, for a pod that waits to start as for one that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_store_refuses_is_named() -> Result<()> {
    let test = "whatever_a_store_refuses_is_named";
    let Some(cloud) = cloud_or_skip(test, "named").await? else { return Ok(()) };
    let outcome = names_what_is_refused(&cloud).await;
    cloud.team.explained(outcome)
}

async fn names_what_is_refused(cloud: &Cloud<'_>) -> Result<()> {
    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    cloud.begin(&[cloud.store.url("cloud", "named", &by_secret())])?;
    cloud.healthy("False", "MissingBucket").await?;
    cloud.described(&["create the bucket \"named\""]).await?;
    // Before the bucket is there, or the pod would start.
    cloud.store.refuse(Some(Refusal::DeniedWrite));
    cloud.store.make("named").await?;
    let table = [
        (Refusal::DeniedWrite, "DeniedWrite", "grant s3:PutObject"),
        (Refusal::WrongRegion, "WrongRegion", "set region = \"eu-west-1\""),
        (Refusal::Expired, "ExpiredCredentials", "Secret wal-s3"),
        (Refusal::Skewed, "ClockSkew", "synchronise it"),
        (Refusal::CreatesTwice, "NotCreateOnly", "use another store"),
    ];
    for (refusal, reason, remedy) in table {
        cloud.store.refuse(Some(refusal));
        cloud.healthy("False", reason).await?;
        let state = "--output=jsonpath={.status.urls[0].state}";
        println!("{reason}: {}", cloud.team.kubectl(&["get", "wal", "orders", state])?);
        cloud.described(&[remedy]).await?;
    }
    println!("{}", cloud.told(&table.map(|(_, _, remedy)| remedy)).await?);
    ensure!(cloud.restarts().await? == [0, 0], "it waits");
    cloud.store.refuse(None);
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.healthy("True", "Healthy").await?;
    cloud.is_whole().await
}

/// What a writer left on its disk when its workload was scaled down is moved to the bucket by the Job that `render` prints; its
/// next pod has no disk, and reads everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_moves_an_orphans_entries_to_the_bucket() -> Result<()> {
    let test = "a_job_moves_an_orphans_entries_to_the_bucket";
    let Some(cloud) = cloud_or_skip(test, "drain").await? else { return Ok(()) };
    let outcome = is_drained_by_a_job(&cloud).await;
    cloud.team.explained(outcome)
}

async fn is_drained_by_a_job(cloud: &Cloud<'_>) -> Result<()> {
    let bucket = cloud.store.url("cloud", "drain", &by_secret());
    cloud.store.make("drain").await?;
    cloud.team.apply(&[secret("wal-s3", KEY)])?;
    cloud.begin(&[disk("fast", "64Mi"), bucket.clone()])?;
    cloud.witness.reborn("app-0", 0, MORE).await?;
    cloud.team.kubectl(&["scale", "statefulset", "app", "--replicas=0"])?;
    let shown = "--output=jsonpath={.status.phase} {range .status.volumes[*]}{.name}={.empty} {end}";
    let shown = ["get", "walwriter", "orders.app-0", shown];
    cloud.team.shows(&shown, "Orphaned fast=False cloud=False").await?;

    let known = cloud.team.kubectl(&["get", "walwriters,walstorages", "--output=yaml"])?;
    let job = render_drain("orders.app-0", &known)?;
    println!("{job}");
    cloud.team.apply(&[serde_yaml::from_str(&job)?])?;
    cloud.team.kubectl(&["wait", "--for=condition=complete", "job/drain-orders-app-0", "--timeout=120s"])?;
    println!("{}", cloud.team.kubectl(&["logs", "job/drain-orders-app-0", "--container=drain"])?);
    println!("{}", cloud.team.shows(&shown, "fast=True cloud=False").await?);
    cloud.team.shows(&shown, "Orphaned").await?;
    let claims = cloud.team.kubectl(&["get", "persistentvolumeclaims", "--output=name"])?;
    ensure!(claims.contains("wal-orders--fast-app-0"), "an emptied claim stays with its writer: {claims}");

    // Without the disk, and with it away.
    cloud.team.apply(&[storage("orders", &spec(&[bucket]))])?;
    let config = ["get", "configmap", "orders-walstorage", "--output=jsonpath={.data}"];
    try_eventually("the disk leaves the configuration", || async {
        let text = cloud.team.kubectl(&config)?;
        if text.contains("file:") { Err(anyhow!(text)) } else { Ok(()) }
    })
    .await?;
    let before = cloud.witness.lives("app-0").len();
    cloud.team.kubectl(&["scale", "statefulset", "app", "--replicas=1"])?;
    cloud.witness.reborn("app-0", before, MORE).await?;
    let pod = cloud.team.pods().get("app-0").await?.spec.context("a spec")?;
    let claims = pod.volumes.iter().flatten().filter(|volume| volume.persistent_volume_claim.is_some()).count();
    ensure!(claims == 0, "its pod has a disk");
    cloud.is_whole().await
}

/// The Job that `render drain` prints of what `kubectl` does.
fn render_drain(writer: &str, known: &str) -> Result<String> {
    let image = ["--sidecar-image", WALSTORAGE, "--sidecar-pull-policy", "Never"];
    let mut child = Command::new(binaries::program("walstorage-operator"))
        .args(["render", "drain", writer, "-f", "-"])
        .args(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("its input")?.write_all(known.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}
