//! The protocol against a store whose requests are lost, delayed and answered wrongly; up to four writers that start,
//! pause for as long as chance wants, crash at any request, and wake up when others have long taken over.

mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rand::RngExt as _;

use self::store::{Counts, Store, World};
use super::Lost;
use super::trial::oracle::Oracle;
use super::trial::writer::Writer;
use crate::sim::explore::{Announce, number};

/// Most writers that are alive at a time.
pub(crate) const WRITERS: usize = 4;
/// Requests of a run.
const STEPS: usize = 3000;

/// What runs came to, in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    runs: u64,
    starts: u64,
    acknowledged: u64,
    fenced: u64,
    crashes: u64,
    network: Counts,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, starts, acknowledged, fenced, crashes, network } = self;
        let Counts { lost_replies, lost_requests, late_landings } = network;
        write!(
            f,
            "{runs} schedules, {crashes} kills and cuts, {} faults ({lost_replies} lost replies, {lost_requests} lost \
             requests, {late_landings} late landings): {starts} starts served, {fenced} writers were fenced, \
             {acknowledged} entries were acknowledged and none lost",
            lost_replies + lost_requests + late_landings,
        )
    }
}

type Life = Pin<Box<dyn Future<Output = Result<(), Lost>>>>;

/// One run. `most`: so many writers are alive at a time.
pub(crate) fn run(seed: u64, most: usize, sum: &mut Sum) {
    let world = Arc::new(Mutex::new(World::new(seed)));
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let mut writers: Vec<Option<Life>> = (0..most).map(|_| None).collect();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..STEPS {
        let (slot, what) = {
            let mut world = world.lock();
            // Some are slow: the first is asked more rarely than the last.
            let slot = world.rng.random_range(0..most).max(world.rng.random_range(0..most));
            (slot, world.rng.random_range(0..400))
        };
        if what < 20 {
            world.lock().land();
            continue;
        }
        let Some(life) = &mut writers[slot] else {
            if what < 40 || most == 1 {
                let store = Store { world: Arc::clone(&world), writer: slot };
                // It never has enough.
                let writer = Writer::new(store.clone(), store, Arc::clone(&oracle), u64::MAX);
                writers[slot] = Some(Box::pin(writer.live()));
            }
            continue;
        };
        if what < 24 {
            world.lock().leave(slot);
            writers[slot] = None;
            sum.crashes += 1;
            continue;
        }
        let request = world.lock().request_of(slot);
        if let Some(request) = request {
            world.lock().serve(request);
        }
        match life.as_mut().poll(&mut context) {
            Poll::Pending => {}
            Poll::Ready(Err(Lost::Fenced { by })) => {
                assert!(most > 1, "a writer that is alone was fenced by {by}");
                writers[slot] = None;
                sum.fenced += 1;
            }
            Poll::Ready(ended) => panic!("{ended:?}"),
        }
        if let Some(broken) = oracle.lock().broken().next() {
            panic!("{broken}");
        }
    }
    let oracle = oracle.lock();
    sum.runs += 1;
    sum.starts += oracle.starts() as u64;
    sum.acknowledged += oracle.acknowledged() as u64;
    let counts = world.lock().counts;
    sum.network.lost_replies += counts.lost_replies;
    sum.network.lost_requests += counts.lost_requests;
    sum.network.late_landings += counts.late_landings;
}

fn runs(default: u64, most: usize) -> Sum {
    let first = number("WALSTORAGE_SEED").unwrap_or(1);
    let mut sum = Sum::default();
    for seed in first..first + number("WALSTORAGE_SEEDS").unwrap_or(default) {
        let announce = Announce(seed);
        run(seed, most, &mut sum);
        drop(announce);
    }
    println!("from seed {first}: {sum}");
    sum
}

#[test]
fn schedule_19_no_acknowledged_entry_is_lost_between_four_writers() {
    let sum = runs(200, WRITERS);
    assert!(sum.fenced > 0 && sum.acknowledged > 0 && sum.network.late_landings > 0, "{sum}");
}

#[test]
fn schedule_18_a_writer_that_is_alone_is_never_fenced_whatever_the_network_does() {
    let sum = runs(50, 1);
    assert!(sum.crashes > 0 && sum.network.lost_replies > 0, "{sum}");
}
