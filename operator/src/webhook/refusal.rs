//! Why a pod is not admitted. Each sentence names the thing and ends with what to do, because it is all that its reader sees:
//! in the answer of `kubectl`, or in the event of a workload that cannot make its pods.

/// Why a pod cannot get a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The label names something that is not there.
    #[error(
        "there is no WalStorage {storage} in namespace {namespace}: create it, or correct the pod's label walstorage.dev/storage"
    )]
    UnknownStorage {
        /// As the label says.
        storage: String,
        /// Where the pod is.
        namespace: String,
    },
    /// The WalStorage is being deleted.
    #[error(
        "WalStorage {storage} is being deleted: create it again once it is gone, or remove the pod's label walstorage.dev/storage"
    )]
    StorageDeleted {
        /// Its name.
        storage: String,
    },
    /// The WalStorage itself is refused, in the words of its condition.
    #[error("WalStorage {storage} is not accepted: {problems}")]
    StorageRefused {
        /// Its name.
        storage: String,
        /// Every sentence about it, with what is allowed.
        problems: String,
    },
    /// A writer's entries can be moved to buckets only.
    #[error(
        "WalStorage {storage} has no bucket that a writer's entries could be moved to: add one to spec.walUrls first"
    )]
    NowhereToDrain {
        /// Its name.
        storage: String,
    },
    /// Not something that has containers.
    #[error("{path} is not {expected}: the pod cannot be given a sidecar; correct the manifest")]
    Malformed {
        /// Where.
        path: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Somebody else's container has our name.
    #[error(
        "the pod has a container called walstorage that the operator did not add here: rename it, or, if the pod was copied from a cluster, \
         remove that container, the volumes walstorage-* and wal-* and the annotations walstorage.dev/*"
    )]
    ContainerTaken,
    /// Somebody else's volume has one of our names.
    #[error("the pod has a volume called {volume}, which is the name of a volume that the operator adds: rename it")]
    VolumeTaken {
        /// Its name.
        volume: String,
    },
    /// A container mounts something where the socket comes.
    #[error(
        "container {container} mounts a volume at {path}, where the socket of the write-ahead log is mounted (/run/walstorage): mount it elsewhere"
    )]
    MountTaken {
        /// The container.
        container: String,
        /// Where it mounts.
        path: String,
    },
    /// The sidecar is a Linux program.
    #[error(
        "the pod is for Windows nodes, and the WalStorage sidecar runs on Linux only: remove the label walstorage.dev/storage"
    )]
    Windows,
    /// Two containers would listen on one port.
    #[error(
        "container {container} has port {port}, which is the admin port of WalStorage {storage}: set spec.sidecar.adminPort of the WalStorage \
         to another port, or to 0 for none"
    )]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: String,
        /// Whose admin port it is.
        storage: String,
    },
    /// `walstorage.dev/containers` names a container that is not there.
    #[error(
        "the annotation walstorage.dev/containers names {name:?}, and the pod has no such container: name some of {known}, or remove the annotation"
    )]
    NoSuchContainer {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// `walstorage.dev/sidecar-image` is empty.
    #[error(
        "the annotation walstorage.dev/sidecar-image is empty: name an image, or remove the annotation for the operator's own"
    )]
    NoImage,
    /// A group for the claims would be a group for the user's data.
    #[error(
        "the pod has volume {volume} and no spec.securityContext.fsGroup, which the sidecar needs to write to its claims: set it (any group, such as \
         65532); setting it for you would change the ownership of your data"
    )]
    FsGroupMissing {
        /// A volume that may hold data.
        volume: String,
    },
    /// A variable of a workload identity has a name or a value that cannot be.
    #[error(
        "WalStorage {storage} gives the sidecar the variable {variable} in a bucket's workloadIdentity.env {problem}: rename it or make the values equal"
    )]
    VariableTaken {
        /// The WalStorage.
        storage: String,
        /// The variable.
        variable: String,
        /// Why it cannot be.
        problem: &'static str,
    },
    /// An amount that cannot be added to.
    #[error(
        "spec.resources.{field} = {value} of the pod is not an amount that the sidecar's share can be added to: write it as a plain quantity, such as 2Gi or 500m"
    )]
    BadAmount {
        /// Which.
        field: String,
        /// As written.
        value: String,
    },
}
