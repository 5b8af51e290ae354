//! What is accepted and refused, what is filled in, and that a resource and its file stand for each other.

mod files;
mod refused;

use serde_json::{Value, json};

use super::*;
use crate::config::{Config, UrlOptions};
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
