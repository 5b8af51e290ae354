//! How long our share of a pod's start takes: behind its gate, and in its sidecar from the first line that it logs until it
//! serves. The scheduler, volumes, the kubelet and the period of its probes come on top, as for any pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::team::Team;
use crate::try_eventually;

/// When a pod was seen, and when it was seen without our gate.
#[derive(Clone, Copy, Debug)]
struct Gated {
    since: Instant,
    until: Option<Instant>,
}

/// Watches the pods of a team until it is dropped.
#[derive(Debug)]
pub struct Starts<'a> {
    team: &'a Team<'a>,
    seen: Arc<Mutex<BTreeMap<String, Gated>>>,
    _watching: JoinSet<Result<()>>,
}

impl<'a> Starts<'a> {
    /// Begins before pods are made.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn watch(team: &'a Team<'a>) -> Result<Self> {
        let seen: Arc<Mutex<BTreeMap<String, Gated>>> = Arc::default();
        let events = team.pods().watch(&WatchParams::default(), "0").await?;
        let mut watching = JoinSet::new();
        let notes = Arc::clone(&seen);
        watching.spawn(async move {
            tokio::pin!(events);
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event {
                    note(&mut notes.lock().unwrap_or_else(PoisonError::into_inner), &pod, Instant::now());
                }
            }
            Ok(())
        });
        Ok(Self { team, seen, _watching: watching })
    }

    /// The shares of these pods, in words.
    ///
    /// # Errors
    /// When one was not seen, or its sidecar does not serve in time.
    pub async fn shares(&self, pods: &[&str]) -> Result<String> {
        let mut shares = Vec::new();
        for pod in pods {
            let uid = self.team.pods().get(pod).await?.metadata.uid.context("a uid")?;
            let gated = try_eventually(&format!("the gate of {pod} was seen"), || async {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).copied();
                let gated = seen.with_context(|| format!("{pod} was not seen"))?;
                Ok::<_, anyhow::Error>(gated.until.context("it is gated")?.duration_since(gated.since))
            })
            .await?;
            let sidecar = try_eventually(&format!("the sidecar of {pod} serves"), || async {
                let log = self.team.kubectl(&["logs", pod, "--container=walstorage"])?;
                until_it_serves(&log).context(log)
            })
            .await?;
            shares.push((gated, sidecar));
        }
        let in_words = |of: fn(&(Duration, Duration)) -> Duration| {
            let all: Vec<String> = shares.iter().map(|share| of(share).as_millis().to_string()).collect();
            all.join(", ")
        };
        Ok(format!("{} ms behind the gate, {} ms in the sidecar", in_words(|share| share.0), in_words(|share| share.1)))
    }
}

fn note(seen: &mut BTreeMap<String, Gated>, pod: &Pod, now: Instant) {
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let gated = gates.into_iter().any(|gate| gate.name == "walstorage.dev/writer");
    let start = seen.entry(uid).or_insert(Gated { since: now, until: None });
    if !gated {
        start.until.get_or_insert(now);
    }
}

/// From the first line of a sidecar's log to the one that says that it serves.
fn until_it_serves(log: &str) -> Result<Duration> {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let time = |line: &Value| line["timestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let began = lines.first().and_then(time).context("it has said nothing")?;
    let serves = lines.iter().find(|line| line["message"] == "serving").and_then(time).context("it does not serve")?;
    ensure!(began <= serves, "its log is not in order");
    Ok(serves.duration_since(began).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_a_sidecar_serves_is_read_from_its_log() {
        let line = |time: &str, message: &str| {
            format!("{{\"timestamp\":\"2026-01-01T00:00:{time}Z\",\"message\":\"{message}\"}}\n")
        };
        let log =
            line("00.100000", "listening") + "noise\n" + &line("00.340000", "serving") + &line("09.000000", "serving");
        assert_eq!(until_it_serves(&log).unwrap(), Duration::from_millis(240));
        assert!(until_it_serves(&line("00.1", "listening")).is_err());
    }
}
