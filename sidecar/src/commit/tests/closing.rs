//! Starting and stopping: nothing accepted is left behind, nobody waits for ever.

use super::rig::{Rig, Setup, batch, name};
use crate::api::{Ack, Append};
use crate::commit::frames::Work;
use crate::commit::log::{Stage, Worker};
use crate::commit::upkeep::Listing;
use crate::error::Reason;
use crate::format::frame::FLAG_CLEAN_SHUTDOWN;
use crate::format::record::Kind;
use crate::types::Lsn;

#[test]
fn a_stop_commits_everything_and_ends_each_stream_with_a_clean_frame() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    rig.frame(dir);
    rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"2"]) }).unwrap();
    rig.submit(Append { ack: Ack::Buffered, ..batch("d", &[b"1"]) }).unwrap();
    rig.log.stop(rig.now);
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::ShuttingDown);
    rig.settle();
    for (collection, head) in [("c", 2), ("d", 1)] {
        assert_eq!(rig.log.find(&name(collection)).unwrap().durable_head, Lsn(head));
    }
    for dir in 0..2 {
        let last = rig.frames[dir].last().unwrap();
        assert_ne!(last.header.flags & FLAG_CLEAN_SHUTDOWN, 0);
        assert!(last.records.is_empty());
        assert_eq!(last.header.durable_frame + 1, last.header.frame_seq);
        assert_eq!(rig.poll(dir), Work::End);
    }
}

#[test]
fn a_stop_during_a_checkpoint_commits_what_waits() {
    let mut rig = Rig::one();
    for n in 0..20_000 {
        rig.send(&format!("a rather long name of a collection, so that it takes some space {n:0150}"), &[b"x"]);
    }
    rig.settle();
    rig.log.journals[0].since_checkpoint = 1 << 40;
    rig.send("c", &[b"1"]);
    while rig.log.journals[0].checkpoint.is_none() {
        rig.step(0);
    }
    rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"2"]) }).unwrap();
    let large = vec![0_u8; 900_000];
    let tokens = [rig.send("d", &[&large]), rig.send("e", &[&large]), rig.send("f", &[&large])];
    rig.log.stop(rig.now);
    rig.settle();
    for token in tokens {
        assert_eq!(rig.lsns(token), (1, 1));
    }
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(2));
}

#[test]
fn nothing_is_served_before_every_directory_has_its_first_frame() {
    let mut rig = Rig::closed(Setup { directories: 2, in_use: false, ..Setup::default() });
    for dir in [0, 1] {
        let frame = rig.frame(dir);
        assert_eq!((frame.header.frame_seq, frame.records[0].kind), (1, Kind::Epoch));
        assert_eq!(rig.submit(batch("c", &[b"1"])).unwrap_err().reason, Reason::NotReady);
    }
    rig.durable(0);
    assert_eq!(rig.poll(0), Work::Wait(None), "the second frames wait for the first of all");
    rig.durable(1);
    assert_eq!(rig.log.stage, Stage::Opening, "new members are stated to be in use first");
    for dir in [0, 1] {
        assert_eq!(rig.frame(dir).records[0].kind, Kind::Epoch);
        rig.durable(dir);
    }
    assert_eq!(rig.log.stage, Stage::Serving);
}

#[test]
fn whoever_waits_for_the_other_directories_at_a_start_is_woken() {
    for (stopping, fails) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut rig = Rig::closed(Setup { directories: 2, ..Setup::default() });
        rig.frame(0);
        rig.frame(1);
        rig.durable(0);
        if stopping {
            rig.log.stop(rig.now);
        }
        assert_eq!(rig.poll(0), Work::Wait(None));
        let _: Vec<_> = rig.log.take_signals().collect();
        if fails {
            rig.fail(1);
        } else {
            rig.durable(1);
        }
        assert!(
            rig.log.take_signals().any(|signal| signal == (0, Worker::Commit)),
            "stopping {stopping}, fails {fails}"
        );
    }
}

#[test]
fn a_directory_that_cannot_be_written_at_a_start_does_not_hold_the_others() {
    let mut rig = Rig::closed(Setup { directories: 2, ..Setup::default() });
    rig.frame(0);
    rig.frame(1);
    rig.fail(0);
    rig.durable(1);
    rig.settle();
    assert_eq!(rig.log.stage, Stage::Serving);
    for n in 0..3 {
        let token = rig.send(&format!("c{n}"), &[b"1"]);
        rig.settle();
        assert_eq!((rig.lsns(token), rig.home(&format!("c{n}"))), ((1, 1), 1));
    }
}

#[test]
fn a_newer_stream_in_the_listing_fences() {
    let mut rig = Rig::one();
    let mut newer = rig.key(0);
    let listing = |newest| Listing { newest: Some(newest), ..Listing::default() };
    rig.log.listed(0, listing(newer), rig.now);
    assert_eq!(rig.log.stage, Stage::Serving);
    newer.epoch.0 += 1;
    rig.log.listed(0, listing(newer), rig.now);
    assert!(matches!(rig.log.stage, Stage::Fenced(_)));
}
