//! The workers of all directories: threads that may hang in the kernel, and that nobody waits for then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::inner::Inner;
use crate::commit::collection::DirIx;
use crate::commit::log::{Stage, Worker};
use crate::commit::watch::STALL;
use crate::recovery::Handle;

/// Between ticks of the watchdog.
const TICK: Duration = Duration::from_secs(1);

/// Who works.
#[derive(Default)]
pub(super) struct Crew {
    working: Mutex<Vec<(DirIx, Worker)>>,
    /// Somebody has ended.
    ended: Condvar,
}

/// Takes a worker off the list when it ends, however it does.
struct Shift {
    crew: Arc<Crew>,
    who: (DirIx, Worker),
}

impl Drop for Shift {
    fn drop(&mut self) {
        self.crew.working.lock().retain(|who| *who != self.who);
        self.crew.ended.notify_all();
    }
}

impl Crew {
    /// Starts one worker of a directory; where there is no thread for it the directory has failed.
    pub(super) fn start(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        dir: DirIx,
        handle: &Arc<Handle>,
        worker: Worker,
        name: &str,
        run: fn(&Arc<Inner>, DirIx, &Handle),
    ) {
        self.working.lock().push((dir, worker));
        let shift = Shift { crew: Arc::clone(self), who: (dir, worker) };
        let (inner_of_thread, handle) = (Arc::clone(inner), Arc::clone(handle));
        let thread = std::thread::Builder::new().name(format!("{name}-{dir}"));
        let spawned = thread.spawn(move || {
            let _shift = shift;
            // Let go of before the shift ends: whoever waits for that may lock the directory next.
            let handle = handle;
            run(&inner_of_thread, dir, &handle);
        });
        if let Err(error) = spawned {
            inner.gave_up(dir, format!("its {name} thread cannot start: {error}"));
        }
    }

    /// Ticks the watchdog until the log has come to its end and everybody who can has ended; whether there still is a
    /// log. With every directory failed the process lives on: it may hold the only copy.
    pub(super) fn watch(&self, inner: &Arc<Inner>) -> bool {
        let mut next = Instant::now() + TICK;
        let mut patience = STALL;
        loop {
            let stage = inner.peek(|log| log.stage.clone());
            let goes_on = matches!(stage, Some(Stage::Opening | Stage::Serving));
            let mut working = self.working.lock();
            if !goes_on && working.is_empty() {
                return stage.is_some();
            }
            self.ended.wait_until(&mut working, next);
            let left = working.clone();
            drop(working);
            // A write that was abandoned may never return.
            let lost = |(dir, worker): &(DirIx, Worker)| {
                *worker == Worker::Commit && inner.peek(|log| log.is_stalled(*dir)).unwrap_or(false)
            };
            if !goes_on && left.iter().all(lost) {
                return inner.peek(|_| ()).is_some();
            }
            if Instant::now() < next {
                continue;
            }
            next = Instant::now() + TICK;
            inner.with_log(|log| log.watch(Instant::now()));
            // A committer of which an answer is still expected has the watchdog's patience, not ours.
            let stopping = stage == Some(Stage::Stopping);
            let expected = |who: &(DirIx, Worker)| who.1 == Worker::Commit && !lost(who);
            if goes_on || (stopping && left.iter().any(expected)) {
                continue;
            }
            patience -= 1;
            if patience == 0 {
                tracing::warn!(?left, "these workers are in the kernel and are left there");
                return inner.peek(|_| ()).is_some();
            }
        }
    }
}
