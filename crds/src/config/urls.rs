//! Which URLs the log lives on: `wal_urls`, `wal_url`, the old `wal_dir`, and `journal_url`.

use std::collections::HashMap;
use std::path::Path;

use toml_edit::Item;

use super::DEFAULT_WAL_URL;
use super::error::WarningKind;
use super::read::{Findings, Section, shown};
use crate::url::{UrlError, WalUrl};

/// What the file says about places.
pub(super) struct Places {
    pub(super) wal_urls: Vec<WalUrl>,
    pub(super) journal_url: Option<WalUrl>,
    pub(super) legacy_wal_dir: Option<WalUrl>,
    /// Every URL that was written could be read.
    pub(super) complete: bool,
}

impl Places {
    /// Whether options may be given for this URL.
    pub(super) fn knows(&self, url: &WalUrl) -> bool {
        self.wal_urls.iter().chain(&self.journal_url).chain(&self.legacy_wal_dir).any(|known| known == url)
    }
}

/// A URL and where it was written.
struct Named {
    url: WalUrl,
    key: String,
    line: Option<usize>,
    written: Option<String>,
}

/// Reads and checks all of them.
pub(super) fn read(findings: &mut Findings, storage: &Section<'_>, wal: &Section<'_>) -> Places {
    let errors = findings.errors.len();
    let mut named = Vec::new();
    let given = read_wal_urls(findings, wal, &mut named);
    let journal = wal.get("journal_url").is_some().then(|| read_url(findings, wal, "journal_url")).flatten();
    let mut legacy_wal_dir = None;
    if storage.get("wal_dir").is_some() {
        if given {
            legacy_wal_dir = ignored_wal_dir(findings, storage, &named, journal.as_ref());
        } else {
            named.extend(migrated_wal_dir(findings, storage));
        }
    } else if !given && wal.get("wal_urls").is_some() {
        let line = wal.line(findings, "wal_urls");
        let allowed = "at least one URL, or no wal_urls for file:///workspace/data/wal";
        findings.error(line, &wal.path("wal_urls"), Some("[]".to_owned()), "no URL", allowed);
    }
    let complete = findings.errors.len() == errors;
    refuse_twice_and_nested(findings, &named, journal.as_ref());
    let mut wal_urls: Vec<WalUrl> = named.into_iter().map(|named| named.url).collect();
    if wal_urls.is_empty() {
        wal_urls.extend(WalUrl::parse(DEFAULT_WAL_URL));
    }
    Places { wal_urls, journal_url: journal.map(|named| named.url), legacy_wal_dir, complete }
}

/// Whether the file names any WAL URL. Without one, an empty `wal_urls` is an error unless `wal_dir` steps in.
fn read_wal_urls(findings: &mut Findings, wal: &Section<'_>, named: &mut Vec<Named>) -> bool {
    let list = wal.get("wal_urls");
    let one = wal.get("wal_url");
    let items = match list {
        None => None,
        Some(item) => match item.as_array() {
            Some(items) => Some(items),
            None => {
                let line = wal.line(findings, "wal_urls");
                let allowed = "an array of URLs, or wal_url for one";
                findings.error(line, &wal.path("wal_urls"), shown(item), "not an array", allowed);
                return true;
            }
        },
    };
    let listed = items.is_some_and(|items| !items.is_empty());
    if listed && one.is_some() {
        let line = wal.line(findings, "wal_url");
        let allowed = "one of the two; add the URL to wal_urls";
        findings.error(line, &wal.path("wal_url"), one.and_then(shown), "wal_url and wal_urls are both given", allowed);
        return true;
    }
    if one.is_some() {
        named.extend(read_url(findings, wal, "wal_url"));
        return true;
    }
    for (index, value) in items.into_iter().flatten().enumerate() {
        let key = format!("{}[{index}]", wal.path("wal_urls"));
        let line = findings.line(value.span());
        named.extend(url_of(findings, &Item::from(value.clone()), key, line));
    }
    listed
}

fn read_url(findings: &mut Findings, section: &Section<'_>, key: &str) -> Option<Named> {
    let line = section.line(findings, key);
    url_of(findings, section.get(key)?, section.path(key), line)
}

fn url_of(findings: &mut Findings, item: &Item, key: String, line: Option<usize>) -> Option<Named> {
    match item.as_str().map(WalUrl::parse) {
        Some(Ok(url)) => return Some(Named { url, key, line, written: shown(item) }),
        Some(Err(error)) => findings.error(line, &key, shown(item), error.to_string(), error.allowed()),
        None => findings.error(line, &key, shown(item), "not a string", "a storage URL"),
    }
    None
}

/// What `wal_dir` would be as a URL, or what is wrong with it and what to write.
fn wal_dir_url(text: &str) -> Result<WalUrl, (String, String)> {
    let wrong = |error: UrlError| (error.to_string(), error.allowed());
    if text.contains("://") {
        return WalUrl::parse(text).map_err(wrong);
    }
    if text.starts_with('/') {
        return WalUrl::parse_file_path(Path::new(text)).map_err(wrong);
    }
    if text.is_empty() {
        return Err(("empty".to_owned(), "an absolute path or a storage URL".to_owned()));
    }
    let plain = text.trim_start_matches("./");
    let allowed = if plain.split('/').any(|segment| segment == "." || segment == "..") {
        "the absolute path of that folder, without . and ..".to_owned()
    } else {
        format!("\"/<folder>/{plain}\", where <folder> is what the application was started in")
    };
    Err(("a relative path".to_owned(), allowed))
}

fn migrated_wal_dir(findings: &mut Findings, storage: &Section<'_>) -> Option<Named> {
    let item = storage.get("wal_dir")?;
    let (key, line) = (storage.path("wal_dir"), storage.line(findings, "wal_dir"));
    let Some(text) = item.as_str() else {
        findings.error(line, &key, shown(item), "not a string", "an absolute path or a storage URL");
        return None;
    };
    match wal_dir_url(text) {
        Ok(url) => {
            let message =
                format!("the old setting, read as wal_urls = [\"{url}\"] of [storage.wal_config]; write that");
            findings.warn(WarningKind::Migration, line, &key, message);
            Some(Named { url, key, line, written: shown(item) })
        }
        Err((problem, allowed)) => {
            findings.error(line, &key, shown(item), problem, allowed);
            None
        }
    }
}

/// Beside WAL URLs `wal_dir` is never an error: it may be the application's own.
fn ignored_wal_dir(
    findings: &mut Findings,
    storage: &Section<'_>,
    named: &[Named],
    journal: Option<&Named>,
) -> Option<WalUrl> {
    let url = storage.get("wal_dir").and_then(|item| item.as_str()).and_then(|text| wal_dir_url(text).ok());
    let url = url.filter(|url| named.iter().chain(journal).all(|named| named.url != *url));
    let message = match &url {
        Some(_) => "ignored, because WAL URLs are given; if this writer's log is there, it is opened and emptied",
        None => "ignored, because WAL URLs are given",
    };
    findings.warn(WarningKind::Migration, storage.line(findings, "wal_dir"), &storage.path("wal_dir"), message);
    url
}

fn refuse_twice_and_nested(findings: &mut Findings, named: &[Named], journal: Option<&Named>) {
    let mut seen: HashMap<WalUrl, &str> = HashMap::new();
    for at in named {
        if let Some(first) = seen.get(&at.url) {
            let problem = format!("the same place as {first}");
            findings.error(at.line, &at.key, at.written.clone(), problem, "each URL once");
        } else {
            seen.insert(at.url.clone(), &at.key);
        }
    }
    if let Some(at) = journal {
        if let Some(first) = seen.get(&at.url) {
            let problem = format!("the same place as {first}");
            let allowed = "a URL of its own, or no journal_url: then every directory has its own journal";
            findings.error(at.line, &at.key, at.written.clone(), problem, allowed);
        } else {
            seen.insert(at.url.clone(), &at.key);
        }
    }
    for at in named.iter().chain(journal) {
        let outer = at.url.ancestors().find_map(|above| seen.get_key_value(above));
        if let Some((outer, key)) = outer {
            let problem = format!("inside of {key} = \"{outer}\"");
            findings.error(at.line, &at.key, at.written.clone(), problem, "places beside each other");
        }
    }
}
