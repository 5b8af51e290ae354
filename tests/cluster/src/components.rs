//! The command lines of the components, as functions of where things are. What is not a default has its reason here.

use std::path::Path;

use crate::spec::Binder;

/// Where a control plane is.
#[derive(Clone, Debug)]
pub(crate) struct Plane<'a> {
    /// Certificates and kubeconfig files.
    pub(crate) pki: &'a Path,
    /// etcd's folder.
    pub(crate) etcd: &'a Path,
    /// etcd's client port on the loopback interface.
    pub(crate) etcd_port: u16,
    /// etcd's peer port, which nobody uses.
    pub(crate) peer_port: u16,
    /// Where the API server listens.
    pub(crate) bind: &'a str,
    pub(crate) port: u16,
    /// Where it tells others to find it.
    pub(crate) advertise: &'a str,
    /// Whether pods look it up through the service `kubernetes`.
    pub(crate) in_cluster: bool,
    /// The range of services.
    pub(crate) services: &'a str,
    pub(crate) emulated: Option<&'a str>,
}

impl Plane<'_> {
    fn pki(&self, file: &str) -> String {
        self.pki.join(file).display().to_string()
    }

    /// etcd. Nothing in a test survives this machine's power, so nothing is synced.
    pub(crate) fn etcd(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        flags(&[
            ("data-dir", self.etcd.display().to_string()),
            ("unsafe-no-fsync", "true".to_owned()),
            ("log-level", "warn".to_owned()),
            ("listen-client-urls", client.clone()),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer.clone()),
            ("initial-advertise-peer-urls", peer.clone()),
            ("initial-cluster", format!("default={peer}")),
        ])
    }

    /// The API server.
    pub(crate) fn api_server(&self) -> Vec<String> {
        let mut flags = flags(&[
            ("etcd-servers", format!("http://127.0.0.1:{}", self.etcd_port)),
            ("bind-address", self.bind.to_owned()),
            ("secure-port", self.port.to_string()),
            ("advertise-address", self.advertise.to_owned()),
            ("tls-cert-file", self.pki("apiserver.crt")),
            ("tls-private-key-file", self.pki("apiserver.key")),
            ("client-ca-file", self.pki("ca.crt")),
            ("token-auth-file", self.pki("tokens.csv")),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
            ("service-account-key-file", self.pki("accounts.pub")),
            ("service-account-signing-key-file", self.pki("accounts.key")),
            ("service-cluster-ip-range", self.services.to_owned()),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            ("allow-privileged", "true".to_owned()),
            ("profiling", "false".to_owned()),
            ("proxy-client-cert-file", self.pki("front-proxy.crt")),
            ("proxy-client-key-file", self.pki("front-proxy.key")),
            ("requestheader-client-ca-file", self.pki("ca.crt")),
            ("requestheader-allowed-names", "front-proxy".to_owned()),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
            ("requestheader-group-headers", "X-Remote-Group".to_owned()),
            ("requestheader-username-headers", "X-Remote-User".to_owned()),
            ("kubelet-client-certificate", self.pki("kubelet-client.crt")),
            ("kubelet-client-key", self.pki("kubelet-client.key")),
            ("kubelet-certificate-authority", self.pki("ca.crt")),
            ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ]);
        if !self.in_cluster {
            flags.push("--endpoint-reconciler-type=none".to_owned());
        }
        if let Some(version) = self.emulated {
            flags.push(format!("--emulated-version={version}"));
        }
        flags
    }

    /// The controller manager. It must start after the API server is ready: before the roles are there, it exits.
    pub(crate) fn controller_manager(&self, binder: Binder) -> Vec<String> {
        let mut flags = self.client("controller-manager");
        if binder != Binder::All {
            flags.push("--controllers=*,-persistentvolume-binder-controller".to_owned());
        }
        flags.extend(self::flags(&[
            ("service-account-private-key-file", self.pki("accounts.key")),
            ("root-ca-file", self.pki("ca.crt")),
            ("cluster-signing-cert-file", self.pki("ca.crt")),
            ("cluster-signing-key-file", self.pki("ca.key")),
            // Else all controllers are one user, who may not do what each of them may.
            ("use-service-account-credentials", "true".to_owned()),
            ("service-cluster-ip-range", self.services.to_owned()),
            // A lost node is seen within seconds, not a minute. One on paper is never lost, however late its Lease is renewed.
            ("node-monitor-grace-period", if self.in_cluster { "8s" } else { "300s" }.to_owned()),
            ("node-monitor-period", "1s".to_owned()),
        ]));
        flags
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> Vec<String> {
        self.client("scheduler")
    }

    /// What the scheduler and the controller manager share.
    fn client(&self, user: &str) -> Vec<String> {
        let kubeconfig = self.pki(&format!("{user}.kubeconfig"));
        flags(&[
            ("kubeconfig", kubeconfig.clone()),
            ("authentication-kubeconfig", kubeconfig.clone()),
            ("authorization-kubeconfig", kubeconfig),
            ("leader-elect", "false".to_owned()),
            // Nobody scrapes them.
            ("secure-port", "0".to_owned()),
            // By default the start of thirty controllers alone takes seconds, and thousands of pods minutes.
            ("kube-api-qps", "5000".to_owned()),
            ("kube-api-burst", "10000".to_owned()),
        ])
    }
}

fn flags(values: &[(&str, String)]) -> Vec<String> {
    values.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
