//! Every name that WalStorage gives to something in a cluster: group, labels, annotations, objects, volumes, paths.
//!
//! Nobody else spells one of these out, so two builders cannot guess differently.

use crate::config::sha256_hex;
use crate::url::Scheme;

/// API group of the resources.
pub const GROUP: &str = "walstorage.dev";
/// API version of the resources.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of the resources.
pub const API_VERSION: &str = "walstorage.dev/v1alpha1";
/// Rises with every change of the schemas; the operator waits for manifests that are new enough.
pub const SCHEMA_REVISION: u32 = 1;
/// Annotation of the manifests: [`SCHEMA_REVISION`].
pub const ANNOTATION_SCHEMA_REVISION: &str = "walstorage.dev/schema-revision";

/// Label of pods, by users: the WalStorage that this pod wants. Label of claims, by us.
pub const LABEL_STORAGE: &str = "walstorage.dev/storage";
/// Label of pods and claims, by us: the writer.
pub const LABEL_WRITER: &str = "walstorage.dev/writer";
/// Label of claims, by us: the URL's name.
pub const LABEL_URL: &str = "walstorage.dev/url";
/// Label of claims, by us.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "walstorage";

/// Annotation of pods, by us: `<storage>.<writer>`.
pub const ANNOTATION_WRITER: &str = "walstorage.dev/writer";
/// Annotation of pods, by us: `<group>/<kind>/<name>` of the workload; the core group is `core`.
pub const ANNOTATION_WORKLOAD: &str = "walstorage.dev/workload";
/// Annotation of pods, by us: tells our own work from a copy.
pub const ANNOTATION_SEAL: &str = "walstorage.dev/seal";
/// Annotation of pods, by us: what was added, as JSON.
pub const ANNOTATION_PATCH: &str = "walstorage.dev/patch";
/// Annotation of pods, by us: hash of the injected container.
pub const ANNOTATION_POD_HASH: &str = "walstorage.dev/pod-hash";
/// Annotation of pods, by us: the version that injected.
pub const ANNOTATION_INJECTED_BY: &str = "walstorage.dev/injected-by";
/// Annotation of pods, by us: the permission to be the writer's holder.
pub const ANNOTATION_GRANT: &str = "walstorage.dev/grant";

/// Annotation of pods, by users: the containers that get the socket; all without it.
pub const ANNOTATION_CONTAINERS: &str = "walstorage.dev/containers";
/// Annotation of pods, by users: another sidecar image.
pub const ANNOTATION_SIDECAR_IMAGE: &str = "walstorage.dev/sidecar-image";
/// Annotation of pods, by users: accept surge pods that start with an empty log.
pub const ANNOTATION_ALLOW_SURGE: &str = "walstorage.dev/allow-surge";
/// Annotation of pods, by users: accept several claims of a class that binds at once.
pub const ANNOTATION_ALLOW_IMMEDIATE_BINDING: &str = "walstorage.dev/allow-immediate-binding";
/// Annotation of pods, by `render`: this pod was written offline.
pub const ANNOTATION_RENDERED: &str = "walstorage.dev/rendered";
/// Annotation of pods, by users: the uid of the writer that this Job empties.
pub const ANNOTATION_DRAIN: &str = "walstorage.dev/drain";

/// Annotation of WalWriters, by users: the writer's uid; its entries are given up.
pub const ANNOTATION_ABANDON: &str = "walstorage.dev/abandon";
/// Annotation of WalWriters, by users: `<url>@<claim uid>`, comma-separated; what these held is given up.
pub const ANNOTATION_ACCEPT_LOSS: &str = "walstorage.dev/accept-loss";

/// Annotation of claims, by us: the writer's uid.
pub const ANNOTATION_WRITER_UID: &str = "walstorage.dev/writer-uid";
/// Annotation of claims, by us: the storage URL, so that a ledger can be made anew from claims alone.
pub const ANNOTATION_URL: &str = "walstorage.dev/url";
/// Annotation of claims, by us: the uid of the WalWriter that it was given to, under which its directory was made if it has a
/// volume; `true` of one whose directory is known to be made.
pub const ANNOTATION_INITIALIZED: &str = "walstorage.dev/initialized";
/// Annotation of the webhook's Secret, by users: another value rotates the certificates.
pub const ANNOTATION_ROTATE: &str = "walstorage.dev/rotate";

/// Annotation of the webhook's Secret, by us: the value of [`ANNOTATION_ROTATE`] that was followed last.
pub const ANNOTATION_ROTATED: &str = "walstorage.dev/rotated";
/// Field manager of the webhook's `caBundle`.
pub const CERTIFICATES: &str = "walstorage-cert";

/// Scheduling gate of pods that wait for their writer.
pub const GATE: &str = "walstorage.dev/writer";
/// Finalizer of WalStorages.
pub const FINALIZER: &str = "walstorage.dev/in-use";
/// Name of the injected container.
pub const CONTAINER: &str = "walstorage";
/// Name of the sidecar's admin port.
pub const ADMIN_PORT_NAME: &str = "wal-admin";
/// Field manager and leader lease of the controller.
pub const CONTROLLER: &str = "walstorage-controller";

/// Where the projected volume is mounted.
pub const CONFIG_DIR: &str = "/etc/walstorage";
/// The configuration's file in it, and its key in the ConfigMap.
pub const CONFIG_FILE: &str = "config.toml";

/// Where the socket's volume is mounted: the folder of [`crate::config::DEFAULT_SOCKET`].
pub const SOCKET_DIR: &str = "/run/walstorage";
/// Volume of pods, by us: the one that the socket is in.
pub const VOLUME_SOCKET: &str = "walstorage-socket";
/// Volume of pods, by us: what is mounted at [`CONFIG_DIR`].
pub const VOLUME_CONFIG: &str = "walstorage-config";
/// Volume of pods, by us: the empty one over the service account's token.
pub const VOLUME_NO_TOKEN: &str = "walstorage-no-token";
/// Value of [`ANNOTATION_RENDERED`].
pub const RENDERED: &str = "v1";

/// Longest name of a WalStorage.
pub const STORAGE_NAME_MAX: usize = 40;
/// The letters of the random part of a pooled writer's name: none that makes words or is misread.
pub const POOLED_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
pub const POOLED_SUFFIX: usize = 5;

/// Longest value of a label, and so longest name of a writer.
const LABEL_MAX: usize = 63;

/// A name that fits a label: itself, or its first 52 bytes, `-` and ten hexadecimal digits of its hash.
#[must_use]
pub fn short(name: &str) -> String {
    if name.len() <= LABEL_MAX {
        return name.to_owned();
    }
    let head = name[..name.floor_char_boundary(52)].trim_end_matches(['-', '.']);
    format!("{head}-{}", &sha256_hex(name.as_bytes())[..10])
}

/// The name of a pooled writer.
#[must_use]
pub fn pooled(workload: &str, suffix: &str) -> String {
    let cut = &workload[..workload.floor_char_boundary(LABEL_MAX - 1 - POOLED_SUFFIX)];
    // A dot before the dash would make no name of a claim.
    format!("{}-{suffix}", short(cut.trim_end_matches(['-', '.'])))
}

/// Name of the ConfigMap with a storage's `config.toml`.
#[must_use]
pub fn config_map(storage: &str) -> String {
    format!("{storage}-walstorage")
}

/// Name of a writer's WalWriter.
#[must_use]
pub fn wal_writer(storage: &str, writer: &str) -> String {
    format!("{storage}.{writer}")
}

/// `WALSTORAGE_WRITER_ID`: two namespaces with one manifest never share a bucket's prefix.
#[must_use]
pub fn writer_id(namespace: &str, storage: &str, writer: &str) -> String {
    format!("{namespace}/{storage}.{writer}")
}

/// Name of a URL's volume in the pod, and of its volume claim template.
#[must_use]
pub fn volume(storage: &str, url: &str) -> String {
    format!("wal-{storage}--{url}")
}

/// Name of a writer's claim for a URL.
#[must_use]
pub fn claim(storage: &str, url: &str, writer: &str) -> String {
    format!("wal-{storage}--{url}-{writer}")
}

/// Where a URL's credentials are in the pod.
#[must_use]
pub fn credentials_dir(url: &str) -> String {
    format!("{CONFIG_DIR}/credentials/{url}")
}

/// The keys of a Secret, and files of [`credentials_dir`], that a sidecar reads, by kind of bucket.
#[must_use]
pub const fn secret_keys(scheme: Scheme) -> &'static [&'static str] {
    match scheme {
        Scheme::File => &[],
        Scheme::S3 => &["access_key_id", "secret_access_key", "session_token"],
        Scheme::Gcs => &["service_account.json"],
        Scheme::Adls => &["account_key", "sas_token", "client_id", "client_secret", "tenant_id"],
    }
}

/// Where a URL's certificates are in the pod.
#[must_use]
pub fn ca_file(url: &str) -> String {
    format!("{CONFIG_DIR}/ca/{url}.crt")
}

/// Where a URL's token is in the pod.
#[must_use]
pub fn token_file(url: &str) -> String {
    format!("{CONFIG_DIR}/tokens/{url}")
}

/// Whether a text is a DNS label: what a namespaced object of ours may be called.
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    plain && (1..=LABEL_MAX).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_name_keeps_its_head_and_gets_a_hash() {
        let long = "a".repeat(64);
        assert_eq!(short(&"a".repeat(63)), "a".repeat(63));
        assert_eq!(short(&long), format!("{}-ffe054fe7a", "a".repeat(52)));
        let dotted = format!("{}.-{}", "a".repeat(50), "b".repeat(20));
        assert!(short(&dotted).starts_with(&format!("{}-", "a".repeat(50))));
        assert_eq!(short(&dotted).len(), 61);
    }

    #[test]
    fn every_name_has_its_form() {
        assert_eq!(config_map("orders"), "orders-walstorage");
        assert_eq!(wal_writer("orders", "orders-0"), "orders.orders-0");
        assert_eq!(writer_id("shop", "orders", "orders-0"), "shop/orders.orders-0");
        assert_eq!(volume("orders", "nvme1"), "wal-orders--nvme1");
        assert_eq!(claim("orders", "nvme1", "orders-0"), "wal-orders--nvme1-orders-0");
        assert_eq!(pooled("web", "bcdfg"), "web-bcdfg");
        assert_eq!(credentials_dir("b1"), "/etc/walstorage/credentials/b1");
        assert_eq!(ca_file("b1"), "/etc/walstorage/ca/b1.crt");
        assert_eq!(token_file("b1"), "/etc/walstorage/tokens/b1");
        assert_eq!(crate::config::DEFAULT_SOCKET, format!("{SOCKET_DIR}/wal.sock"));
    }

    #[test]
    fn the_longest_names_fit() {
        let (storage, url) = ("s".repeat(STORAGE_NAME_MAX), "u".repeat(16));
        assert!(volume(&storage, &url).len() <= LABEL_MAX);
        assert!(claim(&storage, &url, &"w".repeat(63)).len() <= 253);
        assert!(wal_writer(&storage, &"w".repeat(63)).len() <= 253);
        assert_eq!(pooled(&"w".repeat(200), "bcdfg").len(), LABEL_MAX);
        assert_eq!(pooled(&format!("{}.b", "w".repeat(56)), "bcdfg"), format!("{}-bcdfg", "w".repeat(56)));
    }

    proptest! {
        #[test]
        fn a_short_name_fits_and_is_short_for_ever(name in "[a-z0-9.-]{0,300}|.{0,90}") {
            let once = short(&name);
            prop_assert!(once.len() <= LABEL_MAX);
            prop_assert_eq!(short(&once), once);
        }
    }
}
