//! Nodes: pods get one, sidecars start, append, crash, and end with or without a word.

use std::collections::BTreeMap;

use walstorage_crds::names;

use super::Dice;
use super::api::Api;
use crate::grant::annotation::Grant;
use crate::identity::{ContainerState, PodFacts, PodPhase};

/// A sidecar's process and its application; lives until it is killed, whatever becomes of the pod.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) writer_uid: String,
    epoch: i64,
    /// Claims that it has open.
    open: Vec<(String, String)>,
    pub(super) serving: bool,
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// By uid of the pod.
    pub(super) processes: BTreeMap<String, Process>,
    /// Directories that came up empty and were not to be made.
    pub(super) lost: usize,
    /// Starts that storage refused.
    pub(super) fenced: usize,
    /// Starts that read back entries.
    pub(super) replayed: usize,
}

impl Nodes {
    /// Brings one pod a step further.
    pub(super) fn tend(&mut self, api: &mut Api, name: &str, dice: &mut Dice) {
        let Some(pod) = api.pods.get(name).cloned() else { return };
        let node_is_lost = pod.has_ended() && pod.deletion.is_none();
        if pod.is_gated() || node_is_lost {
            return;
        }
        if pod.has_ended() {
            if !self.processes.contains_key(&pod.uid) {
                api.remove_pod(name);
                api.finish_claims();
            }
        } else if pod.node_name.is_empty() {
            // The scheduler waits for claims that are not there.
            if pod.claims.iter().all(|(_, claim)| api.claims.contains_key(claim)) {
                for (_, claim) in &pod.claims {
                    api.bind_claim(claim);
                }
                api.edit_pod(name, |pod| pod.node_name = "node1".to_owned());
            }
        } else if pod.deletion.is_some() {
            self.end(api, &pod, dice);
        } else if !self.processes.get(&pod.uid).is_some_and(|process| process.serving) {
            self.start(api, &pod);
        } else if !pod.sidecar_started {
            // It runs for a while before the API server is told.
            if dice.one_in(3) {
                self.append(api, &pod.uid, dice);
            } else {
                report_running(api, name);
            }
        } else {
            self.serve(api, &pod, dice);
        }
    }

    /// The container starts, or tries again to open its directories.
    fn start(&mut self, api: &mut Api, pod: &PodFacts) {
        let Some(grant) = pod.annotation(names::ANNOTATION_GRANT).and_then(Grant::parse) else {
            panic!("I2: pod {} runs without a grant", pod.name);
        };
        // What is mounted is what has the claim's name now.
        let mounted = grant.urls.iter().map(|url| {
            let volume = names::volume("orders", &url.name);
            let (_, claim) = pod.claims.iter().find(|(name, _)| *name == volume)?;
            Some((url.name.clone(), api.claims.get(claim)?.uid.clone()))
        });
        let Some(claims) = mounted.collect::<Option<Vec<(String, String)>>>() else { return };
        // A lock, an attachment or the access mode keeps a second process away.
        let locked = |api: &Api| {
            claims.iter().any(|(_, claim)| {
                let disk = api.truth.disks.get(claim);
                disk.and_then(|disk| disk.locked_by.as_ref()).is_some_and(|holder| *holder != pod.uid)
            })
        };
        if locked(api) {
            return;
        }
        let mine = (grant.epoch, pod.uid.clone());
        for (_, claim) in &claims {
            let newest = api.truth.disks.get(claim).and_then(|disk| disk.newest.as_ref());
            if newest.is_some_and(|newest| newest.0 > mine.0 || newest.0 == mine.0 && newest.1 != mine.1) {
                self.fenced += 1;
                return;
            }
        }
        let waits = |api: &Api, name: &String, claim: &String| {
            let made = api.truth.disks.get(claim).is_some_and(|disk| disk.writer_uid.is_some());
            !made && !grant.init.contains(name)
        };
        if claims.iter().any(|(name, claim)| waits(api, name, claim)) {
            self.lost += 1;
            return;
        }
        for (name, claim) in &claims {
            let disk = api.truth.disks.entry(claim.clone()).or_default();
            if let Some(of) = &disk.writer_uid {
                assert_eq!(*of, grant.writer_uid, "pod {} opens the directory of another writer", pod.name);
            } else {
                assert!(grant.init.contains(name), "I7: a directory is made without leave");
                disk.writer_uid = Some(grant.writer_uid.clone());
            }
            disk.newest = Some(mine.clone());
            disk.locked_by = Some(pod.uid.clone());
        }
        // Everything that was acknowledged and not applied is read back.
        let open: Vec<&String> = claims.iter().map(|(_, claim)| claim).collect();
        for (entry, claim) in api.truth.acknowledged.get(&grant.writer_uid).into_iter().flatten() {
            let read = open.contains(&claim) && api.truth.disks[claim].entries.contains(entry);
            assert!(read, "lost: pod {} serves without acknowledged entry {entry} on claim {claim}", pod.name);
        }
        self.replayed += usize::from(api.truth.unapplied(&grant.writer_uid) > 0);
        let process = Process { writer_uid: grant.writer_uid.clone(), epoch: grant.epoch, open: claims, serving: true };
        self.processes.insert(pod.uid.clone(), process);
    }

    /// Its application appends, applies, or its containers crash and start again.
    fn serve(&mut self, api: &mut Api, pod: &PodFacts, dice: &mut Dice) {
        let process = self.processes[&pod.uid].clone();
        match dice.below(8) {
            0 => api.truth.truncate(&process.writer_uid),
            1 if dice.one_in(2) => {
                // Both containers end, and say so, and are started again.
                let message = self.message(api, &process);
                api.edit_pod(&pod.name, |pod| {
                    pod.sidecar_started = false;
                    set_states(pod, &ended("Completed", &message));
                });
                if let Some(process) = self.processes.get_mut(&pod.uid) {
                    process.serving = false;
                }
            }
            2 if dice.one_in(8) => {
                // The node is lost: its pods are called Failed, their processes live on.
                api.edit_pod(&pod.name, |pod| {
                    pod.phase = PodPhase::Failed;
                    set_states(pod, &ended("ContainerStatusUnknown", ""));
                });
            }
            _ => self.append(api, &pod.uid, dice),
        }
    }

    /// Whatever process is there appends, a pod's or one whose pod is gone.
    pub(super) fn append(&mut self, api: &mut Api, uid: &str, dice: &mut Dice) {
        let Some(process) = self.processes.get(uid).filter(|process| process.serving) else { return };
        // A claim that was deleted under it took its disk along.
        let there = process.open.iter().filter(|(_, claim)| api.truth.disks.contains_key(claim));
        let open: Vec<String> = there.map(|(_, claim)| claim.clone()).collect();
        if let Some(claim) = dice.pick(&open) {
            api.truth.acknowledge(&process.writer_uid, claim);
        }
    }

    /// The pod is killed: its phase becomes a last one, with or without a word of the sidecar; then it goes.
    fn end(&mut self, api: &mut Api, pod: &PodFacts, dice: &mut Dice) {
        let process = self.processes.get(&pod.uid).filter(|process| process.serving).cloned();
        let state = match process {
            Some(process) if !dice.one_in(3) => ended("Completed", &self.message(api, &process)),
            Some(_) => ended("Error", ""),
            // Of containers that never ran the kubelet guesses, or it stays with what it said before.
            None if dice.one_in(2) => ended("ContainerStatusUnknown", ""),
            None => pod.containers[0].state.clone(),
        };
        self.kill(api, &pod.uid);
        api.edit_pod(&pod.name, |pod| {
            pod.sidecar_started = false;
            pod.phase = PodPhase::Succeeded;
            set_states(pod, &state);
        });
    }

    pub(super) fn kill(&mut self, api: &mut Api, uid: &str) {
        self.processes.remove(uid);
        for disk in api.truth.disks.values_mut().filter(|disk| disk.locked_by.as_deref() == Some(uid)) {
            disk.locked_by = None;
        }
    }

    /// Processes whose pod is gone.
    pub(super) fn zombies(&self, api: &Api) -> Vec<String> {
        let known = |uid: &&String| api.pods.values().any(|pod| pod.uid == **uid);
        self.processes.keys().filter(|uid| !known(uid)).cloned().collect()
    }

    fn message(&self, api: &Api, process: &Process) -> String {
        let left = api.truth.unapplied(&process.writer_uid);
        let empty: Vec<&String> =
            process.open.iter().filter(|(_, claim)| api.truth.on(claim) == 0).map(|(name, _)| name).collect();
        serde_json::json!({
            "v": 1, "writerUid": process.writer_uid, "granted": process.epoch, "exit": "clean",
            "unappliedEntries": left, "unappliedBytes": left * 10, "empty": empty,
        })
        .to_string()
    }
}

fn report_running(api: &mut Api, name: &str) {
    api.edit_pod(name, |pod| {
        pod.phase = PodPhase::Running;
        pod.sidecar_started = true;
        set_states(pod, &ContainerState::Running);
    });
}

fn ended(reason: &str, message: &str) -> ContainerState {
    ContainerState::Terminated { reason: reason.to_owned(), message: message.to_owned() }
}

fn set_states(pod: &mut PodFacts, state: &ContainerState) {
    for container in &mut pod.containers {
        container.state = match state {
            ContainerState::Terminated { reason, .. } if !container.init => ended(reason, ""),
            state => state.clone(),
        };
    }
}
