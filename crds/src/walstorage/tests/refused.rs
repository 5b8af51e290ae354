//! What is refused, each with field, value and remedy.

use super::*;

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
