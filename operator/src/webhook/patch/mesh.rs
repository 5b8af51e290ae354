//! Service meshes: their containers are recognised by name, and scrapes of the admin port are kept out of their proxies.

use serde_json::{Map, Value};

use super::added::Added;
use crate::webhook::json::{edit_object, list, meta, name};

/// Whose containers start before the sidecar, so that buckets are reachable from its first moment.
const CONTAINERS: [&str; 6] =
    ["istio-init", "istio-validation", "istio-proxy", "linkerd-init", "linkerd-network-validator", "linkerd-proxy"];

const ISTIO_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const LINKERD_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

/// Whether a container belongs to a mesh.
pub(super) fn is_container(container: &str) -> bool {
    CONTAINERS.contains(&container)
}

/// The place among the init containers: after the last one of a mesh, before all others.
pub(super) fn position(init_containers: &[Value]) -> usize {
    init_containers.iter().rposition(|container| is_container(name(container))).map_or(0, |last| last + 1)
}

/// Whether the pod is, or asks to be, in the mesh: a proxy may also be put in after us.
fn takes_part(pod: &Value, prefix: &str, ask: &str, yes: &[&str]) -> bool {
    let all = list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers"));
    let has = all.map(name).any(|container| is_container(container) && container.starts_with(prefix));
    has || ["labels", "annotations"].iter().any(|kind| meta(pod, kind, ask).is_some_and(|value| yes.contains(&value)))
}

/// Keeps the admin port out of the proxies.
pub(super) fn exclude(pod: &Value, port: u16, metadata: &mut Map<String, Value>, added: &mut Added) {
    if takes_part(pod, "istio-", "sidecar.istio.io/inject", &["true"]) && append(metadata, ISTIO_PORTS, port) {
        added.istio_port = Some(port);
    }
    if takes_part(pod, "linkerd-", "linkerd.io/inject", &["enabled", "ingress"])
        && append(metadata, LINKERD_PORTS, port)
    {
        added.linkerd_port = Some(port);
    }
}

/// Takes away what [`exclude`] added.
pub(super) fn strip(metadata: &mut Map<String, Value>, added: &Added) {
    for (key, port) in [(ISTIO_PORTS, added.istio_port), (LINKERD_PORTS, added.linkerd_port)] {
        let Some(port) = port.map(|port| port.to_string()) else { continue };
        edit_object(metadata, "annotations", |annotations| {
            let ports = annotations.get(key).and_then(Value::as_str).unwrap_or_default();
            let mut left: Vec<_> = ports.split(',').filter(|part| !part.is_empty()).collect();
            // The last one is ours: it was appended.
            if let Some(ours) = left.iter().rposition(|part| *part == port) {
                left.remove(ours);
            }
            if left.is_empty() {
                annotations.remove(key);
            } else {
                let left = left.join(",");
                annotations.insert(key.to_owned(), Value::from(left));
            }
        });
    }
}

/// Whether the port had to be appended: it is not there, alone or in a range, and not all are.
fn append(metadata: &mut Map<String, Value>, key: &str, port: u16) -> bool {
    edit_object(metadata, "annotations", |annotations| {
        let ports = annotations.get(key).and_then(Value::as_str).unwrap_or_default();
        let has = |part: &str| match part.trim().split_once('-') {
            Some((from, to)) => {
                from.parse().is_ok_and(|from: u16| to.parse().is_ok_and(|to| (from..=to).contains(&port)))
            }
            None => part.trim() == "*" || part.trim().parse() == Ok(port),
        };
        if ports.split(',').any(has) {
            return false;
        }
        let ports = if ports.is_empty() { port.to_string() } else { format!("{ports},{port}") };
        annotations.insert(key.to_owned(), Value::from(ports));
        true
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::webhook::json::as_object_mut;

    #[test]
    fn the_sidecar_comes_after_the_last_container_of_a_mesh() {
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        assert_eq!(position(&[]), 0);
        assert_eq!(position(&named(&["migrate"])), 0);
        assert_eq!(position(&named(&["istio-init", "istio-proxy", "migrate"])), 2);
        assert_eq!(position(&named(&["first", "linkerd-proxy", "migrate"])), 2);
    }

    #[test]
    fn a_port_is_appended_once_and_only_ours_is_taken_away() {
        for (ports, after) in [
            (None, Some("9465")),
            (Some("80"), Some("80,9465")),
            (Some("80, 9465"), None),
            (Some("9000-9500"), None),
            (Some("*"), None),
        ] {
            let mut pod = json!({"metadata": {"annotations": {"linkerd.io/inject": "enabled"}}});
            if let Some(ports) = ports {
                pod["metadata"]["annotations"][LINKERD_PORTS] = json!(ports);
            }
            let before = pod.clone();
            let mut added = Added::default();
            exclude(&before, 9465, as_object_mut(&mut pod["metadata"]), &mut added);
            assert_eq!(meta(&pod, "annotations", LINKERD_PORTS), after.or(ports), "{ports:?}");
            assert_eq!((added.istio_port, added.linkerd_port), (None, after.map(|_| 9465)));
            strip(as_object_mut(&mut pod["metadata"]), &added);
            assert_eq!(pod, before);
        }
    }
}
