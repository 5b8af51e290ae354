//! A resource and its configuration stand for each other, as texts; `render` and the schema agree on what is wrong; and no
//! text makes `render` panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use walstorage_operator::render;

fn storage(spec: &str) -> String {
    format!("apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata: {{name: orders}}\nspec: {spec}\n")
}

#[test]
fn render_refuses_what_the_schema_refuses_and_nothing_else() {
    let cases: Vec<&str> = include_str!("schema_pairs.txt").split("\n### ").skip(1).collect();
    assert!(cases.len() >= 25, "only {} cases were read", cases.len());
    for case in cases {
        let lines: Vec<&str> = case.trim_end().lines().collect();
        let [name, spec, expected] = lines[..] else { panic!("three lines: {case}") };
        let rendered = render::config(&storage(spec), None);
        let found = if rendered.is_ok() { "ok" } else { "refused" };
        assert_eq!(found, expected, "{name}: {rendered:?}");
    }
}

/// A field of a spec, or nothing.
fn field(name: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::option::of(proptest::sample::select(values))
        .prop_map(move |value| value.map(|value| format!("  {name}: {value}\n")).unwrap_or_default())
}

fn any_resource() -> impl Strategy<Value = String> {
    let bucket = proptest::sample::subsequence(
        vec![
            "endpoint: https://minio.shop.svc:9000",
            "region: us-west-2",
            "pathStyle: true",
            "allowHttp: true",
            "unsafeConditional: true",
            "caBundle: {configMapName: corp-ca, key: ca.crt}",
            "credentials: {secretName: wal-s3}",
        ],
        0..=7,
    );
    let urls = (1_usize..4, 0_usize..3, bucket).prop_map(|(disks, buckets, options)| {
        let disks = (1..=disks).map(|n| format!("  - {{name: d{n}, url: 'file:///wal/{n}'}}\n"));
        let options = options.join(", ");
        let bucket = |n| format!("  - {{name: b{n}, url: 's3://bucket-{n}/wal', bucket: {{{options}}}}}\n");
        format!("  walUrls:\n{}{}", disks.collect::<String>(), (1..=buckets).map(bucket).collect::<String>())
    });
    let fields = (
        urls,
        field("journal", &["{name: j, url: 'file:///wal/j'}", "{name: j, url: 'gs://bucket/j'}"]),
        field("distributionStrategy", &["RoundRobin", "Hash", "LoadBalanced"]),
        field("collectionAffinity", &["true", "false"]),
        field("memoryFlushSize", &["1Mi", "4096", "\"0.5Mi\"", "\"2e6\""]),
        field("globalFlushThreshold", &["512Mi", "1.5Gi", "2147483648"]),
        field("segmentSize", &["64Mi", "1", "1E", "\"1E\""]),
        field("compression", &["'null'", "snappy", "zstandard"]),
        field("bucketCommitInterval", &["250ms", "1s", "999999s"]),
        field("onDamage", &["fail", "gap"]),
        field("sidecar", &["{adminPort: 0}", "{adminPort: 1024}", "{adminPort: 9465}"]),
    );
    fields.prop_map(|(urls, a, b, c, d, e, f, g, h, i, j)| {
        storage(&format!("\n{}", [urls, a, b, c, d, e, f, g, h, i, j].concat()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn resource_to_toml_to_resource_to_toml(resource in any_resource()) {
        let once = render::config(&resource, None).map_err(|errors| TestCaseError::fail(errors.join("\n")))?.text;
        let back = render::resource(&once, "orders", false).map_err(|errors| TestCaseError::fail(errors.join("\n")))?.text;
        let twice = render::config(&back, None).map_err(|errors| TestCaseError::fail(errors.join("\n")))?.text;
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(render::resource(&twice, "orders", false).unwrap().text, back);
    }

    #[test]
    fn no_text_makes_render_panic(text in any::<String>(), spec in "[a-zA-Z0-9:/{}\\[\\],'\" \n&*!|>-]{0,60}", drop in any::<bool>()) {
        for text in [text, storage(&spec), storage(&format!("{{walUrls: [{{name: a, url: {spec}}}], compression: {spec}}}"))] {
            let _ = render::config(&text, None);
            let _ = render::resource(&text, &spec, drop);
        }
    }
}
