//! `render` with workloads: committed manifests as they go in and as they come out, and what is refused. Written anew with
//! `WALSTORAGE_WRITE_GOLDEN=1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use walstorage_operator::render::{File, Rendered, all, drain};
use walstorage_operator::webhook::patch::Settings;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/workloads")
}

fn file(name: &str) -> File {
    File { name: name.to_owned(), text: fs::read_to_string(folder().join(name)).unwrap() }
}

fn settings() -> Settings {
    Settings { image: "registry.example.com/walstorage:1".to_owned(), pull_policy: "IfNotPresent".to_owned() }
}

fn render(files: &[File]) -> Result<Rendered, Vec<String>> {
    all(files, &settings())
}

#[test]
fn workloads_with_lasting_names_come_out_as_committed_and_again_the_same() {
    for name in ["statefulset", "deployment", "pod"] {
        let rendered = render(&[file("walstorage.yaml"), file(&format!("{name}.yaml"))]).unwrap();
        let path = folder().join(format!("{name}.out.yaml"));
        if std::env::var_os("WALSTORAGE_WRITE_GOLDEN").is_some() {
            fs::write(&path, &rendered.text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(rendered.text, expected, "{name}: WALSTORAGE_WRITE_GOLDEN=1 writes it anew");

        // What was rendered may be rendered again; the ConfigMap and claims in it are documents like any other.
        let again = render(&[File { name: "again".to_owned(), text: rendered.text.clone() }]).unwrap();
        let workload = |text: &str| text.rsplit("---\n").next().unwrap().to_owned();
        assert_eq!(workload(&again.text), workload(&rendered.text), "{name}");
    }
}

#[test]
fn an_existing_statefulset_is_warned_about_and_a_pod_of_another_storage_too() {
    let rendered = render(&[file("walstorage.yaml"), file("statefulset.yaml")]).unwrap();
    assert_eq!(
        rendered.warnings,
        [
            "StatefulSet orders: an existing StatefulSet does not take other volumeClaimTemplates: delete it with --cascade=orphan, then apply this one"
        ]
    );
    let other = File {
        name: "other.yaml".to_owned(),
        text: file("pod.yaml").text.replace("storage: orders", "storage: payments").replace("importer", "other"),
    };
    let rendered = render(&[file("walstorage.yaml"), file("pod.yaml"), other.clone()]).unwrap();
    assert_eq!(rendered.warnings, ["Pod other is of WalStorage payments and is left as it is"]);
    assert!(rendered.text.contains("name: other\n"));
    assert_eq!(
        render(&[file("walstorage.yaml"), other]).unwrap_err(),
        [
            "render: no pod has the label walstorage.dev/storage: orders: add it to the labels of the pod, or of its template"
        ]
    );
}

#[test]
fn what_cannot_be_written_offline_is_refused_with_the_reason() {
    let refuse = |text: String, sentence: &str| {
        let given = File { name: "w.yaml".to_owned(), text };
        assert_eq!(render(&[file("walstorage.yaml"), given]).unwrap_err(), [format!("w.yaml: {sentence}")]);
    };
    let (set, deployment, pod) = (file("statefulset.yaml").text, file("deployment.yaml").text, file("pod.yaml").text);
    refuse(
        deployment.replace("replicas: 1", "replicas: 2"),
        "Deployment web has not one replica, and claims that are written offline are for one pod: use a StatefulSet, set replicas: 1, or leave it as \
         it is, and the webhook gives every pod a log",
    );
    refuse(
        deployment.replace("type: Recreate", "type: RollingUpdate"),
        "Deployment web starts a new pod before the old one has ended, and its claims are for one pod: set spec.strategy.type: Recreate, or leave it \
         as it is, and the webhook gives every pod a log",
    );
    refuse(
        pod.replace("  name: importer", "  generateName: importer-"),
        "Pod without a name would get another log each time: give it metadata.name",
    );
    refuse(
        set.replace("StatefulSet", "DaemonSet"),
        "DaemonSet orders has a pod on each node and none with a lasting name: use a StatefulSet, or a Deployment",
    );
    refuse(
        set.replace("StatefulSet", "Job"),
        "Job orders makes pods without lasting names: leave it as it is, and the webhook gives every pod a log",
    );
    refuse(
        set.replace("StatefulSet", "Rollout"),
        "Rollout orders is of a kind whose pods have no names that are known offline: leave it as it is, and the webhook gives every pod a log",
    );
    refuse(
        set.replace("  serviceName: orders", "  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete}"),
        "StatefulSet orders has persistentVolumeClaimRetentionPolicy.whenScaled: Delete, which would delete the claims of the log with their entries: \
         set Retain",
    );
    refuse(
        set.replace("{fsGroup: 1000}", "{}"),
        "StatefulSet orders: the pod has volume data and no spec.securityContext.fsGroup, which the sidecar needs to write to its claims: set it (any \
         group, such as 65532); setting it for you would change the ownership of your data",
    );
    refuse(
        pod.replace("namespace: shop", "namespace: other"),
        "Pod importer has namespace other and the WalStorage shop: write the same in both",
    );
    refuse(
        "a: [".to_owned(),
        "not YAML: did not find expected node content at line 2 column 1, while parsing a flow node",
    );
}

#[test]
fn exactly_one_storage_is_rendered() {
    assert_eq!(
        render(&[file("pod.yaml")]).unwrap_err(),
        ["pod.yaml: no document of kind WalStorage; allowed: exactly one"]
    );
    let twice = render(&[file("walstorage.yaml"), file("walstorage.yaml")]).unwrap_err();
    assert_eq!(twice, ["render: 2 files with a WalStorage; allowed: exactly one"]);
    let alone = render(&[file("walstorage.yaml")]).unwrap();
    assert!(alone.text.starts_with("apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\n"));
    assert_eq!(alone.text.matches("\n---\n").count(), 1);
}

fn drained(files: &[File], writer: &str, account: Option<&str>) -> Result<Rendered, Vec<String>> {
    drain(files, writer, &settings(), account)
}

#[test]
fn the_job_that_empties_a_writer_comes_out_as_committed() {
    let files = [file("writers.yaml"), file("walstorage.yaml")];
    let rendered = drained(&files, "orders.orders-0", None).unwrap();
    assert_eq!(rendered.warnings, Vec::<String>::new());
    let path = folder().join("drain.out.yaml");
    if std::env::var_os("WALSTORAGE_WRITE_GOLDEN").is_some() {
        fs::write(&path, &rendered.text).unwrap();
    }
    assert_eq!(
        rendered.text,
        fs::read_to_string(&path).unwrap_or_default(),
        "WALSTORAGE_WRITE_GOLDEN=1 writes it anew"
    );
    // By the name that its pod had, and from what is printed of it alone.
    let alone = drained(&files[..1], "orders-0", None).unwrap();
    assert_eq!(alone.text, rendered.text);
    assert!(alone.warnings[0].starts_with("WalStorage orders is in none of the files"), "{:?}", alone.warnings);
}

#[test]
fn a_bucket_that_is_reached_as_a_service_account_asks_for_it() {
    let url = "url: s3://bucket1/wal\n";
    let identity = "bucket: {credentials: {workloadIdentity: {audience: sts.amazonaws.com, roleArn: 'arn:aws:iam::1:role/wal'}}}\n";
    let mut storage = file("walstorage.yaml");
    storage.text = storage.text.replace(url, &format!("{url}    {identity}"));
    let files = [file("writers.yaml"), storage];
    let warnings = drained(&files, "orders-0", None).unwrap().warnings;
    assert!(warnings[0].contains("--service-account"), "{warnings:?}");
    let rendered = drained(&files, "orders-0", Some("shop")).unwrap();
    assert_eq!(rendered.warnings, Vec::<String>::new());
    assert!(rendered.text.contains("serviceAccountName: shop"), "{}", rendered.text);
}

#[test]
fn what_cannot_be_emptied_is_refused_with_the_reason() {
    let writers = || file("writers.yaml");
    let disks = "apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata: {name: orders, namespace: shop}\nspec:\n  \
                 walUrls: [{name: nvme1, url: 'file:///wal/nvme1', volume: {size: 100Gi}}]\n";
    let no_bucket = File { name: "disks.yaml".to_owned(), text: disks.to_owned() };
    for (files, writer, sentence) in [
        (vec![writers()], "orders.orders-1", "WalWriter orders.orders-1 is Active, and only one"),
        (vec![writers()], "orders-2", "WalWriter orders.orders-2 has nothing on disks"),
        (
            vec![writers()],
            "web-0",
            "0 WalWriters web-0 in the files (there are: orders.orders-0, orders.orders-1, orders.orders-2)",
        ),
        (vec![file("walstorage.yaml")], "orders-0", "0 WalWriters orders-0 in the files (there are: none)"),
        (
            vec![writers(), no_bucket],
            "orders-0",
            "WalStorage orders has no bucket that a writer's entries could be moved to",
        ),
        (vec![File { name: "x".to_owned(), text: "a: [".to_owned() }], "orders-0", "x: not YAML"),
    ] {
        let errors = drained(&files, writer, None).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(sentence), "{errors:?}");
    }
}
