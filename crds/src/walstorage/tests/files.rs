//! Resources and files that stand for each other.

use proptest::prelude::*;

use super::*;
use crate::config::SidecarConfig;
use crate::names;
use crate::quantity::ByteSize;
use crate::url::WalUrl;

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
