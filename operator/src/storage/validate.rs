//! Step 2: whether the storage is accepted, and which removed URLs are not empty yet. Pure.

use std::collections::{BTreeMap, BTreeSet};

use walstorage_crds::config::{Config, UrlOptions};
use walstorage_crds::names::{FINALIZER, config_map};
use walstorage_crds::url::WalUrl;
use walstorage_crds::walstorage::{Effective, Reason, validate};
use walstorage_crds::walwriter::{Empty, WalWriter};

use super::dereference::{Found, FoundMap};
use super::outdated::outdated;

/// The storage, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// With every default filled in; or why it is refused.
    pub effective: Result<Effective, Refused>,
    /// URLs that are in no spec any more and not empty, by name.
    pub draining: Vec<Draining>,
    /// Pods that are outdated, if that is known.
    pub outdated: Option<BTreeSet<String>>,
    /// The `config.toml`: the spec's URLs, then the draining ones. Only of an accepted storage.
    pub text: Option<String>,
}

/// Why a storage is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For the condition.
    pub reason: Reason,
    /// Sentences, each with the remedy.
    pub message: String,
}

/// A removed URL that a writer may still have entries in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Its name in the ledger.
    pub name: String,
    /// The URL.
    pub url: WalUrl,
    /// Who may have entries there.
    pub writers: Vec<String>,
}

/// Whose the ConfigMap of our name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// There is none.
    Nobodys,
    /// This storage's.
    Ours,
    /// Nobody controls it.
    Unowned,
    /// Somebody else controls it, or it is on its way out.
    Anothers,
}

/// Judges what was found.
#[must_use]
pub fn judge(found: &Found) -> Judged {
    let name = found.storage.metadata.name.as_deref().unwrap_or_default();
    let ledger: Vec<WalWriter> = found.writers.iter().map(|writer| WalWriter::clone(writer)).collect();
    let effective = match validate(name, &found.storage.spec, &ledger) {
        Ok(effective) => effective,
        Err(refusals) => {
            let reason = refusals.first().map_or(Reason::InvalidConfig, |refusal| refusal.reason);
            let sentences: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            return refused(Refused { reason, message: sentences.join(". ") });
        }
    };
    let draining = draining(&effective, &found.writers);
    let before = found.config_map.as_ref().filter(|_| whose(found) != Whose::Anothers);
    let text = render(&effective, &draining, &options_before(before));
    // What a sidecar would refuse is refused before it is rendered.
    if let Err(errors) = Config::parse(&text, true) {
        let sentences: Vec<String> = errors.errors.iter().map(ToString::to_string).collect();
        return refused(Refused { reason: Reason::InvalidConfig, message: sentences.join(". ") });
    }
    if let Some(conflict) = conflict(found, name, &text) {
        return refused(conflict);
    }
    let outdated = found.sidecar.as_ref().map(|settings| outdated(found, &effective, settings));
    Judged { effective: Ok(effective), draining, outdated, text: Some(text) }
}

fn refused(refused: Refused) -> Judged {
    Judged { effective: Err(refused), draining: Vec::new(), outdated: None, text: None }
}

/// Removed URLs: what the ledger has and the spec has not, until nobody may have entries there.
fn draining(effective: &Effective, writers: &[impl AsRef<WalWriter>]) -> Vec<Draining> {
    let listed = |name: &str| effective.urls.iter().chain(&effective.journal).any(|url| url.name == name);
    let mut found: BTreeMap<(String, String), Draining> = BTreeMap::new();
    for writer in writers {
        let writer = writer.as_ref();
        for volume in writer.status.iter().flat_map(|status| status.volumes.iter().flatten()) {
            if listed(&volume.name) || volume.empty == Some(Empty::True) {
                continue;
            }
            // The ledger holds what was rendered once, so it parses; what does not can be drained by nobody.
            let Ok(url) = WalUrl::parse(&volume.url) else { continue };
            let key = (volume.name.clone(), url.to_string());
            let entry = found.entry(key);
            let draining = entry.or_insert_with(|| Draining { name: volume.name.clone(), url, writers: Vec::new() });
            draining.writers.push(writer.spec.writer.clone());
        }
    }
    found.into_values().collect()
}

/// How the draining URLs were reached while they were in the spec.
fn options_before(before: Option<&FoundMap>) -> BTreeMap<WalUrl, UrlOptions> {
    let text = before.and_then(|map| map.text.as_deref());
    let config = text.and_then(|text| Config::parse(text, false).ok());
    config.map(|loaded| loaded.config.wal.url_options).unwrap_or_default()
}

/// The `config.toml`, as `render` prints it, and the draining URLs.
fn render(effective: &Effective, draining: &[Draining], before: &BTreeMap<WalUrl, UrlOptions>) -> String {
    let mut config = effective.config();
    for Draining { name: _, url, writers: _ } in draining {
        if !config.wal.wal_urls.contains(url) {
            config.wal.wal_urls.push(url.clone());
        }
        let options = before.get(url).cloned().unwrap_or_default();
        config.wal.url_options.insert(url.clone(), UrlOptions { drain: true, ..options });
    }
    config.rendered_toml()
}

/// Whose the ConfigMap is.
#[must_use]
pub fn whose(found: &Found) -> Whose {
    let uid = found.storage.metadata.uid.as_deref().unwrap_or_default();
    match &found.config_map {
        None => Whose::Nobodys,
        Some(map) if map.deleting => Whose::Anothers,
        Some(map) => match &map.owner {
            None => Whose::Unowned,
            Some((kind, _, owner)) if kind == "WalStorage" && owner == uid => Whose::Ours,
            Some(_) => Whose::Anothers,
        },
    }
}

/// A ConfigMap of our name that we must not write. One that nobody controls and that says just what ours would say, as
/// somebody applied it who rendered it offline, is good as it is.
fn conflict(found: &Found, name: &str, text: &str) -> Option<Refused> {
    let map = found.config_map.as_ref()?;
    let config_map = config_map(name);
    let sentence = match whose(found) {
        Whose::Nobodys | Whose::Ours => return None,
        Whose::Unowned if map.text.as_deref() == Some(text) => return None,
        Whose::Unowned => format!(
            "ConfigMap {config_map} is there and is not this WalStorage's; it is left as it is. Delete it, or give the WalStorage \
             another name"
        ),
        Whose::Anothers if map.deleting => {
            format!("ConfigMap {config_map} is being deleted; it is made anew after that")
        }
        Whose::Anothers => {
            let (kind, owner, _) = map.owner.clone().unwrap_or_default();
            if kind == "WalStorage" && owner == name {
                format!(
                    "ConfigMap {config_map} is of an earlier WalStorage of this name; it is made anew once that is cleaned up"
                )
            } else {
                format!(
                    "ConfigMap {config_map} is controlled by {kind} {owner}; it is left as it is. Give the WalStorage another name"
                )
            }
        }
    };
    Some(Refused { reason: Reason::NameConflict, message: sentence })
}

/// Whether our finalizer is on the storage.
#[must_use]
pub fn has_finalizer(found: &Found) -> bool {
    found.storage.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}
