//! What scenarios begin with, and what they ask of their world.

use serde_json::json;
use walstorage_crds::walwriter::{Phase, WalWriterStatus};

use super::control::Fault;
use super::world::World;
use crate::grant::run::{Key, NoteReason, Run, Step};
use crate::grant::view::View;
use crate::identity::ContainerState;

impl World {
    /// A world with a StatefulSet of one, whose pod serves and has acknowledged so many entries.
    pub(super) fn serving(seed: u64, urls: &[&str], entries: usize) -> Self {
        let mut world = Self::new(seed, urls);
        world.begin(entries);
        world
    }

    /// The same in a world that is there.
    pub(super) fn begin(&mut self, entries: usize) {
        self.stateful = 1;
        self.rounds(8);
        self.append(entries);
    }

    pub(super) fn status(&self, writer: &str) -> WalWriterStatus {
        self.api.writers[&format!("orders.{writer}")].status.clone().unwrap_or_default()
    }

    pub(super) fn phase(&self, writer: &str) -> Option<Phase> {
        self.api.writers.get(&format!("orders.{writer}"))?.status.as_ref()?.phase
    }

    pub(super) fn writer_uid(&self, writer: &str) -> String {
        self.api.writers[&format!("orders.{writer}")].spec.writer_uid.clone()
    }

    /// Each serving process appends so many entries.
    pub(super) fn append(&mut self, entries: usize) {
        let uids: Vec<String> = self.nodes.processes.keys().cloned().collect();
        for uid in uids {
            for _ in 0..entries {
                self.nodes.append(&mut self.api, &uid, &mut self.dice);
            }
        }
    }

    pub(super) fn unapplied(&self) -> usize {
        self.api.truth.acknowledged.values().map(std::collections::BTreeMap::len).sum()
    }

    pub(super) fn notes(&self, reason: NoteReason) -> usize {
        self.controllers.iter().flat_map(|one| &one.notes).filter(|note| note.reason == reason).count()
    }

    /// The containers of a pod end well, its sidecar with the word that it leaves so many entries of a writer.
    pub(super) fn containers_end(&mut self, pod: &str, writer: &str, left: usize) {
        let message = json!({
            "v": 1, "writerUid": self.writer_uid(writer), "granted": self.status(writer).epoch, "exit": "clean",
            "unappliedEntries": left, "unappliedBytes": left * 10, "empty": ["a"],
        });
        self.api.edit_pod(pod, |pod| {
            for container in &mut pod.containers {
                let (reason, message) = ("Completed".to_owned(), message.to_string());
                container.state = ContainerState::Terminated { reason, message };
            }
        });
    }

    /// The names of the calls of one run, by a controller that has seen everything.
    pub(super) fn calls_of(&mut self, writer: &str) -> Vec<String> {
        let key = Key::of("shop", &format!("orders.{writer}")).unwrap();
        self.controllers[0].cache.advance(&self.api, usize::MAX);
        let view = self.controllers[0].view(&mut self.api, &key);
        self.calls_with(&key, view)
    }

    /// The same of one run with this view.
    pub(super) fn calls_with(&mut self, key: &Key, view: View) -> Vec<String> {
        let (mut run, mut calls, mut answer) = (Run::new(key.clone(), view), Vec::new(), None);
        while let Step::Call(call) = run.step(answer) {
            let name = format!("{call:?}");
            calls.push(name.split([' ', '(']).next().unwrap_or_default().to_owned());
            answer = Some(self.api.call(key, &call));
            self.api.check();
        }
        calls
    }
}

/// Runs a scenario as it is, and then with each of its calls failing in each way. It ends in a world at rest each time.
pub(super) fn whatever_fails(urls: &[&str], scenario: impl Fn(&mut World)) {
    whatever_fails_and_then(urls, scenario, |_| {});
}

/// The same; in that world at rest something holds.
pub(super) fn whatever_fails_and_then(urls: &[&str], scenario: impl Fn(&mut World), check: impl Fn(&World)) {
    let mut plain = World::new(1, urls);
    scenario(&mut plain);
    plain.settle();
    check(&plain);
    let calls = plain.calls;
    let mut tried = 0;
    for at in 0..calls.min(120) {
        for fault in [Fault::NotDone, Fault::NoAnswer, Fault::CrashBefore, Fault::CrashAfter] {
            let mut world = World::new(1, urls);
            world.planned = Some((at, fault));
            scenario(&mut world);
            world.settle();
            check(&world);
            tried += 1;
        }
    }
    println!("{calls} calls, {tried} failures");
}
