//! Controllers and webhooks: each with a cache of its own that lags, and with memory that a crash takes.

use std::collections::BTreeMap;

use serde_json::json;
use walstorage_crds::names;
use walstorage_crds::walwriter::WalWriter;

use super::Dice;
use super::api::Api;
use super::cache::Cache;
use crate::grant::LoserDelays;
use crate::grant::call::{Answer, Call, Failure};
use crate::grant::run::{Key, Note, NoteReason, Outcome, Run, Step};
use crate::grant::view::{Timing, View};
use crate::identity::{Above, Lookups, Owner, PodFacts, Pool, Reservations, Verdict, choose, classify, kept};
use crate::planted::mutant;

/// What may go wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Not done, and no answer.
    NotDone,
    /// Done, and no answer.
    NoAnswer,
    /// The controller dies before the call.
    CrashBefore,
    /// The controller dies after the call.
    CrashAfter,
}

/// A controller replica. Nothing keeps two from acting at once.
#[derive(Debug, Default)]
pub(super) struct Controller {
    pub(super) cache: Cache,
    run: Option<(Key, Run, Call)>,
    delays: LoserDelays,
    /// Calls that it has made, ever.
    pub(super) calls: usize,
    pub(super) notes: Vec<Note>,
}

impl Controller {
    pub(super) fn crash(&mut self, api: &Api) {
        self.run = None;
        self.delays = LoserDelays::default();
        let newest = std::mem::take(&mut self.cache.newest);
        self.cache = Cache::default();
        self.cache.newest = newest;
        self.cache.relist(api);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.run.is_none()
    }

    /// The call that it is about to make.
    pub(super) fn next(&self) -> Option<&Call> {
        self.run.as_ref().map(|(_, _, call)| call)
    }

    /// Everything that it knows of.
    pub(super) fn keys(&self) -> Vec<Key> {
        let writers = self.cache.writers.keys().filter_map(|name| Key::of("shop", name));
        let named =
            self.cache.pods.values().filter_map(|pod| Key::of("shop", pod.annotation(names::ANNOTATION_WRITER)?));
        let mut keys: Vec<Key> = writers.chain(named).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    pub(super) fn begin(&mut self, api: &mut Api, key: Key) {
        let view = self.view(api, &key);
        let mut run = Run::new(key.clone(), view);
        if let Step::Call(call) = run.step(None) {
            self.run = Some((key, run, call));
        }
    }

    pub(super) fn view(&self, api: &mut Api, key: &Key) -> View {
        let name = key.name();
        let named = |pod: &&PodFacts| pod.annotation(names::ANNOTATION_WRITER) == Some(name.as_str());
        let words = if mutant!(LastWordsFromCache) { &self.cache.newest } else { &self.cache.last_words };
        let label = |labels: &BTreeMap<String, String>| labels.get(names::LABEL_WRITER) == Some(&key.writer);
        View {
            now: api.now,
            timing: Timing::default(),
            storage: api.storage.clone(),
            namespace_ends: api.namespace_ends,
            has_ledger: self.cache.writers.contains_key(&name),
            // Ledgers have a watch of their own, which may be ahead of the others.
            ledger: if self.calls.is_multiple_of(2) { self.cache.writers.get(&name) } else { api.writers.get(&name) }
                .cloned()
                .map(Box::new),
            pods: self.cache.pods.values().filter(named).cloned().collect(),
            claims: self
                .cache
                .claims
                .values()
                .filter(|claim| label(&claim.labels))
                .map(|claim| (claim.name.clone(), claim.clone()))
                .collect(),
            last_words: words.values().filter(named).cloned().collect(),
            loser_delay: self.delays.delay("web"),
            others_hold_data: 0,
            fresh_uid: api.uid(),
            crowded: self.calls.is_multiple_of(3),
        }
    }

    /// Makes the next call of its run.
    pub(super) fn step(&mut self, api: &mut Api, fault: Fault) {
        let Some((key, mut run, call)) = self.run.take() else { return };
        self.calls += 1;
        if fault == Fault::CrashBefore {
            return self.crash(api);
        }
        let answer = match fault {
            Fault::NotDone => Answer::Failed(Failure::Unknown("no answer".to_owned())),
            _ => self.answer(api, &key, &call),
        };
        let answer = match fault {
            Fault::NoAnswer => Answer::Failed(Failure::Unknown("no answer".to_owned())),
            Fault::CrashAfter => return self.crash(api),
            _ => answer,
        };
        let step = run.step(Some(answer));
        for note in run.notes() {
            match note.reason {
                NoteReason::LostWriterRace => self.delays.lost("web"),
                NoteReason::Granted => self.delays.granted("web"),
                _ => {}
            }
            self.notes.push(note);
        }
        match step {
            Step::Call(call) => self.run = Some((key, run, call)),
            Step::Done(Outcome::Failed(why)) => assert_ne!(why, "an answer to another call"),
            Step::Done(_) => {}
        }
    }

    fn answer(&self, api: &mut Api, key: &Key, call: &Call) -> Answer {
        match call {
            Call::GetWriter if mutant!(CachedReads) => {
                Answer::Writer(self.cache.writers.get(&key.name()).cloned().map(Box::new))
            }
            Call::GetPod { name } if mutant!(CachedReads) => {
                Answer::Pod(self.cache.pods.get(name).cloned().map(Box::new))
            }
            call => api.call(key, call),
        }
    }
}

/// A webhook replica.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) cache: Cache,
    reservations: Reservations,
}

impl Default for Webhook {
    fn default() -> Self {
        Self { cache: Cache::default(), reservations: Reservations::new(30_000) }
    }
}

impl Webhook {
    /// What becomes of a pod at admission; nothing where it is refused.
    pub(super) fn admit(&mut self, api: &Api, mut pod: PodFacts, dry_run: bool, dice: &mut Dice) -> Option<PodFacts> {
        let storage = api.storage.as_ref().filter(|storage| !storage.deleting)?;
        let effective = storage.effective.as_ref().ok()?;
        let kept = kept(&pod).map(str::to_owned);
        pod.annotations.retain(|key, _| key == names::ANNOTATION_ALLOW_SURGE || !key.starts_with("walstorage.dev/"));
        let mut lookups = Lookups::of(&pod);
        while lookups.next().is_some() {
            // A Deployment with maxSurge 0: ReplicaSet, then Deployment.
            lookups.answer(Some(&json!({
                "metadata": {
                    "uid": pod.controller.as_ref().map(|owner| owner.uid.clone()),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}],
                },
                "spec": {"strategy": {"rollingUpdate": {"maxSurge": 0}}},
            })));
        }
        let above: &Above = lookups.above();
        let (writer, workload) = match classify(&pod, above) {
            Verdict::Named { writer, workload } => (writer, workload),
            Verdict::Pooled { workload } => {
                let writers: Vec<&WalWriter> = self.cache.writers.values().collect();
                let pods: Vec<&PodFacts> = self.cache.pods.values().collect();
                let pool = Pool {
                    namespace: "shop",
                    storage: "orders",
                    workload: &workload,
                    writers: &writers,
                    pods: &pods,
                    listed: false,
                    now: api.now,
                };
                let writer = kept.unwrap_or_else(|| choose(&pool, &self.reservations, &mut |n| dice.below(n)).writer);
                if !dry_run {
                    self.reservations.reserve(&pool, &writer);
                }
                (writer, workload)
            }
            Verdict::Drains { .. } | Verdict::Refused(_) => return None,
        };
        let group = if workload.group.is_empty() { "core" } else { &workload.group };
        let set = [
            (names::ANNOTATION_WRITER, names::wal_writer("orders", &writer)),
            (names::ANNOTATION_WORKLOAD, format!("{group}/{}/{}", workload.kind, workload.name)),
            (names::ANNOTATION_SEAL, pod.seal_for(&writer)?),
        ];
        pod.annotations.extend(set.map(|(key, value)| (key.to_owned(), value)));
        pod.labels.insert(names::LABEL_WRITER.to_owned(), writer.clone());
        pod.gates = vec![names::GATE.to_owned()];
        let urls = effective.urls.iter();
        pod.claims =
            urls.map(|url| (names::volume("orders", &url.name), names::claim("orders", &url.name, &writer))).collect();
        Some(pod)
    }
}

/// A pod as its controller makes it.
pub(super) fn template(api: &mut Api, name: &str, owner: Option<[&str; 3]>, generated: bool) -> PodFacts {
    use crate::identity::{ContainerFacts, ContainerState};
    let container =
        |name: &str, init| ContainerFacts { name: name.to_owned(), init, state: ContainerState::Unreported };
    let controller = owner.map(|[group, kind, name]| Owner {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
    });
    PodFacts {
        namespace: "shop".to_owned(),
        name: if generated { String::new() } else { name.to_owned() },
        generate_name: if generated { name.to_owned() } else { String::new() },
        uid: api.uid(),
        created: Some(api.now),
        labels: BTreeMap::from([(names::LABEL_STORAGE.to_owned(), "orders".to_owned())]),
        controller,
        containers: vec![container(names::CONTAINER, true), container("app", false)],
        ..PodFacts::default()
    }
}
