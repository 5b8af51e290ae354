//! Whether a WalStorage can be accepted: judged here for the controller, the webhook and `render` alike, from the spec and
//! the ledger alone. Rules in the schema say the same sooner; remove-then-add goes round them, the ledger does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::fill::{Bucket, Effective, EffectiveUrl, Place, fill};
use super::{IntOrString, WalStorageSpec};
use crate::config::check_endpoint;
use crate::names;
use crate::quantity::ByteSize;
use crate::url::WalUrl;
use crate::walwriter::{Empty, WalWriter, WriterVolume};

/// Why a WalStorage is refused: reason of the condition `Accepted=False`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A name has another URL than the ledger knows, or a URL another name.
    UrlChanged,
    /// A claim would have to shrink.
    SizeShrinks,
    /// The sidecar's memory does not hold `globalFlushThreshold`.
    MemoryTooSmall,
    /// Two URLs have one name.
    NameConflict,
    /// Anything else.
    InvalidConfig,
}

impl Reason {
    /// The name in the condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UrlChanged => "UrlChanged",
            Self::SizeShrinks => "SizeShrinks",
            Self::MemoryTooSmall => "MemoryTooSmall",
            Self::NameConflict => "NameConflict",
            Self::InvalidConfig => "InvalidConfig",
        }
    }
}

/// One thing that is wrong. Shown as `spec.memoryFlushSize = 2Gi: above globalFlushThreshold; allowed: at most 512Mi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the condition.
    pub reason: Reason,
    /// The path of the field.
    pub field: String,
    /// As written, without user info.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub allowed: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { reason, field: field.into(), value: None, problem: problem.into(), allowed: String::new() }
    }

    pub(super) fn value(mut self, value: impl fmt::Display) -> Self {
        self.value = Some(value.to_string());
        self
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = allowed.into();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, ": {}", self.problem)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Most URLs in a spec.
const URLS_MAX: usize = 16;
/// Shortest and longest URL.
const URL_MIN: usize = 8;
const URL_MAX: usize = 512;
/// What the size of a volume looks like.
const VOLUME_SIZE_FORM: &str = "a number and one of Ki Mi Gi Ti Pi Ei k M G T P E, like 100Gi";
/// Where no claim is mounted: paths that the container itself needs.
const FORBIDDEN_MOUNTS: [&str; 6] = ["/proc", "/sys", "/dev", "/etc", "/run", "/tmp"];

/// Judges a WalStorage of this name against itself and the writers of its namespace.
///
/// # Errors
/// Everything that is wrong, the spec's fields first.
pub fn validate<'a>(
    name: &str,
    spec: &WalStorageSpec,
    ledger: impl IntoIterator<Item = &'a WalWriter>,
) -> Result<Effective, Vec<Refusal>> {
    let mut refusals = Vec::new();
    if !names::is_dns_label(name) || name.len() > names::STORAGE_NAME_MAX || name.contains("--") {
        let refusal = Refusal::new(Reason::InvalidConfig, "metadata.name", "not a name for a WalStorage");
        let allowed = "a DNS label (a-z, 0-9, -) of at most 40 characters without --";
        refusals.push(refusal.value(format!("{name:?}")).allowed(allowed));
    }
    let effective = fill(spec, &mut refusals);
    check_url_specs(spec, &mut refusals);
    check_urls(&effective, &mut refusals);
    check_memory(&effective, &mut refusals);
    for writer in ledger.into_iter().filter(|writer| writer.spec.storage == name) {
        for volume in writer.status.iter().flat_map(|status| status.volumes.iter().flatten()) {
            check_ledger(&effective, &writer.spec.writer, volume, &mut refusals);
        }
    }
    refusals.dedup();
    if refusals.is_empty() { Ok(effective) } else { Err(refusals) }
}

/// URLs as they are written: their number, names, and what stands beside them.
fn check_url_specs(spec: &WalStorageSpec, refusals: &mut Vec<Refusal>) {
    let mut refuse = |reason, field: String, value: &str, problem: &str, allowed: &str| {
        refusals.push(Refusal::new(reason, field, problem).value(value).allowed(allowed));
    };
    let urls = spec.wal_urls.as_deref();
    if urls.is_some_and(|urls| !(1..=URLS_MAX).contains(&urls.len())) {
        let count = urls.unwrap_or_default().len().to_string();
        let allowed = "1 to 16 URLs, or no walUrls for file:///workspace/data/wal";
        refuse(Reason::InvalidConfig, "spec.walUrls".to_owned(), &count, "number of URLs", allowed);
    }
    let listed = urls.unwrap_or_default().iter().enumerate().map(|(i, url)| (format!("spec.walUrls[{i}]"), url));
    let size = spec.volume_defaults.as_ref().and_then(|volume| volume.size.as_ref());
    if let Some(size) = size.filter(|size| !is_volume_size(size)) {
        let field = "spec.volumeDefaults.size".to_owned();
        refuse(Reason::InvalidConfig, field, size, "not a size of a volume", VOLUME_SIZE_FORM);
    }
    for (field, url) in listed.chain(spec.journal.iter().map(|url| ("spec.journal".to_owned(), url))) {
        let plain = url.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !plain || !(1..=16).contains(&url.name.len()) {
            let allowed = "1 to 16 of a-z and 0-9";
            refuse(Reason::InvalidConfig, format!("{field}.name"), &url.name, "not a name for a URL", allowed);
        }
        let parsed = WalUrl::parse(&url.url).ok();
        if parsed.is_some() && !(URL_MIN..=URL_MAX).contains(&url.url.len()) {
            let (length, allowed) = (format!("{} bytes", url.url.len()), "8 to 512 bytes");
            refuse(Reason::InvalidConfig, format!("{field}.url"), &length, "the length of the URL", allowed);
        }
        let bucket = parsed.as_ref().is_some_and(|url| url.scheme().is_bucket());
        // The schema's rules cannot normalise, so that what they compare is written in one way.
        if let Some(parsed) = parsed.filter(|parsed| !bucket && parsed.as_str() != url.url) {
            let field = format!("{field}.url");
            refuse(Reason::InvalidConfig, field, &url.url, "not the plain form of the URL", parsed.as_str());
        } else if bucket && url.url.split(':').next().is_some_and(|scheme| scheme.contains(char::is_uppercase)) {
            let allowed = "a scheme in lower case";
            refuse(Reason::InvalidConfig, format!("{field}.url"), &url.url, "not the plain form of the URL", allowed);
        }
        let size = url.volume.as_ref().and_then(|volume| volume.size.as_ref());
        if let Some(size) = size.filter(|size| !is_volume_size(size)) {
            let field = format!("{field}.volume.size");
            refuse(Reason::InvalidConfig, field, size, "not a size of a volume", VOLUME_SIZE_FORM);
        }
        if bucket && url.volume.is_some() {
            let allowed = "volume beside file:// URLs only";
            refuse(Reason::InvalidConfig, format!("{field}.volume"), "{…}", "a bucket has no claim", allowed);
        }
        if !bucket && url.bucket.is_some() {
            let allowed = "bucket beside bucket URLs only";
            refuse(Reason::InvalidConfig, format!("{field}.bucket"), "{…}", "a disk is not a bucket", allowed);
        }
    }
}

/// The pattern of the schema: digits, perhaps a fraction, perhaps a unit.
pub(super) fn is_volume_size(size: &str) -> bool {
    let number = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let plain = number.split_once('.').map_or_else(|| digits(number), |(whole, part)| digits(whole) && digits(part));
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E"];
    plain && size.len() <= 24 && units.contains(&&size[number.len()..])
}

/// URLs as they are compared: unique, not nested, on paths that a claim can be mounted at.
fn check_urls(effective: &Effective, refusals: &mut Vec<Refusal>) {
    let listed = effective.urls.iter().enumerate().map(|(i, url)| (format!("spec.walUrls[{i}]"), url));
    let all: Vec<_> = listed.chain(effective.journal.iter().map(|url| ("spec.journal".to_owned(), url))).collect();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (field, url) in &all {
        if !names.insert(&url.name) {
            let refusal = Refusal::new(Reason::NameConflict, format!("{field}.name"), "another URL has this name");
            refusals.push(refusal.value(&url.name).allowed("a name of its own for each URL, the journal's included"));
        }
        if let Some(first) = seen.get(url.url.as_str()) {
            let problem = format!("the same place as {first}");
            let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.url"), problem);
            refusals.push(refusal.value(&url.url).allowed("each URL once"));
        } else {
            seen.insert(url.url.as_str(), field);
        }
    }
    for (field, url) in &all {
        if let Some(outer) = url.url.ancestors().find_map(|above| seen.get(above)) {
            let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.url"), format!("inside of {outer}"));
            refusals.push(refusal.value(&url.url).allowed("places beside each other"));
        }
        match &url.place {
            Place::Disk(_) => check_mount(field, &url.url, refusals),
            Place::Bucket(bucket) => check_bucket(&format!("{field}.bucket"), bucket, refusals),
        }
    }
}

fn check_mount(field: &str, url: &WalUrl, refusals: &mut Vec<Refusal>) {
    let path = url.as_str().trim_start_matches("file://");
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-')) {
        let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.url"), "not a path for a claim");
        refusals.push(refusal.value(url).allowed("an absolute path of A-Z, a-z, 0-9, ., _ and -"));
    }
    let below = |mount: &&str| path.strip_prefix(*mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(mount) = FORBIDDEN_MOUNTS.into_iter().find(below) {
        let problem = format!("a claim is not mounted at or below {mount}");
        let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.url"), problem);
        refusals.push(refusal.value(url).allowed("a path of its own, like file:///wal/nvme1"));
    }
}

fn check_bucket(field: &str, bucket: &Bucket, refusals: &mut Vec<Refusal>) {
    let spec = &bucket.spec;
    if let Some(endpoint) = &spec.endpoint
        && let Err((problem, allowed)) = check_endpoint(endpoint)
    {
        let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.endpoint"), problem);
        let allowed = allowed.unwrap_or("https://host[:port] or http://host[:port]");
        refusals.push(refusal.value(crate::url::mask_user_info(endpoint)).allowed(allowed));
    }
    let mut text = |name: &str, text: Option<&String>, most: usize| {
        if text.is_some_and(|text| text.is_empty() || text.chars().count() > most || text.contains(char::is_control)) {
            let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.{name}"), "not a name");
            refusals.push(refusal.allowed(format!("1 to {most} characters, no control characters")));
        }
    };
    text("region", spec.region.as_ref(), 64);
    text("caBundle.configMapName", spec.ca_bundle.as_ref().map(|bundle| &bundle.config_map_name), 253);
    text("caBundle.key", spec.ca_bundle.as_ref().map(|bundle| &bundle.key), 253);
    let Some(credentials) = &spec.credentials else { return };
    text("credentials.secretName", credentials.secret_name.as_ref(), 253);
    if let Some(identity) = &credentials.workload_identity {
        text("credentials.workloadIdentity.roleArn", identity.role_arn.as_ref(), 2048);
        text("credentials.workloadIdentity.audience", Some(&identity.audience), 512);
        if identity.env.as_ref().is_some_and(|env| env.len() > 8) {
            let field = format!("{field}.credentials.workloadIdentity.env");
            let refusal = Refusal::new(Reason::InvalidConfig, field, "too many variables");
            refusals.push(refusal.allowed("at most 8"));
        }
        if credentials.secret_name.is_some() {
            let refusal =
                Refusal::new(Reason::InvalidConfig, format!("{field}.credentials"), "two kinds of credentials");
            refusals.push(refusal.allowed("secretName or workloadIdentity"));
        }
    }
}

fn check_memory(effective: &Effective, refusals: &mut Vec<Refusal>) {
    let (memory, global) = (effective.memory_flush_size, effective.global_flush_threshold);
    if memory > global {
        let problem = format!("above globalFlushThreshold = {global}");
        let refusal = Refusal::new(Reason::InvalidConfig, "spec.memoryFlushSize", problem);
        refusals.push(refusal.value(memory).allowed(format!("at most {global}")));
    }
    let needed = sidecar_memory(global);
    let given = [("limits", &effective.resources.limits), ("requests", &effective.resources.requests)];
    for (kind, resources) in given {
        let Some(text) = resources.as_ref().and_then(|resources| resources.get("memory")) else { continue };
        check_memory_given(kind, text, needed, global, refusals);
    }
}

fn check_memory_given(kind: &str, text: &IntOrString, needed: ByteSize, global: ByteSize, refusals: &mut Vec<Refusal>) {
    let field = format!("spec.sidecar.resources.{kind}.memory");
    let allowed = format!("at least {needed}, or a lower globalFlushThreshold");
    match ByteSize::parse(&text.to_string()) {
        Ok(size) if size >= needed => {}
        Ok(_) => {
            let problem = format!("less than globalFlushThreshold = {global} needs");
            refusals.push(Refusal::new(Reason::MemoryTooSmall, field, problem).value(text).allowed(allowed));
        }
        Err(error) => {
            refusals.push(Refusal::new(Reason::InvalidConfig, field, error.to_string()).value(text).allowed(allowed));
        }
    }
}

/// The memory that the sidecar needs: 1.25 x `globalFlushThreshold` + 192Mi.
#[must_use]
pub fn sidecar_memory(global_flush_threshold: ByteSize) -> ByteSize {
    let global = global_flush_threshold.0;
    ByteSize(global.saturating_add(global.div_ceil(4)).saturating_add(192 << 20).min(ByteSize::MAX.0))
}

/// What a writer still has must not get another meaning.
fn check_ledger(effective: &Effective, writer: &str, volume: &WriterVolume, refusals: &mut Vec<Refusal>) {
    let known = WalUrl::parse(&volume.url).ok();
    let listed = effective.urls.iter().map(|url| ("spec.walUrls", url));
    for (field, url) in listed.chain(effective.journal.iter().map(|url| ("spec.journal", url))) {
        let field = format!("{field}[name={}]", url.name);
        let refuse = |reason, part: &str, value: &dyn fmt::Display, problem: String, allowed: &str| {
            Refusal::new(reason, format!("{field}.{part}"), problem).value(value).allowed(allowed)
        };
        if url.name == volume.name {
            if known.as_ref() != Some(&url.url) {
                let problem = format!("writer {writer} has {} under this name", volume.url);
                let allowed = "another name for the new URL; removing the old name drains it";
                refusals.push(refuse(Reason::UrlChanged, "url", &url.url, problem, allowed));
            }
            check_size(&field, url, writer, volume, refusals);
        } else if volume.empty != Some(Empty::True)
            && known
                .as_ref()
                .is_some_and(|known| *known == url.url || known.is_inside(&url.url) || url.url.is_inside(known))
        {
            let problem = format!("writer {writer} still has entries in {} under the name {}", volume.url, volume.name);
            let allowed = "the old name, or a place of its own";
            refusals.push(refuse(Reason::UrlChanged, "url", &url.url, problem, allowed));
        }
    }
}

fn check_size(field: &str, url: &EffectiveUrl, writer: &str, volume: &WriterVolume, refusals: &mut Vec<Refusal>) {
    let Place::Disk(disk) = &url.place else { return };
    let known = volume.size.as_deref().and_then(|size| Some((size, ByteSize::parse(size).ok()?)));
    if let Some((text, known)) = known.filter(|(_, known)| *known > disk.size_bytes) {
        let problem = format!("writer {writer} has a claim of {text}, and claims only grow");
        let refusal = Refusal::new(Reason::SizeShrinks, format!("{field}.volume.size"), problem);
        refusals.push(refusal.value(&disk.size).allowed(format!("at least {known}")));
    }
}
