//! The commands of docs/runbooks, as they stand there, on a cluster with the charts. Somebody who is called at night pastes
//! them: each must run, and do what its page says.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, Secret};
use kube::api::Api;
use serde_json::{Value, json};
use walstorage_cluster_tests::binaries::repository;
use walstorage_cluster_tests::charts::RELEASE;
use walstorage_cluster_tests::runbook::{self, command_of, commands, page, paste};
use walstorage_cluster_tests::story::{Story, disk, stateful_set, storage};
use walstorage_cluster_tests::{charts, eventually, try_eventually};
use walstorage_crds::walwriter::Phase;

/// Commands that are not run, by what they begin with, and why.
const NOT_RUN: [(&str, &str); 5] = [
    ("kubectl describe certificate", "cert-manager is not installed"),
    ("kubectl taint node", "of a suite with two nodes"),
    ("kubectl delete pod -n NAMESPACE POD --force", "of a suite with two nodes"),
    ("kubectl annotate", "a test of its own"),
    ("kubectl patch", "a test of its own"),
];

/// A command with the names of a story in it, for a shell.
fn filled(command: &str, story: &Story<'_>) -> String {
    runbook::filled(command, story.namespace(), "app-0")
}

async fn begin<'a>(cluster: &'a walstorage_cluster_tests::Cluster, prefix: &str) -> Story<'a> {
    let story = Story::begin(cluster, prefix).await;
    let spec = json!({"walUrls": [disk("data", "64Mi")], "globalFlushThreshold": "64Mi"});
    story.apply(&[storage("log", &spec), stateful_set("app", "log", 1, &["--every", "10"])]).unwrap();
    story.ready("app-0").await.unwrap();
    story.append_until("app-0", 20).await.unwrap();
    story
}

#[tokio::test]
async fn every_command_of_the_runbooks_runs() {
    let Some(cluster) = charts::shared_or_skip("every_command_of_the_runbooks_runs").await else { return };
    let story = begin(cluster, "look").await;
    story.phase("log", "app-0", Phase::Active).await.unwrap();
    let mut run = 0;
    for entry in std::fs::read_dir(repository().join("docs/runbooks")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let found = commands(&page(&name));
        assert!(name == "README.md" || !found.is_empty(), "{name} has no command");
        for command in found {
            if NOT_RUN.iter().any(|(begins, _)| command.starts_with(begins)) {
                continue;
            }
            let line = filled(&command, &story);
            let said = paste(story.cluster(), &line).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!said.trim().is_empty(), "{name}: {line} says nothing");
            run += 1;
        }
    }
    assert!(run > 15, "{run} commands");
}

#[tokio::test]
async fn an_orphan_is_given_up_as_its_runbook_says() {
    let Some(cluster) = charts::shared_or_skip("an_orphan_is_given_up_as_its_runbook_says").await else { return };
    let story = begin(cluster, "abandon").await;
    story.kubectl(&["scale", "statefulset", "app", "--replicas=0"]).unwrap();
    let orphan = story.phase("log", "app-0", Phase::Orphaned).await.unwrap();
    let undrained = story.condition("log", "UndrainedData", "True", "OrphanedWriters").await.unwrap().message;
    assert!(undrained.starts_with("1 writer (log.app-0) without a pod, with "), "{undrained}");
    let command = command_of("WalUndrainedData.md", "kubectl annotate");
    let uid = &orphan.spec.writer_uid;
    let line = filled(&command.replace("WRITER_UID", uid), &story);
    assert_eq!(line, format!("kubectl annotate walw -n {} log.app-0 walstorage.dev/abandon={uid}", story.namespace()));
    assert!(undrained.ends_with(&line.replace(" walw ", " walwriter ")), "the condition says the same: {undrained}");

    // Another uid is a mistake, and gives nothing up.
    paste(story.cluster(), &line.replace(uid.as_str(), "0b0a3f6c-5f3a-4f2d-8f2c-0a4a2f1d7c11")).unwrap();
    story.event("WalWriter", "log.app-0", "Orphaned").await.unwrap();
    story.claims().get("wal-log--data-app-0").await.expect("the claim stays");
    paste(story.cluster(), &format!("{line} --overwrite")).unwrap();
    story.gone("pvc", "wal-log--data-app-0").await.unwrap();
    let tombstone = story.phase("log", "app-0", Phase::Drained).await.unwrap();
    assert_eq!(&tombstone.spec.writer_uid, uid);
    story.condition("log", "UndrainedData", "False", "None").await.unwrap();
    // The next pod of that name begins with an empty log.
    story.kubectl(&["scale", "statefulset", "app", "--replicas=1"]).unwrap();
    story.ready("app-0").await.unwrap();
    let log = eventually("it has looked", || async {
        let log = story.kubectl(&["logs", "app-0", "--container", "app"])?;
        ensure!(log.contains("found "), "{log}");
        Ok(log)
    })
    .await;
    assert!(log.contains("found 0\n"), "{log}");
}

#[tokio::test]
async fn a_volume_that_is_brought_back_as_its_runbook_says_has_its_entries() {
    let test = "a_volume_that_is_brought_back_as_its_runbook_says_has_its_entries";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = begin(cluster, "back").await;
    let claim = story.claims().get("wal-log--data-app-0").await.unwrap();
    let volume = claim.spec.unwrap().volume_name.unwrap();
    let keep = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}}).to_string();
    story.kubectl(&["patch", "pv", &volume, "--patch", &keep]).unwrap();
    story.kubectl(&["scale", "statefulset", "app", "--replicas=0"]).unwrap();
    story.gone("pod", "app-0").await.unwrap();
    let acknowledged = story.phase("log", "app-0", Phase::Orphaned).await.unwrap();
    let acknowledged = acknowledged.status.unwrap().last_report.unwrap().unapplied_entries.unwrap();
    story.kubectl(&["delete", "pvc", "wal-log--data-app-0"]).unwrap();
    let lost = story.phase("log", "app-0", Phase::Lost).await.unwrap();
    released(&story, &volume).await.unwrap();

    let fill = |text: &str| {
        filled(&text.replace("WRITER_UID", &lost.spec.writer_uid), &story)
            .replace("VOLUME", &volume)
            .replace("CLAIM", "wal-log--data-app-0")
            .replace("URL", "data")
            .replace("SIZE", "64Mi")
            .replace("CLASS", "wal")
    };
    paste(story.cluster(), &fill(&command_of("WalWriterLost.md", "kubectl patch pv"))).unwrap();
    let text = page("WalWriterLost.md");
    let manifest = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a claim").unwrap();
    let indent = manifest.len() - manifest.trim_start().len();
    let manifest: String =
        manifest.lines().map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), fill(&manifest)).unwrap();
    story.kubectl(&["apply", "--filename", &file.path().display().to_string()]).unwrap();
    let accept = command_of("WalWriterLost.md", "kubectl annotate").replace("URL@", "data@");
    let uid = story.claims().get("wal-log--data-app-0").await.unwrap().metadata.uid.unwrap();
    paste(story.cluster(), &filled(&accept.replace("NEW_CLAIM_UID", &uid), &story)).unwrap();

    story.kubectl(&["scale", "statefulset", "app", "--replicas=1"]).unwrap();
    story.ready("app-0").await.unwrap();
    let verdict = story.check("app-0", u64::try_from(acknowledged).unwrap()).await.expect("all of it is there");
    assert!(verdict.entries >= u64::try_from(acknowledged).unwrap(), "{verdict:?}");
}

async fn released(story: &Story<'_>, volume: &str) -> Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(story.cluster().client());
    try_eventually("the volume has no claim", || async {
        let phase = volumes.get(volume).await?.status.and_then(|status| status.phase).unwrap_or_default();
        ensure!(phase == "Released", "{phase}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_certificate_is_renewed_at_once_when_somebody_asks_as_the_runbook_says() {
    let test = "a_certificate_is_renewed_at_once_when_somebody_asks_as_the_runbook_says";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "renew").await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), RELEASE);
    let name = format!("{RELEASE}-webhook-tls");
    let leaf = || async {
        let secret: Value = serde_json::to_value(secrets.get(&name).await?)?;
        anyhow::Ok(secret["data"]["tls.crt"].clone())
    };
    let before = leaf().await.unwrap();
    paste(story.cluster(), &filled(&command_of("WalCertificateExpiring.md", "kubectl annotate"), &story)).unwrap();
    eventually("another certificate", || async {
        ensure!(leaf().await? != before, "the same");
        Ok(())
    })
    .await;
}
