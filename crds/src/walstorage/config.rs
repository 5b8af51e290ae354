//! Between a WalStorage and its `config.toml`, in both directions. Keys without a field keep their default in a cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::fill::{Effective, EffectiveUrl, Place};
use super::{
    BucketSpec, CaBundle, Credentials, IntOrString, Refusal, SidecarSpec, UrlSpec, WalStorage, WalStorageSpec,
    WorkloadIdentity, validate,
};
use crate::config::{Config, SidecarConfig, UrlOptions, WalConfig};
use crate::names;
use crate::quantity::ByteSize;
use crate::url::WalUrl;

impl Effective {
    /// The configuration of this storage's sidecars.
    #[must_use]
    pub fn config(&self) -> Config {
        let default = Config::default();
        let used = self.urls.iter().chain(&self.journal);
        let url_options = used.map(|url| (url.url.clone(), options(url)));
        Config {
            wal: WalConfig {
                wal_urls: self.urls.iter().map(|url| url.url.clone()).collect(),
                journal_url: self.journal.as_ref().map(|url| url.url.clone()),
                distribution_strategy: self.distribution_strategy,
                collection_affinity: self.collection_affinity,
                memory_flush_size: self.memory_flush_size,
                global_flush_threshold: self.global_flush_threshold,
                segment_size: self.segment_size,
                compression: self.compression,
                bucket_commit_interval: self.bucket_commit_interval,
                on_damage: self.on_damage,
                url_options: url_options.filter(|(_, options)| *options != UrlOptions::default()).collect(),
                ..default.wal
            },
            sidecar: SidecarConfig {
                admin_address: self.admin_port.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)),
                ..default.sidecar
            },
            legacy_wal_dir: None,
        }
    }
}

fn options(url: &EffectiveUrl) -> UrlOptions {
    let Place::Bucket(bucket) = &url.place else { return UrlOptions::default() };
    let BucketSpec { endpoint, region, ca_bundle, credentials, path_style: _, allow_http: _, unsafe_conditional: _ } =
        &bucket.spec;
    let secret = credentials.as_ref().and_then(|credentials| credentials.secret_name.as_ref());
    let identity = credentials.as_ref().and_then(|credentials| credentials.workload_identity.as_ref());
    UrlOptions {
        endpoint: endpoint.clone(),
        region: region.clone(),
        path_style: bucket.path_style,
        allow_http: bucket.allow_http,
        ca_file: ca_bundle.as_ref().map(|_| names::ca_file(&url.name).into()),
        credentials_dir: secret.map(|_| names::credentials_dir(&url.name).into()),
        token_file: identity.map(|_| names::token_file(&url.name).into()),
        role_arn: identity.and_then(|identity| identity.role_arn.clone()),
        audience: identity.map(|identity| identity.audience.clone()),
        unsafe_conditional: bucket.unsafe_conditional,
        drain: false,
    }
}

/// A setting of a file that the resource has no field for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCarried {
    /// The whole path of the key.
    pub key: String,
    /// What it says.
    pub value: String,
    /// Why it cannot be carried over.
    pub why: String,
}

impl fmt::Display for NotCarried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.value, self.why)
    }
}

/// A resource made from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FromConfig {
    /// The resource, with what differs from the defaults.
    pub resource: WalStorage,
    /// What it has no field for.
    pub not_carried: Vec<NotCarried>,
    /// Objects that the resource names and that somebody must create.
    pub to_create: Vec<String>,
}

/// Makes a resource of a configuration.
///
/// # Errors
/// When a resource of this name, or with these URLs, would be refused.
pub fn from_config(config: &Config, name: &str) -> Result<FromConfig, Vec<Refusal>> {
    let mut made = Made { name, not_carried: Vec::new(), to_create: Vec::new() };
    let default = WalConfig::default();
    let WalConfig {
        wal_urls,
        distribution_strategy,
        collection_affinity,
        memory_flush_size,
        global_flush_threshold,
        journal_url,
        segment_size,
        compression,
        journal_max,
        bucket_commit_interval,
        buffered_commit_interval,
        on_damage,
        on_missing_directory,
        allow_ephemeral,
        io,
        writer_id,
        url_options,
    } = &config.wal;
    let (mut disks, mut buckets) = (0, 0);
    let urls = wal_urls.iter().map(|url| {
        let (letter, count) = if url.scheme().is_bucket() { ('b', &mut buckets) } else { ('d', &mut disks) };
        *count += 1;
        made.url(format!("{letter}{count}"), url, url_options.get(url))
    });
    let urls: Vec<UrlSpec> = urls.collect();
    let journal = journal_url.as_ref().map(|url| made.url("j".to_owned(), url, url_options.get(url)));
    let size = |size: ByteSize, default: ByteSize| (size != default).then(|| IntOrString::String(size.to_string()));
    let interval = made.interval("bucket_commit_interval_ms", *bucket_commit_interval, default.bucket_commit_interval);
    let spec = WalStorageSpec {
        wal_urls: Some(urls),
        journal,
        volume_defaults: None,
        distribution_strategy: changed(*distribution_strategy, default.distribution_strategy),
        collection_affinity: changed(*collection_affinity, default.collection_affinity),
        memory_flush_size: size(*memory_flush_size, default.memory_flush_size),
        global_flush_threshold: size(*global_flush_threshold, default.global_flush_threshold),
        segment_size: size(*segment_size, default.segment_size),
        compression: changed(*compression, default.compression),
        bucket_commit_interval: interval,
        on_damage: changed(*on_damage, default.on_damage),
        sidecar: made.sidecar(&config.sidecar),
        reclaim_policy: None,
    };

    let buffered = buffered_commit_interval.as_millis();
    made.keep("buffered_commit_interval_ms", buffered, default.buffered_commit_interval.as_millis());
    made.keep("on_missing_directory", on_missing_directory.as_str(), default.on_missing_directory.as_str());
    made.keep("allow_ephemeral", *allow_ephemeral, default.allow_ephemeral);
    made.keep("io", io.as_str(), default.io.as_str());
    if let Some(size) = journal_max {
        made.drop("storage.wal_config.journal_max_bytes", size.0, NO_FIELD);
    }
    if let Some(id) = writer_id {
        made.drop("storage.wal_config.writer_id", format!("{id:?}"), "the operator gives every writer its id");
    }
    if let Some(url) = &config.legacy_wal_dir {
        let why = "the old directory is not mounted in a cluster; empty it first";
        made.drop("storage.wal_dir", format!("\"{url}\""), why);
    }
    let Made { not_carried, to_create, .. } = made;
    validate(name, &spec, &[])?;
    Ok(FromConfig { resource: WalStorage::new(name, spec), not_carried, to_create })
}

const NO_FIELD: &str = "the resource has no field for it; in a cluster it keeps its default";

fn changed<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

/// A resource in the making.
struct Made<'n> {
    name: &'n str,
    not_carried: Vec<NotCarried>,
    to_create: Vec<String>,
}

impl Made<'_> {
    fn drop(&mut self, key: impl Into<String>, value: impl fmt::Display, why: &str) {
        self.not_carried.push(NotCarried { key: key.into(), value: value.to_string(), why: why.to_owned() });
    }

    /// A key without a field must have its default.
    fn keep<T: PartialEq + fmt::Display>(&mut self, key: &str, value: T, default: T) {
        if value != default {
            self.drop(format!("storage.wal_config.{key}"), value, NO_FIELD);
        }
    }

    fn url(&mut self, name: String, url: &WalUrl, options: Option<&UrlOptions>) -> UrlSpec {
        let bucket = options.and_then(|options| self.bucket(&name, url, options));
        UrlSpec { name, url: url.to_string(), volume: None, bucket }
    }

    fn bucket(&mut self, name: &str, url: &WalUrl, options: &UrlOptions) -> Option<BucketSpec> {
        let UrlOptions {
            endpoint,
            region,
            path_style,
            allow_http,
            ca_file,
            credentials_dir,
            token_file,
            role_arn,
            audience,
            unsafe_conditional,
            drain,
        } = options;
        let key = |key: &str| format!("storage.wal_config.url_options.\"{url}\".{key}");
        if *drain {
            self.drop(key("drain"), true, "a resource drains a URL by leaving it out");
        }
        let ca_bundle = ca_file.as_ref().map(|file| {
            let config_map_name = format!("{}-ca-{name}", self.name);
            self.create("ConfigMap", &config_map_name, &format!("the key ca.crt from {}", file.display()));
            CaBundle { config_map_name, key: "ca.crt".to_owned() }
        });
        let spec = BucketSpec {
            endpoint: endpoint.clone(),
            region: region.clone(),
            path_style: changed(*path_style, endpoint.is_some()),
            allow_http: changed(*allow_http, false),
            ca_bundle,
            unsafe_conditional: changed(*unsafe_conditional, false),
            credentials: match (credentials_dir, token_file, audience) {
                (Some(dir), None, None) if role_arn.is_none() => Some(self.secret(name, dir)),
                (None, Some(_), Some(audience)) => Some(Credentials {
                    secret_name: None,
                    workload_identity: Some(WorkloadIdentity {
                        role_arn: role_arn.clone(),
                        audience: audience.clone(),
                        env: None,
                    }),
                }),
                (None, None, None) if role_arn.is_none() => None,
                _ => {
                    self.odd_credentials(&key, options);
                    None
                }
            },
        };
        (spec != BucketSpec::default()).then_some(spec)
    }

    fn secret(&mut self, name: &str, dir: &Path) -> Credentials {
        let secret_name = format!("{}-{name}", self.name);
        self.create("Secret", &secret_name, &format!("the files of {} as its keys", dir.display()));
        Credentials { secret_name: Some(secret_name), workload_identity: None }
    }

    /// Neither the files of a Secret nor a whole workload identity.
    fn odd_credentials(&mut self, key: &dyn Fn(&str) -> String, options: &UrlOptions) {
        let why =
            "a resource has either a Secret (credentials_dir alone) or a workload identity (token_file and audience)";
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given = [
            ("credentials_dir", path(&options.credentials_dir)),
            ("token_file", path(&options.token_file)),
            ("role_arn", options.role_arn.clone()),
            ("audience", options.audience.clone()),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                self.drop(key(name), format!("{value:?}"), why);
            }
        }
    }

    fn create(&mut self, kind: &str, name: &str, from: &str) {
        self.to_create.push(format!("create the {kind} {name} with {from}"));
    }

    fn interval(&mut self, key: &str, interval: Duration, default: Duration) -> Option<String> {
        let millis = interval.as_millis();
        if interval == default {
            return None;
        }
        if millis <= 999_999 {
            return Some(format!("{millis}ms"));
        }
        if millis.is_multiple_of(1000) && millis / 1000 <= 999_999 {
            return Some(format!("{}s", millis / 1000));
        }
        let why = "the resource takes at most six digits of milliseconds or seconds";
        self.drop(format!("storage.wal_config.{key}"), millis, why);
        None
    }

    fn sidecar(&mut self, sidecar: &SidecarConfig) -> Option<SidecarSpec> {
        let SidecarConfig { socket, admin_address } = sidecar;
        let default = SidecarConfig::default();
        if *socket != default.socket {
            self.drop("sidecar.socket", format!("{:?}", socket.display().to_string()), NO_FIELD);
        }
        let admin_port = match admin_address {
            _ if *admin_address == default.admin_address => None,
            None => Some(0),
            Some(SocketAddr::V4(address)) if address.ip().is_unspecified() && address.port() >= 1024 => {
                Some(i32::from(address.port()))
            }
            Some(address) => {
                let why = "in a pod it is 0.0.0.0 with a port from 1024, or \"off\"";
                self.drop("sidecar.admin_address", format!("\"{address}\""), why);
                None
            }
        };
        admin_port.map(|port| SidecarSpec { admin_port: Some(port), ..SidecarSpec::default() })
    }
}
