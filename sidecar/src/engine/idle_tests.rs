//! What a bucket costs that nothing is written to.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::bucket_tests::{Cloud, append, begin, config, settle};
use super::life_tests::{Life, Oracle};
use super::*;
use crate::fencing::directory::memory::Process;
use crate::recovery::Ready;

const ONE: &[&str] = &["s3://one/wal"];

/// Minutes pass in which nothing happens; answers the creates of each.
fn idle(life: &mut Life<'_>, cloud: &Cloud, minutes: u64) -> Vec<u64> {
    let creates = || cloud.store(ONE[0]).counts().1;
    let minute = |_| {
        let before = creates();
        life.now += Duration::from_secs(61);
        settle(life, 1);
        creates() - before
    };
    (0..minutes).map(minute).collect()
}

#[test]
fn a_log_that_nothing_is_written_to_creates_nothing() {
    let cloud = Cloud::default();
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(4));
    let mut token = 0;
    for flush_size in [2000, 1 << 20] {
        let toml = config(ONE, &format!("memory_flush_size_bytes = {flush_size}"));
        for truncated in [false, true] {
            let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
            let mut life = Life::begin(start, &handles);
            settle(&mut life, 1);
            for _ in 0..2 {
                append(&mut life, &mut oracle, &mut random, token..token + 12);
                token += 12;
                if truncated {
                    let names: Vec<_> = life.log.iter().map(|c| (c.name.clone(), c.durable_head)).collect();
                    for (name, head) in names {
                        let (waiter, _answer) = tokio::sync::oneshot::channel();
                        life.log.truncate(&name, head, waiter, life.now).unwrap();
                    }
                }
                // Once it is looked at what may go; the checkpoint by which it goes can go itself.
                let creates = idle(&mut life, &cloud, 20);
                assert_eq!(creates[3..], [0; 17], "flushed at {flush_size}, truncated: {truncated}: {creates:?}");
            }
        }
    }
}

#[test]
fn a_start_and_nothing_else_creates_what_the_protocol_needs() {
    let cloud = Cloud::default();
    for _ in 0..3 {
        let Ready { start, handles, .. } = begin(&cloud.context(&config(ONE, ""), &Process::default()));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        let creates = idle(&mut life, &cloud, 10);
        assert_eq!(creates[2..], [0; 8], "{creates:?}");
    }
}
