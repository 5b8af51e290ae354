//! What the engine takes from its surroundings beside disks: the time, random ids, threads that help. A simulator puts its
//! own in their place, for its thread only, so that one seed gives the same run every time.

use std::time::Instant;

use uuid::Uuid;

/// The time.
pub(crate) fn now() -> Instant {
    simulated::now().unwrap_or_else(Instant::now)
}

/// A random uuid.
pub(crate) fn uuid() -> Uuid {
    simulated::draw().map_or_else(Uuid::new_v4, |draw| uuid::Builder::from_random_bytes(draw).into_uuid())
}

/// A seed for a generator of its own.
pub(crate) fn seed() -> u64 {
    simulated::draw().map_or_else(rand::random, |draw| u128::from_le_bytes(draw) as u64)
}

/// Whether everything has to happen on the calling thread.
pub(crate) fn on_one_thread() -> bool {
    simulated::is_on()
}

/// Runs each job on a thread of its own and waits for all; `None` for one that panicked.
pub(crate) fn in_parallel<T: Send>(jobs: Vec<impl FnOnce() -> T + Send>) -> Vec<Option<T>> {
    if on_one_thread() {
        return jobs.into_iter().map(|job| Some(job())).collect();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

#[cfg(not(test))]
mod simulated {
    use std::time::Instant;

    pub(super) const fn now() -> Option<Instant> {
        None
    }

    pub(super) const fn draw() -> Option<[u8; 16]> {
        None
    }

    pub(super) const fn is_on() -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::RefCell;
    use std::time::Instant;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    struct Surroundings {
        now: Instant,
        random: SmallRng,
    }

    thread_local! {
        static SURROUNDINGS: RefCell<Option<Surroundings>> = const { RefCell::new(None) };
    }

    /// Simulated surroundings of this thread, until it is dropped.
    pub(crate) struct Simulated(());

    impl Simulated {
        pub(crate) fn begin(seed: u64, now: Instant) -> Self {
            let random = SmallRng::seed_from_u64(seed);
            SURROUNDINGS.set(Some(Surroundings { now, random }));
            Self(())
        }

        /// It is `now` from now on.
        pub(crate) fn set_time(&self, now: Instant) {
            SURROUNDINGS.with_borrow_mut(|around| around.iter_mut().for_each(|around| around.now = now));
        }
    }

    impl Drop for Simulated {
        fn drop(&mut self) {
            SURROUNDINGS.set(None);
        }
    }

    pub(super) fn now() -> Option<Instant> {
        SURROUNDINGS.with_borrow(|around| around.as_ref().map(|around| around.now))
    }

    pub(super) fn draw() -> Option<[u8; 16]> {
        SURROUNDINGS.with_borrow_mut(|around| around.as_mut().map(|around| around.random.random()))
    }

    pub(super) fn is_on() -> bool {
        SURROUNDINGS.with_borrow(Option::is_some)
    }
}
