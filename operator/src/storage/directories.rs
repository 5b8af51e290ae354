//! What writers report of their directories: the condition DirectoriesHealthy, and `status.urls`. Pure.
//!
//! The reports are for display: nothing is decided by them.

use std::collections::BTreeMap;

use walstorage_crds::buckets;
use walstorage_crds::names::{self, ADMIN_PORT_NAME};
use walstorage_crds::walstorage::{Effective, EffectiveUrl, Place, UrlState};
use walstorage_crds::walwriter::{Phase, WalWriter, WriterVolume};

use super::conditions::{DIRECTORIES_HEALTHY, Said, read};
use super::dereference::Found;
use super::finalizer::some;
use super::validate::Draining;
use crate::observe::{Directory, HEALTHY, Observation, has_moved};

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

/// A directory of a writer that a pod holds now: only those are reported on.
struct Reported<'f> {
    writer: &'f WalWriter,
    /// In the ledger; nothing of a URL that the writer was not granted yet.
    name: Option<&'f str>,
    url: &'f str,
    state: &'f str,
    /// What its sidecar said, if it was heard by this process.
    said: Option<&'f Directory>,
}

impl Reported<'_> {
    /// Its name in the ledger, else in the spec.
    fn named<'a>(&'a self, effective: &'a Effective) -> &'a str {
        let listed = || listed(effective).find(|url| url.url.as_str() == self.url).map(|url| url.name.as_str());
        self.name.or_else(listed).unwrap_or(self.url)
    }
}

fn listed(effective: &Effective) -> impl Iterator<Item = &EffectiveUrl> {
    effective.urls.iter().chain(&effective.journal)
}

/// Writers whose pods run; of those whose pods start the ones of which something is known.
fn held(found: &Found) -> impl Iterator<Item = &WalWriter> {
    let known = |writer: &WalWriter| {
        observation(found, writer).is_some() || volumes(writer).iter().any(|volume| volume.state.is_some())
    };
    found.writers.iter().map(AsRef::as_ref).filter(move |writer| match phase(writer) {
        Some(Phase::Active) => true,
        Some(Phase::Pending) => known(writer),
        Some(
            Phase::Releasing | Phase::Released | Phase::Orphaned | Phase::Drained | Phase::Reclaiming | Phase::Lost,
        )
        | None => false,
    })
}

fn volumes(writer: &WalWriter) -> &[WriterVolume] {
    writer.status.as_ref().and_then(|status| status.volumes.as_deref()).unwrap_or_default()
}

/// What the sidecar of a writer's pod said, if this process has heard it or given it up.
fn observation<'f>(found: &'f Found, writer: &WalWriter) -> Option<&'f Observation> {
    let observed = found.observed.get(writer.metadata.name.as_deref()?)?;
    let holder = writer.status.as_ref()?.holder.as_ref().map(|holder| holder.pod_uid.as_str());
    (observed.is_known() && holder == Some(&observed.pod_uid)).then_some(observed)
}

/// What sidecars said; of those that this process has not asked yet, what the ledger has of them: where it has the state of
/// one directory, those without one are well.
fn reported(found: &Found) -> Vec<Reported<'_>> {
    let mut reported = Vec::new();
    for writer in held(found) {
        let of_ledger = |url: &str| volumes(writer).iter().find(|volume| volume.url == url);
        match observation(found, writer) {
            Some(observation) => reported.extend(observation.directories.iter().map(|said| Reported {
                writer,
                name: of_ledger(&said.url).map(|volume| volume.name.as_str()),
                url: &said.url,
                state: &said.state,
                said: Some(said),
            })),
            None if volumes(writer).iter().any(|volume| volume.state.is_some()) => {
                reported.extend(volumes(writer).iter().map(|volume| {
                    let state = volume.state.as_deref().unwrap_or(HEALTHY);
                    Reported { writer, name: Some(&volume.name), url: &volume.url, state, said: None }
                }));
            }
            None => {}
        }
    }
    reported
}

/// Whether nobody can say how its directories are: this process has not asked, and all may have been well before.
fn is_unheard(found: &Found, writer: &WalWriter) -> bool {
    observation(found, writer).is_none() && volumes(writer).iter().all(|volume| volume.state.is_none())
}

fn phase(writer: &WalWriter) -> Option<Phase> {
    writer.status.as_ref()?.phase
}

/// Writers with a pod and without a directory that takes entries.
#[must_use]
pub fn unwritable(found: &Found) -> Vec<String> {
    let mut writable: BTreeMap<String, bool> = BTreeMap::new();
    for directory in reported(found) {
        let name = directory.writer.spec.writer.clone();
        *writable.entry(name).or_default() |= WRITABLE.contains(&directory.state);
    }
    writable.into_iter().filter(|(_, writable)| !writable).map(|(writer, _)| writer).collect()
}

/// DirectoriesHealthy.
#[must_use]
pub fn healthy(found: &Found, effective: &Effective) -> Said {
    if effective.admin_port.is_none() {
        return Said::unknown("NotObserved", "adminPort is 0: nobody can ask the sidecars");
    }
    let reported = reported(found);
    let unhealthy = unhealthy(found, effective);
    if let Some(worst) = unhealthy.first() {
        let reason = buckets::reason(&worst.state).unwrap_or("DirectoryUnhealthy");
        return Said::no(reason, listed_in_one(&unhealthy));
    }
    let silent: Vec<(&WalWriter, &str)> =
        held(found).filter_map(|writer| Some((writer, observation(found, writer)?.silent.as_deref()?))).collect();
    if let Some((_, why)) = silent.first() {
        let names: Vec<String> = silent.iter().map(|(writer, _)| writer.spec.writer.clone()).collect();
        return Said::unknown(
            "NotObserved",
            format!(
                "the controller cannot ask the sidecar of {} ({why}); where a NetworkPolicy guards these pods, it has to let the \
                 controller in at port {ADMIN_PORT_NAME}",
                some(&names, "writer")
            ),
        );
    }
    // What the leader before heard stands until all have been asked.
    let before = read(found.storage.status.as_ref(), DIRECTORIES_HEALTHY).filter(|before| before.status == "True");
    if let Some(before) = before.filter(|_| held(found).any(|writer| is_unheard(found, writer))) {
        return Said::yes("Healthy", before.message.clone());
    }
    match reported.len() {
        0 => Said::unknown("NotObserved", "no sidecar has been asked yet"),
        seen => Said::yes("Healthy", format!("{seen} directories")),
    }
}

/// A directory that is not well, of a writer's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// The holder: name and uid.
    pub pod: Option<(String, String)>,
    /// The writer.
    pub writer: String,
    /// The URL's name; of a bucket the URL too.
    pub what: String,
    /// How it is.
    pub state: String,
    /// Why, and what to do, as it follows the state in a sentence.
    pub because: String,
}

impl Unhealthy {
    /// All of it in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { pod: _, writer, what, state, because } = self;
        format!("{what} of writer {writer} is {state}{because}")
    }
}

/// The directories that are not well, the worst first.
#[must_use]
pub fn unhealthy(found: &Found, effective: &Effective) -> Vec<Unhealthy> {
    let reported = reported(found);
    let mut all: Vec<Unhealthy> = reported
        .iter()
        .filter(|directory| !FINE.contains(&directory.state))
        .map(|directory| {
            let name = directory.named(effective);
            let is_bucket = !directory.url.starts_with("file:") && name != directory.url;
            let why = directory.said.map(|said| said.reason.as_str()).filter(|reason| !reason.is_empty());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let remedy = remedy(effective, directory).map(|remedy| format!(" ({remedy})")).unwrap_or_default();
            let holder = directory.writer.status.as_ref().and_then(|status| status.holder.as_ref());
            Unhealthy {
                pod: holder.map(|holder| (holder.pod_name.clone(), holder.pod_uid.clone())),
                writer: directory.writer.spec.writer.clone(),
                what: if is_bucket { format!("{name} ({})", directory.url) } else { name.to_owned() },
                state: directory.state.to_owned(),
                because: why + &remedy,
            }
        })
        .collect();
    all.sort_by(|a, b| {
        let key = |one: &Unhealthy| (rank(&one.state), one.what.clone(), one.state.clone(), one.writer.clone());
        key(a).cmp(&key(b))
    });
    all
}

/// One sentence for all: of writers that say the same of a directory only the first is quoted.
fn listed_in_one(unhealthy: &[Unhealthy]) -> String {
    let same = |a: &Unhealthy, b: &Unhealthy| (&a.what, &a.state) == (&b.what, &b.state);
    let groups: Vec<&[Unhealthy]> = unhealthy.chunk_by(same).collect();
    let shown = groups.iter().take(5).filter_map(|group| {
        let first = group.first()?;
        let writers: Vec<String> = group.iter().map(|one| one.writer.clone()).collect();
        Some(match writers.as_slice() {
            [_] => first.sentence(),
            _ => format!("{} of {} is {}{}", first.what, some(&writers, "writer"), first.state, first.because),
        })
    });
    let shown: Vec<String> = shown.collect();
    let more =
        if groups.len() > shown.len() { format!("; and {} more", groups.len() - shown.len()) } else { String::new() };
    shown.join("; ") + &more
}

/// What is known about removed URLs besides: whether nothing is left there.
#[must_use]
pub fn emptied(found: &Found, draining: &[Draining]) -> String {
    let reported = reported(found);
    let said: Vec<&Reported<'_>> = reported
        .iter()
        .filter(|directory| draining.iter().any(|draining| draining.url.as_str() == directory.url))
        .collect();
    let emptied = said.iter().filter(|directory| directory.said.is_some_and(|said| said.emptied)).count();
    match emptied {
        0 => String::new(),
        _ if emptied == said.len() => {
            "; running sidecars have emptied it: it leaves when their pods have restarted".to_owned()
        }
        _ => format!("; {emptied} of {} running sidecars have emptied it", said.len()),
    }
}

/// What to do about a directory, as far as the operator can know.
fn remedy(effective: &Effective, directory: &Reported<'_>) -> Option<String> {
    let name = directory.named(effective);
    let listed = listed(effective).find(|url| url.name == name);
    let bucket = listed.and_then(|url| match &url.place {
        Place::Bucket(bucket) => Some((url.url.scheme(), &bucket.spec)),
        Place::Disk(_) => None,
    });
    let credentials = bucket.and_then(|(_, spec)| spec.credentials.as_ref());
    let secret = credentials.and_then(|credentials| credentials.secret_name.as_deref());
    let authority = bucket.and_then(|(_, spec)| spec.ca_bundle.as_ref());
    match (directory.state, bucket.zip(secret), authority) {
        ("full", ..) => Some("raise the URL's volume.size, or let the application truncate".to_owned()),
        ("not_mounted" | "pending_restart", ..) => Some("restart the pod".to_owned()),
        ("no_credentials" | "wrong_credentials" | "expired_credentials", Some(((scheme, _), secret)), _) => {
            Some(format!(
                "credentials come from Secret {secret} (keys {}), which the operator cannot read: create or correct it; pods have \
             it a minute or two later, and nothing has to be restarted",
                names::secret_keys(scheme).join(", ")
            ))
        }
        ("misconfigured" | "unreachable", _, Some(authority)) => Some(format!(
            "certificates come from key {} of ConfigMap {}: is it there and right? Pods have it a minute or two after it is \
             corrected, and nothing has to be restarted",
            authority.key, authority.config_map_name
        )),
        ("failed" | "missing", Some((_, secret)), _) => Some(format!(
            "credentials come from Secret {secret}, which the operator cannot read: is it there and right?"
        )),
        _ => directory.said.map(|said| said.remedy.clone()).filter(|remedy| !remedy.is_empty()),
    }
}

/// `status.urls`: the spec's in its order, then the draining ones.
#[must_use]
pub fn urls(found: &Found, effective: &Effective, draining: &[Draining]) -> Vec<UrlState> {
    let listed = listed(effective).map(|url| (url.name.as_str(), url.url.to_string(), false));
    let draining = draining.iter().map(|draining| (draining.name.as_str(), draining.url.to_string(), true));
    let before = found.storage.status.as_ref().and_then(|status| status.urls.as_deref()).unwrap_or_default();
    listed.chain(draining).map(|(name, url, drains)| state(found, before, name, url, drains)).collect()
}

fn state(found: &Found, before: &[UrlState], name: &str, url: String, drains: bool) -> UrlState {
    let reported = reported(found);
    let here: Vec<&Reported<'_>> = reported
        .iter()
        .filter(|directory| directory.name.map_or_else(|| directory.url == url, |known| known == name))
        .collect();
    let has = |writer: &&WalWriter| volumes(writer).iter().any(|volume| volume.name == name);
    let before = before.iter().find(|before| before.name == name && before.url == url);
    let stands = before.filter(|_| here.is_empty() && held(found).filter(has).any(|writer| is_unheard(found, writer)));
    let worst = here.iter().map(|directory| directory.state).min_by_key(|state| rank(state));
    let drains = drains.then_some("draining");
    let state = match (worst, drains) {
        (Some(worst), Some(draining)) if rank(worst) > rank(draining) => Some(draining),
        (worst, draining) => worst.or(draining),
    };
    let writers = found.writers.iter().map(AsRef::as_ref).filter(has).count();
    if let Some(before) = stands {
        return UrlState { writers: i64::try_from(writers).ok(), ..before.clone() };
    }
    let mut next = UrlState {
        name: name.to_owned(),
        url,
        state: state.map(str::to_owned),
        writers: i64::try_from(writers).ok(),
        used_bytes: used(found, &here, before.and_then(|before| before.used_bytes)),
        as_of: None,
    };
    // The time is that of the last change, or every report would be a write.
    if worst.is_some() {
        let same = before.filter(|before| before.state == next.state && before.used_bytes == next.used_bytes);
        let now = jiff::Timestamp::from_second(found.now.as_second()).unwrap_or(found.now);
        next.as_of = same
            .and_then(|before| before.as_of.clone())
            .or(Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now)));
    }
    next
}

/// Bytes used at a URL, as far as they are known. What was shown before stands while it is nearly so, and while a sidecar
/// is still to be asked: a new leader would count down and up again.
fn used(found: &Found, here: &[&Reported<'_>], shown: Option<i64>) -> Option<i64> {
    let all_heard = held(found).all(|writer| observation(found, writer).is_some());
    let known = || here.iter().filter_map(|directory| directory.said);
    let sized = || known().filter_map(|said| Some((said.used, said.capacity?)));
    if !all_heard || here.is_empty() {
        return shown.filter(|_| !here.is_empty());
    }
    // None at all: nothing is known.
    sized().next()?;
    let sum = sized().fold((0_u64, 0_u64), |sum, one| (sum.0.saturating_add(one.0), sum.1.saturating_add(one.1)));
    let shown = shown.and_then(|shown| u64::try_from(shown).ok()).filter(|shown| !has_moved(*shown, sum.0, sum.1));
    i64::try_from(shown.unwrap_or(sum.0)).ok()
}
