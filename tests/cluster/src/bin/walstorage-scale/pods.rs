//! The nodes' part: a pod that has a node is reported as running, and its sidecar answers at an address of its own. And when
//! each pod had come how far, as a watch tells of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{Config, watcher};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use walstorage_cluster_tests::kubelet;
use walstorage_crds::names;

/// Pods that are reported as running at a time.
const AT_ONCE: usize = 16;

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It is there.
    Made,
    /// It has its writer, and its gate is gone.
    Granted,
    /// It has a node, and so its claims have volumes.
    Placed,
    /// It is ready.
    Running,
    /// Its grant lets no directory begin any more.
    Closed,
}

/// In their order.
pub(crate) const STEPS: [Step; 5] = [Step::Made, Step::Granted, Step::Placed, Step::Running, Step::Closed];

/// When a pod made each step.
type Times = [Option<Instant>; STEPS.len()];

/// What is known of all pods.
#[derive(Debug, Default)]
struct Known {
    /// By uid.
    times: HashMap<String, Times>,
    /// What the sidecar at an address answers.
    answers: HashMap<IpAddr, String>,
}

/// All pods, and when each made which step.
#[derive(Debug)]
pub(crate) struct Pods {
    known: Arc<Mutex<Known>>,
    /// Ends with this.
    _work: JoinSet<()>,
}

impl Pods {
    /// Follows all pods, and plays their nodes' kubelets and their sidecars, until this is dropped. `sidecars` listens on all
    /// addresses of the loopback interface.
    pub(crate) fn follow(client: Client, sidecars: TcpListener) -> Self {
        let known: Arc<Mutex<Known>> = Arc::default();
        let (hand_in, placed) = mpsc::unbounded_channel();
        let mut work = JoinSet::new();
        work.spawn(watch(client.clone(), Arc::clone(&known), hand_in));
        work.spawn(run(client, placed));
        work.spawn(answer(sidecars, Arc::clone(&known)));
        Self { known, _work: work }
    }

    /// How many have made a step.
    pub(crate) fn count(&self, step: Step) -> usize {
        lock(&self.known).times.values().filter(|times| times[step as usize].is_some()).count()
    }

    /// When the last one made a step.
    pub(crate) fn last(&self, step: Step) -> Option<Instant> {
        lock(&self.known).times.values().filter_map(|times| times[step as usize]).max()
    }

    /// How long this part of all pods took at most from one step to another.
    pub(crate) fn took(&self, from: Step, to: Step, part: f64) -> Option<Duration> {
        let known = lock(&self.known);
        let took = |times: &Times| Some(times[to as usize]?.saturating_duration_since(times[from as usize]?));
        let mut took: Vec<Duration> = known.times.values().filter_map(took).collect();
        took.sort_unstable();
        let at = (took.len() as f64 * part).ceil() as usize;
        took.get(at.saturating_sub(1)).copied()
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(client: Client, known: Arc<Mutex<Known>>, placed: mpsc::UnboundedSender<(Pod, IpAddr)>) {
    let changed = watcher(Api::<Pod>::all(client), Config::default()).default_backoff().applied_objects();
    pin_mut!(changed);
    while let Some(pod) = changed.next().await {
        // It begins anew.
        let Ok(pod) = pod else { continue };
        let now = Instant::now();
        let mut known = lock(&known);
        let times = known.times.entry(pod.uid().unwrap_or_default()).or_default();
        let is_placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let is_new = times[Step::Placed as usize].is_none();
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let is_ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
        let grant = pod.annotations().get(names::ANNOTATION_GRANT);
        let is_closed = grant.is_some_and(|grant| grant.contains(r#""init":[],"forget":[]"#));
        for (step, is) in STEPS.into_iter().zip([true, grant.is_some(), is_placed, is_ready, is_closed]) {
            if is {
                times[step as usize].get_or_insert(now);
            }
        }
        if is_placed && is_new {
            // From 127.1.0.1 on.
            let number = u32::try_from(known.answers.len()).unwrap_or_default();
            let address = IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number));
            known.answers.insert(address, healthy(&pod));
            // Nobody listens only at the end.
            let _ = placed.send((pod, address));
        }
    }
}

async fn run(client: Client, placed: mpsc::UnboundedReceiver<(Pod, IpAddr)>) {
    let placed = futures_util::stream::unfold(placed, |mut placed| async { Some((placed.recv().await?, placed)) });
    let run = |(mut pod, address): (Pod, IpAddr)| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        async move {
            let name = pod.name_any();
            let mut running = kubelet::running(&pod);
            running["status"]["podIP"] = json!(address);
            running["status"]["podIPs"] = json!([{"ip": address}]);
            // Mostly nobody has written the pod since, and the API server need not merge anything.
            pod.metadata.managed_fields = None;
            pod.status = serde_json::from_value(running["status"].clone()).ok();
            if pods.replace_status(&name, &PostParams::default(), &pod).await.is_ok() {
                return;
            }
            loop {
                match pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&running)).await {
                    Ok(_) => return,
                    // One that was deleted meanwhile, or is another one by now, is none of ours.
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => return,
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        }
    };
    placed.for_each_concurrent(AT_ONCE, run).await;
}

/// What a sidecar says whose directories are all well.
fn healthy(pod: &Pod) -> String {
    let grant = pod.annotations().get(names::ANNOTATION_GRANT);
    let grant: Value = grant.and_then(|grant| serde_json::from_str(grant).ok()).unwrap_or_default();
    let urls = grant["urls"].as_array().into_iter().flatten();
    let directories = urls.map(|url| {
        json!({"url": url["url"], "state": "healthy", "inUse": true, "draining": false, "capacityBytes": "10737418240",
            "freeBytes": "10200547328"})
    });
    json!({"writer": {"uid": grant["writerUid"]}, "directories": directories.collect::<Vec<_>>()}).to_string()
}

/// Answers at all addresses.
async fn answer(sidecars: TcpListener, known: Arc<Mutex<Known>>) {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = sidecars.accept() => {
                let asked = stream.local_addr().map(|address| address.ip()).ok();
                let body = asked.and_then(|asked| lock(&known).answers.get(&asked).cloned());
                answers.spawn(tell(stream, body.unwrap_or_default()));
            }
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn tell(mut stream: TcpStream, body: String) {
    let (mut asked, mut part) = (Vec::new(), [0; 1024]);
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(length) if length > 0 => asked.extend_from_slice(&part[..length]),
            _ => return,
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // Who hangs up has heard enough.
    let _ = stream.write_all((head + &body).as_bytes()).await;
}
