//! Waiting for requests on threads of the engine, which are none of the runtime's.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use tokio::runtime::Handle;
use tokio::sync::watch;

/// How requests are waited for, and when no longer.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    runtime: Option<Handle>,
    over: watch::Receiver<bool>,
}

impl Waiting {
    /// On `runtime`, where requests need one; until `over` says so.
    pub(crate) const fn new(runtime: Option<Handle>, over: watch::Receiver<bool>) -> Self {
        Self { runtime, over }
    }

    /// Blocks until the future is ready; `None` when nothing is waited for any more. What the future had under way may have
    /// happened, or may happen later.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut over = self.over.clone();
        let until = async {
            tokio::select! {
                biased;
                value = future => Some(value),
                _ = over.wait_for(|over| *over) => None,
            }
        };
        match &self.runtime {
            Some(runtime) => runtime.block_on(until),
            None => block_on(until),
        }
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
