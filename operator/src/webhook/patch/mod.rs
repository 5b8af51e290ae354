//! What a pod becomes: the sidecar and everything it needs, as a pure function of raw JSON.
//!
//! Invariants, each a named test:
//! 1. `patch(patch(p)) == patch(p)`: our earlier work is taken out first, and everything is computed from what is left.
//! 2. What another webhook does before or between gives the same pod as if it had been there from the beginning.
//! 3. A field that this build does not know survives, at every level.
//! 4. What is written in our containers and volumes meets the pod security standard "restricted".
//! 5. A pod whose class is Guaranteed stays so.
//! 6. No grant survives: a copied or restored pod waits for its own.
//!
//! Nothing here reads a clock, a cache or the API.

mod added;
mod amounts;
mod container;
mod diff;
mod hash;
mod mesh;
mod resources;
mod security;
mod strip;
#[cfg(test)]
mod tests;
mod volumes;

use serde_json::{Map, Value, json};
use walstorage_crds::config::DEFAULT_SOCKET;
use walstorage_crds::names::{
    ADMIN_PORT_NAME, ANNOTATION_CONTAINERS, ANNOTATION_GRANT, ANNOTATION_INJECTED_BY, ANNOTATION_PATCH,
    ANNOTATION_POD_HASH, ANNOTATION_RENDERED, ANNOTATION_SEAL, ANNOTATION_WORKLOAD, ANNOTATION_WRITER, CONTAINER, GATE,
    LABEL_WRITER, RENDERED, SOCKET_DIR, claim, wal_writer,
};
use walstorage_crds::walstorage::Effective;
use walstorage_crds::walwriter::WriterVolume;

use self::added::Added;
use self::container::WriterId;
use self::strip::Stripped;
use super::json::{as_object_mut, edit_list, edit_object, list, meta, name, object_mut, text};
use super::refusal::Refusal;

/// The variable that tells an application where the socket is.
const SOCKET_VARIABLE: &str = "WALSTORAGE_SOCKET";
/// Grace period of a pod that says none: the API server's default.
const DEFAULT_GRACE: u64 = 30;

/// What the chart says about the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its image; a pod may name another one by annotation.
    pub image: String,
    /// Its `imagePullPolicy`.
    pub pull_policy: String,
}

/// The WalStorage of the pod.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// Its name, the pod's label.
    pub name: &'a str,
    /// What holds.
    pub effective: &'a Effective,
}

/// Which writer the pod is to be.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// Of the pod.
    pub namespace: &'a str,
    /// The writer.
    pub writer: &'a str,
    /// `<group>/<kind>/<name>` of its workload.
    pub workload: &'a str,
    /// Tells our own work from a copy.
    pub seal: &'a str,
    /// What the writer has already: URLs that were removed stay mounted until they are empty.
    pub ledger: &'a [WriterVolume],
}

/// Whose work the pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its user's: nothing in it is ours, whatever it is called.
    User,
    /// Ours, in a webhook: its seal is valid.
    Sealed,
    /// Ours, from `render`.
    Rendered,
}

/// The pod with its sidecar, gated.
///
/// # Errors
/// Why it cannot have one, and what to do.
pub fn inject(
    pod: &Value,
    origin: Origin,
    storage: Storage<'_>,
    proposal: &Proposal<'_>,
    settings: &Settings,
) -> Result<Value, Refusal> {
    let id = WriterId::Known { namespace: proposal.namespace, writer: proposal.writer };
    let mut injected = build(pod, origin, storage, &id, proposal.writer, proposal.ledger, settings)?;
    let metadata = object_mut(as_object_mut(&mut injected), "metadata");
    object_mut(metadata, "labels").insert(LABEL_WRITER.to_owned(), proposal.writer.into());
    let annotations = object_mut(metadata, "annotations");
    annotations.insert(ANNOTATION_WRITER.to_owned(), wal_writer(storage.name, proposal.writer).into());
    annotations.insert(ANNOTATION_WORKLOAD.to_owned(), proposal.workload.into());
    annotations.insert(ANNOTATION_SEAL.to_owned(), proposal.seal.into());
    Ok(injected)
}

/// The operations that make [`inject`]'s pod of this one.
///
/// # Errors
/// As [`inject`].
pub fn patch(
    pod: &Value,
    origin: Origin,
    storage: Storage<'_>,
    proposal: &Proposal<'_>,
    settings: &Settings,
) -> Result<json_patch::Patch, Refusal> {
    Ok(diff::diff(pod, &inject(pod, origin, storage, proposal, settings)?))
}

/// A pod, or the template of one, as `render` writes it: gated and marked, without a seal. `writer` is known for those with
/// fixed claims; else it is the pod's name.
///
/// # Errors
/// Why it cannot have a sidecar, and what to do.
pub fn render(pod: &Value, storage: Storage<'_>, writer: Option<&str>, settings: &Settings) -> Result<Value, Refusal> {
    let origin = if meta(pod, "annotations", ANNOTATION_RENDERED).is_some() { Origin::Rendered } else { Origin::User };
    // The claims of a template are put in by its controller, under the names of these volumes.
    let id = WriterId::Rendered { writer };
    let mut rendered = build(pod, origin, storage, &id, writer.unwrap_or_default(), &[], settings)?;
    let pod = as_object_mut(&mut rendered);
    if writer.is_none() {
        edit_list(object_mut(pod, "spec"), "volumes", |all| all.retain(|volume| !is_our_claim(storage.name, volume)));
    }
    let annotations = object_mut(object_mut(pod, "metadata"), "annotations");
    annotations.insert(ANNOTATION_RENDERED.to_owned(), RENDERED.into());
    Ok(rendered)
}

fn is_our_claim(storage: &str, volume: &Value) -> bool {
    volumes::is_ours(storage, name(volume)) && volumes::claim_of(volume).is_some()
}

/// What the annotation `walstorage.dev/pod-hash` of this pod would be now: another value in it means that the pod is outdated.
/// `pod` is one that has our sidecar, or is to get it; `ledger` as in [`Proposal`].
///
/// # Errors
/// Why the pod could not get a sidecar now.
pub fn pod_hash(
    pod: &Value,
    storage: Storage<'_>,
    ledger: &[WriterVolume],
    settings: &Settings,
) -> Result<String, Refusal> {
    let mut pod = pod.clone();
    strip::strip(&mut pod, storage.name)?;
    hash::of(&pod, storage, ledger, settings)
}

/// Everything but who the writer is.
fn build(
    pod: &Value,
    origin: Origin,
    storage: Storage<'_>,
    id: &WriterId<'_>,
    writer: &str,
    ledger: &[WriterVolume],
    settings: &Settings,
) -> Result<Value, Refusal> {
    if !pod.get("spec").is_some_and(Value::is_object) {
        return Err(Refusal::Malformed { path: "spec", expected: "an object" });
    }
    let mut out = pod.clone();
    let stripped = match origin {
        Origin::User => Stripped::default(),
        Origin::Sealed | Origin::Rendered => strip::strip(&mut out, storage.name)?,
    };
    check(&out, storage)?;
    // Everything is judged by the pod without us.
    let bare = out.clone();
    let mut added = Added::default();

    let resources = resources::sidecar(storage.effective, &bare);
    let mounted = volumes::all(storage.name, storage.effective, ledger, writer);
    let (volumes, mounts): (Vec<_>, Vec<_>) =
        mounted.into_iter().map(|mounted| (mounted.volume, mounted.mount)).unzip();
    for volume in &volumes {
        if list(&bare, "/spec/volumes").iter().any(|theirs| name(theirs) == name(volume)) {
            return Err(Refusal::VolumeTaken { volume: name(volume).to_owned() });
        }
    }
    let fresh = container::build(&bare, storage.name, storage.effective, id, mounts, &resources.value, settings)?;
    let container = match (origin, stripped.container) {
        (Origin::Sealed, Some(old)) => container::over(old, fresh, storage.name, stripped.added.sidecar_cpu.as_deref()),
        (Origin::User | Origin::Sealed | Origin::Rendered, _) => fresh,
    };
    added.sidecar_cpu = resources.own_cpu;

    let map = as_object_mut(&mut out);
    let spec = object_mut(map, "spec");
    security::set_group(storage.name, spec, &bare, &mut added)?;
    resources::raise(&bare, spec, &resources.value, &mut added)?;
    edit_list(spec, "initContainers", |all| all.insert(mesh::position(all), container));
    edit_list(spec, "volumes", |all| {
        all.extend(volumes);
        if meta(&bare, "annotations", ANNOTATION_RENDERED).is_some() {
            keep_claims(storage.name, writer, stripped.claims, all);
        }
    });
    give_socket(spec, &chosen(&bare)?);
    let grace = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_GRACE);
    added.grace = storage.effective.drain_seconds.into();
    spec.insert("terminationGracePeriodSeconds".to_owned(), grace.saturating_add(added.grace).into());
    edit_list(spec, "schedulingGates", |gates| {
        if gates.iter().all(|gate| name(gate) != GATE) {
            gates.push(json!({"name": GATE}));
        }
    });

    let hash = hash::of(&bare, storage, ledger, settings)?;
    let metadata = object_mut(map, "metadata");
    if let Some(port) = storage.effective.admin_port {
        mesh::exclude(&bare, port, metadata, &mut added);
    }
    edit_object(metadata, "labels", |labels| labels.remove(LABEL_WRITER));
    edit_object(metadata, "annotations", |annotations| {
        for stale in [ANNOTATION_GRANT, ANNOTATION_WRITER, ANNOTATION_WORKLOAD, ANNOTATION_SEAL] {
            annotations.remove(stale);
        }
        annotations.insert(ANNOTATION_PATCH.to_owned(), added.write().into());
        annotations.insert(ANNOTATION_POD_HASH.to_owned(), hash.into());
        annotations.insert(ANNOTATION_INJECTED_BY.to_owned(), env!("CARGO_PKG_VERSION").into());
    });
    Ok(out)
}

/// The claims of a StatefulSet's templates stay in its pods after their URL has gone: its controller would put them back.
fn keep_claims(storage: &str, writer: &str, old: Vec<Value>, volumes: &mut Vec<Value>) {
    for volume in old {
        let url = name(&volume).rsplit("--").next().unwrap_or_default();
        let known = volumes::claim_of(&volume) == Some(&claim(storage, url, writer));
        if known && volumes.iter().all(|other| name(other) != name(&volume)) {
            volumes.push(volume);
        }
    }
}

/// What the pod itself must not be.
fn check(pod: &Value, storage: Storage<'_>) -> Result<(), Refusal> {
    let windows = "windows";
    if text(pod, "/spec/os/name") == Some(windows)
        || pod.pointer("/spec/nodeSelector").and_then(|selector| selector.get("kubernetes.io/os")?.as_str())
            == Some(windows)
    {
        return Err(Refusal::Windows);
    }
    if list(pod, "/spec/containers").is_empty() {
        return Err(Refusal::Malformed { path: "spec.containers", expected: "a list of containers" });
    }
    for container in list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")) {
        let owner = name(container);
        if owner == CONTAINER {
            return Err(Refusal::ContainerTaken);
        }
        let paths = list(container, "/volumeMounts").iter().filter_map(|mount| text(mount, "/mountPath"));
        if let Some(path) = paths.into_iter().find(|path| covers_socket(path)) {
            return Err(Refusal::MountTaken { container: owner.to_owned(), path: path.to_owned() });
        }
        for port in list(container, "/ports") {
            let number = port.get("containerPort").and_then(Value::as_u64);
            let tcp = text(port, "/protocol").is_none_or(|protocol| protocol == "TCP");
            let clash = storage
                .effective
                .admin_port
                .filter(|admin| (tcp && number == Some(u64::from(*admin))) || name(port) == ADMIN_PORT_NAME);
            if clash.is_some() {
                let number = number.map(|number| number.to_string()).unwrap_or_default();
                let port = if name(port) == ADMIN_PORT_NAME { ADMIN_PORT_NAME.to_owned() } else { number };
                let storage = storage.name.to_owned();
                return Err(Refusal::PortTaken { container: owner.to_owned(), port, storage });
            }
        }
    }
    Ok(())
}

/// Whether a path is that of the socket's folder, or below it. `/var/run` is a link to `/run` in most images.
fn covers_socket(path: &str) -> bool {
    let segments = |path: &'static str| path.split('/').filter(|segment| !segment.is_empty());
    let path: Vec<_> = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".").collect();
    let path = if path.starts_with(&["var", "run"]) { &path[1..] } else { &path[..] };
    path.starts_with(&segments(SOCKET_DIR).collect::<Vec<_>>())
}

/// The containers that get the socket: those of the annotation, else all but a mesh's.
fn chosen(pod: &Value) -> Result<Vec<String>, Refusal> {
    let all = || list(pod, "/spec/initContainers").iter().chain(list(pod, "/spec/containers")).map(name);
    let users = all().filter(|container| !mesh::is_container(container)).map(str::to_owned);
    let Some(wanted) = meta(pod, "annotations", ANNOTATION_CONTAINERS) else { return Ok(users.collect()) };
    let wanted: Vec<_> = wanted.split(',').map(|part| part.trim().to_owned()).collect();
    match wanted.iter().find(|wanted| all().all(|container| container != wanted.as_str())) {
        None => Ok(wanted),
        Some(unknown) => {
            Err(Refusal::NoSuchContainer { name: unknown.clone(), known: users.collect::<Vec<_>>().join(", ") })
        }
    }
}

/// Mounts the socket in these containers, and tells them where it is.
fn give_socket(spec: &mut Map<String, Value>, chosen: &[String]) {
    for kind in ["initContainers", "containers"] {
        edit_list(spec, kind, |all| {
            for container in all.iter_mut().filter(|container| chosen.iter().any(|wanted| wanted == name(container))) {
                strip::take_socket(container);
                let container = as_object_mut(container);
                edit_list(container, "volumeMounts", |mounts| mounts.push(volumes::socket_mount()));
                edit_list(container, "env", |variables| {
                    // First, so that the others may refer to it; a user who says otherwise means it.
                    if variables.iter().all(|variable| name(variable) != SOCKET_VARIABLE) {
                        variables.insert(0, json!({"name": SOCKET_VARIABLE, "value": DEFAULT_SOCKET}));
                    }
                });
            }
        });
    }
}
