//! What is accepted and refused, what is filled in, and that a resource and its file stand for each other.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, SidecarConfig, UrlOptions};
use crate::names;
use crate::quantity::ByteSize;
use crate::url::WalUrl;
use crate::walwriter::{WalWriter, WalWriterSpec};

fn spec(value: Value) -> WalStorageSpec {
    serde_json::from_value(value).unwrap()
}

fn refusals(value: Value, ledger: &[WalWriter]) -> Vec<(Reason, String)> {
    let refusals = validate("orders", &spec(value), ledger).map(|effective| format!("{effective:?}")).unwrap_err();
    refusals.into_iter().map(|refusal| (refusal.reason, refusal.to_string())).collect()
}

fn writer(volumes: Value) -> WalWriter {
    let spec = json!({"storage": "orders", "writer": "orders-0", "writerUid": "u", "identity": "Named",
                      "workload": {"group": "apps", "kind": "StatefulSet", "name": "orders"}});
    let mut writer = WalWriter::new("orders.orders-0", serde_json::from_value::<WalWriterSpec>(spec).unwrap());
    writer.status = Some(serde_json::from_value(json!({"volumes": volumes})).unwrap());
    writer
}

#[test]
fn an_empty_spec_equals_the_defaults_of_the_file() {
    let effective = validate("orders", &WalStorageSpec::default(), &[]).unwrap();
    assert_eq!(effective.config(), Config::default());
    assert_eq!(effective.urls[0].name, "data");
    let Place::Disk(volume) = &effective.urls[0].place else { panic!("{effective:?}") };
    assert_eq!((volume.size.as_str(), volume.access_mode), ("10Gi", AccessMode::ReadWriteOncePod));
    assert_eq!((effective.drain_seconds, effective.drained_after_seconds), (30, 3600));
}

#[test]
fn missing_fields_of_a_volume_come_from_the_defaults_of_the_spec() {
    let spec = spec(json!({
        "walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b", "volume": {"size": "1Ti"}}],
        "volumeDefaults": {"size": "20Gi", "storageClassName": "fast", "accessMode": "ReadWriteOnce"},
    }));
    let effective = validate("orders", &spec, &[]).unwrap();
    let volumes = effective.urls.iter().map(|url| match &url.place {
        Place::Disk(volume) => (volume.size.as_str(), volume.storage_class_name.as_deref(), volume.access_mode),
        Place::Bucket(_) => panic!("{url:?}"),
    });
    assert_eq!(
        volumes.collect::<Vec<_>>(),
        [("20Gi", Some("fast"), AccessMode::ReadWriteOnce), ("1Ti", Some("fast"), AccessMode::ReadWriteOnce),]
    );
}

#[test]
fn the_resource_of_the_documentation_means_what_it_says() {
    let spec = spec(json!({
        "walUrls": [
            {"name": "nvme1", "url": "file:///wal/nvme1",
             "volume": {"size": "100Gi", "storageClassName": "fast", "accessMode": "ReadWriteOncePod"}},
            {"name": "archive", "url": "s3://bucket1/wal", "bucket": {
                "endpoint": "https://minio.shop.svc:9000", "region": "us-west-2", "allowHttp": false,
                "caBundle": {"configMapName": "corp-ca", "key": "ca.crt"}, "credentials": {"secretName": "wal-s3"}}},
        ],
        "journal": {"name": "fast", "url": "file:///wal/fast", "volume": {"size": "20Gi"}},
        "distributionStrategy": "Hash", "collectionAffinity": false,
        "memoryFlushSize": "2Mi", "globalFlushThreshold": 1073741824, "segmentSize": "32Mi",
        "compression": "null", "bucketCommitInterval": "2s", "onDamage": "gap",
        "sidecar": {"logLevel": "debug", "adminPort": 0, "drainSeconds": 60,
                    "resources": {"limits": {"memory": "2Gi"}, "requests": {"cpu": 1, "memory": "1472Mi"}}},
        "reclaimPolicy": {"whenDrained": "Delete", "whenDeleted": "DeleteDrained", "drainedAfterSeconds": 60},
    }));
    let effective = validate("orders", &spec, &[]).unwrap();
    assert_eq!(
        effective.config().rendered_toml().lines().skip(1).collect::<Vec<_>>().join("\n"),
        r#"[storage.wal_config]
wal_urls = [
    "file:///wal/nvme1",
    "s3://bucket1/wal",
]
distribution_strategy = "Hash"
collection_affinity = false
memory_flush_size_bytes = 2097152
global_flush_threshold = 1073741824
journal_url = "file:///wal/fast"
segment_size_bytes = 33554432
compression = "null"
bucket_commit_interval_ms = 2000
on_damage = "gap"

[storage.wal_config.url_options."s3://bucket1/wal"]
endpoint = "https://minio.shop.svc:9000"
region = "us-west-2"
ca_file = "/etc/walstorage/ca/archive.crt"
credentials_dir = "/etc/walstorage/credentials/archive"

[sidecar]
admin_address = "off""#
    );
    assert_eq!(effective.log_level, LogLevel::Debug);
    assert_eq!((effective.when_drained, effective.when_deleted), (WhenDrained::Delete, WhenDeleted::DeleteDrained));
}

#[test]
fn a_workload_identity_becomes_a_token() {
    let effective = validate(
        "orders",
        &spec(json!({"walUrls": [{"name": "b", "url": "s3://bucket", "bucket": {"credentials":
        {"workloadIdentity": {"roleArn": "arn:aws:iam::1:role/wal", "audience": "sts.amazonaws.com"}}}}]})),
        &[],
    )
    .unwrap();
    let options = effective.config().wal.url_options.into_values().next().unwrap();
    let expected = UrlOptions {
        token_file: Some("/etc/walstorage/tokens/b".into()),
        role_arn: Some("arn:aws:iam::1:role/wal".to_owned()),
        audience: Some("sts.amazonaws.com".to_owned()),
        ..UrlOptions::default()
    };
    assert_eq!(options, expected);
}

#[test]
fn what_is_wrong_is_refused_with_field_value_and_remedy() {
    use Reason::{InvalidConfig, MemoryTooSmall, NameConflict};
    let url = |name: &str, url: &str| json!({"name": name, "url": url});
    let urls = |list: &[Value]| json!({"walUrls": list});
    for (value, reason, message) in [
        (
            urls(&[]),
            InvalidConfig,
            "spec.walUrls = 0: number of URLs; allowed: 1 to 16 URLs, or no walUrls for file:///workspace/data/wal",
        ),
        (
            urls(&[url("a-b", "file:///a")]),
            InvalidConfig,
            "spec.walUrls[0].name = a-b: not a name for a URL; allowed: 1 to 16 of a-z and 0-9",
        ),
        (
            urls(&[url("a", "file:///a"), url("a", "file:///b")]),
            NameConflict,
            "spec.walUrls[1].name = a: another URL has this name; allowed: a name of its own for each URL, the journal's included",
        ),
        (
            urls(&[url("a", "file:///a"), url("b", "file:///a")]),
            InvalidConfig,
            "spec.walUrls[1].url = file:///a: the same place as spec.walUrls[0]; allowed: each URL once",
        ),
        (
            urls(&[url("a", "gs://bucket/a"), url("b", "gcs://bucket/a/b")]),
            InvalidConfig,
            "spec.walUrls[1].url = gcs://bucket/a/b: inside of spec.walUrls[0]; allowed: places beside each other",
        ),
        (
            urls(&[url("a", "ftp://host/a")]),
            InvalidConfig,
            "spec.walUrls[0].url = ftp://host/a: unknown scheme \"ftp\"; allowed: file:///absolute/path, s3://bucket/prefix, gcs://bucket/prefix, adls://account.dfs.core.windows.net/container/prefix",
        ),
        (
            urls(&[url("a", "s3://key:secret@bucket/a")]),
            InvalidConfig,
            "spec.walUrls[0].url = s3://***@bucket/a: user info is not allowed in a storage URL; allowed: credentials in files, named by url_options credentials_dir",
        ),
        (
            urls(&[url("a", "file:///a/")]),
            InvalidConfig,
            "spec.walUrls[0].url = file:///a/: not the plain form of the URL; allowed: file:///a",
        ),
        (
            urls(&[url("a", "S3://bucket")]),
            InvalidConfig,
            "spec.walUrls[0].url = S3://bucket: not the plain form of the URL; allowed: a scheme in lower case",
        ),
        (
            urls(&[url("a", "file:///my%20wal")]),
            InvalidConfig,
            "spec.walUrls[0].url = file:///my%20wal: not a path for a claim; allowed: an absolute path of A-Z, a-z, 0-9, ., _ and -",
        ),
        (
            urls(&[url("a", "file:///etc/wal")]),
            InvalidConfig,
            "spec.walUrls[0].url = file:///etc/wal: a claim is not mounted at or below /etc; allowed: a path of its own, like file:///wal/nvme1",
        ),
        (
            urls(&[url("a", "s3://b")]),
            InvalidConfig,
            "spec.walUrls[0].url = 6 bytes: the length of the URL; allowed: 8 to 512 bytes",
        ),
        (
            urls(&[json!({"name": "a", "url": "s3://bucket", "volume": {}})]),
            InvalidConfig,
            "spec.walUrls[0].volume = {…}: a bucket has no claim; allowed: volume beside file:// URLs only",
        ),
        (
            urls(&[json!({"name": "a", "url": "file:///a", "bucket": {}})]),
            InvalidConfig,
            "spec.walUrls[0].bucket = {…}: a disk is not a bucket; allowed: bucket beside bucket URLs only",
        ),
        (
            urls(&[json!({"name": "a", "url": "file:///a", "volume": {"size": "1e3"}})]),
            InvalidConfig,
            "spec.walUrls[0].volume.size = 1e3: not a size of a volume; allowed: a number and one of Ki Mi Gi Ti Pi Ei k M G T P E, like 100Gi",
        ),
        (
            urls(&[json!({"name": "a", "url": "file:///a", "volume": {"size": "0Gi"}})]),
            InvalidConfig,
            "spec.walUrls[0].volume.size = 0Gi: zero; allowed: a size above zero",
        ),
        (
            urls(&[json!({"name": "a", "url": "s3://bucket", "bucket": {"endpoint": "minio:9000"}})]),
            InvalidConfig,
            "spec.walUrls[0].bucket.endpoint = minio:9000: not an http or https address; allowed: https://host[:port] or http://host[:port]",
        ),
        (
            urls(&[json!({"name": "a", "url": "s3://bucket", "bucket": {"region": ""}})]),
            InvalidConfig,
            "spec.walUrls[0].bucket.region: not a name; allowed: 1 to 64 characters, no control characters",
        ),
        (
            urls(&[
                json!({"name": "a", "url": "s3://bucket", "bucket": {"credentials": {"secretName": "s", "workloadIdentity": {"audience": "a"}}}}),
            ]),
            InvalidConfig,
            "spec.walUrls[0].bucket.credentials: two kinds of credentials; allowed: secretName or workloadIdentity",
        ),
        (
            json!({"journal": url("data", "file:///j")}),
            NameConflict,
            "spec.journal.name = data: another URL has this name; allowed: a name of its own for each URL, the journal's included",
        ),
        (
            json!({"walUrls": [url("a", "file:///a")], "journal": url("a", "file:///j")}),
            NameConflict,
            "spec.journal.name = a: another URL has this name; allowed: a name of its own for each URL, the journal's included",
        ),
        (
            json!({"journal": url("j", "file:///workspace/data/wal/j")}),
            InvalidConfig,
            "spec.journal.url = file:///workspace/data/wal/j: inside of spec.walUrls[0]; allowed: places beside each other",
        ),
        (
            json!({"volumeDefaults": {"size": "ten"}}),
            InvalidConfig,
            "spec.volumeDefaults.size = ten: not a size of a volume; allowed: a number and one of Ki Mi Gi Ti Pi Ei k M G T P E, like 100Gi",
        ),
        (
            json!({"memoryFlushSize": "512m"}),
            InvalidConfig,
            "spec.memoryFlushSize = 512m: the suffix m means fractions of a byte; allowed: bytes, or a quantity like \"512Mi\", \"1.5Gi\" or \"129e6\" (k M G T P E, Ki Mi Gi Ti Pi Ei)",
        ),
        (json!({"segmentSize": 0}), InvalidConfig, "spec.segmentSize = 0: zero; allowed: at least 1 byte"),
        (
            json!({"memoryFlushSize": "1Gi"}),
            InvalidConfig,
            "spec.memoryFlushSize = 1Gi: above globalFlushThreshold = 512Mi; allowed: at most 512Mi",
        ),
        (
            json!({"bucketCommitInterval": "1m"}),
            InvalidConfig,
            "spec.bucketCommitInterval = 1m: not a time; allowed: milliseconds or seconds, like 250ms or 2s, of at most six digits",
        ),
        (
            json!({"sidecar": {"adminPort": 80}}),
            InvalidConfig,
            "spec.sidecar.adminPort = 80: not a port for a pod; allowed: 0 for none, or 1024 to 65535",
        ),
        (
            json!({"sidecar": {"drainSeconds": 601}}),
            InvalidConfig,
            "spec.sidecar.drainSeconds = 601: out of bounds; allowed: 0 to 600",
        ),
        (
            json!({"reclaimPolicy": {"drainedAfterSeconds": -1}}),
            InvalidConfig,
            "spec.reclaimPolicy.drainedAfterSeconds = -1: out of bounds; allowed: 0 to 31536000",
        ),
        (
            json!({"sidecar": {"resources": {"limits": {"memory": "831Mi"}}}}),
            MemoryTooSmall,
            "spec.sidecar.resources.limits.memory = 831Mi: less than globalFlushThreshold = 512Mi needs; allowed: at least 832Mi, or a lower globalFlushThreshold",
        ),
    ] {
        assert_eq!(refusals(value, &[]), [(reason, message.to_owned())]);
    }
}

#[test]
fn a_name_that_cannot_name_a_volume_is_refused() {
    for name in ["", "Orders", "a.b", "a--b", "-a", "a-", &"a".repeat(41)] {
        let refusal = validate(name, &WalStorageSpec::default(), &[]).unwrap_err().remove(0);
        assert_eq!(refusal.field, "metadata.name", "{name}");
    }
    assert!(validate(&"a".repeat(40), &WalStorageSpec::default(), &[]).is_ok());
}

#[test]
fn all_refusals_are_reported() {
    let found =
        refusals(json!({"walUrls": [{"name": "A", "url": "x"}], "segmentSize": "x", "memoryFlushSize": -1}), &[]);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn the_ledger_guards_what_rules_in_the_schema_cannot_see() {
    let writer = |volume| [writer(json!([volume]))];
    let urls =
        |name: &str, url: &str, size: &str| json!({"walUrls": [{"name": name, "url": url, "volume": {"size": size}}]});
    let known = json!({"name": "a", "url": "file:///wal/a", "size": "10Gi"});
    let accepted = |value: Value, volume: &Value| validate("orders", &spec(value), &writer(volume.clone())).is_ok();

    assert!(accepted(urls("a", "file:///wal/a", "10Gi"), &known));
    assert!(accepted(urls("a", "file:///wal/a", "10240Mi"), &known));
    assert!(accepted(urls("a", "file:///wal/a", "11Gi"), &known));
    assert!(accepted(urls("b", "file:///wal/b", "1Gi"), &known));
    let empty = json!({"name": "a", "url": "file:///wal/a", "size": "10Gi", "empty": "True"});
    assert!(accepted(urls("b", "file:///wal/a", "1Gi"), &empty));

    let refused = |value, reason, message: &str| {
        assert_eq!(refusals(value, &writer(known.clone())), [(reason, message.to_owned())]);
    };
    refused(
        urls("a", "file:///wal/new", "10Gi"),
        Reason::UrlChanged,
        "spec.walUrls[name=a].url = file:///wal/new: writer orders-0 has file:///wal/a under this name; allowed: another name for the new URL; removing the old name drains it",
    );
    refused(
        urls("b", "file:///wal/a", "10Gi"),
        Reason::UrlChanged,
        "spec.walUrls[name=b].url = file:///wal/a: writer orders-0 still has entries in file:///wal/a under the name a; allowed: the old name, or a place of its own",
    );
    refused(
        urls("a", "file:///wal/a", "9Gi"),
        Reason::SizeShrinks,
        "spec.walUrls[name=a].volume.size = 9Gi: writer orders-0 has a claim of 10Gi, and claims only grow; allowed: at least 10Gi",
    );
    let mut other = writer(known.clone());
    other[0].spec.storage = "other".to_owned();
    assert!(validate("orders", &spec(urls("a", "file:///wal/new", "1Gi")), &other).is_ok());
}

#[test]
fn what_a_file_says_and_a_resource_cannot_is_named() {
    let text = r#"
[storage]
wal_dir = "/old"
[storage.wal_config]
wal_urls = ["file:///wal/a", "s3://bucket1/wal"]
journal_max_bytes = 1073741824
bucket_commit_interval_ms = 1000001
buffered_commit_interval_ms = 5
allow_ephemeral = true
io = "direct"
writer_id = "a/b"
[storage.wal_config.url_options."s3://bucket1/wal"]
credentials_dir = "/c"
role_arn = "r"
drain = true
[sidecar]
socket = "/s"
admin_address = "127.0.0.1:9465"
"#;
    let made = from_config(&Config::parse(text, false).unwrap().config, "wal").unwrap();
    let named: Vec<String> = made.not_carried.iter().map(ToString::to_string).collect();
    let no_field = "the resource has no field for it; in a cluster it keeps its default";
    let either =
        "a resource has either a Secret (credentials_dir alone) or a workload identity (token_file and audience)";
    assert_eq!(
        named,
        [
            "storage.wal_config.url_options.\"s3://bucket1/wal\".drain = true: a resource drains a URL by leaving it out".to_owned(),
            format!("storage.wal_config.url_options.\"s3://bucket1/wal\".credentials_dir = \"/c\": {either}"),
            format!("storage.wal_config.url_options.\"s3://bucket1/wal\".role_arn = \"r\": {either}"),
            "storage.wal_config.bucket_commit_interval_ms = 1000001: the resource takes at most six digits of milliseconds or seconds".to_owned(),
            format!("sidecar.socket = \"/s\": {no_field}"),
            "sidecar.admin_address = \"127.0.0.1:9465\": in a pod it is 0.0.0.0 with a port from 1024, or \"off\"".to_owned(),
            format!("storage.wal_config.buffered_commit_interval_ms = 5: {no_field}"),
            format!("storage.wal_config.allow_ephemeral = true: {no_field}"),
            format!("storage.wal_config.io = direct: {no_field}"),
            format!("storage.wal_config.journal_max_bytes = 1073741824: {no_field}"),
            "storage.wal_config.writer_id = \"a/b\": the operator gives every writer its id".to_owned(),
            "storage.wal_dir = \"file:///old\": the old directory is not mounted in a cluster; empty it first".to_owned(),
        ]
    );
}

#[test]
fn names_of_urls_are_counted_and_secrets_are_to_be_created() {
    let text = r#"
[storage.wal_config]
wal_urls = ["file:///wal/a", "s3://bucket1/wal", "file:///wal/b"]
journal_url = "file:///wal/j"
[storage.wal_config.url_options."s3://bucket1/wal"]
credentials_dir = "/home/me/credentials"
ca_file = "/home/me/ca.pem"
"#;
    let made = from_config(&Config::parse(text, false).unwrap().config, "orders").unwrap();
    let spec = made.resource.spec;
    let names: Vec<&str> = spec.wal_urls.iter().flatten().map(|url| url.name.as_str()).collect();
    assert_eq!(names, ["d1", "b1", "d2"]);
    assert_eq!(spec.journal.unwrap().name, "j");
    assert_eq!(
        made.to_create,
        [
            "create the ConfigMap orders-ca-b1 with the key ca.crt from /home/me/ca.pem",
            "create the Secret orders-b1 with the files of /home/me/credentials as its keys",
        ]
    );
}

#[test]
fn urls_that_a_resource_does_not_admit_are_refused() {
    let config = Config::parse("storage.wal_config.wal_url = 'file:///tmp/wal'", false).unwrap().config;
    let refused = from_config(&config, "wal").unwrap_err();
    assert!(refused[0].to_string().starts_with("spec.walUrls[0].url = file:///tmp/wal: a claim is not mounted"));
}

/// What a resource can say about one bucket, its paths those of the pod.
fn any_options(name: &'static str) -> impl Strategy<Value = UrlOptions> {
    let text = || "[a-zA-Z0-9:/ä.-]{1,12}";
    (
        proptest::option::of("https?://[a-z]{1,9}(:9000)?"),
        proptest::option::of(text()),
        any::<[bool; 4]>(),
        0_usize..3,
        (proptest::option::of(text()), text()),
    )
        .prop_map(
            move |(endpoint, region, [path_style, allow_http, ca, unsafe_conditional], kind, (role_arn, audience))| {
                let secret = (kind == 1).then(|| names::credentials_dir(name).into());
                let token = (kind == 2).then(|| names::token_file(name).into());
                UrlOptions {
                    endpoint,
                    region,
                    path_style,
                    allow_http,
                    ca_file: ca.then(|| names::ca_file(name).into()),
                    credentials_dir: secret,
                    token_file: token,
                    role_arn: role_arn.filter(|_| kind == 2),
                    audience: (kind == 2).then_some(audience),
                    unsafe_conditional,
                    drain: false,
                }
            },
        )
}

/// Any configuration that a resource can say.
fn any_mapped_config() -> impl Strategy<Value = Config> {
    let size = || 1_u64..=ByteSize::MAX.0;
    (
        (1_usize..3, 0_usize..3, any::<bool>(), any_options("b1"), any_options("b2"), any::<[bool; 2]>()),
        (0_usize..3, any::<bool>(), size(), size(), size(), 0_usize..3, any::<bool>()),
        prop_oneof![1_u64..=999_999, (1_u64..=999_999).prop_map(|seconds| seconds * 1000)],
        proptest::option::of(1024_u16..),
    )
        .prop_map(|((disks, buckets, journal, one, two, used), settings, interval, port)| {
            let (strategy, collection_affinity, memory, global, segment, codec, gap) = settings;
            let parse = |text: String| WalUrl::parse(&text).unwrap();
            let mut wal_urls: Vec<WalUrl> = (0..disks).map(|n| parse(format!("file:///wal/Disk_{n}"))).collect();
            let bucket_urls: Vec<WalUrl> = (0..buckets).map(|n| parse(format!("gcs://bucket-{n}/a%20b"))).collect();
            wal_urls.extend(bucket_urls.clone());
            let options = bucket_urls.into_iter().zip([one, two]).zip(used);
            let options = options.filter(|((_, options), used)| *used && *options != UrlOptions::default());
            let default = Config::default();
            Config {
                wal: crate::config::WalConfig {
                    wal_urls,
                    journal_url: journal.then(|| parse("file:///wal/journal".to_owned())),
                    distribution_strategy: [
                        DistributionStrategy::RoundRobin,
                        DistributionStrategy::Hash,
                        DistributionStrategy::LoadBalanced,
                    ][strategy],
                    collection_affinity,
                    memory_flush_size: ByteSize(memory.min(global)),
                    global_flush_threshold: ByteSize(memory.max(global)),
                    segment_size: ByteSize(segment),
                    compression: [Compression::Null, Compression::Snappy, Compression::Zstandard][codec],
                    bucket_commit_interval: std::time::Duration::from_millis(interval),
                    on_damage: if gap { OnDamage::Gap } else { OnDamage::Fail },
                    url_options: options.map(|(pair, _)| pair).collect(),
                    ..default.wal
                },
                sidecar: SidecarConfig {
                    admin_address: port.map(|port| ([0, 0, 0, 0], port).into()),
                    ..default.sidecar
                },
                legacy_wal_dir: None,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_file_and_its_resource_stand_for_each_other(config in any_mapped_config()) {
        let made = from_config(&config, "orders").map_err(|refused| TestCaseError::fail(format!("{refused:?}")))?;
        prop_assert_eq!(&made.not_carried, &[]);
        let stored = serde_json::to_value(&made.resource).unwrap();
        let stored: WalStorage = serde_json::from_value(stored).unwrap();
        let back = validate("orders", &stored.spec, &[]).unwrap().config();
        prop_assert_eq!(&back, &config);
        prop_assert_eq!(back.rendered_toml(), config.rendered_toml());
        let parsed = Config::parse(&back.rendered_toml(), true).unwrap().config;
        prop_assert_eq!(from_config(&parsed, "orders").unwrap(), made);
    }
}
