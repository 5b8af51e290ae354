//! The one place where defaults of a WalStorage live: from what a user wrote to what holds.

use std::time::Duration;

use super::validate::{Reason, Refusal, is_volume_size};
use super::{
    AccessMode, BucketSpec, IntOrString, LogLevel, Resources, UrlSpec, VolumeSpec, WalStorageSpec, WhenDeleted,
    WhenDrained,
};
use crate::config::{Compression, DEFAULT_ADMIN_PORT, DEFAULT_WAL_URL, DistributionStrategy, OnDamage, WalConfig};
use crate::quantity::ByteSize;
use crate::url::WalUrl;

/// Name of the one URL of an empty spec.
pub const DEFAULT_URL_NAME: &str = "data";
/// Size of a claim when nothing is said.
pub const DEFAULT_VOLUME_SIZE: &str = "10Gi";
/// Seconds added to the grace period when nothing is said.
pub const DEFAULT_DRAIN_SECONDS: u32 = 30;
/// Seconds that a drained writer keeps its claims when nothing is said.
pub const DEFAULT_DRAINED_AFTER_SECONDS: u32 = 3600;

/// A WalStorage with every default filled in and every text read.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Never empty; names and URLs are unique.
    pub urls: Vec<EffectiveUrl>,
    /// Where commits go, when not to `urls`.
    pub journal: Option<EffectiveUrl>,
    /// How collections are placed.
    pub distribution_strategy: DistributionStrategy,
    /// A collection stays on one directory.
    pub collection_affinity: bool,
    /// Per collection.
    pub memory_flush_size: ByteSize,
    /// All collections.
    pub global_flush_threshold: ByteSize,
    /// Size at which a segment is sealed.
    pub segment_size: ByteSize,
    /// Of segments.
    pub compression: Compression,
    /// Least time between starts of bucket commits.
    pub bucket_commit_interval: Duration,
    /// What to do about damage found at start.
    pub on_damage: OnDamage,
    /// Of the container, where given.
    pub resources: Resources,
    /// How much the sidecar tells.
    pub log_level: LogLevel,
    /// `None` = no admin port.
    pub admin_port: Option<u16>,
    /// Added to the pod's grace period.
    pub drain_seconds: u32,
    /// The claims of drained writers.
    pub when_drained: WhenDrained,
    /// All claims, once the resource is deleted.
    pub when_deleted: WhenDeleted,
    /// How long a drained writer keeps its claims.
    pub drained_after_seconds: u32,
}

/// One storage URL.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveUrl {
    /// The directory's identity.
    pub name: String,
    /// Canonical.
    pub url: WalUrl,
    /// What is behind it.
    pub place: Place,
}

/// What is behind a URL.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A claim.
    Disk(Volume),
    /// A bucket.
    Bucket(Bucket),
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// As written, so that claims are asked for in the user's words.
    pub size: String,
    /// The same in bytes.
    pub size_bytes: ByteSize,
    /// `None` = the cluster's default.
    pub storage_class_name: Option<String>,
    /// How many pods may mount it.
    pub access_mode: AccessMode,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// As written.
    pub spec: BucketSpec,
    /// The bucket's name stands in the path.
    pub path_style: bool,
    /// Plain HTTP may be spoken.
    pub allow_http: bool,
    /// The store has no conditional requests.
    pub unsafe_conditional: bool,
}

/// Fills in every default. What cannot be read is refused with its field.
pub(super) fn fill(spec: &WalStorageSpec, refusals: &mut Vec<Refusal>) -> Effective {
    let WalStorageSpec {
        wal_urls,
        journal,
        volume_defaults,
        distribution_strategy,
        collection_affinity,
        memory_flush_size,
        global_flush_threshold,
        segment_size,
        compression,
        bucket_commit_interval,
        on_damage,
        sidecar,
        reclaim_policy,
    } = spec;
    let default = WalConfig::default();
    let volume_defaults = volume_defaults.clone().unwrap_or_default();
    let standard = UrlSpec { name: DEFAULT_URL_NAME.to_owned(), url: DEFAULT_WAL_URL.to_owned(), ..UrlSpec::default() };
    let wal_urls = wal_urls.clone().unwrap_or_else(|| vec![standard]);
    let urls = wal_urls.iter().enumerate().filter_map(|(index, url)| {
        let field = format!("spec.walUrls[{index}]");
        fill_url(url, &volume_defaults, &field, refusals)
    });
    let urls = urls.collect();
    let journal = journal.as_ref().and_then(|url| fill_url(url, &volume_defaults, "spec.journal", refusals));
    let mut size =
        |field: &str, text: &Option<IntOrString>, default| read_size(field, text.as_ref(), default, refusals);
    let memory_flush_size = size("spec.memoryFlushSize", memory_flush_size, default.memory_flush_size);
    let global_flush_threshold =
        size("spec.globalFlushThreshold", global_flush_threshold, default.global_flush_threshold);
    let segment_size = size("spec.segmentSize", segment_size, default.segment_size);
    let sidecar = sidecar.clone().unwrap_or_default();
    let reclaim = reclaim_policy.clone().unwrap_or_default();
    Effective {
        urls,
        journal,
        distribution_strategy: distribution_strategy.unwrap_or(default.distribution_strategy),
        collection_affinity: collection_affinity.unwrap_or(default.collection_affinity),
        memory_flush_size,
        global_flush_threshold,
        segment_size,
        compression: compression.unwrap_or(default.compression),
        bucket_commit_interval: bucket_commit_interval
            .as_ref()
            .and_then(|text| read_duration("spec.bucketCommitInterval", text, refusals))
            .unwrap_or(default.bucket_commit_interval),
        on_damage: on_damage.unwrap_or(default.on_damage),
        resources: sidecar.resources.unwrap_or_default(),
        log_level: sidecar.log_level.unwrap_or_default(),
        admin_port: read_admin_port(sidecar.admin_port, refusals),
        drain_seconds: bounded("spec.sidecar.drainSeconds", sidecar.drain_seconds, 600, refusals)
            .unwrap_or(DEFAULT_DRAIN_SECONDS),
        when_drained: reclaim.when_drained.unwrap_or_default(),
        when_deleted: reclaim.when_deleted.unwrap_or_default(),
        drained_after_seconds: bounded(
            "spec.reclaimPolicy.drainedAfterSeconds",
            reclaim.drained_after_seconds,
            31_536_000,
            refusals,
        )
        .unwrap_or(DEFAULT_DRAINED_AFTER_SECONDS),
    }
}

fn fill_url(spec: &UrlSpec, defaults: &VolumeSpec, field: &str, refusals: &mut Vec<Refusal>) -> Option<EffectiveUrl> {
    let UrlSpec { name, url, volume, bucket } = spec;
    let url = match WalUrl::parse(url) {
        Ok(url) => url,
        Err(error) => {
            let value = crate::url::mask_user_info(url);
            let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.url"), error.to_string());
            refusals.push(refusal.value(value).allowed(error.allowed()));
            return None;
        }
    };
    let place = if url.scheme().is_bucket() {
        let spec = bucket.clone().unwrap_or_default();
        Place::Bucket(Bucket {
            path_style: spec.path_style.unwrap_or(spec.endpoint.is_some()),
            allow_http: spec.allow_http.unwrap_or(false),
            unsafe_conditional: spec.unsafe_conditional.unwrap_or(false),
            spec,
        })
    } else {
        let volume = volume.clone().unwrap_or_default();
        let size = volume.size.or_else(|| defaults.size.clone()).unwrap_or_else(|| DEFAULT_VOLUME_SIZE.to_owned());
        let size_bytes = match ByteSize::parse(&size) {
            Ok(ByteSize(0)) => {
                let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.volume.size"), "zero");
                refusals.push(refusal.value(&size).allowed("a size above zero"));
                ByteSize(0)
            }
            Ok(bytes) => bytes,
            // What does not look like a size at all is refused where it was written.
            Err(_) if !is_volume_size(&size) => ByteSize(0),
            Err(error) => {
                let refusal = Refusal::new(Reason::InvalidConfig, format!("{field}.volume.size"), error.to_string());
                refusals.push(refusal.value(&size).allowed("a quantity like \"100Gi\""));
                ByteSize(0)
            }
        };
        Place::Disk(Volume {
            size,
            size_bytes,
            storage_class_name: volume.storage_class_name.or_else(|| defaults.storage_class_name.clone()),
            access_mode: volume.access_mode.or(defaults.access_mode).unwrap_or_default(),
        })
    };
    Some(EffectiveUrl { name: name.clone(), url, place })
}

fn read_size(field: &str, text: Option<&IntOrString>, default: ByteSize, refusals: &mut Vec<Refusal>) -> ByteSize {
    let Some(text) = text else { return default };
    let text = text.to_string();
    let problem = match ByteSize::parse(&text) {
        Ok(ByteSize(0)) => Refusal::new(Reason::InvalidConfig, field, "zero").allowed("at least 1 byte"),
        Ok(size) => return size,
        Err(error) => Refusal::new(Reason::InvalidConfig, field, error.to_string()).allowed(error.allowed()),
    };
    refusals.push(problem.value(text));
    default
}

/// `250ms` or `2s`.
fn read_duration(field: &str, text: &str, refusals: &mut Vec<Refusal>) -> Option<Duration> {
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (text.strip_suffix('s').unwrap_or_default(), 1000),
    };
    let fits =
        (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    let number = digits.parse::<u64>().ok().filter(|_| fits);
    if number.is_none() {
        let refusal = Refusal::new(Reason::InvalidConfig, field, "not a time");
        refusals.push(refusal.value(text).allowed("milliseconds or seconds, like 250ms or 2s, of at most six digits"));
    }
    Some(Duration::from_millis(number? * unit))
}

fn read_admin_port(port: Option<i32>, refusals: &mut Vec<Refusal>) -> Option<u16> {
    match port.map(u16::try_from) {
        None => Some(DEFAULT_ADMIN_PORT),
        Some(Ok(0)) => None,
        Some(Ok(port)) if port >= 1024 => Some(port),
        Some(_) => {
            let refusal = Refusal::new(Reason::InvalidConfig, "spec.sidecar.adminPort", "not a port for a pod");
            refusals.push(refusal.value(port.unwrap_or_default()).allowed("0 for none, or 1024 to 65535"));
            None
        }
    }
}

fn bounded<T: Copy + std::fmt::Display + TryInto<u32>>(
    field: &str,
    value: Option<T>,
    most: u32,
    refusals: &mut Vec<Refusal>,
) -> Option<u32> {
    let value = value?;
    let number = value.try_into().ok().filter(|number| *number <= most);
    if number.is_none() {
        let refusal = Refusal::new(Reason::InvalidConfig, field, "out of bounds");
        refusals.push(refusal.value(value).allowed(format!("0 to {most}")));
    }
    number
}
