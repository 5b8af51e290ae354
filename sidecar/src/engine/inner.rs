//! The engine's shared state: the log behind one short lock, the threads that work for it, who waits for what.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;

use super::{Ended, Observer, Options, bounds};
use crate::api::DamageReport;
use crate::commit::collection::DirIx;
use crate::commit::flush_jobs::{FlushPart, FlushWork, Piece};
use crate::commit::frames::Work;
use crate::commit::log::{Log, Settings, Stage, Worker};
use crate::commit::outcome::{Committed, Failure};
use crate::commit::upkeep::Upkeep;
use crate::directory::disk::SharedDisk;
use crate::directory::trouble::Trouble;
use crate::error::{ApiError, Reason};
use crate::fencing::directory::Buckets;
use crate::format::StreamKey;
use crate::format::frame::FrameBuilder;
use crate::recovery::open::{DiskFactory, Unusable};
use crate::recovery::{Progress, Waiting};
use crate::types::Lsn;

/// Most segments that reads have open at a time.
pub(crate) const OPEN_SEGMENTS: usize = 32;

/// What recovery found beside the log.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) unusable: Vec<Unusable>,
    pub(super) damage: Vec<DamageReport>,
    pub(super) warnings: Vec<String>,
}

/// The state of a recovery that has not ended.
#[derive(Default)]
pub(super) struct Recovering {
    /// `None` while an attempt is under way for the first time.
    pub(super) waiting: Option<Waiting>,
    /// Directories to be given up by the next attempt.
    pub(super) forget: BTreeSet<Uuid>,
    /// Try again now.
    pub(super) poked: bool,
    /// Attempts that began with what is to be given up as it was then.
    pub(super) begun: u64,
    /// Attempts that ended.
    pub(super) attempts: u64,
}

/// Shared by handles and threads.
pub(super) struct Inner {
    pub(super) config: Mutex<Config>,
    pub(super) require_mounts: bool,
    pub(super) grant: Option<super::Grant>,
    pub(super) disks: DiskFactory,
    pub(super) buckets: Arc<Buckets>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) memory_warning: Mutex<Option<String>>,

    pub(super) recovering: Mutex<Recovering>,
    pub(super) recovery_wakes: Condvar,
    pub(super) progress: Progress,
    /// Counts attempts and changes of stage, for those who wait for either.
    pub(super) turns: watch::Sender<u64>,

    /// `None` until an attempt succeeded.
    log: Mutex<Option<Log>>,
    /// For each directory of the log one per worker, used with its lock.
    work: std::sync::OnceLock<Vec<[Condvar; Worker::COUNT]>>,
    pub(super) findings: Mutex<Findings>,
    /// The disk of each directory of the log, for reads.
    pub(super) read_disks: std::sync::OnceLock<Vec<SharedDisk>>,
    /// As many segments are open for reads at most.
    pub(super) open_segments: Arc<Semaphore>,
    /// Memory or journal space was freed.
    pub(super) freed: Notify,
    pub(super) stopping: AtomicBool,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

impl Inner {
    pub(super) fn new(options: Options, disks: DiskFactory, buckets: Buckets) -> Self {
        Self {
            config: Mutex::new(options.config),
            require_mounts: options.require_mounts,
            grant: options.grant,
            disks,
            buckets: Arc::new(buckets),
            observer: options.observer,
            memory_warning: Mutex::new(None),
            recovering: Mutex::default(),
            recovery_wakes: Condvar::new(),
            progress: Progress::default(),
            turns: watch::Sender::new(0),
            log: Mutex::new(None),
            work: std::sync::OnceLock::new(),
            findings: Mutex::default(),
            read_disks: std::sync::OnceLock::new(),
            open_segments: Arc::new(Semaphore::new(OPEN_SEGMENTS)),
            freed: Notify::new(),
            stopping: AtomicBool::new(false),
            ended: watch::Sender::new(None),
        }
    }

    /// The bound of memory as of now; its warning is kept for the status.
    pub(super) fn memory_limit(&self) -> u64 {
        let (limit, warning) = bounds::memory_limit(&self.config.lock(), bounds::cgroup_memory_limit());
        *self.memory_warning.lock() = warning;
        limit
    }

    /// The log is there: it is driven by the workers of each directory from now on.
    pub(super) fn install(&self, log: Log) {
        let _ = self.work.set(log.journals.iter().map(|_| Default::default()).collect());
        *self.log.lock() = Some(log);
    }

    /// Looks at the log, or says that it is not ready.
    pub(super) fn read_log<T>(&self, look: impl FnOnce(&Log) -> Result<T, ApiError>) -> Result<T, ApiError> {
        let waits = match self.log.lock().as_ref() {
            Some(log) if log.stage != Stage::Opening => return look(log),
            Some(log) => log.waits_for_shelves(),
            None => None,
        };
        // Without the lock.
        let error = self.not_ready();
        Err(match waits.filter(|_| error.reason == Reason::NotReady) {
            Some(why) => ApiError::new(Reason::NotReady, why),
            None => error,
        })
    }

    /// Looks at the log at any stage.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Log) -> T) -> Option<T> {
        self.log.lock().as_ref().map(look)
    }

    /// Changes the log; what that answers or wakes is seen to afterwards. Nothing happens before there is a log.
    pub(super) fn with_log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> Option<T> {
        let mut guard = self.log.lock();
        let log = guard.as_mut()?;
        let answer = change(log);
        self.settle(guard);
        Some(answer)
    }

    /// Changes the log on behalf of a caller.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Log) -> Result<T, ApiError>) -> Result<T, ApiError> {
        self.with_log(change).unwrap_or_else(|| Err(self.not_ready()))
    }

    /// Lets go of the lock, then delivers answers and wakes whoever has something to do.
    fn settle(&self, mut guard: MutexGuard<'_, Option<Log>>) {
        let Some(log) = guard.as_mut() else { return };
        let outbox = log.take_outbox();
        let freed = log.take_freed();
        let mut signals = [0_u64; Worker::COUNT];
        let mut all = false;
        for (dir, worker) in log.take_signals() {
            match 1_u64.checked_shl(dir as u32) {
                Some(bit) => signals[worker as usize] |= bit,
                None => all = true,
            }
        }
        drop(guard);
        outbox.deliver();
        if freed {
            self.freed.notify_waiters();
        }
        for (dir, workers) in self.work.get().into_iter().flatten().enumerate() {
            for (condvar, signals) in workers.iter().zip(signals) {
                if all || 1_u64.checked_shl(dir as u32).is_some_and(|bit| signals & bit != 0) {
                    condvar.notify_one();
                }
            }
        }
    }

    /// Waits until there is a frame of `dir` to write.
    pub(super) fn next_work(&self, dir: DirIx, builder: &mut FrameBuilder) -> Work {
        let asked = self.next(dir, Worker::Commit, |log| match log.poll(dir, Instant::now(), builder) {
            Work::Wait(until) => Err(until),
            work => Ok(work),
        });
        asked.unwrap_or(Work::End)
    }

    /// Waits until there is upkeep to do for `dir`.
    pub(super) fn next_upkeep(&self, dir: DirIx) -> Upkeep {
        let asked = self.next(dir, Worker::Upkeep, |log| match log.poll_upkeep(dir, Instant::now()) {
            Upkeep::Wait(until) => Err(until),
            work => Ok(work),
        });
        asked.unwrap_or(Upkeep::End)
    }

    /// Waits until there is something to flush to `dir`.
    pub(super) fn next_flush(&self, dir: DirIx) -> FlushWork {
        let asked = self.next(dir, Worker::Flush, |log| match log.poll_flush(dir, Instant::now()) {
            FlushWork::Wait(until) => Err(until),
            work => Ok(work),
        });
        asked.unwrap_or(FlushWork::End)
    }

    /// The next piece of what is being flushed.
    pub(super) fn flush_piece(&self, dir: DirIx, part: &FlushPart, from: Lsn) -> Piece {
        self.peek(|log| log.flush_piece(dir, part, from, Instant::now())).unwrap_or(Piece::Stop)
    }

    /// Asks the log until it has something for this worker; `Err` says when to ask again at the latest. `None` when
    /// there is no log any more.
    fn next<T>(
        &self,
        dir: DirIx,
        worker: Worker,
        mut ask: impl FnMut(&mut Log) -> Result<T, Option<Instant>>,
    ) -> Option<T> {
        let mut guard = self.log.lock();
        let workers = self.work.get()?;
        loop {
            let log = guard.as_mut()?;
            let answer = ask(log);
            // Asking may have made work for another worker.
            for (dir, worker) in log.take_signals() {
                workers[dir][worker as usize].notify_one();
            }
            let until = match answer {
                Ok(work) => return Some(work),
                Err(until) => until,
            };
            let condvar = &workers[dir][worker as usize];
            match until {
                Some(at) => drop(condvar.wait_until(&mut guard, at)),
                None => condvar.wait(&mut guard),
            }
        }
    }

    pub(super) fn committed(&self, dir: DirIx, key: StreamKey, done: Committed) {
        let tally = self.with_log(|log| log.committed(dir, key, done, Instant::now())).unwrap_or_default();
        if tally.opening {
            self.turn();
            self.wake_all();
        }
        if tally.entries > 0 {
            self.observer.committed(&self.url(dir), done.took, tally.entries, tally.acks);
        }
    }

    pub(super) fn failed(&self, dir: DirIx, key: StreamKey, failure: Failure) {
        tracing::error!(directory = %self.url(dir), ?failure, "a write failed");
        self.with_log(|log| log.failed(dir, key, failure, Instant::now()));
        self.turn();
        self.wake_all();
    }

    /// The directory's stream cannot be written, whatever its session is by now.
    pub(super) fn gave_up(&self, dir: DirIx, why: String) {
        if let Some(key) = self.peek(|log| log.journals[dir].stream.key) {
            self.failed(dir, key, Failure::Failed(why));
        }
    }

    /// The log itself is broken: it is dropped, and with it everybody who waits learns that the outcome is unknown.
    pub(super) fn collapse(&self) {
        let log = self.log.lock().take();
        drop(log);
        self.wake_all();
        self.freed.notify_waiters();
        self.recovery_wakes.notify_all();
    }

    /// Every worker looks again: the stage may have changed.
    pub(super) fn wake_all(&self) {
        // The lock orders this after whatever changed.
        let guard = self.log.lock();
        for condvar in self.work.get().into_iter().flatten().flatten() {
            condvar.notify_all();
        }
        drop(guard);
    }

    /// Something that others wait for may have happened.
    pub(super) fn turn(&self) {
        self.turns.send_modify(|turns| *turns += 1);
    }

    pub(super) fn url(&self, dir: DirIx) -> WalUrl {
        self.peek(|log| log.journals[dir].url.clone()).unwrap_or_else(|| self.config.lock().wal.wal_urls[0].clone())
    }

    /// What is wrong now with stores that are asked again and again.
    pub(super) fn troubles(&self) -> Vec<(WalUrl, Trouble)> {
        let config = self.config.lock();
        let urls = config.wal.wal_urls.iter().chain(&config.wal.journal_url);
        urls.filter_map(|url| Some((url.clone(), self.buckets.trouble(url)?))).collect()
    }

    /// Why a call cannot be served before recovery is done.
    pub(super) fn not_ready(&self) -> ApiError {
        if self.stopping.load(Ordering::Acquire) {
            return ApiError::new(Reason::ShuttingDown, "the sidecar is stopping");
        }
        let recovering = self.recovering.lock();
        let (done, total) = (self.progress.done.load(Ordering::Relaxed), self.progress.total.load(Ordering::Relaxed));
        let message = match &recovering.waiting {
            Some(waiting) if !waiting.reasons.is_empty() => format!("waiting: {}", waiting.reasons.join("; ")),
            _ => format!("recovering: {done} of {total} bytes of journals are read; try again"),
        };
        // What a store does not answer is asked again and again; who waits for that wants to know.
        let troubles = self.troubles().into_iter().map(|(_, trouble)| format!("; {trouble}")).collect::<String>();
        let message = message + &troubles;
        ApiError::new(Reason::NotReady, message).with("replayDoneBytes", done).with("replayTotalBytes", total)
    }

    /// Gives the log the settings as configured now.
    pub(super) fn apply_settings(&self) {
        let settings = self.settings();
        let config = self.config.lock().clone();
        self.with_log(|log| {
            log.reconfigure(
                settings,
                |journal| {
                    let configured = config.wal.url_options.get(&journal.url).map(|options| options.drain);
                    let drain = configured.unwrap_or(journal.draining);
                    (drain, bounds::journal_max(&config, journal.space.capacity))
                },
                Instant::now(),
            );
        });
    }

    /// The settings of the log as configured now.
    fn settings(&self) -> Settings {
        let memory_limit = self.memory_limit();
        Settings::of(&self.config.lock(), memory_limit)
    }
}
