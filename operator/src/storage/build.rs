//! Step 3: the objects, and what there is to say. Pure, and the same for the same input.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Resource as _;
use kube::api::ObjectMeta;
use walstorage_crds::config::{Config, HASH_LINE_PREFIX, hash_of};
use walstorage_crds::names::{CONFIG_FILE, LABEL_MANAGED_BY, LABEL_STORAGE, MANAGED_BY, config_map};
use walstorage_crds::url::WalUrl;

use super::conditions::{ACCEPTED, read};
use super::dereference::{Found, FoundMap};
use super::finalizer::{self, Finalizer};
use super::validate::{Judged, Whose, whose};
use crate::process::events::Note;
use crate::process::metrics::OfKind;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Built {
    /// First.
    pub finalizer: Finalizer,
    /// Then.
    pub config: ConfigStep,
    /// `sha256:…` of the `config.toml` that then stands; nothing where none of ours does.
    pub hash: Option<String>,
    /// URLs that leave the `config.toml` with this.
    pub let_go: Vec<WalUrl>,
    /// Events about what was written, in order.
    pub notes: Vec<Note>,
    /// An event about the verdict, once the status says it.
    pub verdict: Option<Note>,
}

/// What is to be done about the ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigStep {
    /// It stays as it is: nothing to render, or nothing to change.
    Leave,
    /// Make it; whoever is faster wins, and is looked at again.
    Create(Box<ConfigMap>),
    /// Write ours, with server-side apply, if it is still the one with this uid.
    Apply {
        /// As it must be.
        map: Box<ConfigMap>,
        /// As it was read.
        uid: String,
    },
}

impl Built {
    /// The kind of what somebody else changed and is reverted by this.
    #[must_use]
    pub fn drift(&self) -> Option<OfKind> {
        let drifted = self.notes.iter().any(|note| note.reason == "DriftReverted");
        drifted.then_some(OfKind { kind: "ConfigMap" })
    }
}

/// Builds.
#[must_use]
pub fn build(found: &Found, judged: &Judged) -> Built {
    let finalizer = finalizer::decide(found);
    let verdict = accepted(found, judged);
    let standing = found.config_map.as_ref().filter(|_| matches!(whose(found), Whose::Ours | Whose::Unowned));
    let keep = |verdict: Option<Note>, finalizer: Finalizer| {
        let text = standing.and_then(|map| map.text.as_deref());
        let hash = text.filter(|text| text.starts_with(HASH_LINE_PREFIX)).map(hash_of);
        Built { finalizer, config: ConfigStep::Leave, hash, let_go: Vec::new(), notes: Vec::new(), verdict }
    };
    let ends = matches!(finalizer, Finalizer::Remove | Finalizer::Nothing) || found.namespace_ends;
    let Some(text) = judged.text.as_ref().filter(|_| !ends) else { return keep(verdict, finalizer) };
    let map = Box::new(map(found, text));
    let hash = Some(hash_of(text));
    let (before, after) = (standing.and_then(urls_of).unwrap_or_default(), urls(text).unwrap_or_default());
    let mut notes = drained(judged, &before, &after);
    let let_go = before.keys().filter(|url| !after.contains_key(*url)).cloned().collect();
    let config = match standing {
        None => {
            let known = found.storage.status.as_ref().and_then(|status| status.config_hash.as_ref());
            if known.is_some() {
                let name = map.metadata.name.as_deref().unwrap_or_default();
                notes.push(drift(format!("ConfigMap {name} was deleted and is made anew")));
            }
            ConfigStep::Create(map)
        }
        Some(standing) if standing.owner.is_none() => ConfigStep::Leave,
        Some(standing) if is_as(standing, &map) => ConfigStep::Leave,
        Some(standing) => {
            notes.extend(changed_by_another(standing, &map));
            ConfigStep::Apply { map, uid: standing.uid.clone() }
        }
    };
    Built { finalizer, config, hash, let_go, notes, verdict }
}

/// The ConfigMap as it must be.
fn map(found: &Found, text: &str) -> ConfigMap {
    let storage = &found.storage;
    let name = storage.metadata.name.as_deref().unwrap_or_default();
    let labels = [(LABEL_STORAGE, name), (LABEL_MANAGED_BY, MANAGED_BY)];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(config_map(name)),
            namespace: storage.metadata.namespace.clone(),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: storage.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(CONFIG_FILE.to_owned(), text.to_owned())])),
        ..ConfigMap::default()
    }
}

/// Whether what stands has everything that we write.
fn is_as(standing: &FoundMap, map: &ConfigMap) -> bool {
    let text = map.data.as_ref().and_then(|data| data.get(CONFIG_FILE));
    let mut labels = map.metadata.labels.iter().flatten();
    standing.text.as_ref() == text && labels.all(|(key, value)| standing.labels.get(key) == Some(value))
}

/// An event when somebody else changed what is ours. A text whose first line is not its hash was edited by hand; else the
/// API server remembers who wrote it.
fn changed_by_another(standing: &FoundMap, map: &ConfigMap) -> Option<Note> {
    let name = map.metadata.name.as_deref().unwrap_or_default();
    let text = standing.text.as_deref();
    let edited = text.is_none_or(|text| {
        let line = text.lines().next().unwrap_or_default();
        format!("# walstorage v1 {}", hash_of(text)) != line
    });
    let who = standing.written_by.as_deref();
    match (edited, who) {
        (false, None) => None,
        (_, Some(who)) => Some(drift(format!(
            "ConfigMap {name} was changed by {who} and is as it was; change the WalStorage instead"
        ))),
        (true, None) => {
            Some(drift(format!("ConfigMap {name} was changed and is as it was; change the WalStorage instead")))
        }
    }
}

fn drift(text: String) -> Note {
    Note::warning("DriftReverted", "Apply", text)
}

/// URLs of a `config.toml`, and whether each drains.
fn urls(text: &str) -> Option<BTreeMap<WalUrl, bool>> {
    let config = Config::parse(text, false).ok()?.config.wal;
    let drains = |url: &WalUrl| config.url_options.get(url).is_some_and(|options| options.drain);
    let all = config.wal_urls.iter().chain(&config.journal_url);
    Some(all.map(|url| (url.clone(), drains(url))).collect())
}

fn urls_of(map: &FoundMap) -> Option<BTreeMap<WalUrl, bool>> {
    urls(map.text.as_deref()?)
}

/// Events about URLs that begin to drain, or are empty.
fn drained(judged: &Judged, before: &BTreeMap<WalUrl, bool>, after: &BTreeMap<WalUrl, bool>) -> Vec<Note> {
    let begun = judged.draining.iter().filter(|draining| before.get(&draining.url) == Some(&false));
    let begun = begun.map(|draining| {
        let writers = finalizer::some(&draining.writers, "writer");
        let text = format!(
            "URL {} ({}) was removed; it stays mounted and draining until it is empty for {writers}",
            draining.name, draining.url
        );
        Note::normal("UrlDraining", "Drain", text)
    });
    let gone = before.iter().filter(|(url, drains)| **drains && !after.contains_key(*url));
    let gone = gone
        .map(|(url, _)| Note::normal("UrlDrained", "Drain", format!("{url} is empty and leaves the configuration")));
    begun.chain(gone).collect()
}

/// An event when the storage is accepted or refused and was not so before.
fn accepted(found: &Found, judged: &Judged) -> Option<Note> {
    let before = read(found.storage.status.as_ref(), ACCEPTED);
    match &judged.effective {
        Ok(_) if before.is_none_or(|before| before.status != "True") => {
            Some(Note::normal("Accepted", "Validate", "the WalStorage is accepted"))
        }
        Ok(_) => None,
        Err(refused) => {
            let same = before.is_some_and(|before| before.status == "False" && before.message == refused.message);
            (!same).then(|| {
                let text = format!("{}. Nothing changes until this is corrected", refused.message);
                Note::warning("Refused", "Validate", text)
            })
        }
    }
}
