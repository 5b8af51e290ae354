//! One process: the log, the workers of each directory, clients. Nothing happens but by [`Life::step`] and its kin, which
//! whoever drives it calls in any order.
//!
//! A worker sleeps until it is signalled or its time comes, as its thread does: who forgets to wake it is found out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::clients::{Asked, Request, Waiter};
use super::count::Event;
use super::trace::trace;
use super::world::{World, collection};
use crate::api::CompletionQueue;
use crate::commit::flush_jobs::FlushWork;
use crate::commit::frames::{FrameJob, Work};
use crate::commit::log::{Log, Stage, Worker};
use crate::commit::upkeep::Upkeep;
use crate::directory::disk::SharedDisk;
use crate::directory::identity::JOURNAL;
use crate::engine::committer::Writer;
use crate::engine::flusher::SegmentWriter;
use crate::engine::upkeep::Keeper;
use crate::format::frame::FrameBuilder;
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::recovery::Handle;
use crate::types::Lsn;

/// A worker: what it was given and has not begun, and whether it sleeps.
struct Hand<J> {
    job: Option<J>,
    /// Nobody steps it before then, or before it is woken.
    asleep: Option<Option<Instant>>,
}

impl<J> Hand<J> {
    const fn new() -> Self {
        Self { job: None, asleep: None }
    }

    /// Whether it does something now.
    fn wakes(&mut self, now: Instant) -> bool {
        if self.asleep.is_some_and(|until| until.is_none_or(|until| now < until)) {
            return false;
        }
        self.asleep = None;
        true
    }
}

/// The workers of one directory.
pub(super) struct Directory<'a> {
    root: PathBuf,
    writer: Writer<'a>,
    keeper: Keeper<'a>,
    segments: SegmentWriter<'a>,
    builder: FrameBuilder,
    commit: Hand<FrameJob>,
    upkeep: Hand<Upkeep>,
    flush: Hand<FlushWork>,
    /// Nothing comes back from the device until then.
    stalled: Option<Instant>,
}

impl<'a> Directory<'a> {
    pub(super) fn new(handle: &'a Handle, disks: &[SharedDisk]) -> Self {
        Self {
            root: handle.disk.0.display(Path::new("")),
            writer: Writer::new(handle),
            keeper: Keeper::new(handle),
            segments: SegmentWriter::new(handle, disks.to_vec()),
            builder: FrameBuilder::new(),
            commit: Hand::new(),
            upkeep: Hand::new(),
            flush: Hand::new(),
            stalled: None,
        }
    }

    /// Whether the device gives no answer now. Who asked it waits.
    fn stalls(&mut self, now: Instant) -> bool {
        self.stalled = self.stalled.filter(|until| now < *until);
        self.stalled.is_some()
    }

    fn wake(&mut self, worker: Worker) {
        match worker {
            Worker::Commit => self.commit.asleep = None,
            Worker::Upkeep => self.upkeep.asleep = None,
            Worker::Flush => self.flush.asleep = None,
        }
    }

    /// When it will do something by itself.
    fn due(&self) -> Option<Instant> {
        let alarms =
            [self.commit.asleep, self.upkeep.asleep, self.flush.asleep].into_iter().filter_map(Option::flatten);
        alarms.min().max(self.stalled)
    }
}

/// A part of a file, from its start, that must be as it was written.
pub(super) struct Proven {
    pub(super) root: PathBuf,
    pub(super) name: PathBuf,
    pub(super) end: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Worked,
    Waits,
    Ended,
}

/// Between ticks of the watchdog.
const TICK: Duration = Duration::from_secs(1);

const WORKERS: [Worker; Worker::COUNT] = [Worker::Commit, Worker::Upkeep, Worker::Flush];

/// One process.
pub(super) struct Life<'a> {
    pub(super) world: &'a mut World,
    pub(super) log: Log,
    pub(super) dirs: Vec<Directory<'a>>,
    pub(super) answers: Arc<CompletionQueue>,
    pub(super) sent: BTreeMap<u64, Request>,
    pub(super) waiting: Vec<Waiter>,
    pub(super) asked: Vec<Asked>,
    pub(super) checked: bool,
    /// When the watchdog ticks next.
    pub(super) tick_at: Instant,
    /// What workers are given, when that is looked at.
    pub(super) trace: Option<Vec<String>>,
    /// To read segments from.
    pub(super) disks: Vec<SharedDisk>,
}

impl Life<'_> {
    pub(super) fn directories(&self) -> usize {
        self.dirs.len()
    }

    pub(super) fn root(&self, dir: usize) -> &Path {
        &self.dirs[dir].root
    }

    /// The durable head of the n-th collection; 0 where there is none.
    pub(super) fn head(&self, n: u64) -> Lsn {
        self.log.find(&collection(n)).map_or(Lsn::ZERO, |found| found.durable_head)
    }

    /// Where the entries of the n-th collection go, by index.
    pub(super) fn home(&self, n: u64) -> usize {
        self.log.find(&collection(n)).map_or(0, |found| found.home)
    }

    /// Directories that may be taken away for good.
    pub(super) fn evacuated(&self) -> Vec<PathBuf> {
        let all = self.log.journals.iter().zip(&self.dirs);
        all.filter(|(journal, _)| journal.is_evacuated()).map(|(_, dir)| dir.root.clone()).collect()
    }

    /// Whether the power is gone: nothing more happens in this life.
    pub(super) fn is_off(&self) -> bool {
        self.world.machine.is_off()
    }

    /// A worker does the next thing: asks for work, or carries out what it was given and reports it.
    pub(super) fn step(&mut self, dir: usize, worker: Worker) -> Step {
        if self.is_off() {
            return Step::Ended;
        }
        self.world.steps += 1;
        if self.world.now >= self.tick_at {
            self.tick_at = self.world.now + TICK;
            self.log.watch(self.world.now);
            self.hear();
        }
        let step = match worker {
            Worker::Commit => self.commit(dir),
            Worker::Upkeep => self.keep(dir),
            Worker::Flush => self.write_segments(dir),
        };
        if !self.is_off() {
            self.hear();
        }
        step
    }

    fn commit(&mut self, dir: usize) -> Step {
        let now = self.world.now;
        let here = &mut self.dirs[dir];
        if here.commit.job.is_some() && here.stalls(now) {
            return Step::Waits;
        }
        if let Some(job) = here.commit.job.take() {
            let opening = self.log.stage == Stage::Opening;
            let outcome = here.writer.write(&job, &mut here.builder);
            if self.world.machine.is_off() {
                return Step::Ended;
            }
            trace(|| {
                format!(
                    "{dir}: {} is {}",
                    job.key,
                    outcome.as_ref().map_or_else(|error| format!("{error:?}"), |_| "durable".to_owned())
                )
            });
            let failed = outcome.is_err();
            match outcome {
                Ok(done) => drop(self.log.committed(dir, job.key, done, now)),
                Err(failure) => self.log.failed(dir, job.key, failure, now),
            }
            if failed || opening {
                self.wake_all();
            }
            return Step::Worked;
        }
        if !here.commit.wakes(now) {
            return Step::Waits;
        }
        match self.log.poll(dir, now, &mut here.builder) {
            Work::Frame(job) => {
                let frame = self.log.journals[dir].in_flight.as_ref();
                self.trace.iter_mut().for_each(|trace| trace.push(format!("{dir}: {frame:?}")));
                trace(|| format!("{dir}: {frame:?}"));
                here.commit.job = Some(job);
            }
            Work::Wait(until) => {
                here.commit.asleep = Some(until);
                return Step::Waits;
            }
            Work::End => return Step::Ended,
        }
        Step::Worked
    }

    fn keep(&mut self, dir: usize) -> Step {
        let now = self.world.now;
        let here = &mut self.dirs[dir];
        if here.upkeep.job.is_some() && here.stalls(now) {
            return Step::Waits;
        }
        if let Some(job) = here.upkeep.job.take() {
            let done = here.keeper.carry_out(&job);
            if self.world.machine.is_off() {
                return Step::Ended;
            }
            trace(|| format!("{dir}: {done:?}"));
            done.report(&mut self.log, dir, now);
            return Step::Worked;
        }
        if !here.upkeep.wakes(now) {
            return Step::Waits;
        }
        match self.log.poll_upkeep(dir, now) {
            Upkeep::Wait(until) => {
                here.upkeep.asleep = Some(until);
                return Step::Waits;
            }
            Upkeep::End => return Step::Ended,
            job => {
                self.trace.iter_mut().for_each(|trace| trace.push(format!("{dir}: {job:?}")));
                trace(|| format!("{dir}: {job:?}"));
                here.upkeep.job = Some(job);
            }
        }
        Step::Worked
    }

    fn write_segments(&mut self, dir: usize) -> Step {
        let now = self.world.now;
        let here = &mut self.dirs[dir];
        if here.flush.job.is_some() && here.stalls(now) {
            return Step::Waits;
        }
        if let Some(job) = here.flush.job.take() {
            let log = &self.log;
            let done = here.segments.carry_out(&job, |part, from| log.flush_piece(dir, part, from, now));
            if self.world.machine.is_off() {
                return Step::Ended;
            }
            trace(|| format!("{dir}: {done:?}"));
            done.report(&mut self.log, dir, now);
            return Step::Worked;
        }
        if !here.flush.wakes(now) {
            return Step::Waits;
        }
        match self.log.poll_flush(dir, now) {
            FlushWork::Wait(until) => {
                here.flush.asleep = Some(until);
                return Step::Waits;
            }
            FlushWork::End => return Step::Ended,
            job => {
                self.trace.iter_mut().for_each(|trace| trace.push(format!("{dir}: {job:?}")));
                trace(|| format!("{dir}: {job:?}"));
                here.flush.job = Some(job);
            }
        }
        Step::Worked
    }

    /// The device of a directory does not answer for so long.
    pub(super) fn stall(&mut self, dir: usize, time: Duration) {
        self.dirs[dir].stalled = Some(self.world.now + time);
        self.world.machine.note(Event::Stall);
    }

    /// Every device answers again.
    pub(super) fn end_stalls(&mut self) {
        self.dirs.iter_mut().for_each(|dir| dir.stalled = None);
    }

    pub(super) fn wake(&mut self) {
        for (dir, worker) in self.log.take_signals() {
            self.dirs[dir].wake(worker);
        }
    }

    /// As the engine does when the stage may have changed.
    fn wake_all(&mut self) {
        self.dirs.iter_mut().for_each(|dir| WORKERS.into_iter().for_each(|worker| dir.wake(worker)));
    }

    /// Where a flipped bit must be noticed: parts of files that a later frame or stream says are there.
    pub(super) fn proven(&self) -> Vec<Proven> {
        let mut proven = Vec::new();
        for (journal, dir) in self.log.journals.iter().zip(&self.dirs) {
            let mut add = |name: String, end| {
                let name = Path::new(JOURNAL).join(name);
                // A file may have been made and never written.
                proven.extend((end > 0).then(|| Proven { root: dir.root.clone(), name, end }));
            };
            let key = journal.stream.key;
            // A stream that has written nothing yet does not say where the one before it ended.
            if journal.stream.durable_frame > 0 {
                for (name, bytes) in journal.old.iter().flat_map(|old| &old.files) {
                    add(name.clone(), *bytes);
                }
            }
            for slot in &journal.slots {
                let last = slot.file == journal.stream.file;
                // The last frame itself is proven by nothing but a later one.
                let end = if !last {
                    slot.bytes
                } else if journal.proven {
                    slot.bytes - PAGE as u64
                } else {
                    continue;
                };
                add(SlotName { key, file: slot.file }.to_string(), end);
            }
        }
        proven
    }

    /// A directory writes a checkpoint.
    pub(super) fn checkpoint(&mut self, dir: usize) {
        let journal = &mut self.log.journals[dir];
        (journal.since_checkpoint, journal.signalled) = (u64::MAX, true);
        self.wake();
        self.settle();
        assert!(self.log.journals[dir].since_checkpoint < u64::MAX, "it has written none");
    }

    /// Where the next frame of a directory goes: file and offset.
    pub(super) fn next_place(&self, dir: usize) -> (PathBuf, u64) {
        let stream = &self.log.journals[dir].stream;
        let name = SlotName { key: stream.key, file: stream.file };
        (Path::new(JOURNAL).join(name.to_string()), stream.offset)
    }

    /// The frames that were asked for are written, and the process ends before it can tell anybody.
    pub(super) fn write_unheard(&mut self) {
        for dir in 0..self.dirs.len() {
            let here = &mut self.dirs[dir];
            if let Work::Frame(job) = self.log.poll(dir, self.world.now, &mut here.builder) {
                here.writer.write(&job, &mut here.builder).unwrap();
            }
        }
    }

    /// Every worker steps until all wait.
    pub(super) fn settle(&mut self) {
        for round in 0..20_000 {
            if round == 19_990 {
                self.trace = Some(Vec::new());
            }
            if !self.round() {
                return;
            }
        }
        panic!("the log never comes to rest, but goes on with {:#?}", self.trace);
    }

    /// Every worker steps once; whether one did something.
    fn round(&mut self) -> bool {
        let mut worked = false;
        for dir in 0..self.dirs.len() {
            for worker in WORKERS {
                worked |= self.step(dir, worker) == Step::Worked;
            }
        }
        worked
    }

    /// These workers of a directory step until they wait, and no others.
    pub(super) fn run(&mut self, dir: usize, workers: &[Worker]) {
        for _ in 0..1000 {
            let steps: Vec<Step> = workers.iter().map(|worker| self.step(dir, *worker)).collect();
            if !steps.contains(&Step::Worked) {
                return;
            }
        }
        panic!("{workers:?} of {dir} never come to rest");
    }

    /// A worker of any directory steps.
    pub(super) fn step_any(&mut self) -> Step {
        let dir = self.world.random.random_range(0..self.dirs.len());
        let worker = match self.world.random.random_range(0..10) {
            0..7 => Worker::Commit,
            7..9 => Worker::Upkeep,
            _ => Worker::Flush,
        };
        self.step(dir, worker)
    }

    /// Time passes bit by bit, and everything that comes due is done.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        self.settle();
        while self.world.now < end && !self.is_off() {
            let due = self.dirs.iter().filter_map(Directory::due).chain([self.tick_at]).min();
            let least = self.world.now + Duration::from_millis(1);
            let next = due.unwrap_or(end).max(least).min(end);
            self.world.pass(next - self.world.now);
            self.settle();
        }
    }

    /// Runs until the log serves.
    pub(super) fn open(&mut self) {
        self.settle();
        assert!(self.is_off() || self.log.stage == Stage::Serving, "stage {:?}", self.log.stage);
    }

    /// Stops as a process does that was asked to: everything under way is answered.
    pub(super) fn stop(&mut self) {
        self.world.machine.note(Event::Stop);
        self.log.stop(self.world.now);
        self.wake_all();
        self.waiting.clear();
        for _ in 0..5_000 {
            let mut ended = true;
            for dir in 0..self.dirs.len() {
                for worker in WORKERS {
                    ended &= self.step(dir, worker) == Step::Ended;
                }
            }
            if self.is_off() {
                return;
            }
            if ended {
                let all_well = self.log.journals.iter().all(|journal| journal.is_healthy() && !journal.stream.over);
                if all_well && self.log.settings.affinity {
                    self.note_homes();
                }
                self.log.abandon("stopped");
                self.hear();
                assert!(!self.owes(), "a stop left somebody without an answer: {}", self.owed());
                return;
            }
            // Stalls pass, too.
            self.world.pass(Duration::from_millis(100));
        }
        panic!("the log does not end: {:#?}", self.log.journals);
    }

    /// The process ends in the middle of everything: what its workers were given is begun.
    pub(super) fn abandon(&mut self) {
        for (dir, here) in self.dirs.iter_mut().enumerate() {
            let World { machine, random, .. } = &mut *self.world;
            if random.random_bool(0.7) {
                machine.cut_at(Some(machine.effects() + random.random_range(1..8)));
            }
            if let Some(job) = here.commit.job.take() {
                let _ = here.writer.write(&job, &mut here.builder);
            }
            if let Some(job) = here.upkeep.job.take() {
                here.keeper.carry_out(&job);
            }
            if let Some(job) = here.flush.job.take() {
                let (log, now) = (&self.log, self.world.now);
                here.segments.carry_out(&job, |part, from| log.flush_piece(dir, part, from, now));
            }
        }
    }
}
