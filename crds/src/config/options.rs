//! `[storage.wal_config.url_options."<url>"]`: how a place is reached. An unknown key here is always an error: a typo
//! would drop credentials or trust without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::UrlOptions;
use super::error::WarningKind;
use super::read::{Findings, Section};
use super::urls::Places;
use crate::url::WalUrl;

/// Every key, in the order of the documentation.
const KEYS: [&str; 11] = [
    "endpoint",
    "region",
    "path_style",
    "allow_http",
    "ca_file",
    "credentials_dir",
    "token_file",
    "role_arn",
    "audience",
    "unsafe_conditional",
    "drain",
];

/// Reads the options of every URL.
pub(super) fn read(findings: &mut Findings, wal: &Section<'_>, places: &Places) -> BTreeMap<WalUrl, UrlOptions> {
    let mut seen = BTreeSet::new();
    let mut all = BTreeMap::new();
    let section = wal.section(findings, "url_options");
    for key in section.keys() {
        let (path, line) = (section.path(key), section.line(findings, key));
        let url = match WalUrl::parse(key) {
            Ok(url) => url,
            Err(error) => {
                findings.error(line, &path, None, error.to_string(), error.allowed());
                continue;
            }
        };
        if places.complete && !places.knows(&url) {
            findings.error(line, &path, None, "options for a URL that is not used", known_urls(places));
        }
        let table = section.section(findings, key);
        let options = read_one(findings, &table, &url);
        if !seen.insert(url.clone()) {
            findings.error(line, &path, None, "options for the same URL twice", "one table for each URL");
        }
        // A table that says nothing is like none.
        if options != UrlOptions::default() {
            all.insert(url, options);
        }
    }
    all
}

fn known_urls(places: &Places) -> String {
    let urls: Vec<&str> = places.wal_urls.iter().chain(&places.journal_url).map(WalUrl::as_str).collect();
    urls.join(", ")
}

fn read_one(findings: &mut Findings, section: &Section<'_>, url: &WalUrl) -> UrlOptions {
    if !url.scheme().is_bucket() {
        for key in section.keys().into_iter().filter(|key| *key != "drain") {
            let problem = if KEYS.contains(&key) { "an option of buckets only" } else { "unknown key" };
            findings.error(section.line(findings, key), &section.path(key), None, problem, "drain");
        }
        return UrlOptions { drain: section.boolean(findings, "drain").unwrap_or(false), ..UrlOptions::default() };
    }
    section.refuse_unknown_keys(findings, &KEYS);
    let endpoint = read_endpoint(findings, section);
    let allow_http = section.boolean(findings, "allow_http").unwrap_or(false);
    if !allow_http && endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")) {
        let message = "plain HTTP is refused without allow_http = true";
        let line = section.line(findings, "endpoint");
        findings.warn(WarningKind::Doubtful, line, &section.path("endpoint"), message);
    }
    let text = |findings: &mut Findings, key: &str| Some(section.text(findings, key, "a string")?.value.to_owned());
    let path = |findings: &mut Findings, key: &str| Some(PathBuf::from(section.absolute_path(findings, key)?.value));
    UrlOptions {
        region: text(findings, "region"),
        path_style: section.boolean(findings, "path_style").unwrap_or(endpoint.is_some()),
        allow_http,
        ca_file: path(findings, "ca_file"),
        credentials_dir: path(findings, "credentials_dir"),
        token_file: path(findings, "token_file"),
        role_arn: text(findings, "role_arn"),
        audience: text(findings, "audience"),
        unsafe_conditional: section.boolean(findings, "unsafe_conditional").unwrap_or(false),
        drain: section.boolean(findings, "drain").unwrap_or(false),
        endpoint,
    }
}

fn read_endpoint(findings: &mut Findings, section: &Section<'_>) -> Option<String> {
    const FORM: &str = "https://host[:port] or http://host[:port]";
    let endpoint = section.text(findings, "endpoint", FORM)?;
    match check_endpoint(endpoint.value) {
        Ok(()) => Some(endpoint.value.to_owned()),
        Err((problem, allowed)) => {
            let value = section.get("endpoint").and_then(super::read::shown);
            findings.error(endpoint.line, &section.path("endpoint"), value, problem, allowed.unwrap_or(FORM));
            None
        }
    }
}

/// Whether a text is an `http` or `https` address; else what is wrong and, where it is not the form, what is allowed.
pub(crate) fn check_endpoint(endpoint: &str) -> Result<(), (&'static str, Option<&'static str>)> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let rest = rest.ok_or(("not an http or https address", None))?;
    if endpoint.contains('@') {
        return Err((
            "user info is not allowed in an endpoint",
            Some("credentials in files, named by credentials_dir"),
        ));
    }
    if endpoint.contains(['?', '#']) || !endpoint.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(("not an address", None));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err(("the host is empty", None));
    }
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err(("not a port", Some("a port from 1 to 65535")));
    }
    Ok(())
}
