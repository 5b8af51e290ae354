//! What a process may do, and leave undone, that another one has overtaken or that is not the holder any more.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use super::bucket_tests::{Cloud, append, begin, config, settle};
use super::life_tests::{Life, Oracle};
use super::*;
use crate::fencing::directory::memory::Process;
use crate::recovery::{Context, Outcome, Progress, Ready, attempt};

const ONE: &[&str] = &["s3://one/wal"];

fn context(cloud: &Cloud, grant: Option<(u64, &str)>) -> Context {
    let grant = grant.map(|(epoch, holder)| Grant {
        writer_uid: Uuid::from_u128(9),
        epoch,
        holder: holder.into(),
        urls: vec![GrantedUrl { name: "one".into(), url: WalUrl::parse(ONE[0]).unwrap() }],
        init: ["one".to_owned()].into(),
        forget: BTreeSet::new(),
    });
    Context { grant, ..cloud.context(&config(ONE, ""), &Process::default()) }
}

fn refused(context: &Context) -> String {
    match attempt(context, &Progress::default()) {
        Outcome::Ended(Ended::Fenced(why)) => why,
        Outcome::Ended(ended) => panic!("{ended:?}"),
        Outcome::Waiting(waiting) => panic!("{:?}", waiting.reasons),
        Outcome::Ready(_) => panic!("it began"),
    }
}

#[test]
fn a_start_whose_grant_is_over_writes_nothing_and_fences_nobody() {
    let cloud = Cloud::default();
    let store = cloud.store(ONE[0]);
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(2));
    let mut token = 0;
    // The third has none, and copies that of the second to where its claim does not show it.
    for grant in [Some((1, "a")), Some((2, "b")), None, Some((2, "b"))] {
        let Ready { start, handles, .. } = begin(&context(&cloud, grant));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        append(&mut life, &mut oracle, &mut random, token..token + 20);
        token += 20;
        if grant == Some((1, "a")) {
            continue;
        }
        let before = store.keys();
        for stale in [(1, "a"), (2, "c")] {
            let why = refused(&context(&cloud, Some(stale)));
            assert!(why.contains("storage has grant 2 of pod \"b\""), "{why}");
            assert_eq!(store.keys(), before, "behind {grant:?}, {stale:?}");
        }
        let acknowledged = oracle.acked();
        append(&mut life, &mut oracle, &mut random, token..token + 20);
        token += 20;
        assert!(oracle.acked() > acknowledged && life.log.stage == Stage::Serving, "{grant:?}: {:?}", life.log.stage);
    }
}
