//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use walstorage_operator::process::options::ControllerOptions;
use walstorage_operator::webhook::command::WebhookOptions;

const EXAMPLES: &str = "\
Examples:
  walstorage-operator crds | kubectl apply -f -
  walstorage-operator render -f walstorage.yaml --part config
  walstorage-operator render --from-config config.toml --name orders > walstorage.yaml
  walstorage-operator controller --log-format text     # against the cluster of the kubeconfig

Exit codes: 0 done, 1 failed, 2 wrong usage or wrong input.";

const CONTROLLER_HELP: &str = "\
Watches WalStorage and WalWriter resources, their pods and claims, in all namespaces. It runs as a Deployment of the chart;
two replicas, of which one leads (Lease walstorage-controller in its own namespace) and one waits.

Examples:
  # Against the cluster of the kubeconfig, with its Lease in the namespace walstorage:
  walstorage-operator controller --namespace walstorage --log-format text

  # Is it ready, and if not, why not?
  curl -s localhost:8080/readyz

Every flag has a variable (WALSTORAGE_OPERATOR_…); the flag wins. SIGTERM ends it: work under way is finished, the Lease is
let go of.

Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.";

const WEBHOOK_HELP: &str = "\
Answers the API server about new pods with the label walstorage.dev/storage: POST /mutate on a TLS port. It runs as a
Deployment of the chart. It writes nothing; certificates are made by the controller, or by cert-manager.

Examples:
  # Against the cluster of the kubeconfig:
  walstorage-operator webhook --namespace walstorage --sidecar-image localhost/walstorage:0.1.0 --log-format text

  # Is it ready, and if not, why not?
  curl -s localhost:8080/readyz

Every flag has a variable (WALSTORAGE_OPERATOR_…); the flag wins. SIGTERM ends it: requests are taken for --drain longer,
those under way are answered.

Exit codes: 0 ended by a signal, 1 failed, 2 wrong usage.";

const RENDER_EXAMPLES: &str = "\
Examples:
  # What the ConfigMap of this resource will hold:
  walstorage-operator render -f walstorage.yaml --part config

  # The same log on this machine, without a cluster; all paths lie below ./wal:
  walstorage-operator render -f walstorage.yaml --part config --root ./wal > config.toml
  walstorage-sidecar serve --config config.toml

  # A StatefulSet with its sidecar and its claims, for review or GitOps:
  walstorage-operator render -f walstorage.yaml -f statefulset.yaml

  # The Job that moves what a writer without a pod has on disks to the buckets of its storage:
  kubectl get walwriters,walstorages -n shop -o yaml | walstorage-operator render drain orders.orders-0 -f -

  # The other way round, for a file of an application that is to move into a cluster:
  walstorage-operator render --from-config config.toml --name orders > walstorage.yaml

Nothing is read from or written to a cluster. The same input always gives the same bytes; warnings go to standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage or wrong input (every error is reported, with field, value and what is allowed).";

const DRAIN_HELP: &str = "\
Examples:
  # What the writer and its storage are is what the cluster says of them:
  kubectl get walwriters,walstorages -n shop -o yaml | walstorage-operator render drain orders.orders-0 -f - | kubectl apply -f -
  kubectl wait -n shop --for=condition=complete job/drain-orders-orders-0 --timeout=1h

The Job's pod holds the writer as a pod of its workload would: its sidecar moves everything from disks to buckets, and the Job is
complete when nothing is left on them (volumes[].empty of the WalWriter). The entries are still unapplied; the next pod of the
workload reads them from the buckets.

Exit codes: 0 done, 1 failed, 2 wrong usage or wrong input.";

/// A durable write-ahead log for pods, by one label.
#[derive(Debug, Parser)]
#[command(name = "walstorage-operator", version, about, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controllers in a cluster
    #[command(after_help = CONTROLLER_HELP)]
    Controller(Box<ControllerOptions>),
    /// Run the admission webhook in a cluster
    #[command(after_help = WEBHOOK_HELP)]
    Webhook(Box<WebhookOptions>),
    /// Print what would be applied for a WalStorage, or the WalStorage of a config.toml
    Render(Box<RenderArgs>),
    /// Print the manifests of the resources WalStorage and WalWriter
    Crds(CrdsArgs),
    /// Print the version
    Version,
}

/// What to render.
#[derive(Debug, Args)]
#[command(after_help = RENDER_EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct RenderArgs {
    #[command(subcommand)]
    pub(crate) what: Option<RenderCommand>,

    /// A file with a WalStorage, or with workloads that have its label; several: repeat it; - is standard input
    #[arg(short = 'f', long, value_name = "FILE", required_unless_present = "from_config")]
    pub(crate) file: Vec<PathBuf>,

    /// What to print of it
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub(crate) part: Part,

    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,

    /// Put every path of the config.toml below this folder, and the socket at DIR/wal.sock; with --part config
    #[arg(long, value_name = "DIR", requires = "file")]
    pub(crate) root: Option<PathBuf>,

    /// Print the WalStorage that says what this config.toml says; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "root", "part"])]
    pub(crate) from_config: Option<PathBuf>,

    /// Name of that WalStorage
    #[arg(long, default_value = "wal", conflicts_with = "file")]
    pub(crate) name: String,

    /// Leave out what a WalStorage has no field for, with a warning, instead of refusing it
    #[arg(long, conflicts_with = "file")]
    pub(crate) drop: bool,
}

/// What else to render.
#[derive(Debug, Subcommand)]
pub(crate) enum RenderCommand {
    /// Print the Job that empties a writer without a pod to the buckets of its storage
    #[command(after_help = DRAIN_HELP)]
    Drain(DrainArgs),
}

/// Whom to empty.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The WalWriter, as in kubectl get walwriters
    #[arg(value_name = "WRITER")]
    pub(crate) writer: String,

    /// A file with the WalWriter, and with its WalStorage; several: repeat it; - is standard input
    #[arg(short = 'f', long, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,

    /// The service account of the Job's pod, where a bucket is reached as it; that of the workload
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,

    #[command(flatten)]
    pub(crate) sidecar: SidecarArgs,
}

/// The image of the sidecars.
#[derive(Debug, Args)]
pub(crate) struct SidecarArgs {
    /// The image of the sidecars in workloads
    #[arg(long, value_name = "IMAGE", env = "WALSTORAGE_OPERATOR_SIDECAR_IMAGE", default_value = concat!("localhost/walstorage:", env!("CARGO_PKG_VERSION")))]
    pub(crate) sidecar_image: String,

    /// Their imagePullPolicy
    #[arg(long, value_name = "POLICY", env = "WALSTORAGE_OPERATOR_SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) sidecar_pull_policy: String,
}

/// A part of what would be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The config.toml
    Config,
    /// The WalStorage, its ConfigMap, claims and workloads
    All,
}

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct CrdsArgs {
    /// Write a file for each into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
