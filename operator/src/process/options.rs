//! Flags of the long-running commands, each mirrored by an environment variable. Every timer is one, so that tests wait
//! seconds and a platform team can tune.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;
use crate::certificates::keeper::CertificateOptions;
use crate::grant::Timing;
use crate::webhook::patch::Settings;

/// What every long-running command is told.
#[derive(Args, Clone, Debug)]
pub struct ProcessOptions {
    /// Where to serve /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", env = "WALSTORAGE_OPERATOR_HEALTH", default_value = "0.0.0.0:8080")]
    pub health: SocketAddr,

    /// The form of the log on standard error; auto is text on a terminal, else JSON
    #[arg(long, value_enum, env = "WALSTORAGE_OPERATOR_LOG_FORMAT", default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// How much to log: error, warn, info, debug or trace, or a list like kube=debug,info
    #[arg(long, value_name = "FILTER", env = "WALSTORAGE_OPERATOR_LOG", default_value = "info")]
    pub log: String,

    /// The operator's own namespace, for its Lease and its certificates; else that of the service account or kubeconfig
    #[arg(long, value_name = "NAMESPACE", env = "WALSTORAGE_OPERATOR_NAMESPACE")]
    pub namespace: Option<String>,

    /// How often to look whether the cluster's schemas are new enough, while they are not
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_SCHEMA_RETRY", default_value = "5s", value_parser = duration::parse)]
    pub schema_retry: Duration,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Who leads, and for how long without a word.
#[derive(Args, Clone, Debug)]
pub struct LeaseOptions {
    /// This replica's name in the Lease; default: host name and a random part
    #[arg(long, value_name = "NAME", env = "WALSTORAGE_OPERATOR_IDENTITY")]
    pub identity: Option<String>,

    /// How long others wait before they take over from a leader that says nothing
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_LEASE_DURATION", default_value = "15s", value_parser = duration::parse)]
    pub lease_duration: Duration,

    /// How long a leader goes on without having renewed; below --lease-duration
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_LEASE_RENEW", default_value = "10s", value_parser = duration::parse)]
    pub lease_renew: Duration,

    /// How often the Lease is renewed or looked at
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_LEASE_RETRY", default_value = "2s", value_parser = duration::parse)]
    pub lease_retry: Duration,
}

/// What `controller` is told.
#[derive(Args, Clone, Debug)]
pub struct ControllerOptions {
    /// Flags of every long-running command.
    #[command(flatten)]
    pub process: ProcessOptions,

    /// Flags of the leader election.
    #[command(flatten)]
    pub lease: LeaseOptions,

    /// Flags of the webhook's certificates.
    #[command(flatten)]
    pub certificates: CertificateOptions,

    /// How many objects of a kind are worked on at the same time
    #[arg(long, value_name = "N", env = "WALSTORAGE_OPERATOR_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// How often every object is looked at although nothing changed
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_RESYNC", default_value = "5m", value_parser = duration::parse)]
    pub resync: Duration,

    /// How long one look at an object may take before it is given up and tried again
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_RECONCILE_DEADLINE", default_value = "60s", value_parser = duration::parse)]
    pub reconcile_deadline: Duration,

    /// Longest wait between tries of an object that cannot be reconciled
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_BACKOFF", default_value = "1m", value_parser = duration::parse)]
    pub backoff: Duration,

    /// The image of the sidecars, as the webhook writes it; without it nobody can say which pods are outdated
    #[arg(long, value_name = "IMAGE", env = "WALSTORAGE_OPERATOR_SIDECAR_IMAGE")]
    pub sidecar_image: Option<String>,

    /// The imagePullPolicy of the sidecars, as the webhook writes it
    #[arg(long, value_name = "POLICY", env = "WALSTORAGE_OPERATOR_SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,

    /// How long past its grace period a writer waits for the pod that holds it
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_HANDOVER_TIMEOUT", default_value = "120s", value_parser = duration::parse)]
    pub handover_timeout: Duration,

    /// How long a writer with entries may be without a pod before it counts as orphaned
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_ORPHAN_AFTER", default_value = "300s", value_parser = duration::parse)]
    pub orphan_after: Duration,

    /// How long a writer may be without a directory that takes entries before its WalStorage is not ready
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_UNWRITABLE_AFTER", default_value = "60s", value_parser = duration::parse)]
    pub unwritable_after: Duration,

    /// How often each sidecar is asked at its admin port how its directories are
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_POLL_INTERVAL", default_value = "30s", value_parser = duration::parse)]
    pub poll_interval: Duration,

    /// How long a sidecar may take to answer
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_POLL_TIMEOUT", default_value = "3s", value_parser = duration::parse)]
    pub poll_timeout: Duration,

    /// How many sidecars are asked at the same time
    #[arg(long, value_name = "N", env = "WALSTORAGE_OPERATOR_POLL_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub poll_concurrency: u16,
}

impl ControllerOptions {
    /// What new sidecars are, if it was told.
    #[must_use]
    pub fn sidecar(&self) -> Option<Settings> {
        let image = self.sidecar_image.clone()?;
        Some(Settings { image, pull_policy: self.sidecar_pull_policy.clone() })
    }

    /// How long writers wait.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Timing { handover: millis(self.handover_timeout), orphan_after: millis(self.orphan_after) }
    }
}

impl LeaseOptions {
    /// Whether the times fit each other.
    ///
    /// # Errors
    /// A sentence with the values and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let Self { identity: _, lease_duration, lease_renew, lease_retry } = self;
        if lease_retry < lease_renew && lease_renew < lease_duration && lease_duration.subsec_millis() == 0 {
            return Ok(());
        }
        Err(format!(
            "--lease-retry {lease_retry:?}, --lease-renew {lease_renew:?}, --lease-duration {lease_duration:?}: allowed: each below the next, \
             the last in whole seconds"
        ))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Controller {
        #[command(flatten)]
        options: ControllerOptions,
    }

    #[test]
    fn each_time_is_what_its_flag_says() {
        let said = |flags: &[&str]| {
            let line = ["controller"].iter().chain(flags);
            Controller::try_parse_from(line).unwrap().options.timing()
        };
        assert_eq!(said(&[]), Timing::default());
        let flags = ["--handover-timeout", "7s", "--orphan-after", "11s"];
        assert_eq!(said(&flags), Timing { handover: 7_000, orphan_after: 11_000 });
    }
}
