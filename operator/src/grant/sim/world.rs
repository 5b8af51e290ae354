//! The world: who acts next, and what must hold when all are left in peace.

use std::collections::BTreeSet;

use walstorage_crds::names;
use walstorage_crds::walstorage::{UrlSpec, WalStorageSpec, WhenDeleted, WhenDrained, validate};

use super::Dice;
use super::api::Api;
use super::control::{Controller, Fault, Webhook, template};
use super::kubelet::Nodes;
use crate::grant::view::StorageView;
use crate::identity::{PodFacts, kept};

pub(super) struct World {
    pub(super) api: Api,
    pub(super) nodes: Nodes,
    pub(super) controllers: Vec<Controller>,
    pub(super) webhooks: Vec<Webhook>,
    /// Replicas of StatefulSet `db`.
    pub(super) stateful: usize,
    /// Replicas of Deployment `web`.
    pub(super) deployment: usize,
    /// Most replicas of either.
    pub(super) most: usize,
    /// What goes wrong with which call, counted over all controllers.
    pub(super) planned: Option<(usize, Fault)>,
    /// Calls so far.
    pub(super) calls: usize,
    /// No pod is refused after our webhook, and none is a dry run.
    pub(super) admits_all: bool,
    pub(super) dice: Dice,
}

/// A storage with these disks.
pub(super) fn storage(urls: &[&str]) -> StorageView {
    let urls = urls.iter().map(|name| UrlSpec {
        name: (*name).to_owned(),
        url: format!("file:///wal/{name}"),
        ..UrlSpec::default()
    });
    storage_of(WalStorageSpec { wal_urls: Some(urls.collect()), ..WalStorageSpec::default() })
}

/// A storage as it is accepted.
pub(super) fn storage_of(spec: WalStorageSpec) -> StorageView {
    StorageView {
        effective: Ok(validate("orders", &spec, &[]).unwrap()),
        config_rendered: true,
        deleting: false,
        when_drained: WhenDrained::Retain,
        when_deleted: WhenDeleted::Retain,
        drained_after: 3_600_000,
        immediate: BTreeSet::new(),
    }
}

impl World {
    pub(super) fn new(seed: u64, urls: &[&str]) -> Self {
        let mut api = Api::default();
        api.now = 1_800_000_000_000;
        api.storage = Some(storage(urls));
        Self {
            api,
            nodes: Nodes::default(),
            controllers: vec![Controller::default(), Controller::default()],
            webhooks: vec![Webhook::default(), Webhook::default()],
            stateful: 0,
            deployment: 0,
            most: 3,
            planned: None,
            calls: 0,
            admits_all: false,
            dice: Dice::new(seed),
        }
    }

    /// One act of anybody, with whatever can go wrong.
    pub(super) fn chaos(&mut self) {
        match self.dice.below(20) {
            0..8 => {
                let which = self.dice.below(self.controllers.len());
                let fault = match self.dice.below(40) {
                    0 => Fault::NotDone,
                    1 => Fault::NoAnswer,
                    2 => Fault::CrashBefore,
                    3 => Fault::CrashAfter,
                    _ => Fault::None,
                };
                self.control(which, fault);
            }
            8..11 => self.watch(),
            11..14 => {
                let pods: Vec<String> = self.api.pods.keys().cloned().collect();
                if let Some(pod) = self.dice.pick(&pods).cloned() {
                    self.nodes.tend(&mut self.api, &pod, &mut self.dice);
                }
            }
            14..17 => self.workloads_act(),
            17 => {
                let processes: Vec<String> = self.nodes.processes.keys().cloned().collect();
                if let Some(uid) = self.dice.pick(&processes).cloned() {
                    self.nodes.append(&mut self.api, &uid, &mut self.dice);
                }
                let zombies = self.nodes.zombies(&self.api);
                if let Some(uid) = self.dice.pick(&zombies).cloned().filter(|_| self.dice.one_in(4)) {
                    self.nodes.kill(&mut self.api, &uid);
                }
            }
            18 => self.api.now += [100, 1_000, 5_000, 40_000, 400_000][self.dice.below(5)],
            _ if self.dice.one_in(4) => self.user_acts(),
            _ => {}
        }
        self.api.check();
    }

    /// One call of a controller; an idle one begins with a writer that it knows.
    pub(super) fn control(&mut self, which: usize, fault: Fault) {
        let controller = &mut self.controllers[which];
        if controller.is_idle() {
            let keys = controller.keys();
            if let Some(key) = self.dice.pick(&keys) {
                controller.begin(&mut self.api, key.clone());
            }
        } else {
            controller.step(&mut self.api, fault);
        }
    }

    fn watch(&mut self) {
        let changes = [1, 3, 1_000_000][self.dice.below(3)];
        let which = self.dice.below(self.controllers.len() + self.webhooks.len());
        let relists = self.dice.one_in(20);
        let caches = self.controllers.iter_mut().map(|one| &mut one.cache);
        let mut caches: Vec<_> = caches.chain(self.webhooks.iter_mut().map(|one| &mut one.cache)).collect();
        if relists {
            caches[which].relist(&self.api);
        } else {
            caches[which].advance(&self.api, changes);
        }
    }

    /// The StatefulSet and the Deployment make one pod, or take one away.
    pub(super) fn workloads_act(&mut self) {
        if self.dice.one_in(2) { self.stateful_set_acts() } else { self.deployment_acts() }
    }

    pub(super) fn stateful_set_acts(&mut self) {
        let name = |index: usize| format!("db-{index}");
        let missing = (0..self.stateful).find(|index| !self.api.pods.contains_key(&name(*index)));
        let surplus = (self.stateful..self.most + 8).rev().find(|index| self.api.pods.contains_key(&name(*index)));
        let ended = (0..self.stateful).find(|index| self.api.pods.get(&name(*index)).is_some_and(PodFacts::has_ended));
        if let Some(index) = surplus.or(ended) {
            self.api.delete_pod(&name(index));
        } else if let Some(index) = missing {
            let pod = template(&mut self.api, &name(index), Some(["apps", "StatefulSet", "db"]), false);
            self.create(pod);
        }
    }

    fn deployment_acts(&mut self) {
        let of = |pod: &&PodFacts| pod.controller.as_ref().is_some_and(|owner| owner.name == "web-1");
        let pods: Vec<&PodFacts> = self.api.pods.values().filter(of).collect();
        let there = pods.iter().filter(|pod| !pod.is_ending()).count();
        let surplus = pods.iter().find(|pod| !pod.is_ending()).map(|pod| pod.name.clone());
        let ended = pods.iter().find(|pod| pod.has_ended() && pod.deletion.is_none()).map(|pod| pod.name.clone());
        if let Some(name) = ended {
            self.api.delete_pod(&name);
        } else if there > self.deployment {
            if let Some(name) = surplus {
                self.api.delete_pod(&name);
            }
        } else if there < self.deployment {
            let pod = template(&mut self.api, "web-1-", Some(["apps", "ReplicaSet", "web-1"]), true);
            self.create(pod);
        }
    }

    /// A POST of a pod: through one of the webhooks, perhaps twice, perhaps as a dry run, perhaps refused after it.
    fn create(&mut self, pod: PodFacts) {
        let uid = pod.uid.clone();
        let which = self.dice.below(self.webhooks.len());
        let dry_run = !self.admits_all && self.dice.one_in(10);
        let Some(mut admitted) = self.webhooks[which].admit(&self.api, pod, dry_run, &mut self.dice) else { return };
        if self.dice.one_in(5) {
            // Another webhook changed it, so that ours is asked once more.
            let writer = kept(&admitted).map(str::to_owned);
            let again = self.webhooks[which].admit(&self.api, admitted.clone(), dry_run, &mut self.dice);
            let Some(again) = again else { return };
            assert_eq!(kept(&again).map(str::to_owned), writer, "our own work is not kept");
            admitted = again;
        }
        // A quota rejects it, or it was a dry run: nothing is stored.
        if dry_run || !self.admits_all && self.dice.one_in(10) {
            return;
        }
        if !admitted.generate_name.is_empty() {
            admitted.name = format!("{}{}", admitted.generate_name, uid.trim_start_matches(['0', '-']));
        }
        self.api.put_pod(admitted);
    }

    /// Everybody acts in turn, until nothing changes any more.
    pub(super) fn settle(&mut self) {
        self.api.quota_is_full = false;
        let mut quiet = 0;
        for _ in 0..2_000 {
            let before = (self.api.log.len(), self.nodes.processes.len());
            for uid in self.nodes.zombies(&self.api) {
                self.nodes.kill(&mut self.api, &uid);
            }
            self.accept_losses();
            let lost = self
                .api
                .pods
                .values()
                .filter(|pod| pod.has_ended() && !pod.all_terminated() || pod.name.starts_with("copy-"));
            let lost: Vec<String> = lost.map(|pod| pod.name.clone()).collect();
            for name in lost {
                self.force_delete(&name);
            }
            self.round();
            quiet = if before == (self.api.log.len(), self.nodes.processes.len()) { quiet + 1 } else { 0 };
            if quiet > 30 {
                return self.check_rest();
            }
            // What waits for a time must come within it.
            self.api.now += quiet * 1_000;
        }
        panic!("I10: the world comes to no rest: {}", self.shown());
    }

    /// Everybody acts once, and five seconds pass. Who serves is left alone.
    pub(super) fn round(&mut self) {
        for webhook in &mut self.webhooks {
            webhook.cache.advance(&self.api, usize::MAX);
        }
        for _ in 0..3 {
            self.stateful_set_acts();
            self.deployment_acts();
        }
        self.all_controllers();
        let pods: Vec<PodFacts> = self.api.pods.values().cloned().collect();
        for pod in pods {
            let serving = self.nodes.processes.get(&pod.uid).is_some_and(|process| process.serving);
            if !serving || pod.deletion.is_some() || !pod.sidecar_started {
                self.nodes.tend(&mut self.api, &pod.name, &mut self.dice);
            }
        }
        self.api.check();
        self.api.now += 5_000;
    }

    /// So many rounds.
    pub(super) fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.round();
        }
    }

    /// Every controller brings every writer as far as it can.
    pub(super) fn all_controllers(&mut self) {
        for which in 0..self.controllers.len() {
            self.controllers[which].cache.advance(&self.api, usize::MAX);
            self.finish(which);
            for key in self.controllers[which].keys() {
                self.controllers[which].cache.advance(&self.api, usize::MAX);
                self.controllers[which].begin(&mut self.api, key);
                self.finish(which);
            }
        }
    }

    /// Makes the calls of a controller's run, with what is planned to go wrong.
    fn finish(&mut self, which: usize) {
        while !self.controllers[which].is_idle() {
            let fault = self.planned.filter(|(at, _)| *at == self.calls).map_or(Fault::None, |(_, fault)| fault);
            self.calls += 1;
            self.controllers[which].step(&mut self.api, fault);
            self.api.check();
        }
    }

    /// Controllers act in a world that somebody has broken: what they mend is checked later.
    pub(super) fn all_controllers_unchecked(&mut self) {
        for which in 0..self.controllers.len() {
            self.controllers[which].cache.advance(&self.api, usize::MAX);
            for key in self.controllers[which].keys() {
                self.controllers[which].begin(&mut self.api, key);
                while !self.controllers[which].is_idle() {
                    self.controllers[which].step(&mut self.api, Fault::None);
                }
            }
        }
    }

    /// Whoever should run does, and with all entries.
    fn check_rest(&self) {
        let serving = |name: &str| {
            let pods = self.api.pods.values().filter(|pod| pod.name.starts_with(name));
            pods.filter(|pod| {
                self.nodes.processes.get(&pod.uid).is_some_and(|process| process.serving) && pod.sidecar_started
            })
            .count()
        };
        let (db, web) = (serving("db-"), serving("web-"));
        assert_eq!((db, web), (self.stateful, self.deployment), "I10: pods that do not run: {}", self.shown());
    }

    /// Pods and writers, for a message.
    pub(super) fn shown(&self) -> String {
        let pods = self.api.pods.values().map(|pod| {
            let writer = pod.annotation(names::ANNOTATION_WRITER).unwrap_or_default();
            format!(
                "{} {writer} gated={} {:?} deletion={:?}",
                pod.name,
                pod.is_gated(),
                pod.phase,
                pod.deletion.is_some()
            )
        });
        let writers = self.api.writers.iter().map(|(name, writer)| {
            let status = writer.status.clone().unwrap_or_default();
            let conditions: Vec<String> = status
                .conditions
                .iter()
                .flatten()
                .map(|one| format!("{}={} {} {}", one.type_, one.status, one.reason, one.message))
                .collect();
            let volumes: Vec<String> = status
                .volumes
                .iter()
                .flatten()
                .map(|one| {
                    format!(
                        "{}={:?} initialized={:?} forget={:?}",
                        one.name, one.claim_uid, one.initialized, one.forget
                    )
                })
                .collect();
            let holder = status.holder.map(|holder| holder.pod_name);
            format!("{name} {:?} holder={holder:?} {conditions:?} {volumes:?}", status.phase)
        });
        let claims = self.api.claims.values().map(|claim| {
            let disk = self.api.truth.disks.get(&claim.uid);
            format!("{} {} deleting={} {disk:?}", claim.name, claim.uid, claim.deleting)
        });
        let nodes = format!("directories lost {} fenced {}", self.nodes.lost, self.nodes.fenced);
        pods.chain(writers).chain(claims).chain([nodes]).collect::<Vec<_>>().join("\n")
    }
}
