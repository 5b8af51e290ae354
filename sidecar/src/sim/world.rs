//! A machine, the clients of one writer on it, and starts of the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;
use walstorage_crds::config::OnDamage;
use walstorage_crds::url::WalUrl;

use super::count::Event;
use super::disk::{Faults, Machine};
use super::knowledge::Knowledge;
use super::life::{Directory, Life};
use super::oracle::{Found, Oracle, Sent};
use super::shape::Shape;
use super::trace::trace;
use crate::ambient::simulated::Simulated;
use crate::api::CompletionQueue;
use crate::commit::journal::Journal;
use crate::commit::log::Log;
use crate::commit::read::{Piece, decode};
use crate::directory::disk::SharedDisk;
use crate::engine::segment_read::{self, ReadError};
use crate::fencing::directory::Buckets;
use crate::recovery::open::Unusable;
use crate::recovery::{Context, Handle, Outcome, Progress, Ready, Waiting, attempt};
use crate::types::{CollectionName, Incarnation, Lsn};

/// A machine, the clients of one writer on it, and what they were promised.
pub(super) struct World {
    pub(super) random: SmallRng,
    pub(super) machine: Machine,
    pub(super) shape: Shape,
    pub(super) oracle: Oracle,
    pub(super) now: Instant,
    pub(super) steps: u64,
    pub(super) lives: u64,
    around: Simulated,
    /// Writes that had gone astray when this process began.
    misdirected: u64,
    /// Directories that an administrator gives up in this process.
    pub(super) given_up: BTreeSet<Uuid>,
    pub(super) lives_in: BTreeMap<Incarnation, LivesIn>,
    /// What directories knew when the last process ended.
    known: Knowledge,
    /// Entries may have gone to directories in which their collections did not live.
    pub(super) scattered: bool,
    tokens: u64,
    /// Where collections were when the last process stopped in order.
    pub(super) homes: BTreeMap<Incarnation, WalUrl>,
    pub(super) producers: Vec<Producer>,
}

/// A client that stamps what it sends, one request at a time, and repeats it until it is answered.
pub(super) struct Producer {
    pub(super) id: Bytes,
    pub(super) collection: CollectionName,
    pub(super) seq: u64,
    pub(super) unanswered: Option<Sent>,
    pub(super) under_way: bool,
}

/// In which directories a collection has lived, or had segments.
#[derive(Debug, Default)]
pub(super) struct LivesIn {
    pub(super) ever: BTreeSet<WalUrl>,
    pub(super) last: Option<WalUrl>,
    /// Other directories that know the last one.
    pub(super) told: BTreeSet<WalUrl>,
}

/// Why a start did not end in a log.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The power went.
    Off,
    Waiting(Box<Waiting>),
}

impl World {
    pub(super) fn new(seed: u64, shape: Shape) -> Self {
        let now = Instant::now();
        let mut random = SmallRng::seed_from_u64(seed);
        let around = Simulated::begin(random.random(), now);
        let machine = Machine::new(random.random());
        let producers = (0..shape.collections.min(3)).map(|n| Producer {
            id: Bytes::from(format!("p{n}")),
            collection: collection(n),
            seq: 1,
            unanswered: None,
            under_way: false,
        });
        let producers = producers.collect();
        Self {
            random,
            machine,
            shape,
            oracle: Oracle::default(),
            now,
            steps: 0,
            lives: 0,
            around,
            misdirected: 0,
            given_up: BTreeSet::new(),
            lives_in: BTreeMap::new(),
            known: Knowledge::default(),
            scattered: false,
            tokens: 0,
            homes: BTreeMap::new(),
            producers,
        }
    }

    /// Time passes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.around.set_time(self.now);
    }

    fn context(&self, machine: &Machine) -> Context {
        let machine = machine.clone();
        Context {
            config: self.shape.to_config(),
            require_mounts: false,
            grant: None,
            disks: Arc::new(move |root| machine.disk(root)),
            buckets: Arc::new(Buckets::none()),
            forget: self.given_up.clone(),
            memory_limit: self.shape.memory_limit,
        }
    }

    /// Recovers what is on the machine.
    pub(super) fn recover(&self, machine: &Machine) -> Result<Ready, Stopped> {
        outcome(attempt(&self.context(machine), &Progress::default()), machine)
    }

    /// What a start would find if the power went now. The machine itself goes on.
    pub(super) fn look_aside(&mut self) {
        self.learn_of_lies();
        let aside = self.machine.fork();
        self.machine.note(Event::ShadowCut);
        aside.cut();
        aside.heal();
        // Nothing is written there that would be read instead.
        let context = Context { memory_limit: u64::MAX, ..self.context(&aside) };
        let ready = match outcome(attempt(&context, &Progress::default()), &aside) {
            Ok(ready) => ready,
            // Damage that waits for somebody to accept it.
            Err(Stopped::Waiting(_)) if self.oracle.may_lose() => return,
            Err(stopped) => panic!("a start after a cut: {stopped:?}"),
        };
        let disks = disks_of(&ready.handles);
        let log = Log::new(ready.start);
        let mut oracle = self.oracle.clone();
        let found = all_found(&log, &disks, &aside, &oracle);
        oracle.check(&found, true);
    }

    /// The directories that a start would find now, whatever is broken: their roots, and whether they are in use. `None`
    /// where it would wait for others.
    pub(super) fn directories(&self) -> Option<Vec<(PathBuf, bool)>> {
        let aside = self.machine.fork();
        aside.heal();
        let mut context = Context { memory_limit: u64::MAX, ..self.context(&aside) };
        context.config.wal.on_damage = OnDamage::Gap;
        let ready = outcome(attempt(&context, &Progress::default()), &aside).ok()?;
        let of = |journal: &Journal| (journal.url.file_path().unwrap_or_default(), journal.in_use);
        Some(ready.start.journals.iter().map(of).collect())
    }

    /// Whether a directory that is in use alone is so without another one's knowledge: a directory that joins while every
    /// other one has failed is known to itself only, and nothing is left to wait for it.
    pub(super) fn only_one_knows(&self) -> bool {
        let waits = |root: &PathBuf, lose: fn(&Machine, &Path)| {
            let aside = self.machine.fork();
            aside.heal();
            lose(&aside, root);
            let attempt = attempt(&self.context(&aside), &Progress::default());
            // It may wait for another one, while this one is not known to anybody.
            let named = |it: &Unusable| it.root == *root && it.uuid.is_some();
            matches!(&attempt, Outcome::Waiting(waiting) if waiting.unusable.iter().any(named))
        };
        let dies: fn(&Machine, &Path) =
            |aside, root| aside.break_with(root, Faults { dead: true, ..Faults::default() });
        let known = |root: &PathBuf| waits(root, dies) && waits(root, Machine::wipe);
        !self.known.alone.iter().all(known)
    }

    /// An administrator gives up what lay at a root.
    pub(super) fn give_up(&mut self, uuid: Uuid, root: &Path) {
        self.machine.note(Event::GivenUp);
        self.given_up.insert(uuid);
        let is_there = |url: &WalUrl| url.file_path().as_deref() == Some(root);
        let spared = self.lives_in.iter().filter(|(_, lives)| !self.scattered && !lives.ever.iter().any(is_there));
        let known = |lives: &LivesIn| lives.told.iter().any(|url| self.known.in_use.contains(url));
        let unheard =
            self.lives_in.iter().filter(|(_, lives)| !known(lives) && lives.last.as_ref().is_some_and(is_there));
        let [spared, unheard] = [spared.map(|(of, _)| *of).collect(), unheard.map(|(of, _)| *of).collect()];
        let kept = self.known.flushed.iter().filter(|(_, url, ..)| !is_there(url)).cloned().collect();
        self.oracle.gave_up(&spared, unheard, kept);
    }

    /// Disks that said that they wrote what they wrote elsewhere: damage, wherever it is found.
    pub(super) fn learn_of_lies(&mut self) {
        if self.misdirected < self.machine.count(Event::Misdirected) {
            self.oracle.damaged();
            self.oracle.may_vanish = self.machine.is_unproven();
        }
    }

    /// A number that no other request has.
    pub(super) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// Starts a process and hands it to `live`; what it leaves undone stays undone.
    pub(super) fn life<T>(&mut self, live: impl FnOnce(&mut Life<'_>) -> T) -> Result<T, Stopped> {
        self.given_up.clear();
        let ready = self.recover(&self.machine)?;
        Ok(self.live(ready, live))
    }

    /// A process that serves, and whatever it does then; after it the power goes.
    pub(super) fn serve<T>(&mut self, live: impl FnOnce(&mut Life<'_>) -> T) -> T {
        let lived = self.life(|life| {
            life.open();
            live(life)
        });
        self.machine.cut();
        lived.unwrap_or_else(|stopped| panic!("{stopped:?}"))
    }

    /// A start says that there is damage, and waits; the next one may make gaps of it.
    pub(super) fn is_damaged(&mut self) {
        self.oracle.damaged();
        match self.life(|_| ()) {
            Err(Stopped::Waiting(waiting)) => assert!(waiting.reasons[0].contains("damage"), "{waiting:?}"),
            other => panic!("{other:?}"),
        }
        self.machine.kill();
        self.shape.gaps = true;
    }

    pub(super) fn live<T>(&mut self, ready: Ready, live: impl FnOnce(&mut Life<'_>) -> T) -> T {
        let Ready { start, handles, .. } = ready;
        trace(|| format!("a process begins: {:?} {:#?} {:#?}", self.shape, start.journals, start.collections));
        self.lives += 1;
        self.scattered |= self.shape.journal || !self.shape.affinity;
        self.misdirected = self.machine.count(Event::Misdirected);
        for producer in &mut self.producers {
            producer.under_way = false;
        }
        let (tick_at, disks) = (self.now, disks_of(&handles));
        let dirs = handles.iter().map(|handle| Directory::new(handle, &disks)).collect();
        let mut life = Life {
            world: self,
            log: Log::new(start),
            dirs,
            answers: CompletionQueue::new(),
            sent: BTreeMap::new(),
            waiting: Vec::new(),
            asked: Vec::new(),
            checked: false,
            tick_at,
            trace: None,
            disks,
        };
        let lived = live(&mut life);
        let known = life.knowledge();
        drop(life);
        self.known = known;
        self.learn_of_lies();
        lived
    }
}

fn outcome(outcome: Outcome, machine: &Machine) -> Result<Ready, Stopped> {
    if machine.is_off() {
        return Err(Stopped::Off);
    }
    match outcome {
        Outcome::Ready(ready) => Ok(*ready),
        Outcome::Waiting(waiting) => Err(Stopped::Waiting(Box::new(waiting))),
        Outcome::Ended(ended) => panic!("the start was refused: {ended:?}"),
    }
}

fn disks_of(handles: &[Handle]) -> Vec<SharedDisk> {
    handles.iter().map(|handle| handle.disk.0.clone()).collect()
}

/// The n-th collection of the clients.
pub(super) fn collection(n: u64) -> CollectionName {
    CollectionName::new(&format!("c{n}")).unwrap()
}

/// Every collection of a log, read as a client reads it.
pub(super) fn all_found(log: &Log, disks: &[SharedDisk], machine: &Machine, oracle: &Oracle) -> Vec<Found> {
    let names: Vec<CollectionName> = log.iter().map(|collection| collection.name.clone()).collect();
    names.iter().map(|name| found(log, disks, name, machine, oracle)).collect()
}

/// One collection of a log, read as a client reads it that goes on behind what cannot be read.
pub(super) fn found(
    log: &Log,
    disks: &[SharedDisk],
    name: &CollectionName,
    machine: &Machine,
    oracle: &Oracle,
) -> Found {
    let cursor = log.read_from(name, Lsn::ZERO).unwrap();
    let info = log.describe(name).unwrap();
    let (mut next, mut items, mut unreadable, mut index) = (cursor.next, Vec::new(), Vec::new(), None);
    while next <= cursor.head {
        // As a follower reads: whatever is durable.
        let mut part = log.read_part(name, cursor.incarnation, next, None, u64::MAX).unwrap();
        if let Some(wanted) = part.segment.take() {
            let disk = disks[wanted.segment.dir].as_ref();
            match segment_read::read(disk, &wanted, index.take(), u64::MAX) {
                Ok(found) => {
                    (part.pieces, part.next) = (vec![Piece::Records(found.records)], found.next);
                    index = Some(found.index);
                }
                Err(error) => {
                    let device = matches!(error, ReadError::Io(_)) || !disk.exists() || disk.space().is_err();
                    let root = disk.display(Path::new(""));
                    let harmed = wanted.path.names().iter().any(|path| machine.is_harmed(&root, path));
                    let removed = wanted.to.0 <= oracle.owed_above(name, cursor.incarnation);
                    assert!(device || harmed || removed, "{name}: LSN {next} cannot be read: {error}");
                    unreadable.push((next.0, wanted.to.0));
                    next = wanted.to.next();
                    continue;
                }
            }
        }
        if part.pieces.is_empty() {
            break;
        }
        next = part.next;
        items.extend(decode(part.pieces).unwrap());
    }
    let incarnation = cursor.incarnation;
    let (truncated_to, durable_head) = (info.truncated_to, info.durable_head);
    Found { name: name.clone(), incarnation, truncated_to, durable_head, items, unreadable }
}
