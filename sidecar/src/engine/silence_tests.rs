//! A store that gives no answer, at any of the requests that a start, a read or a probe makes: what waits for it ends, and says
//! for whom it waits.

use rand::SeedableRng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use super::bucket_tests::{Cloud, append, begin, config, engine, settle};
use super::fault_tests::{batch, contents, name, until};
use super::life_tests::{Life, Oracle};
use super::*;
use crate::api::{DirectoryState, Phase};
use crate::fencing::directory::memory::{Fate, Last, Process};
use crate::recovery::{Outcome, Progress, Ready, attempt};

const DISK: &str = "file:///m/a";
const BUCKET: &str = "s3://one/wal";
const MORE: &str = "distribution_strategy = \"RoundRobin\"\nmemory_flush_size_bytes = 2000";

fn silent_at(request: u64, last: Last) -> Process {
    Process::new(Fate { answered: Some(request), last, silent: true, ..Fate::default() })
}

/// A first life in these directories; what it was acknowledged.
fn first_life(cloud: &Cloud, urls: &[&str]) -> Oracle {
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(11));
    let Ready { start, handles, .. } = begin(&cloud.context(&config(urls, MORE), &Process::default()));
    let mut life = Life::begin(start, &handles);
    settle(&mut life, handles.len());
    append(&mut life, &mut oracle, &mut random, 0..12);
    assert!(oracle.acked() > 0);
    oracle
}

/// Appends in a log that one directory is enough for.
fn serves(ready: Ready, what: &str) {
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(5));
    let Ready { start, handles, .. } = ready;
    assert_eq!(handles.len(), 1, "{what}");
    let mut life = Life::begin(start, &handles);
    settle(&mut life, 1);
    append(&mut life, &mut oracle, &mut random, 500..520);
    assert!(oracle.acked() > 0, "{what}");
}

#[test]
fn a_member_without_an_answer_at_any_request_of_a_start_is_waited_for_by_name_until_it_answers_or_is_given_up() {
    let toml = config(&[DISK, BUCKET], MORE);
    for last in [Last::Lost, Last::Done, Last::Late] {
        let mut waited = 0;
        for request in 1.. {
            let cloud = Cloud::default();
            let mut oracle = first_life(&cloud, &[DISK, BUCKET]);
            let process = silent_at(request, last);
            let mut context = cloud.context(&toml, &process);
            let what = format!("{last:?} at request {request}");
            let waiting = match attempt(&context, &Progress::default()) {
                Outcome::Waiting(waiting) => waiting,
                Outcome::Ready(_) => break,
                Outcome::Ended(ended) => panic!("{what}: {ended:?}"),
            };
            waited += 1;
            let reasons = waiting.reasons.join("; ");
            for part in [BUCKET, "(no_answer)", "walctl directory forget"] {
                assert!(reasons.contains(part), "{what}: {part} in {reasons}");
            }
            let [bucket] = waiting.unusable.as_slice() else { panic!("{what}: {:?}", waiting.unusable) };
            assert!(bucket.state == DirectoryState::Failed && bucket.unseen, "{what}: {bucket:?}");
            assert_eq!(waiting.present.len(), 1, "{what}");
            // To look whether it is so still must not take so long again.
            let before = cloud.store(BUCKET).counts();
            assert!(crate::recovery::unchanged(&context, &waiting.unusable), "{what}");
            assert_eq!(cloud.store(BUCKET).counts(), before, "{what}");
            if request % 2 == 0 {
                process.set(Fate::default());
                let Ready { start, handles, .. } = begin(&context);
                oracle.check(&Log::new(start), &handles, &what);
            } else {
                context.forget.insert(bucket.uuid.unwrap());
                serves(begin(&context), &what);
            }
        }
        // At the probe, the identity, the lists, the claim, the fences, the journal.
        assert!(waited > 10, "{last:?}: {waited}");
    }
}

#[test]
fn a_new_bucket_without_an_answer_keeps_no_disk_from_serving() {
    let toml = config(&[DISK, BUCKET], MORE);
    for last in [Last::Lost, Last::Done, Last::Late] {
        let mut alone = 0;
        for request in 1.. {
            let cloud = Cloud::default();
            first_life(&cloud, &[DISK]);
            let context = cloud.context(&toml, &silent_at(request, last));
            let ready = begin(&context);
            if ready.handles.len() == 2 {
                break;
            }
            alone += 1;
            let [bucket] = ready.unusable.as_slice() else { panic!("{:?}", ready.unusable) };
            let sentence = bucket.sentence();
            assert!(sentence.contains(BUCKET) && sentence.contains("(no_answer)"), "{sentence}");
            serves(ready, &format!("{last:?} at request {request}"));
        }
        // At the probe, the identity, the lists, the claim.
        assert!(alone > 6, "{last:?}: {alone}");
    }
}

#[test]
fn nothing_is_begun_beside_a_bucket_that_nobody_could_look_at() {
    let cloud = Cloud::default();
    let context = cloud.context(&config(&[DISK, BUCKET], MORE), &silent_at(1, Last::Lost));
    let Outcome::Waiting(waiting) = attempt(&context, &Progress::default()) else { panic!("a log was begun") };
    assert!(waiting.reasons.join("; ").contains("no new log is begun"), "{:?}", waiting.reasons);
}

#[tokio::test]
async fn an_engine_shows_which_store_gives_no_answer_and_lets_it_be_given_up() {
    let cloud = Cloud::default();
    let toml = config(&[DISK, BUCKET], MORE);
    let first = engine(&cloud, &toml, &Process::default());
    until(&first, Phase::Ready).await;
    first.append(batch("c", &["kept".into()]), None).await.unwrap();
    assert_eq!(first.shutdown().await, Ended::Clean);

    let second = engine(&cloud, &toml, &silent_at(1, Last::Lost));
    until(&second, Phase::Waiting).await;
    let status = second.status();
    assert!(status.waiting_for.join("; ").contains("(no_answer)"), "{:?}", status.waiting_for);
    let bucket = status.directories.iter().find(|dir| dir.url.as_str() == BUCKET).unwrap();
    assert!(bucket.state == DirectoryState::Failed && bucket.reason.contains("no answer"), "{bucket:?}");
    second.forget_directory(bucket.uuid.unwrap()).await.unwrap();
    until(&second, Phase::Ready).await;
    second.append(batch("d", &["more".into()]), None).await.unwrap();
    assert_eq!(second.shutdown().await, Ended::Clean);
}

#[tokio::test]
async fn a_read_of_a_segment_ends_when_the_store_gives_no_answer() {
    let cloud = Cloud::default();
    let process = Process::default();
    let engine = engine(&cloud, &config(&[BUCKET], "bucket_commit_interval_ms = 1"), &process);
    until(&engine, Phase::Ready).await;
    engine.append(batch("c", &["x".repeat(300), "y".repeat(300)]), None).await.unwrap();
    engine.flush(&name("c")).await.unwrap();
    assert_eq!(contents(&engine, "c").await.len(), 2);
    process.set(Fate { answered: Some(0), silent: true, ..Fate::default() });
    let mut reader = engine.read(&name("c"), Lsn(0), 0, false).unwrap();
    let error = reader.next().await.unwrap().unwrap_err();
    assert_eq!(error.reason, Reason::DirectoryMissing);
    assert!(error.message.contains("(no_answer)"), "{}", error.message);
    process.set(Fate::default());
    assert_eq!(contents(&engine, "c").await.len(), 2, "it is asked again");
    assert_eq!(engine.shutdown().await, Ended::Clean);
}

#[test]
fn a_probe_of_a_bucket_that_failed_ends_without_an_answer_and_is_made_again() {
    for request in 1..6 {
        let cloud = Cloud::default();
        let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(request));
        let process = Process::default();
        let Ready { start, handles, .. } = begin(&cloud.context(&config(&[BUCKET], ""), &process));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        append(&mut life, &mut oracle, &mut random, 0..10);
        process.set(Fate { answered: Some(1), ..Fate::default() });
        append(&mut life, &mut oracle, &mut random, 10..20);
        process.set(Fate { answered: Some(request), silent: true, ..Fate::default() });
        life.now += Duration::from_secs(61);
        life.upkeep(0);
        let what = format!("at request {request}");
        process.set(Fate::default());
        for _ in 0..2 {
            life.now += Duration::from_secs(61);
            settle(&mut life, 1);
        }
        assert!(life.log.journals[0].is_open(), "{what}");
        let before = oracle.acked();
        append(&mut life, &mut oracle, &mut random, 20..40);
        assert!(oracle.acked() > before, "{what}");
        oracle.check(&life.log, &handles, &what);
    }
}

#[test]
fn a_first_frame_without_an_answer_keeps_no_disk_from_serving_that_has_written_its_own() {
    let cloud = Cloud::default();
    let context = cloud.context(&config(&[DISK, BUCKET], MORE), &Process::default());
    let Ready { start, handles, .. } = begin(&context);
    let mut life = Life::begin(start, &handles);
    // The disk's is durable before the bucket's is made, which is never written.
    life.step(0);
    life.step(0);
    life.step(1);
    assert_eq!(life.log.stage, Stage::Opening);
    for _ in 0..crate::commit::watch::STALL {
        assert_eq!(life.log.stage, Stage::Opening);
        life.log.watch(life.now);
    }
    for _ in 0..10 {
        life.step(0);
    }
    assert_eq!(life.log.stage, Stage::Serving);
}

#[tokio::test]
async fn what_no_log_knows_cannot_be_given_up() {
    let cloud = Cloud::default();
    let engine = engine(&cloud, &config(&[DISK, BUCKET], MORE), &silent_at(1, Last::Lost));
    until(&engine, Phase::Waiting).await;
    let error = engine.forget_directory(DirectoryId(Uuid::from_u128(7))).await.unwrap_err();
    assert_eq!(error.reason, Reason::InvalidRequest);
    assert_eq!(engine.shutdown().await, Ended::Clean);
}
