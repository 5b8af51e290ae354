//! Waiting for requests on threads of the engine, which are none of the runtime's.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{no_answer, refused};
use crate::directory::bucket::{Bucket, Denied};

/// A store that has said nothing for so long gives no answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// So often within that it is looked whether anything came.
const LOOKS: u32 = 10;

/// How requests are waited for, and when no longer.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    runtime: Option<Handle>,
    over: watch::Receiver<bool>,
}

/// Why requests are waited for no longer. What they had under way may have happened, or may happen later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// The process ends.
    Stopping,
    /// Nothing came for too long.
    NoAnswer,
}

impl Waiting {
    /// On `runtime`, where requests need one; until `over` says so.
    pub(crate) const fn new(runtime: Option<Handle>, over: watch::Receiver<bool>) -> Self {
        Self { runtime, over }
    }

    /// Blocks until the future is ready, however long that takes.
    ///
    /// # Errors
    /// When the process ends.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, GivenUp> {
        self.wait_or(future, std::future::pending())
    }

    /// Blocks until the future is ready, or nothing was `heard` for as long as `patience`. Without a runtime nothing can come
    /// later: what is not there at once never is.
    ///
    /// # Errors
    /// When the process ends, or there was no answer.
    pub(super) fn ask<T>(
        &self,
        patience: Duration,
        heard: impl Fn() -> u64,
        future: impl Future<Output = T>,
    ) -> Result<T, GivenUp> {
        let timed = self.runtime.is_some();
        self.wait_or(future, async move {
            if timed {
                silence(heard, || tokio::time::sleep(patience / LOOKS)).await;
            }
        })
    }

    fn wait_or<T>(&self, future: impl Future<Output = T>, silence: impl Future<Output = ()>) -> Result<T, GivenUp> {
        let mut over = self.over.clone();
        let until = async {
            tokio::select! {
                biased;
                value = future => Ok(value),
                _ = over.wait_for(|over| *over) => Err(GivenUp::Stopping),
                () = silence => Err(GivenUp::NoAnswer),
            }
        };
        match &self.runtime {
            Some(runtime) => runtime.block_on(until),
            None => block_on(until),
        }
    }
}

/// Waits for requests that only read, of a tool.
pub(crate) struct Reading {
    waiting: Waiting,
    _over: watch::Sender<bool>,
}

impl Reading {
    /// On `runtime`.
    pub(crate) fn new(runtime: Handle) -> Self {
        let over = watch::Sender::new(false);
        Self { waiting: Waiting::new(Some(runtime), over.subscribe()), _over: over }
    }

    /// What a request of the bucket at `root` comes to.
    ///
    /// # Errors
    /// When the store refuses, or gives no answer.
    pub(crate) fn ask<T>(
        &self,
        root: &str,
        bucket: &impl Bucket,
        request: impl Future<Output = Result<T, Denied>>,
    ) -> std::io::Result<T> {
        let asked = self.waiting.ask(PATIENCE, || bucket.heard(), request);
        asked.unwrap_or_else(|_| Err(Denied(no_answer(root, bucket)))).map_err(refused)
    }
}

/// Ends when `heard` has stood still for [`LOOKS`] turns of `pass`.
async fn silence<F: Future<Output = ()>>(heard: impl Fn() -> u64, pass: impl Fn() -> F) {
    let (mut last, mut still) = (heard(), 0);
    while still < LOOKS {
        pass().await;
        let now = heard();
        (last, still) = if now == last { (last, still + 1) } else { (now, 0) };
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls on this thread: for futures that need no runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_thing_that_was_heard() {
        for (answers, passes) in [(0, 10), (1, 11), (100, 110)] {
            let passed = Cell::new(0);
            let pass = || {
                passed.set(passed.get() + 1);
                std::future::ready(())
            };
            block_on(silence(|| passed.get().min(answers), pass));
            assert_eq!(passed.get(), passes, "after {answers} answers");
        }
    }
}
