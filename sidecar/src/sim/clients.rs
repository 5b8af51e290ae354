//! The clients of one process: what they ask, what they hear, what they tell the oracle.

use std::time::Duration;

use tokio::sync::oneshot;
use walstorage_crds::url::WalUrl;

use super::life::Life;
use super::oracle::{Found, Sent};
use super::trace::trace;
use super::world::{all_found, collection, found};
use crate::api::{Ack, Append, Appended, ProducerStamp};
use crate::commit::append::{Admission, Caller};
use crate::commit::journal::Journal;
use crate::commit::log::Stage;
use crate::error::{ApiError, Reason};
use crate::types::{CollectionName, Incarnation, Lsn};

/// A caller waits this long for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits for an answer to an append.
pub(super) struct Request {
    collection: CollectionName,
    incarnation: Incarnation,
    sent: Sent,
    producer: Option<usize>,
}

/// A request that found no room.
pub(super) struct Waiter {
    collection: CollectionName,
    sent: Sent,
    ack: Ack,
    producer: Option<usize>,
    until: std::time::Instant,
}

/// A change that was asked for.
pub(super) enum Asked {
    Truncate(CollectionName, Incarnation, oneshot::Receiver<Result<Lsn, ApiError>>),
    Delete(CollectionName, Incarnation, oneshot::Receiver<Result<Incarnation, ApiError>>),
    Flush(oneshot::Receiver<Result<Lsn, ApiError>>),
}

impl Asked {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Truncate(name, ..) => format!("truncate {name}"),
            Self::Delete(name, ..) => format!("delete {name}"),
            Self::Flush(_) => "flush".to_owned(),
        }
    }
}

impl Life<'_> {
    /// Hands in a request; `Ok(None)`: it waits for room.
    fn submit(
        &mut self,
        collection: &CollectionName,
        sent: &Sent,
        ack: Ack,
        producer: Option<usize>,
    ) -> Result<Option<u64>, ApiError> {
        let stamp = producer.map(|index| {
            let producer = &self.world.producers[index];
            ProducerStamp { id: producer.id.clone(), seq: producer.seq }
        });
        let request = Append { collection: collection.clone(), entries: sent.to_entries(), ack, producer: stamp };
        // Repeated requests have one payload and several tokens.
        let token = self.world.token();
        let caller = Caller { answers: &self.answers, token, now: self.world.now, wall_micros: 1 };
        if self.log.append(&request, &caller)? != Admission::Accepted {
            return Ok(None);
        }
        let incarnation = self.log.find(collection).unwrap().incarnation;
        let request = Request { collection: collection.clone(), incarnation, sent: sent.clone(), producer };
        self.sent.insert(token, request);
        Ok(Some(token))
    }

    /// Hands in a request, or lets it wait for room.
    fn request(&mut self, collection: &CollectionName, sent: &Sent, ack: Ack, producer: Option<usize>) -> bool {
        let answer = self.submit(collection, sent, ack, producer);
        if matches!(answer, Ok(None)) {
            let until = self.world.now + PATIENCE;
            let (collection, sent) = (collection.clone(), sent.clone());
            self.waiting.push(Waiter { collection, sent, ack, producer, until });
        }
        self.hear();
        answer.is_ok()
    }

    /// Appends `entries` of `size` bytes; the answer comes by itself.
    pub(super) fn append(&mut self, collection: &CollectionName, entries: usize, size: usize, ack: Ack) -> bool {
        let sent = Sent { token: self.world.token(), entries, size };
        self.request(collection, &sent, ack, None)
    }

    /// Appends to the n-th collection, and works until nothing is left to do.
    pub(super) fn append_and_settle(&mut self, n: u64, entries: usize, size: usize) {
        self.append(&collection(n), entries, size, Ack::Durable);
        self.settle();
    }

    /// A request of one entry with a stamp of its own, or the same one again.
    pub(super) fn stamp(&mut self, collection: &CollectionName, id: &str, seq: u64, again: Option<Sent>) -> Sent {
        let sent = again.unwrap_or(Sent { token: self.world.token(), entries: 1, size: 100 });
        let producer = Some(ProducerStamp { id: id.as_bytes().to_vec().into(), seq });
        let request =
            Append { collection: collection.clone(), entries: sent.to_entries(), ack: Ack::Durable, producer };
        let token = self.world.token();
        let caller = Caller { answers: &self.answers, token, now: self.world.now, wall_micros: 1 };
        assert_eq!(self.log.append(&request, &caller).unwrap(), Admission::Accepted);
        let incarnation = self.log.find(collection).unwrap().incarnation;
        self.sent
            .insert(token, Request { collection: collection.clone(), incarnation, sent: sent.clone(), producer: None });
        self.hear();
        sent
    }

    /// A producer sends its next request, or the last one again.
    pub(super) fn produce(&mut self, index: usize, entries: usize, size: usize) {
        let token = self.world.token();
        let producer = &mut self.world.producers[index];
        if producer.under_way {
            return;
        }
        let sent = producer.unanswered.get_or_insert(Sent { token, entries, size }).clone();
        producer.under_way = true;
        let collection = producer.collection.clone();
        if !self.request(&collection, &sent, Ack::Durable, Some(index)) {
            self.world.producers[index].under_way = false;
        }
    }

    pub(super) fn truncate(&mut self, name: &CollectionName, to: Lsn) -> bool {
        let Ok(incarnation) = self.log.find(name).map(|found| found.incarnation) else { return false };
        let (waiter, answer) = oneshot::channel();
        let taken = self.log.truncate(name, to, waiter, self.world.now).is_ok();
        if taken {
            self.world.oracle.truncate_asked(name, incarnation, to);
            self.asked.push(Asked::Truncate(name.clone(), incarnation, answer));
        }
        self.hear();
        taken
    }

    pub(super) fn delete(&mut self, name: &CollectionName) {
        let Ok(incarnation) = self.log.find(name).map(|found| found.incarnation) else { return };
        let (waiter, answer) = oneshot::channel();
        if self.log.delete(name, waiter, self.world.now).is_ok() {
            self.world.oracle.delete_asked(name, incarnation);
            self.asked.push(Asked::Delete(name.clone(), incarnation, answer));
        }
        self.hear();
    }

    pub(super) fn flush(&mut self, name: &CollectionName) {
        let (waiter, answer) = oneshot::channel();
        if self.log.flush(name, waiter, self.world.now).is_ok() {
            self.asked.push(Asked::Flush(answer));
        }
        self.hear();
    }

    /// Reads everything and holds it to what was promised.
    pub(super) fn check(&mut self) {
        self.world.learn_of_lies();
        let found = all_found(&self.log, &self.disks, &self.world.machine, &self.world.oracle);
        if self.has_decided() {
            self.world.oracle.check(&found, false);
        } else {
            self.world.oracle.clone().check(&found, true);
        }
        let memory: usize = self.log.iter().map(|collection| collection.memory()).sum();
        // What is deleted may still be on its way out.
        assert!(self.log.memory() >= memory as u64, "{} bytes are counted, {memory} are held", self.log.memory());
    }

    /// Whether what the start decided is durable: while no directory takes it, a later start may decide otherwise, as where
    /// a directory that was given up is there again. That one is given up stands in EPOCH, whatever else was decided.
    pub(super) fn has_decided(&self) -> bool {
        self.log.opening_record_count == 0 && self.log.journals.iter().any(|journal| journal.stated > 0)
    }

    /// The n-th collection as a client reads it.
    pub(super) fn found(&self, n: u64) -> Found {
        found(&self.log, &self.disks, &collection(n), &self.world.machine, &self.world.oracle)
    }

    /// Where each collection goes.
    fn homes(&self) -> impl Iterator<Item = (Incarnation, WalUrl)> {
        // One that is moving has not said so yet.
        let settled = self.log.iter().filter(|collection| !collection.moved);
        settled.map(|collection| (collection.incarnation, self.log.journals[collection.home].url.clone()))
    }

    fn note_where_collections_live(&mut self) {
        for collection in self.log.iter() {
            let home = &self.log.journals[collection.home];
            let lives = self.world.lives_in.entry(collection.incarnation).or_default();
            lives.ever.insert(home.url.clone());
            // A flush goes elsewhere while its path at home fails.
            lives.ever.extend(collection.segments.iter().map(|segment| self.log.journals[segment.dir].url.clone()));
            if collection.moved {
                // Until that is said it lives where it lived, and what it has is there.
                continue;
            }
            if lives.last.as_ref() != Some(&home.url) {
                lives.last = Some(home.url.clone());
                lives.told.clear();
            }
            // Others are told in their next frames; one that comes back, by the checkpoint with which its session begins.
            let others = self.log.journals.iter().filter(|other| other.id != home.id && other.is_healthy());
            // What says it may be on its way in the journal for all.
            let said = home.in_flight.is_none() && collection.in_flight.is_none();
            let is_told = |other: &Journal| {
                other.in_flight.is_none() && other.facts.is_empty() && other.since_checkpoint < u64::MAX
            };
            if said {
                lives.told.extend(others.filter(|other| is_told(other)).map(|other| other.url.clone()));
            }
        }
    }

    /// The process stops in order: what it knows now is what the next one finds.
    pub(super) fn note_homes(&mut self) {
        self.world.homes = self.homes().collect();
    }

    /// Whether somebody still waits for an answer.
    pub(super) fn owes(&self) -> bool {
        !self.sent.is_empty() || !self.waiting.is_empty() || !self.asked.is_empty()
    }

    /// Who waits, for messages.
    pub(super) fn owed(&self) -> String {
        let asked: Vec<String> = self.asked.iter().map(Asked::shown).collect();
        format!("{} appends, {} that wait for room, {}", self.sent.len(), self.waiting.len(), asked.join(", "))
    }

    /// Delivers answers, and lets those who wait for room try again.
    pub(super) fn hear(&mut self) {
        self.log.take_outbox().deliver();
        self.wake();
        self.note_where_collections_live();
        if !self.checked && self.log.stage == Stage::Serving && self.has_decided() {
            self.checked = true;
            self.world.learn_of_lies();
            let facts_are_lost = self.world.oracle.may_lose();
            let found = all_found(&self.log, &self.disks, &self.world.machine, &self.world.oracle);
            self.world.oracle.check(&found, true);
            let homes = std::mem::take(&mut self.world.homes);
            for (incarnation, home) in homes.into_iter().filter(|_| !facts_are_lost) {
                let now = self.homes().find(|(found, _)| *found == incarnation);
                assert!(now.is_none_or(|(_, now)| now == home), "a restart moved {incarnation:?} away from {home}");
            }
        }
        for completion in self.answers.take() {
            let request = self.sent.remove(&completion.token).expect("answered once");
            self.answered(request, completion.result);
        }
        let oracle = &mut self.world.oracle;
        self.asked.retain_mut(|asked| match asked {
            Asked::Truncate(name, incarnation, answer) => match answer.try_recv() {
                Ok(Ok(to)) => {
                    trace(|| format!("{name}: truncated to {to}"));
                    oracle.truncated(name, *incarnation, to);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                _ => false,
            },
            Asked::Flush(answer) => matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
            Asked::Delete(name, incarnation, answer) => match answer.try_recv() {
                Ok(Ok(_)) => {
                    oracle.deleted(name, *incarnation);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                _ => false,
            },
        });
        let freed = self.log.take_freed();
        let now = self.world.now;
        for waiter in std::mem::take(&mut self.waiting) {
            let Waiter { collection, sent, ack, producer, until } = &waiter;
            let again = freed || now >= *until;
            match again.then(|| self.submit(collection, sent, *ack, *producer)) {
                None => self.waiting.push(waiter),
                Some(Ok(None)) if now < *until => self.waiting.push(waiter),
                Some(Ok(Some(_))) => {}
                // Refused: nothing was written.
                Some(Ok(None) | Err(_)) => {
                    if let Some(index) = waiter.producer {
                        self.world.producers[index].under_way = false;
                    }
                }
            }
        }
    }

    fn answered(&mut self, request: Request, result: Result<Appended, ApiError>) {
        let Request { collection, incarnation, sent, producer } = request;
        trace(|| format!("{collection}: {result:?}"));
        if let Ok(answer) = &result {
            self.world.oracle.acked(&collection, incarnation, &sent, answer);
        }
        if let Err(error) = &result {
            assert_eq!(error.reason, Reason::UnknownOutcome, "{error}");
        }
        if let Some(producer) = producer.map(|index| &mut self.world.producers[index]) {
            producer.under_way = false;
            if result.is_ok() {
                producer.seq += 1;
                producer.unanswered = None;
            }
        }
    }
}
