//! What a file means: defaults, migration, sharing with the application, printing back, hashes, reload.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn loaded(text: &str) -> Loaded {
    Config::parse(text, false).unwrap_or_else(|errors| panic!("{errors}"))
}

fn warnings(text: &str) -> Vec<String> {
    loaded(text).warnings.iter().map(ToString::to_string).collect()
}

fn errors(text: &str, strict: bool) -> Vec<String> {
    Config::parse(text, strict).unwrap_err().errors.iter().map(ToString::to_string).collect()
}

fn urls(config: &Config) -> Vec<&str> {
    config.wal.wal_urls.iter().map(WalUrl::as_str).collect()
}

/// The file of the documentation, with every key.
const EVERY_KEY: &str = r#"
[storage.wal_config]
wal_urls = ["file:///wal/nvme1", "file:///wal/nvme2", "s3://bucket1/wal",
            "adls://account.dfs.core.windows.net/container/wal"]
distribution_strategy = "RoundRobin"
collection_affinity = false
memory_flush_size_bytes = 2097152
global_flush_threshold = "1Gi"
journal_url = "file:///wal/fast"
segment_size_bytes = "32Mi"
compression = "zstandard"
journal_max_bytes = 671088640
bucket_commit_interval_ms = 500
buffered_commit_interval_ms = 50
on_damage = "gap"
on_missing_directory = "wait"
allow_ephemeral = true
io = "buffered"
writer_id = "shop/orders.orders-0"

[storage.wal_config.url_options."s3://bucket1/wal/"]
endpoint = "https://127.0.0.1:9000"
region = "us-west-2"
path_style = false
allow_http = true
ca_file = "/etc/ca.crt"
credentials_dir = "/etc/walstorage/credentials/bucket1"
token_file = "/var/token"
role_arn = "arn:aws:iam::1:role/wal"
audience = "sts.amazonaws.com"
unsafe_conditional = true
drain = true

[sidecar]
socket = "/tmp/wal.sock"
admin_address = "off"
"#;

#[test]
fn nothing_said_is_one_directory_and_all_defaults() {
    let loaded = loaded("");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(urls(&loaded.config), [DEFAULT_WAL_URL]);
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        loaded.config.effective_toml(),
        r#"[storage.wal_config]
wal_urls = ["file:///workspace/data/wal"]
distribution_strategy = "LoadBalanced"
collection_affinity = true
memory_flush_size_bytes = 1048576
global_flush_threshold = 536870912
segment_size_bytes = 67108864
compression = "snappy"
# journal_max_bytes: by default, from global_flush_threshold and the volume
bucket_commit_interval_ms = 250
buffered_commit_interval_ms = 100
on_damage = "fail"
on_missing_directory = "wait"
allow_ephemeral = false
io = "auto"

[sidecar]
socket = "/run/walstorage/wal.sock"
admin_address = "0.0.0.0:9465"
"#
    );
}

#[test]
fn every_key_is_read() {
    let Loaded { config, warnings, .. } = loaded(EVERY_KEY);
    assert_eq!(warnings, []);
    let url = |text| WalUrl::parse(text).unwrap();
    let expected = Config {
        wal: WalConfig {
            wal_urls: vec![
                url("file:///wal/nvme1"),
                url("file:///wal/nvme2"),
                url("s3://bucket1/wal"),
                url("adls://account.dfs.core.windows.net/container/wal"),
            ],
            distribution_strategy: DistributionStrategy::RoundRobin,
            collection_affinity: false,
            memory_flush_size: ByteSize(2 << 20),
            global_flush_threshold: ByteSize(1 << 30),
            journal_url: Some(url("file:///wal/fast")),
            segment_size: ByteSize(32 << 20),
            compression: Compression::Zstandard,
            journal_max: Some(ByteSize(671_088_640)),
            bucket_commit_interval: Duration::from_millis(500),
            buffered_commit_interval: Duration::from_millis(50),
            on_damage: OnDamage::Gap,
            on_missing_directory: OnMissingDirectory::Wait,
            allow_ephemeral: true,
            io: IoMode::Buffered,
            writer_id: Some("shop/orders.orders-0".to_owned()),
            url_options: BTreeMap::from([(
                url("s3://bucket1/wal"),
                UrlOptions {
                    endpoint: Some("https://127.0.0.1:9000".to_owned()),
                    region: Some("us-west-2".to_owned()),
                    path_style: false,
                    allow_http: true,
                    ca_file: Some("/etc/ca.crt".into()),
                    credentials_dir: Some("/etc/walstorage/credentials/bucket1".into()),
                    token_file: Some("/var/token".into()),
                    role_arn: Some("arn:aws:iam::1:role/wal".to_owned()),
                    audience: Some("sts.amazonaws.com".to_owned()),
                    unsafe_conditional: true,
                    drain: true,
                },
            )]),
        },
        sidecar: SidecarConfig { socket: "/tmp/wal.sock".into(), admin_address: None },
        legacy_wal_dir: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn path_style_follows_the_endpoint() {
    let style = |options: &str| {
        let text =
            format!("storage.wal_config.wal_url = 's3://b'\n[storage.wal_config.url_options.'s3://b']\n{options}");
        loaded(&text).config.wal.url_options.values().next().map(|options| options.path_style)
    };
    assert_eq!(style("endpoint = 'https://h'"), Some(true));
    assert_eq!(style("endpoint = 'https://h'\npath_style = false"), Some(false));
    assert_eq!(style("region = 'r'"), Some(false));
    assert_eq!(style(""), None);
}

#[test]
fn the_old_wal_dir_becomes_the_first_url() {
    for (text, url) in [
        ("[storage]\nwal_dir = '/data/my wal/'", "file:///data/my%20wal"),
        ("[storage]\nwal_dir = 'file:///data'", "file:///data"),
        ("[storage]\nwal_dir = 's3://bucket/wal'", "s3://bucket/wal"),
        ("[storage]\nwal_dir = '/data'\n[storage.wal_config]\nwal_urls = []", "file:///data"),
    ] {
        let loaded = loaded(text);
        assert_eq!(urls(&loaded.config), [url]);
        assert_eq!(loaded.config.legacy_wal_dir, None);
        let warning = format!(
            "line 2: storage.wal_dir: the old setting, read as wal_urls = [\"{url}\"] of [storage.wal_config]; write that"
        );
        assert_eq!(loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), [warning]);
    }
}

#[test]
fn beside_wal_urls_the_old_wal_dir_is_remembered_with_a_warning() {
    let text = |dir: &str| format!("[storage]\nwal_dir = {dir}\n[storage.wal_config]\nwal_url = 'file:///new'");
    let remembered = |dir: &str| loaded(&text(dir)).config.legacy_wal_dir.map(|url| url.to_string());
    assert_eq!(remembered("'/old'"), Some("file:///old".to_owned()));
    assert_eq!(remembered("'/new/'"), None);
    assert_eq!(remembered("'./old'"), None);
    assert_eq!(remembered("3"), None);
    assert_eq!(
        warnings(&text("'/old'")),
        [
            "line 2: storage.wal_dir: ignored, because WAL URLs are given; if this writer's log is there, it is opened and emptied"
        ]
    );
    assert_eq!(warnings(&text("'./old'")), ["line 2: storage.wal_dir: ignored, because WAL URLs are given"]);
}

#[test]
fn an_empty_list_counts_as_absent_beside_wal_url() {
    let text = "[storage.wal_config]\nwal_urls = []\nwal_url = 'file:///one'";
    assert_eq!(urls(&loaded(text).config), ["file:///one"]);
}

#[test]
fn the_rest_of_the_applications_file_is_not_looked_at() {
    let text = "[server]\nport = 5\n[storage]\ndata_dir = 'x'\n[storage.other]\nwal_url = 3\n[[plugins]]\nname = 'p'";
    let loaded = loaded(text);
    assert_eq!((loaded.config, loaded.warnings), (Config::default(), vec![]));
}

#[test]
fn unknown_keys_seen_in_the_wild_load_with_warnings_only() {
    let keys = [
        "strategy_type",
        "memtable_type",
        "sync_mode",
        "batch_threshold",
        "write_buffer_size_mb",
        "concurrent_flushes",
        "write_buffer_directory",
        "enable_wal",
    ];
    let text: String = keys.iter().map(|key| format!("{key} = 'x'\n")).collect();
    let text = format!("[storage.wal_config]\n{text}");
    assert_eq!(loaded(&text).config, Config::default());
    let place = |(index, key)| format!("line {}: storage.wal_config.{key}: unknown key", index + 2);
    let expected: Vec<String> = keys.iter().enumerate().map(place).collect();
    assert_eq!(warnings(&text), expected.iter().map(|place| format!("{place}, ignored")).collect::<Vec<_>>());
    assert_eq!(errors(&text, true), expected);
}

#[test]
fn a_misspelt_key_is_warned_of_with_the_right_one() {
    assert_eq!(
        warnings("[storage.wal_config]\ncompresion = 'null'\n[sidecar]\nsockt = '/x'"),
        [
            "line 2: storage.wal_config.compresion: unknown key, ignored; did you mean compression?",
            "line 4: sidecar.sockt: unknown key, ignored; did you mean socket?"
        ]
    );
}

#[test]
fn strict_leaves_the_migration_a_warning() {
    let loaded = Config::parse("storage.wal_dir = '/data'", true).unwrap();
    assert_eq!(loaded.warnings[0].kind, WarningKind::Migration);
}

#[test]
fn what_loads_and_hardly_works_is_warned_of() {
    let text = "[storage.wal_config]\nwal_url = 's3://b'\n[storage.wal_config.url_options.'s3://b']\nendpoint = 'http://h:9000'\ndrain = true";
    assert_eq!(
        warnings(text),
        [
            "line 4: storage.wal_config.url_options.\"s3://b\".endpoint: plain HTTP is refused without allow_http = true",
            "storage.wal_config.url_options: every WAL URL is draining: new collections are refused",
        ]
    );
}

#[test]
fn all_errors_are_reported_in_the_order_of_the_file() {
    let text = "[storage.wal_config]\nio = 'fast'\nwal_urls = ['ftp://x', 'file://y']\ncompression = 1\n[sidecar]\nsocket = 'x'";
    let lines: Vec<Option<usize>> = Config::parse(text, false).unwrap_err().errors.iter().map(|e| e.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(3), Some(4), Some(6)]);
}

#[test]
fn lines_are_counted_whatever_ends_them() {
    let text = "\u{feff}# ü\r\n[storage.wal_config]\r\nio = 'auto'\r\ncompression = 'x'\r\n";
    let found = Config::parse(text, false).unwrap_err();
    assert_eq!(found.errors.iter().map(|error| error.line).collect::<Vec<_>>(), [Some(4)], "{found}");
}

#[test]
fn tables_may_be_written_in_any_way() {
    let expected = "[storage.wal_config]\nwal_url = 's3://b'\n[storage.wal_config.url_options.'s3://b']\nregion = 'r'";
    for text in [
        "storage.wal_config = {wal_url = 's3://b', url_options = {'s3://b' = {region = 'r'}}}",
        "storage.wal_config.wal_url = 's3://b'\nstorage.wal_config.url_options.'s3://b'.region = 'r'",
        "[storage]\nwal_config.wal_urls = ['s3://b']\nwal_config.url_options = {'S3://b/'.region = 'r'}",
    ] {
        assert_eq!(loaded(text).config, loaded(expected).config, "{text}");
    }
}

#[test]
fn no_secret_is_shown() {
    let text = "[storage.wal_config]\nwal_urls = ['s3://AKIA:hunter2@b']\nsecret = 'hunter2'\n\
                [storage.wal_config.url_options.'s3://AKIA:hunter2@b']\nendpoint = 'http://u:hunter2@h'\nsecret_access_key = 'hunter2'\n\
                [storage.wal_config.url_options.'s3://b']\nendpoint = 'http://u:hunter2@h'\nsecret_access_key = 'hunter2'";
    let found = Config::parse(text, false).unwrap_err();
    let all = format!("{found}{}", found.warnings.iter().map(ToString::to_string).collect::<String>());
    assert!(all.contains("***@") && !all.contains("hunter2"), "{all}");
}

#[test]
fn the_hash_is_of_what_follows_the_hash_line() {
    let body = "[storage.wal_config]\nwal_urls = [\"file:///a\"]\n";
    let rendered = loaded(body).config.rendered_toml();
    assert_eq!(rendered, format!("{}{body}", hash_line(body)));
    assert_eq!(hash_of(&rendered), hash_of(body));
    assert_eq!(loaded(&rendered).hash, hash_of(body));
    assert_eq!(rendered.lines().next().unwrap().strip_prefix("# walstorage v1 "), Some(hash_of(body).as_str()));
    assert_ne!(hash_of(&format!("{body}#")), hash_of(body));
}

#[test]
fn a_reload_tells_what_applies_at_once() {
    let old = loaded("").config;
    let new = loaded(EVERY_KEY).config;
    let keys = |applies| -> Vec<String> {
        let strip = |key: String| key.trim_start_matches("storage.wal_config.").to_owned();
        old.changes(&new)
            .into_iter()
            .filter(|change| change.applies == applies)
            .map(|change| strip(change.key))
            .collect()
    };
    assert_eq!(
        keys(Applies::AtOnce),
        [
            "distribution_strategy",
            "collection_affinity",
            "memory_flush_size_bytes",
            "global_flush_threshold",
            "segment_size_bytes",
            "compression",
            "journal_max_bytes",
            "bucket_commit_interval_ms",
            "buffered_commit_interval_ms",
            "on_damage",
            "url_options.\"s3://bucket1/wal\".credentials_dir",
            "url_options.\"s3://bucket1/wal\".token_file",
            "url_options.\"s3://bucket1/wal\".drain",
        ]
    );
    assert_eq!(
        keys(Applies::AtRestart),
        [
            "wal_urls",
            "journal_url",
            "allow_ephemeral",
            "io",
            "writer_id",
            "url_options.\"s3://bucket1/wal\".endpoint",
            "url_options.\"s3://bucket1/wal\".region",
            "url_options.\"s3://bucket1/wal\".allow_http",
            "url_options.\"s3://bucket1/wal\".ca_file",
            "url_options.\"s3://bucket1/wal\".role_arn",
            "url_options.\"s3://bucket1/wal\".audience",
            "url_options.\"s3://bucket1/wal\".unsafe_conditional",
            "sidecar.socket",
            "sidecar.admin_address",
        ]
    );
    assert_eq!(new.changes(&new), []);
}

#[test]
fn writer_ids_are_relative_paths_of_plain_segments() {
    for good in ["a", "shop/orders.orders-0", "A_b.c-d/e", &"x".repeat(255)] {
        assert_eq!(check_writer_id(good), Ok(()), "{good}");
    }
    for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a/.", "_wal", "a/_wal/b", "a b", "ä", "a\0", &"x".repeat(256)]
    {
        assert!(check_writer_id(bad).is_err(), "{bad:?}");
    }
}

/// Any configuration that can be written down.
pub(crate) fn any_config() -> impl Strategy<Value = Config> {
    let size = || (1_u64..=ByteSize::MAX.0).prop_map(ByteSize);
    let time = || (1_u64..=999_999_000).prop_map(Duration::from_millis);
    let text = || proptest::option::of("[^\\p{Cc}]{1,12}");
    let path = || proptest::option::of("/[^\\p{Cc}]{0,12}").prop_map(|path| path.map(PathBuf::from));
    let options = (
        (proptest::option::of("https?://[a-z.]{1,9}(:80)?(/[!-\"$->A-~]{0,5})?"), text(), any::<bool>(), any::<bool>()),
        (path(), path(), path(), text(), text(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|((endpoint, region, path_style, allow_http), rest)| {
            let (ca_file, credentials_dir, token_file, role_arn, audience, unsafe_conditional, drain) = rest;
            UrlOptions {
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
            }
        });
    let urls = [
        "file:///wal/nvme1",
        "file:///wal/nvme2/a%20b",
        "s3://bucket/wal",
        "gcs://b/p%22q",
        "adls://a.dfs.core.windows.net/c",
        "file:///workspace/data/wal",
    ];
    let urls = Just(urls.to_vec()).prop_shuffle().prop_map(|urls| {
        let parse = |text: &str| WalUrl::parse(text).unwrap();
        urls.into_iter().map(parse).collect::<Vec<_>>()
    });
    (
        (urls, 1_usize..5, any::<bool>(), any::<bool>(), proptest::collection::vec(proptest::option::of(options), 6)),
        (0_usize..3, any::<bool>(), size(), size(), size(), 0_usize..3, proptest::option::of(size())),
        (time(), time(), any::<bool>(), any::<bool>(), 0_usize..3),
        proptest::option::of("[a-z0-9.-]{1,8}x(/[a-z]{1,5})?"),
        ("/[^\\p{Cc}]{1,20}", proptest::option::of((any::<[u8; 4]>(), any::<u16>()))),
    )
        .prop_map(|((urls, count, journal, legacy, options), a, b, writer_id, (socket, admin))| {
            let (strategy, collection_affinity, one, two, segment_size, codec, journal_max) = a;
            let (bucket_commit_interval, buffered_commit_interval, gap, allow_ephemeral, io) = b;
            let mut wal_urls = urls.clone();
            let mut rest = wal_urls.split_off(count).into_iter();
            let journal_url = rest.next().filter(|_| journal);
            let legacy_wal_dir = rest.next().filter(|_| legacy);
            let used: Vec<WalUrl> = wal_urls.iter().chain(&journal_url).cloned().collect();
            let fit = |url: &WalUrl, options: UrlOptions| match url.scheme().is_bucket() {
                true => options,
                false => UrlOptions { drain: options.drain, ..UrlOptions::default() },
            };
            let options = used.into_iter().zip(options).filter_map(|(url, options)| Some((fit(&url, options?), url)));
            let options = options.filter(|(options, _)| *options != UrlOptions::default());
            let admin_address = admin.map(|(ip, port)| SocketAddr::from((ip, port)));
            Config {
                wal: WalConfig {
                    wal_urls,
                    distribution_strategy: [
                        DistributionStrategy::RoundRobin,
                        DistributionStrategy::Hash,
                        DistributionStrategy::LoadBalanced,
                    ][strategy],
                    collection_affinity,
                    memory_flush_size: one.min(two),
                    global_flush_threshold: one.max(two),
                    journal_url,
                    segment_size,
                    compression: [Compression::Null, Compression::Snappy, Compression::Zstandard][codec],
                    journal_max,
                    bucket_commit_interval,
                    buffered_commit_interval,
                    on_damage: if gap { OnDamage::Gap } else { OnDamage::Fail },
                    on_missing_directory: OnMissingDirectory::Wait,
                    allow_ephemeral,
                    io: [IoMode::Auto, IoMode::Direct, IoMode::Buffered][io],
                    writer_id: writer_id.filter(|id| check_writer_id(id).is_ok()),
                    url_options: options.map(|(options, url)| (url, options)).collect(),
                },
                sidecar: SidecarConfig { socket: PathBuf::from(socket), admin_address },
                legacy_wal_dir,
            }
        })
}

fn near_config() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("[storage]\n".to_owned()),
        Just("[storage.wal_config]\n".to_owned()),
        Just("[sidecar]\n".to_owned()),
        Just("[storage.wal_config.url_options.\"s3://b\"]\n".to_owned()),
        "(wal_dir|wal_url|wal_urls|journal_url|memory_flush_size_bytes|io|drain|endpoint|socket|storage|wal_config|sidecar|url_options) = ([0-9]{1,20}|\"[^\"\\n]{0,9}\"|\\[\"[a-z0-9:/%.]{0,12}\", 3\\]|\\{a = 1\\}|true|1e3|2020-01-01)\n",
        ".{0,12}\n",
    ];
    proptest::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), near in near_config(), strict in any::<bool>()) {
        for text in [text, near] {
            match Config::parse(&text, strict) {
                Ok(loaded) => prop_assert_eq!(loaded.config.clone(), self::loaded(&loaded.config.effective_toml()).config),
                Err(found) => prop_assert!(!found.errors.is_empty() && !found.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn what_is_printed_parses_to_the_same_configuration(config in any_config()) {
        for text in [config.effective_toml(), config.rendered_toml()] {
            let parsed = Config::parse(&text, true).map_err(|errors| TestCaseError::fail(format!("{errors}\n{text}")))?;
            prop_assert_eq!(&parsed.config, &config);
            prop_assert_eq!(parsed.config.effective_toml(), config.effective_toml());
        }
    }
}
