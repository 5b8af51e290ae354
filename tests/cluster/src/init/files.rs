//! The configuration files of a node's daemons. What is not a default has its reason here.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rustix::fs::statfs;

use super::Plan;

/// Where a node finds its cluster's folder.
pub(super) const CLUSTER: &str = "/run/cluster/folder";
/// Where it finds the folder of the folder of the built programs.
pub(super) const CACHE: &str = "/run/cluster/cache";
/// Where it finds its own folder.
pub(super) const NODE: &str = "/run/cluster/node";
/// The certificates.
pub(super) const PKI: &str = "/run/cluster/folder/pki";

/// Writes all of them into the node's folder.
pub(super) fn write(plan: &Plan) -> Result<()> {
    fs::create_dir_all(format!("{NODE}/cni"))?;
    let dns = plan.block.node(1);
    for (file, text) in [
        ("containerd.toml", containerd(&plan.plugins, snapshotter()?)),
        ("cni/10-bridge.conflist", bridge(&plan.block.pods(plan.node))),
        ("kubelet.yaml", kubelet(&plan.name, &dns.to_string())),
        ("kube-proxy.yaml", kube_proxy(&plan.name, &plan.block.all_pods())),
        ("resolv.conf", format!("nameserver {dns}\n")),
        ("Corefile", corefile(&dns.to_string())),
    ] {
        fs::write(Path::new(NODE).join(file), text)?;
    }
    Ok(())
}

/// An overlay cannot lie on an overlay, which the root of a development container is.
fn snapshotter() -> Result<&'static str> {
    const OVERLAY: i64 = 0x794c_7630;
    let kind = statfs("/var")?.f_type;
    Ok(if kind == OVERLAY { "native" } else { "overlayfs" })
}

fn containerd(plugins: &str, snapshotter: &str) -> String {
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE no container would start. Disabled are what needs kernel modules,
    // a folder of its own, or a collector of traces.
    format!(
        r#"version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.internal.v1.opt",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{NODE}/cni"
"#,
        pause = crate::images::PAUSE,
    )
}

fn bridge(pods: &str) -> String {
    // Routed, without masquerading, which would need iptables. Hairpin: a pod may reach itself through its service.
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pods}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

fn kubelet(node: &str, dns: &str) -> String {
    // Images are imported and cannot be pulled again: none may be collected. Disks of developers are full: no eviction
    // before the last percent. The rest makes lost nodes, crashed containers and changed ConfigMaps matters of seconds.
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {PKI}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {PKI}/{node}-server.crt
tlsPrivateKeyFile: {PKI}/{node}-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /
failSwapOn: false
failCgroupV1: false
protectKernelDefaults: true
makeIPTablesUtilChains: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}}
evictionPressureTransitionPeriod: 5s
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 6
clusterDomain: cluster.local
clusterDNS: [{dns}]
resolvConf: {NODE}/resolv.conf
maxPods: 120
syncFrequency: 5s
featureGates: {{KubeletCrashLoopBackOffMax: true}}
crashLoopBackOff: {{maxContainerRestartPeriod: 1s}}
"
    )
}

fn kube_proxy(node: &str, pods: &str) -> String {
    // Connection tracking cannot be configured in a network namespace.
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {{kubeconfig: {PKI}/proxy.kubeconfig}}
clusterCIDR: {pods}
hostnameOverride: {node}
conntrack: {{maxPerCore: 0, min: 0}}
"
    )
}

fn corefile(dns: &str) -> String {
    format!(
        ".:53 {{
    bind {dns}
    errors
    kubernetes cluster.local {{
        kubeconfig {PKI}/admin.kubeconfig cluster
        pods insecure
    }}
    template IN ANY . {{
        rcode NXDOMAIN
    }}
}}
"
    )
}
