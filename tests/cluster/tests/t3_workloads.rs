//! What runs with a log, from nothing but the charts: StatefulSets, Deployments and Jobs in restricted namespaces. While
//! their apps append, pods are deleted, operators killed, nodes cut off; a witness outside of the cluster knows what was
//! acknowledged.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use walstorage_cluster_tests::charts::{self, RELEASE};
use walstorage_cluster_tests::images::WALSTORAGE;
use walstorage_cluster_tests::numbered::Verdict;
use walstorage_cluster_tests::objects::{stateful_set, storage_of, template};
use walstorage_cluster_tests::skip::skipped;
use walstorage_cluster_tests::starts::Starts;
use walstorage_cluster_tests::team::Team;
use walstorage_cluster_tests::witness::Witness;
use walstorage_cluster_tests::{Cluster, eventually, pods, tools, try_eventually};

const TWO: &str = "orders,payments";
/// So many more entries show that an app goes on.
const MORE: u64 = 20;
/// A leader that was killed is missed after seconds.
const HASTE: &str = r#"--set-json=controller.extraArgs=["--lease-duration=6s","--lease-renew=4s","--lease-retry=1s"]"#;

/// The cluster of the stories that leave it as it is, with the charts.
async fn shared_or_skip(test: &str) -> Result<Option<&'static Cluster>> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return Ok(None) };
    INSTALLED.get_or_try_init(|| async { charts::install(cluster, &[HASTE]) }).await?;
    Ok(Some(cluster))
}

/// A StatefulSet of three on two disks, and who hears it.
struct Shop<'a> {
    team: Team<'a>,
    witness: Witness,
}

impl Shop<'_> {
    const PODS: [&'static str; 3] = ["shop-0", "shop-1", "shop-2"];

    /// Whatever was done, all go on.
    async fn all_go_on(&self) -> Result<()> {
        for name in Self::PODS {
            self.witness.goes_on(name, MORE).await?;
        }
        Ok(())
    }

    fn lives(&self) -> [usize; 3] {
        Self::PODS.map(|name| self.witness.lives(name).len())
    }

    /// All have begun another life than these, and go on.
    async fn all_are_reborn(&self, before: [usize; 3]) -> Result<()> {
        for (name, before) in Self::PODS.into_iter().zip(before) {
            self.witness.reborn(name, before, MORE).await?;
        }
        Ok(())
    }

    /// Deletes a pod, as a user does, without waiting.
    fn delete(&self, name: &str) -> Result<usize> {
        let before = self.witness.lives(name).len();
        self.team.kubectl(&["delete", "pod", name, "--wait=false"])?;
        Ok(before)
    }

    /// The pods of a component of the operator, and their uids.
    async fn operators(&self, component: &str) -> Result<Vec<(Pod, String)>> {
        let pods: Api<Pod> = Api::namespaced(self.team.cluster().client(), RELEASE);
        let labelled = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        let with_uid = |pod: Pod| pod.metadata.uid.clone().map(|uid| (pod, uid)).context("a uid");
        pods.list(&labelled).await?.into_iter().map(with_uid).collect()
    }

    /// Kills all processes of the operator at once, and waits until all were started again.
    async fn kill_operator(&self) -> Result<()> {
        let mut killed = Vec::new();
        for component in ["controller", "webhook"] {
            for (pod, uid) in self.operators(component).await? {
                self.team.cluster().kill("node1", &uid, "walstorage-oper").await?;
                killed.push((component, pod));
            }
        }
        ensure!(killed.len() == 4, "two controllers and two webhooks: {}", killed.len());
        let pods: Api<Pod> = Api::namespaced(self.team.cluster().client(), RELEASE);
        for (component, before) in killed {
            let name = before.metadata.name.clone().context("a name")?;
            try_eventually(&format!("{name} is started again"), || async {
                let pod = pods.get(&name).await?;
                let again = pods::restarts(&pod, component) > pods::restarts(&before, component);
                if again && pods::is(&pod, "Ready") { Ok(()) } else { Err(anyhow!("{:?}", pod.status)) }
            })
            .await?;
        }
        Ok(())
    }

    /// While no webhook answers no labelled pod is made, whoever tries says why, and pods that run are left alone.
    async fn without_webhooks(&self) -> Result<()> {
        let cluster = self.team.cluster();
        let scale =
            |replicas: &str| cluster.kubectl(&["-n", RELEASE, "scale", "deployment", "walstorage-webhook", replicas]);
        scale("--replicas=0")?;
        for (_, uid) in self.operators("webhook").await? {
            // It may have ended by itself.
            drop(cluster.kill("node1", &uid, "walstorage-oper").await);
        }
        let selector = "--selector=app.kubernetes.io/component=webhook";
        eventually("no webhook is left", || async {
            let left = cluster.kubectl(&["-n", RELEASE, "get", "pods", selector, "--output=name"])?;
            if left.is_empty() { Ok(()) } else { Err(anyhow!(left)) }
        })
        .await;
        let before = self.delete("shop-2")?;
        // Of this pod: others may have been refused before.
        let refused = "Create Pod shop-2 in StatefulSet shop failed";
        let seen = self.team.shows(&["describe", "statefulset", "shop"], refused).await?;
        let why = seen.lines().find(|line| line.contains(refused)).context("a line of it")?;
        ensure!(
            why.contains("FailedCreate") && why.contains("failed calling webhook \"pods.walstorage.dev\""),
            "{why}"
        );
        ensure!(self.team.pods().get_opt("shop-2").await?.is_none(), "a pod was made without a webhook");
        self.witness.goes_on("shop-0", MORE).await?;
        scale("--replicas=2")?;
        self.witness.reborn("shop-2", before, MORE).await
    }

    /// The operator is upgraded to another image; pods are told outdated, with the line that brings them up to date.
    async fn upgrade(&self) -> Result<()> {
        let cluster = self.team.cluster();
        let next = WALSTORAGE.rsplit_once(':').context("a tag")?.0.to_owned() + ":next";
        cluster.run("node1", &format!("ctr -n k8s.io images tag {WALSTORAGE} {next}")).await?;
        let before = self.lives();
        charts::upgrade(cluster, &[HASTE, "--set=image.tag=next", "--set=timing.orphanAfterSeconds=60"])?;
        self.all_go_on().await?;
        ensure!(self.lives() == before, "an upgrade touches no pod of users");

        let message = r#"jsonpath={.status.conditions[?(@.type=="PodsUpToDate")].message}"#;
        let told = self.team.shows(&["get", "wal", "orders", "--output", message], "kubectl rollout restart").await?;
        let (_, line) = told.split_once("kubectl ").context("a line to run")?;
        cluster.kubectl(&line.split_whitespace().collect::<Vec<_>>())?;
        self.all_are_reborn(before).await?;
        self.team.kubectl(&["rollout", "status", "statefulset", "shop", "--timeout=120s"])?;
        let images = "jsonpath={.items[*].spec.initContainers[*].image}";
        let images = self.team.kubectl(&["get", "pods", "--output", images])?;
        ensure!(images.split_whitespace().eq([next.as_str(); 3]), "{images}");
        let up_to_date = r#"jsonpath={.status.conditions[?(@.type=="PodsUpToDate")].status}"#;
        self.team.shows(&["get", "wal", "orders", "--output", up_to_date], "True").await.map(drop)
    }

    /// Everything that was ever acknowledged is there, once and in order, on both disks.
    async fn read_back(&self) -> Result<Verdict> {
        let mut verdicts = Vec::new();
        for name in Self::PODS {
            let acknowledged = self.witness.acknowledged(name);
            verdicts.push(self.team.read_back(name, TWO, acknowledged).await?);
            let homes = ["/walctl", "collections", "--output", "json"];
            let homes = pods::exec(&self.team.pods(), name, "walstorage", &homes).await?;
            for disk in ["file:///wal/a", "file:///wal/b"] {
                ensure!(homes.contains(disk), "{name} has nothing on {disk}: {homes}");
            }
        }
        Ok(verdicts.into_iter().sum())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_loses_nothing_whatever_is_deleted_killed_upgraded_or_cut_off() -> Result<()> {
    let test = "a_stateful_set_loses_nothing_whatever_is_deleted_killed_upgraded_or_cut_off";
    if let Some(why) = tools::why_no_node() {
        skipped(test, &why);
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    charts::install(&cluster, &[HASTE])?;
    let shop = Shop { team: Team::new(&cluster, "shop").await?, witness: Witness::listen(&cluster).await? };
    let outcome = everything_is_done_to(&shop).await;
    shop.team.explained(outcome)
}

async fn everything_is_done_to(shop: &Shop<'_>) -> Result<()> {
    let cluster = shop.team.cluster();
    let pods = template("shop", "orders", &["append", TWO, "--every", "20"], Some(&shop.witness));
    let starts = Starts::watch(&shop.team).await?;
    shop.team.apply(&[storage_of("orders", &["a", "b"], "64Mi"), stateful_set("shop", 3, &pods)])?;
    shop.all_are_reborn([0; 3]).await?;
    println!("our share     {}", starts.shares(&Shop::PODS).await?);
    drop(starts);

    let before = shop.delete("shop-0")?;
    shop.witness.reborn("shop-0", before, MORE).await?;

    // A pod is made anew while all of the operator is killed.
    let before = shop.delete("shop-1")?;
    shop.kill_operator().await?;
    shop.witness.reborn("shop-1", before, MORE).await?;
    shop.all_go_on().await?;

    shop.without_webhooks().await?;
    shop.upgrade().await?;

    charts::uninstall(cluster)?;
    shop.all_go_on().await?;
    charts::upgrade(cluster, &[HASTE])?;
    let before = shop.delete("shop-1")?;
    shop.witness.reborn("shop-1", before, MORE).await?;

    let before = shop.lives();
    cluster.power_cut("node1").await?;
    shop.all_are_reborn(before).await?;

    let verdict = shop.read_back().await?;
    println!("read back     {verdict}");
    ensure!(verdict.is_whole(), "the log is not whole");
    shop.witness.judge()
}

/// A user's word that a process is dead may be wrong: its kubelet does not know yet. The next pod gets the writer on that
/// word; what keeps it from serving beside the old one is the lock, as the volumes may be mounted twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lives_on_after_a_deletion_by_force_is_acknowledged_until_its_end_and_never_after_the_next_serves()
-> Result<()> {
    let test = "what_lives_on_after_a_deletion_by_force_is_acknowledged_until_its_end_and_never_after_the_next_serves";
    let Some(cluster) = shared_or_skip(test).await? else { return Ok(()) };
    let team = Team::new(cluster, "force").await?;
    let outcome = is_deleted_by_force_and_lives(&team).await;
    team.explained(outcome)
}

async fn is_deleted_by_force_and_lives(team: &Team<'_>) -> Result<()> {
    let cluster = team.cluster();
    let witness = Witness::listen(cluster).await?;
    let mut log = storage_of("orders", &["a", "b"], "64Mi");
    log["spec"]["volumeDefaults"]["accessMode"] = json!("ReadWriteOnce");
    let pods = template("till", "orders", &["append", TWO, "--every", "20", "--linger", "60000"], Some(&witness));
    team.apply(&[log, stateful_set("till", 1, &pods)])?;
    witness.reborn("till-0", 0, MORE).await?;
    let old = team.pods().get("till-0").await?.metadata.uid.context("a uid")?;

    cluster.run("node1", "kill -STOP $(cat /run/kubelet.pid)").await?;
    team.kubectl(&["delete", "pod", "till-0", "--grace-period=0", "--force"])?;
    let holder = ["get", "walwriter", "orders.till-0", "--output=jsonpath={.status.phase} {.status.holder.podUid}"];
    try_eventually("the next pod holds the writer", || async {
        let shown = team.kubectl(&holder)?;
        ensure!(shown.starts_with("Pending ") && !shown.contains(&old), "{shown}; before {old}");
        Ok(())
    })
    .await?;
    witness.goes_on("till-0", MORE).await?;
    ensure!(witness.lives("till-0").len() == 1, "two at a time: {:?}", witness.lives("till-0"));

    cluster.run("node1", "kill -CONT $(cat /run/kubelet.pid)").await?;
    witness.reborn("till-0", 1, MORE).await?;
    let verdict = team.read_back("till-0", TWO, witness.acknowledged("till-0")).await?;
    ensure!(verdict.is_whole(), "{verdict}");
    witness.judge()
}

/// The pods of a Deployment have a log each, which outlives them.
struct Web<'a> {
    team: Team<'a>,
    witness: Witness,
}

impl Web<'_> {
    fn deployment(&self) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": template("web", "orders", &["append", TWO, "--every", "20"], Some(&self.witness)),
            },
        })
    }

    /// The pods that hold these writers.
    fn pods_of(&self, writers: &[String]) -> Result<Vec<String>> {
        let holder = "--output=jsonpath={.status.holder.podName}";
        let of = |writer: &String| self.team.kubectl(&["get", "walwriter", &format!("orders.{writer}"), holder]);
        writers.iter().map(of).collect()
    }

    fn lives(&self, writers: &[String]) -> Vec<usize> {
        writers.iter().map(|writer| self.witness.lives(writer).len()).collect()
    }

    /// Other pods than `before` have these writers and go on after what they found.
    async fn taken_over(&self, writers: &[String], before: Vec<usize>) -> Result<()> {
        for (writer, before) in writers.iter().zip(before) {
            self.witness.reborn(writer, before, MORE).await?;
        }
        Ok(())
    }

    /// Nobody begins with an empty log while others have entries.
    fn has_only(&self, writers: &[String]) -> Result<()> {
        let known = self.team.kubectl(&["get", "walwriters", "--output=jsonpath={.items[*].spec.writer}"])?;
        let known: BTreeSet<&str> = known.split_whitespace().collect();
        ensure!(known == writers.iter().map(String::as_str).collect(), "{known:?} instead of {writers:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_told_how_to_roll_out_and_then_its_pods_take_over_what_others_left() -> Result<()> {
    let test = "a_deployment_is_told_how_to_roll_out_and_then_its_pods_take_over_what_others_left";
    let Some(cluster) = shared_or_skip(test).await? else { return Ok(()) };
    let web = Web { team: Team::new(cluster, "web").await?, witness: Witness::listen(cluster).await? };
    let outcome = rolls_out_and_is_scaled(&web).await;
    web.team.explained(outcome)
}

async fn rolls_out_and_is_scaled(web: &Web<'_>) -> Result<()> {
    let mut deployment = web.deployment();
    web.team.apply(&[storage_of("orders", &["a", "b"], "64Mi"), deployment.clone()])?;

    let remedy = "strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}";
    let seen = web.team.shows(&["describe", "replicaset", "--selector=app=web"], remedy).await?;
    ensure!(seen.contains("FailedCreate"), "{seen}");
    let failure = r#"--output=jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}"#;
    web.team.shows(&["get", "deployment", "web", failure], remedy).await?;
    let pods = web.team.kubectl(&["get", "pods", "--output=name"])?;
    ensure!(pods.is_empty(), "{pods}");

    deployment["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    web.team.apply(&[deployment])?;
    let writers = try_eventually("two pods have begun", || async {
        let names = web.witness.names();
        if names.len() == 2 { Ok(names) } else { Err(anyhow!("{names:?}")) }
    })
    .await?;
    web.taken_over(&writers, vec![0; 2]).await?;

    println!("web: a pod is deleted");
    let before = web.lives(&writers[..1]);
    web.team.kubectl(&["delete", "pod", "--wait=false", &web.pods_of(&writers)?[0]])?;
    web.taken_over(&writers[..1], before).await?;
    web.has_only(&writers)?;

    println!("web: a rollout");
    let before = web.lives(&writers);
    web.team.kubectl(&["rollout", "restart", "deployment", "web"])?;
    web.taken_over(&writers, before).await?;
    web.has_only(&writers)?;

    println!("web: 2 -> 0 -> 2");
    web.team.kubectl(&["scale", "deployment", "web", "--replicas=0"])?;
    web.team.kubectl(&["wait", "--for=delete", "pod", "--selector=app=web", "--timeout=120s"])?;
    let before = web.lives(&writers);
    web.team.kubectl(&["scale", "deployment", "web", "--replicas=2"])?;
    web.taken_over(&writers, before).await?;
    web.has_only(&writers)?;

    let mut verdicts = Vec::new();
    for (writer, pod) in writers.iter().zip(web.pods_of(&writers)?) {
        verdicts.push(web.team.read_back(&pod, TWO, web.witness.acknowledged(writer)).await?);
    }
    let verdict: Verdict = verdicts.into_iter().sum();
    ensure!(verdict.is_whole(), "{verdict}");
    web.witness.judge()
}

/// A Job whose pods have an index, each with these arguments.
fn indexed_job(args: &[&str]) -> Value {
    let mut pods = template("count", "orders", args, None);
    pods["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "count"},
        "spec": {
            "completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimit": 0, "template": pods,
        },
    })
}

/// Nothing but the pods of a Job of that name and index reads what one has left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexed_job_completes_and_the_next_of_its_name_reads_what_it_left() -> Result<()> {
    let test = "an_indexed_job_completes_and_the_next_of_its_name_reads_what_it_left";
    let Some(cluster) = shared_or_skip(test).await? else { return Ok(()) };
    let team = Team::new(cluster, "job").await?;
    let outcome = completes_and_is_read(&team).await;
    team.explained(outcome)
}

async fn completes_and_is_read(team: &Team<'_>) -> Result<()> {
    let complete = || team.kubectl(&["wait", "--for=condition=complete", "job/count", "--timeout=180s"]);
    team.apply(&[storage_of("orders", &["a", "b"], "64Mi"), indexed_job(&["append", TWO, "--count", "25"])])?;
    complete()?;
    let left =
        "--output=jsonpath={range .items[*]}{.spec.writer} {.status.phase} {.status.lastReport.unappliedEntries},{end}";
    team.shows(&["get", "walwriters", left], "count-0 Released 50,count-1 Released 50,count-2 Released 50,").await?;

    team.kubectl(&["delete", "job", "count", "--wait"])?;
    team.apply(&[indexed_job(&["check", TWO, "--acknowledged", "25"])])?;
    complete()?;
    let said = team.kubectl(&["logs", "--selector=batch.kubernetes.io/job-name=count", "--container=app"])?;
    ensure!(said.matches("\"entries\":50").count() == 3, "{said}");
    Ok(())
}
