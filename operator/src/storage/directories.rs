//! What writers report of their directories: the condition DirectoriesHealthy, and `status.urls`. Pure.
//!
//! The reports are for display: nothing is decided by them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use walstorage_crds::walstorage::{Effective, EffectiveUrl, Place, UrlState};
use walstorage_crds::walwriter::{Phase, WalWriter, WriterVolume};

use super::conditions::Said;
use super::dereference::Found;
use super::validate::Draining;

/// States of a directory as the sidecar names them, the worst first. What is not here is worse than all.
const STATES: [&str; 11] = [
    "lost",
    "foreign",
    "failed",
    "missing",
    "not_mounted",
    "full",
    "forgotten",
    "pending_restart",
    "slow",
    "draining",
    "healthy",
];
/// States that ask nothing of anybody.
const FINE: [&str; 4] = ["healthy", "slow", "draining", "forgotten"];
/// States in which entries can be appended.
const WRITABLE: [&str; 3] = ["healthy", "slow", "draining"];

fn rank(state: &str) -> usize {
    STATES.iter().position(|known| *known == state).map_or(0, |at| at + 1)
}

/// Directories of writers that a pod holds now: only those are reported on.
fn reported(writers: &[impl AsRef<WalWriter>]) -> impl Iterator<Item = (&WalWriter, &WriterVolume, &str)> {
    let held = writers.iter().map(AsRef::as_ref).filter(|writer| phase(writer) == Some(Phase::Active));
    held.flat_map(|writer| {
        let volumes = writer.status.iter().flat_map(|status| status.volumes.iter().flatten());
        volumes.filter_map(move |volume| Some((writer, volume, volume.state.as_deref()?)))
    })
}

fn phase(writer: &WalWriter) -> Option<Phase> {
    writer.status.as_ref()?.phase
}

/// Writers with a pod and without a directory that takes entries.
#[must_use]
pub fn unwritable(writers: &[impl AsRef<WalWriter>]) -> Vec<String> {
    let mut writable: BTreeMap<&str, bool> = BTreeMap::new();
    for (writer, _, state) in reported(writers) {
        *writable.entry(&writer.spec.writer).or_default() |= WRITABLE.contains(&state);
    }
    writable.into_iter().filter(|(_, writable)| !writable).map(|(writer, _)| writer.to_owned()).collect()
}

/// DirectoriesHealthy.
#[must_use]
pub fn healthy(found: &Found, effective: &Effective) -> Said {
    if effective.admin_port.is_none() {
        return Said::unknown("NotObserved", "adminPort is 0: nobody can ask the sidecars");
    }
    let mut bad: Vec<(usize, String)> = Vec::new();
    let mut seen = 0;
    for (writer, volume, state) in reported(&found.writers) {
        seen += 1;
        if !FINE.contains(&state) {
            let mut sentence = format!("{} of writer {} is {state}", volume.name, writer.spec.writer);
            if let Some(remedy) = remedy(effective, volume, state) {
                // Writing to a String cannot fail.
                let _ = write!(sentence, " ({remedy})");
            }
            bad.push((rank(state), sentence));
        }
    }
    if bad.is_empty() {
        return if seen == 0 {
            Said::unknown("NotObserved", "no sidecar has been asked yet")
        } else {
            Said::yes("Healthy", format!("{seen} directories"))
        };
    }
    bad.sort();
    let count = bad.len();
    let shown: Vec<String> = bad.into_iter().take(5).map(|(_, sentence)| sentence).collect();
    let more = if count > shown.len() { format!("; and {} more", count - shown.len()) } else { String::new() };
    Said::no("DirectoryUnhealthy", format!("{}{more}", shown.join("; ")))
}

/// What to do about a directory, as far as the operator can know.
fn remedy(effective: &Effective, volume: &WriterVolume, state: &str) -> Option<String> {
    let url = effective.urls.iter().chain(&effective.journal).find(|url| url.name == volume.name);
    let credentials = url.and_then(secret);
    match (state, credentials) {
        ("full", _) => Some("raise the URL's volume.size, or let the application truncate".to_owned()),
        ("not_mounted" | "pending_restart", _) => Some("restart the pod".to_owned()),
        ("failed" | "missing", Some(secret)) => Some(format!(
            "credentials come from Secret {secret}, which the operator cannot read: is it there and right?"
        )),
        _ => None,
    }
}

fn secret(url: &EffectiveUrl) -> Option<&str> {
    match &url.place {
        Place::Bucket(bucket) => bucket.spec.credentials.as_ref()?.secret_name.as_deref(),
        Place::Disk(_) => None,
    }
}

/// `status.urls`: the spec's in its order, then the draining ones.
#[must_use]
pub fn urls(found: &Found, effective: &Effective, draining: &[Draining]) -> Vec<UrlState> {
    let listed =
        effective.urls.iter().chain(&effective.journal).map(|url| (url.name.as_str(), url.url.to_string(), false));
    let draining = draining.iter().map(|draining| (draining.name.as_str(), draining.url.to_string(), true));
    let before = found.storage.status.as_ref().and_then(|status| status.urls.as_deref()).unwrap_or_default();
    listed.chain(draining).map(|(name, url, drains)| state(found, before, name, url, drains)).collect()
}

fn state(found: &Found, before: &[UrlState], name: &str, url: String, drains: bool) -> UrlState {
    let worst = reported(&found.writers).filter(|(_, volume, _)| volume.name == name).map(|(_, _, state)| state);
    let worst = worst.min_by_key(|state| rank(state));
    let drains = drains.then_some("draining");
    let state = match (worst, drains) {
        (Some(worst), Some(draining)) if rank(worst) > rank(draining) => Some(draining),
        (worst, draining) => worst.or(draining),
    };
    let has = |writer: &WalWriter| {
        let volumes = writer.status.iter().flat_map(|status| status.volumes.iter().flatten());
        volumes.into_iter().any(|volume| volume.name == name)
    };
    let writers = found.writers.iter().filter(|writer| has(writer)).count();
    let mut next = UrlState {
        name: name.to_owned(),
        url,
        state: state.map(str::to_owned),
        writers: i64::try_from(writers).ok(),
        used_bytes: None,
        as_of: None,
    };
    // The time is that of the last change, or every report would be a write.
    if worst.is_some() {
        let same = before.iter().find(|before| before.name == next.name && before.state == next.state);
        let now = jiff::Timestamp::from_second(found.now.as_second()).unwrap_or(found.now);
        next.as_of = same
            .and_then(|before| before.as_of.clone())
            .or(Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now)));
    }
    next
}
