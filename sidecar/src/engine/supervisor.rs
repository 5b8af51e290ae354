//! The thread that recovers, then starts the workers of each directory and sees them end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use walstorage_crds::url::WalUrl;

use super::crew::Crew;
use super::inner::{Findings, Inner};
use super::{Ended, committer, flusher, upkeep};
use crate::commit::log::{Log, Stage, Worker};
use crate::recovery::{self, Context, Handle, Outcome, Ready};

/// Between looks at what recovery waits for.
const LOOK: Duration = Duration::from_secs(1);
/// Between whole attempts when nothing was seen to change.
const RETRY: Duration = Duration::from_secs(30);

/// Runs the engine to its end.
pub(super) fn run(inner: &Arc<Inner>) {
    let life = AssertUnwindSafe(|| match recover(inner) {
        Ok(ready) => serve(inner, ready),
        Err(ended) => ended,
    });
    // Whatever happens here, nobody waits for ever.
    let ended = std::panic::catch_unwind(life).unwrap_or_else(|_| {
        inner.collapse();
        broken()
    });
    inner.buckets.give_up();
    tracing::info!(?ended, "the engine has ended");
    inner.ended.send_replace(Some(ended));
    inner.turn();
    inner.freed.notify_waiters();
}

fn broken() -> Ended {
    Ended::Refused("the engine panicked: this is a defect; what was acknowledged is on storage, start again".into())
}

/// Attempts until one succeeds, or must not be repeated.
fn recover(inner: &Arc<Inner>) -> Result<Ready, Ended> {
    loop {
        // Each lock is let go before the next is taken.
        let config = inner.config.lock().clone();
        let forget = {
            let mut recovering = inner.recovering.lock();
            recovering.begun += 1;
            recovering.forget.clone()
        };
        let memory_limit = inner.memory_limit();
        let context = Context {
            config,
            require_mounts: inner.require_mounts,
            grant: inner.grant.clone(),
            disks: Arc::clone(&inner.disks),
            buckets: Arc::clone(&inner.buckets),
            forget,
            memory_limit,
        };
        let started = Instant::now();
        let outcome = recovery::attempt(&context, &inner.progress);
        let waiting = match outcome {
            Outcome::Ready(ready) => {
                tracing::info!(
                    took = ?started.elapsed(),
                    epoch = ready.start.identity.epoch.0,
                    collections = ready.start.collections.len(),
                    bytes = inner.progress.done.load(Ordering::Relaxed),
                    "recovered"
                );
                return Ok(*ready);
            }
            Outcome::Ended(ended) => return Err(ended),
            Outcome::Waiting(waiting) => waiting,
        };
        let unusable = waiting.unusable.clone();
        {
            let mut recovering = inner.recovering.lock();
            let changed = recovering.waiting.as_ref().is_none_or(|before| before.reasons != waiting.reasons);
            if changed {
                tracing::warn!(waiting_for = ?waiting.reasons, "recovery waits");
            }
            recovering.waiting = Some(waiting);
            recovering.attempts += 1;
        }
        inner.turn();
        let again_at = Instant::now() + RETRY;
        loop {
            if inner.stopping.load(Ordering::Acquire) {
                return Err(Ended::Clean);
            }
            let mut recovering = inner.recovering.lock();
            if std::mem::take(&mut recovering.poked) || Instant::now() >= again_at {
                break;
            }
            inner.recovery_wakes.wait_for(&mut recovering, LOOK);
            let poked = std::mem::take(&mut recovering.poked);
            drop(recovering);
            if poked || !recovery::unchanged(&context, &unusable) {
                break;
            }
        }
        if inner.stopping.load(Ordering::Acquire) {
            return Err(Ended::Clean);
        }
    }
}

fn say_how_it_is_written(directory: &WalUrl, handle: &Handle) {
    if handle.disk.0.objects().is_some() {
        tracing::info!(%directory, "each commit is an object of its own");
        return;
    }
    let io = handle.disk.0.io();
    tracing::info!(%directory, %io, "journal files are written");
    if !io.in_place {
        tracing::info!(
            %directory,
            "its file system only grows files, so nothing is reserved: completely full it takes no truncation"
        );
    }
}

/// Runs the workers until the stream of each directory is over, then answers why.
fn serve(inner: &Arc<Inner>, ready: Ready) -> Ended {
    let Ready { start, handles, unusable, damage, warnings } = ready;
    *inner.findings.lock() = Findings { unusable, damage, warnings };
    let _ = inner.read_disks.set(handles.iter().map(|handle| Arc::clone(&handle.disk.0)).collect());
    inner.install(Log::new(start));
    // They may have changed since the attempt began.
    inner.apply_settings();
    inner.recovering.lock().waiting = None;
    if inner.stopping.load(Ordering::Acquire) {
        inner.with_log(|log| log.stop(Instant::now()));
    }
    let crew = Arc::new(Crew::default());
    for (dir, handle) in handles.into_iter().enumerate() {
        say_how_it_is_written(&inner.url(dir), &handle);
        let handle = Arc::new(handle);
        crew.start(inner, dir, &handle, Worker::Commit, "commit", committer::run);
        crew.start(inner, dir, &handle, Worker::Upkeep, "upkeep", upkeep::run);
        crew.start(inner, dir, &handle, Worker::Flush, "flush", flusher::run);
    }
    if !crew.watch(inner) {
        return broken();
    }
    inner.with_log(|log| log.abandon("the sidecar has stopped"));
    match inner.peek(|log| log.stage.clone()) {
        Some(Stage::Fenced(why)) => Ended::Fenced(why),
        _ => Ended::Clean,
    }
}
