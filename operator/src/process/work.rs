//! Work by key: what every controller of this operator runs on.
//!
//! 1. A key is worked on by one task at a time; what changes meanwhile is worked on once more afterwards.
//! 2. However often a key is added while it waits, it is worked on once.
//! 3. A key that fails is tried again after a time that doubles up to a bound; success forgets that.
//! 4. The number of keys at work is bounded, and so is the time of one.
//! 5. A key may be added at a pace ([`Wait`]). Whatever else it is worked on for meanwhile, each addition is followed by work
//!    that began after it.
//! 6. What has time ([`Outcome::WhenIdle`]) is worked on when no other key is due, and at the latest when its time is over.
//!
//! [`Queue`] is the pure part; [`run`] drives it.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// How the work on a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; again when something changes, at the latest after this time.
    Again(Duration),
    /// Done, but for what has time: again when no other key is due, at the latest after this time.
    WhenIdle(Duration),
    /// Done; again when something changes.
    Done,
    /// Failed; again after a while.
    Failed,
}

/// How long a key may wait for others to join it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// So long at least.
    pub gather: Duration,
    /// So long after the work on it began last.
    pub pace: Duration,
}

impl Wait {
    /// Not at all.
    pub const NONE: Self = Self::of(Duration::ZERO);

    /// So long, however lately it was worked on.
    #[must_use]
    pub const fn of(gather: Duration) -> Self {
        Self { gather, pace: Duration::ZERO }
    }
}

/// Whether others were due when the work on a key began, and had to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded(pub bool);

#[derive(Debug, Default)]
struct Entry {
    /// When it is due, if it waits.
    due: Option<Duration>,
    /// Somebody works on it.
    working: bool,
    /// Failures in a row.
    failures: u32,
    /// When the work on it began last.
    began: Option<Duration>,
}

/// The keys that wait, each with its time. Times are of one monotonic clock.
#[derive(Debug)]
pub struct Queue<K> {
    entries: HashMap<K, Entry>,
    waiting: BTreeSet<(Duration, K)>,
    /// Those that give way to them, each with the end of its time.
    patient: BTreeSet<(Duration, K)>,
    working: usize,
    concurrency: usize,
    longest_wait: Duration,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    /// An empty queue.
    #[must_use]
    pub fn new(concurrency: usize, longest_wait: Duration) -> Self {
        let (waiting, patient) = (BTreeSet::new(), BTreeSet::new());
        Self { entries: HashMap::new(), waiting, patient, working: 0, concurrency, longest_wait }
    }

    /// Adds a key. One that waits already is due at the earlier of both times.
    pub fn add(&mut self, now: Duration, key: K, wait: Wait) {
        let entry = self.entries.entry(key.clone()).or_default();
        let due = (now + wait.gather).max(entry.began.map_or(now, |began| began + wait.pace));
        if let Some(before) = entry.due {
            if before <= due {
                return;
            }
            let waits = (before, key.clone());
            if !self.waiting.remove(&waits) {
                self.patient.remove(&waits);
            }
        }
        entry.due = Some(due);
        if !entry.working {
            self.waiting.insert((due, key));
        }
    }

    /// The next key to work on, if one is due and there is room for it.
    pub fn take(&mut self, now: Duration) -> Option<K> {
        if self.working >= self.concurrency {
            return None;
        }
        let due = self.waiting.first().map(|(due, _)| *due).filter(|due| *due <= now);
        let end = self.patient.first().map(|(end, _)| *end);
        // Whose time is over is due like any other.
        let gives_way = due.is_some_and(|due| end.is_none_or(|end| now < end || due < end));
        let from = if gives_way { &mut self.waiting } else { &mut self.patient };
        let (_, key) = from.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.due, entry.working, entry.began) = (None, true, Some(now));
        }
        self.working += 1;
        Some(key)
    }

    /// Whether more keys are due than there is room for.
    #[must_use]
    pub fn is_crowded(&self, now: Duration) -> bool {
        let room = self.concurrency.saturating_sub(self.working);
        self.waiting.iter().nth(room).is_some_and(|(due, _)| *due <= now)
    }

    /// The work on a key ended.
    pub fn finish(&mut self, now: Duration, key: K, outcome: Outcome) {
        self.working = self.working.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.working = false;
        let again = match outcome {
            Outcome::Done => None,
            Outcome::Again(after) | Outcome::WhenIdle(after) => Some(after),
            Outcome::Failed => {
                let doubled = FIRST_WAIT.saturating_mul(1_u32.checked_shl(entry.failures).unwrap_or(u32::MAX));
                Some(doubled.min(self.longest_wait))
            }
        };
        entry.failures = if outcome == Outcome::Failed { entry.failures.saturating_add(1) } else { 0 };
        let gives_way = entry.due.is_none() && matches!(outcome, Outcome::WhenIdle(_));
        // What changed meanwhile does not wait for the retry, and what failed does not hurry because of a change: a key
        // whose own writes change it would otherwise never back off.
        let due = match (entry.due.take(), again.map(|after| now + after), outcome) {
            (Some(_), Some(retry), Outcome::Failed) => Some(retry),
            (Some(changed), Some(again), _) => Some(changed.min(again)),
            (changed, again, _) => changed.or(again),
        };
        match due {
            Some(due) => {
                entry.due = Some(due);
                let waiting = if gives_way { &mut self.patient } else { &mut self.waiting };
                waiting.insert((due, key));
            }
            None => {
                self.entries.remove(&key);
            }
        }
    }

    /// When the next key is due, if there is room for it.
    #[must_use]
    pub fn wake(&self) -> Option<Duration> {
        let room = self.working < self.concurrency;
        self.waiting.first().filter(|_| room).map(|(due, _)| *due)
    }
}

/// Bounds of the work.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Keys at work.
    pub concurrency: usize,
    /// Longest wait after failures.
    pub longest_wait: Duration,
    /// Longest time of one key; then it has failed.
    pub deadline: Duration,
}

/// Works on the keys that are handed in, each with how long it may wait for others to join it, until the token is
/// cancelled; then waits for those at work. Work is told whether others wait for it to end.
///
/// # Errors
/// When the work panics.
pub async fn run<K, W, F>(
    mut keys: mpsc::Receiver<(K, Wait)>,
    bounds: Bounds,
    work: W,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    K: Clone + Debug + Eq + Hash + Ord + Send + 'static,
    W: Fn(K, Crowded) -> F,
    F: Future<Output = Outcome> + Send + 'static,
{
    let Bounds { concurrency, longest_wait, deadline } = bounds;
    let origin = Instant::now();
    let mut queue: Queue<K> = Queue::new(concurrency, longest_wait);
    let mut tasks = JoinSet::new();
    while !stop.is_cancelled() {
        while let Some(key) = queue.take(origin.elapsed()) {
            let crowded = Crowded(queue.is_crowded(origin.elapsed()));
            let done = timeout(deadline, work(key.clone(), crowded));
            tasks.spawn(async move {
                let outcome = done.await.unwrap_or_else(|_| {
                    tracing::warn!(?key, ?deadline, "took too long and is tried again");
                    Outcome::Failed
                });
                (key, outcome)
            });
        }
        let wake = queue.wake().map(|due| origin + due);
        tokio::select! {
            () = stop.cancelled() => {}
            Some(ended) = tasks.join_next() => {
                let (key, outcome) = ended?;
                queue.finish(origin.elapsed(), key, outcome);
            }
            key = keys.recv() => match key {
                Some((key, wait)) => queue.add(origin.elapsed(), key, wait),
                None => break,
            },
            () = async { match wake { Some(wake) => sleep_until(wake).await, None => std::future::pending().await } } => {}
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_key_is_at_work_once_and_again_when_it_changed_meanwhile() {
        let mut queue = Queue::new(4, LONGEST);
        queue.add(at(0), "a", Wait::NONE);
        queue.add(at(0), "a", Wait::NONE);
        assert_eq!(queue.take(at(0)), Some("a"));
        assert_eq!(queue.take(at(0)), None);
        queue.add(at(1), "a", Wait::NONE);
        queue.add(at(2), "a", Wait::NONE);
        assert_eq!(queue.take(at(5)), None, "somebody works on it");
        queue.finish(at(6), "a", Outcome::Done);
        assert_eq!(queue.take(at(6)), Some("a"));
        queue.finish(at(7), "a", Outcome::Done);
        assert_eq!((queue.take(at(999_999)), queue.wake()), (None, None));
        assert!(queue.entries.is_empty(), "nothing is kept of a key that is done");
    }

    #[test]
    fn a_key_that_fails_waits_twice_as_long_each_time_up_to_the_bound() {
        let mut queue = Queue::new(1, Duration::from_secs(1));
        queue.add(at(0), "a", Wait::NONE);
        let mut now = at(0);
        for wait in [200, 400, 800, 1000, 1000] {
            assert_eq!(queue.take(now), Some("a"));
            queue.finish(now, "a", Outcome::Failed);
            assert_eq!(queue.wake(), Some(now + at(wait)));
            now += at(wait);
        }
        assert_eq!(queue.take(now), Some("a"));
        queue.finish(now, "a", Outcome::Again(at(50)));
        assert_eq!(queue.take(now + at(50)), Some("a"));
        queue.finish(now, "a", Outcome::Failed);
        assert_eq!(queue.wake(), Some(now + at(200)), "success forgets the failures");
    }

    #[test]
    fn a_key_whose_own_writes_change_it_backs_off_all_the_same() {
        let mut queue = Queue::new(1, LONGEST);
        queue.add(at(0), "a", Wait::NONE);
        queue.take(at(0));
        queue.add(at(1), "a", Wait::NONE);
        queue.finish(at(2), "a", Outcome::Failed);
        assert_eq!(queue.wake(), Some(at(202)));
        queue.add(at(3), "a", Wait::NONE);
        assert_eq!(queue.wake(), Some(at(3)), "what others change afterwards does not wait");
    }

    #[test]
    fn a_change_comes_before_the_next_regular_look() {
        let mut queue = Queue::new(1, LONGEST);
        queue.add(at(0), "a", Wait::NONE);
        queue.take(at(0));
        queue.add(at(1), "a", Wait::NONE);
        queue.finish(at(2), "a", Outcome::Again(at(9000)));
        assert_eq!(queue.wake(), Some(at(1)));
    }

    #[test]
    fn a_pace_holds_from_one_beginning_to_the_next_and_loses_no_change() {
        let (mut queue, paced) = (Queue::new(1, LONGEST), Wait { gather: at(500), pace: at(2000) });
        queue.add(at(0), "a", paced);
        assert_eq!(queue.wake(), Some(at(500)), "the first is shown soon");
        queue.add(at(400), "a", paced);
        assert_eq!(queue.take(at(500)), Some("a"));
        queue.finish(at(510), "a", Outcome::Again(at(90_000)));
        queue.add(at(600), "a", paced);
        assert_eq!(queue.wake(), Some(at(2500)), "those on its heels together");
        // Somebody is in a hurry, and what waited goes with it.
        queue.add(at(700), "a", Wait::NONE);
        assert_eq!(queue.take(at(700)), Some("a"));
        queue.add(at(701), "a", paced);
        queue.finish(at(710), "a", Outcome::Again(at(90_000)));
        assert_eq!(queue.wake(), Some(at(2700)), "what changed after that is shown by none before");
        assert_eq!(queue.take(at(2700)), Some("a"));
        queue.finish(at(2710), "a", Outcome::Again(at(90_000)));
        queue.add(at(9000), "a", paced);
        assert_eq!(queue.wake(), Some(at(9500)), "and after a rest soon again");
    }

    #[test]
    fn what_has_time_gives_way_to_what_is_due_until_its_time_is_over() {
        let mut queue = Queue::new(1, LONGEST);
        let begin = |queue: &mut Queue<&'static str>, now, key| {
            queue.add(now, key, Wait::NONE);
            assert_eq!(queue.take(now), Some(key));
        };
        begin(&mut queue, at(0), "a");
        queue.add(at(1), "b", Wait::NONE);
        queue.add(at(2), "c", Wait::NONE);
        queue.add(at(2), "later", Wait::of(at(500)));
        queue.finish(at(3), "a", Outcome::WhenIdle(at(60_000)));
        assert_eq!(queue.take(at(3)), Some("b"), "it is due");
        queue.finish(at(4), "b", Outcome::WhenIdle(at(60_000)));
        assert_eq!(queue.take(at(4)), Some("c"));
        queue.finish(at(5), "c", Outcome::Done);
        assert_eq!(queue.take(at(5)), Some("a"), "nobody else is due");
        queue.finish(at(6), "a", Outcome::Done);
        queue.add(at(7), "b", Wait::of(at(100)));
        assert_eq!(queue.take(at(8)), None, "a change has a time of its own");
        assert_eq!((queue.take(at(107)), queue.patient.len()), (Some("b"), 0));
        queue.add(at(108), "b", Wait::NONE);
        queue.finish(at(109), "b", Outcome::WhenIdle(at(60_000)));
        assert_eq!((queue.take(at(109)), queue.patient.len()), (Some("b"), 0), "and what changed meanwhile too");

        let mut queue = Queue::new(1, LONGEST);
        begin(&mut queue, at(0), "a");
        queue.finish(at(0), "a", Outcome::WhenIdle(at(1000)));
        for (now, next) in [(at(998), "b"), (at(999), "c"), (at(1000), "d")] {
            queue.add(now, next, Wait::NONE);
        }
        assert_eq!(queue.take(at(1001)), Some("b"), "it was due before the time was over");
        queue.finish(at(1001), "b", Outcome::Done);
        queue.add(at(1001), "e", Wait::NONE);
        for next in ["c", "a", "d", "e"] {
            assert_eq!(queue.take(at(1002)), Some(next));
            queue.finish(at(1002), next, Outcome::Done);
        }
        assert!(queue.entries.is_empty());
    }

    #[test]
    fn a_queue_is_crowded_where_more_is_due_than_there_is_room_for() {
        let mut queue = Queue::new(2, LONGEST);
        queue.add(at(0), "a", Wait::NONE);
        assert!(!queue.is_crowded(at(0)));
        assert_eq!(queue.take(at(0)), Some("a"));
        queue.add(at(0), "b", Wait::NONE);
        assert!(!queue.is_crowded(at(0)), "it begins at once");
        queue.add(at(0), "c", Wait::of(at(10)));
        assert!(!queue.is_crowded(at(9)) && queue.is_crowded(at(10)));
    }

    #[test]
    fn no_more_keys_are_at_work_than_allowed() {
        let mut queue = Queue::new(2, LONGEST);
        for key in ["a", "b", "c"] {
            queue.add(at(0), key, Wait::NONE);
        }
        assert!(queue.take(at(0)).is_some() && queue.take(at(0)).is_some());
        assert_eq!((queue.take(at(0)), queue.wake()), (None, None));
        queue.finish(at(1), "a", Outcome::Done);
        assert_eq!(queue.take(at(1)), Some("c"));
    }

    #[tokio::test]
    async fn keys_are_worked_on_until_the_token_is_cancelled_and_what_hangs_is_given_up() {
        let (sender, keys) = mpsc::channel(8);
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let bounds = Bounds { concurrency: 2, longest_wait: LONGEST, deadline: at(100) };
        let (log, end) = (Arc::clone(&seen), stop.clone());
        let work = move |key: u32, _| {
            let times = {
                let mut log = log.lock();
                log.push(key);
                log.iter().filter(|seen| **seen == key).count()
            };
            let end = end.clone();
            async move {
                match (key, times) {
                    (1, 1) => std::future::pending().await,
                    (1, _) => end.cancel(),
                    _ => {}
                }
                Outcome::Done
            }
        };
        for key in [1, 2, 3] {
            sender.send((key, Wait::of(at(1)))).await.unwrap();
        }
        run(keys, bounds, work, stop).await.unwrap();
        let mut seen = seen.lock().clone();
        seen.sort_unstable();
        assert_eq!(seen, [1, 1, 2, 3]);
    }
}
