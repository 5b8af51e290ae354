//! What ends with a session, and what goes on in the next.

use std::time::Duration;

use super::rig::{Rig, failed};
use crate::commit::frames::IDLE;
use crate::commit::journal::Health;
use crate::commit::outcome::Committed;
use crate::format::record::Kind;
use crate::types::Lsn;

fn restart(rig: &mut Rig, dir: usize) {
    rig.log.restart_stream(dir, rig.now);
    rig.log.journals[dir].health = Health::Healthy;
}

#[test]
fn the_next_session_begins_at_frame_1_of_a_file_of_its_own_and_closes_the_last_durable_frame() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.settle();
    let (ended, last) = (rig.key(0), rig.frames[0].last().unwrap().header);
    rig.send("c", &[b"2"]);
    let torn = rig.frame(0);
    rig.fail(0);
    restart(&mut rig, 0);
    let first = rig.frame(0);
    assert_eq!((first.header.frame_seq, first.header.file, first.header.prev_crc), (1, 1, 0));
    assert_ne!(first.header.stream, last.stream);
    assert_eq!((rig.key(0).epoch, rig.key(0).session), (ended.epoch, ended.session + 1));
    assert_eq!(first.records[0].kind, Kind::Epoch);
    let close = rig.log.journals[0].closes.last().unwrap();
    assert_eq!((close.key, close.stream, close.frame_seq), (ended, last.stream, last.frame_seq));
    assert_eq!(close.crc, torn.header.prev_crc);
    assert_eq!((first.header.oldest, first.header.oldest_session), (ended.epoch, 0), "its files are still needed");
}

#[test]
fn a_report_of_a_session_that_is_over_changes_nothing() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.settle();
    let ended = rig.key(0);
    rig.send("c", &[b"2"]);
    rig.frame(0);
    rig.fail(0);
    restart(&mut rig, 0);
    rig.frame(0);
    let done = Committed { len: 4096, crc: 7, took: Duration::from_micros(300), reserved: false };
    rig.log.committed(0, ended, done, rig.now);
    rig.log.failed(0, ended, failed(), rig.now);
    assert!(rig.log.journals[0].is_healthy());
    assert_eq!(rig.log.journals[0].stream.durable_frame, 0);
    rig.durable(0);
    assert_eq!(rig.log.journals[0].stream.durable_frame, 1);
}

#[test]
fn the_files_of_a_session_that_is_over_go_when_nothing_in_them_lives() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.fail(0);
    restart(&mut rig, 0);
    rig.settle();
    rig.pass(IDLE);
    rig.pass(IDLE);
    assert!(rig.unlinked[0].is_empty());
    let mut truncated = rig.truncate("c", 1);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(1));
    rig.pass(IDLE);
    rig.pass(IDLE);
    assert_eq!(rig.unlinked[0], ["0000000000005.000-000000000001.avro"]);
    let last = rig.frames[0].last().unwrap().header;
    assert_eq!((last.oldest, last.oldest_session), (rig.key(0).epoch, 1));
}
