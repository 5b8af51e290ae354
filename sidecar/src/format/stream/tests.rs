mod torn;

use super::*;
use crate::format::fixture::{Stream, entry};
use crate::types::Incarnation;

const P: u64 = PAGE as u64;

fn data(lsn: u64, bytes: usize) -> Vec<Vec<u8>> {
    vec![entry("c", Incarnation(1 << 20), lsn, Epoch(1), &vec![lsn as u8; bytes])]
}

/// Frames 1 to 3 in file 1 (at 4096, 8192, 12288), 4 to 6 in file 2.
fn two_files() -> Stream {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&data(1, 10));
    stream.frame(&data(2, 10));
    stream.rotate();
    for lsn in 3..6 {
        stream.frame(&data(lsn, 10));
    }
    stream
}

fn seqs(scans: &[SlotScan], verdict: &Verdict) -> Vec<u64> {
    let seq = |at: &FrameAt| scans[at.scan].places[at.place].head.header.frame_seq;
    verdict.accepted.iter().map(seq).collect()
}

fn flip(stream: &mut Stream, file: usize, offset: u64) {
    stream.files[file - 1].as_mut().unwrap()[offset as usize] ^= 0x40;
}

/// (file, offset, what, first, last, head readable, bytes)
type Found = (u64, u64, What, u64, Option<u64>, bool, u64);

fn found(verdict: &Verdict) -> Vec<Found> {
    let one = |damage: &Damage| {
        let Damage { file, offset, what, first_seq, last_seq, head, at, bytes } = damage.clone();
        assert_eq!(head.is_some(), at.is_some());
        (file, offset, what, first_seq, last_seq, head.is_some(), bytes)
    };
    verdict.damage.iter().map(one).collect()
}

fn tail_at(verdict: &Verdict) -> (u64, u64, u64, bool, bool) {
    match &verdict.end {
        End::Tail(Tail { file, offset, seq, head, blank }) => (*file, *offset, *seq, head.is_some(), *blank),
        other => panic!("{other:?}"),
    }
}

/// A byte of the frame's PAD, and one of its struct.
const BODY: u64 = 3000;
const HEAD: u64 = 60;

#[test]
fn a_stream_without_a_break_is_accepted_to_its_end() {
    let stream = two_files();
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 6]);
    assert_eq!(found(&verdict), []);
    assert_eq!(tail_at(&verdict), (2, 4 * P, 7, false, true));
    assert_eq!(verdict.last, stream.closed_at());

    let closed = classify(&scans, Some(stream.closed_at()));
    assert_eq!((closed.accepted, closed.damage, closed.end), (verdict.accepted, Vec::new(), End::Closed));
}

#[test]
fn the_order_of_the_scans_does_not_matter() {
    let mut scans = two_files().scan();
    let straight = classify(&scans, None);
    scans.reverse();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 6]);
    assert_eq!((verdict.end, verdict.last), (straight.end, straight.last));
}

#[test]
fn the_last_frame_is_torn_when_nothing_proves_it() {
    for (at, head) in [(BODY, true), (HEAD, false), (0, true), (P - 1, true)] {
        let mut stream = two_files();
        flip(&mut stream, 2, 3 * P + at);
        let scans = stream.scan();
        let verdict = classify(&scans, None);
        assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5], "byte {at}");
        assert_eq!(found(&verdict), []);
        assert_eq!(tail_at(&verdict), (2, 3 * P, 6, head, false), "byte {at}");
    }
}

#[test]
fn the_last_frame_is_damage_when_the_successor_closed_it() {
    let stream = two_files();
    let close = Some(stream.closed_at());
    let mut body = two_files();
    flip(&mut body, 2, 3 * P + BODY);
    let verdict = classify(&body.scan(), close);
    assert_eq!(found(&verdict), [(2, 3 * P, What::Frame(FrameError::Crc), 6, Some(6), true, P)]);
    assert_eq!(verdict.end, End::Closed);
    assert_eq!(verdict.damage[0].most_entries(), 1);

    let mut head = two_files();
    flip(&mut head, 2, 3 * P + HEAD);
    let verdict = classify(&head.scan(), close);
    assert_eq!(found(&verdict), [(2, 3 * P, What::NoHead, 6, Some(6), false, SLOT_NOMINAL - 3 * P)]);
    assert_eq!(verdict.damage[0].most_entries(), (SLOT_NOMINAL - 3 * P) / 17);
}

#[test]
fn a_frame_with_a_later_head_is_damage_and_reading_resumes_there() {
    for (at, what, head) in [(BODY, What::Frame(FrameError::Crc), true), (HEAD, What::NoHead, false)] {
        let mut stream = two_files();
        flip(&mut stream, 2, 2 * P + at);
        let scans = stream.scan();
        let verdict = classify(&scans, None);
        assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 6]);
        assert_eq!(found(&verdict), [(2, 2 * P, what, 5, Some(5), head, P)]);
        assert_eq!(tail_at(&verdict), (2, 4 * P, 7, false, true));
        assert_eq!(verdict.last, stream.closed_at());
    }
}

#[test]
fn a_later_head_proves_even_where_its_own_frame_is_torn() {
    let mut stream = two_files();
    flip(&mut stream, 2, 2 * P + BODY);
    flip(&mut stream, 2, 3 * P + BODY);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4]);
    assert_eq!(found(&verdict), [(2, 2 * P, What::Frame(FrameError::Crc), 5, Some(5), true, P)]);
    assert_eq!(tail_at(&verdict), (2, 3 * P, 6, true, false));
}

#[test]
fn two_torn_frames_without_proof_end_at_the_first() {
    let mut stream = two_files();
    flip(&mut stream, 2, 2 * P + HEAD);
    flip(&mut stream, 2, 3 * P + HEAD);
    assert_eq!(tail_at(&classify(&stream.scan(), None)), (2, 2 * P, 5, false, false));
}

#[test]
fn several_lost_heads_are_one_damage_with_all_their_bytes() {
    let mut stream = two_files();
    for page in [1, 2] {
        flip(&mut stream, 2, page * P + HEAD);
    }
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 6]);
    let bytes = SLOT_NOMINAL - 4 * P + 2 * P;
    assert_eq!(found(&verdict), [(2, P, What::NoHead, 4, Some(5), false, bytes)]);
}

#[test]
fn the_last_frame_before_a_rotation_is_damage() {
    let mut stream = two_files();
    flip(&mut stream, 1, 3 * P + BODY);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 4, 5, 6]);
    assert_eq!(found(&verdict), [(1, 3 * P, What::Frame(FrameError::Crc), 3, Some(3), true, P)]);
}

#[test]
fn only_the_idle_frame_after_it_proves_the_last_group() {
    let mut stream = two_files();
    stream.frame(&[]);
    flip(&mut stream, 2, 3 * P + BODY);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 7]);
    assert_eq!(verdict.damage.len(), 1);
}

#[test]
fn a_missing_file_between_others_is_damage() {
    let mut stream = two_files();
    stream.rotate();
    stream.frame(&data(6, 10));
    stream.files[1] = None;
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 7]);
    let bytes = SLOT_NOMINAL - 4 * P + MAX_SLOT - P;
    assert_eq!(found(&verdict), [(2, 0, What::FileMissing, 4, Some(6), false, bytes)]);
}

#[test]
fn a_missing_first_file_is_damage_unless_the_floor_is_past_it() {
    let mut stream = two_files();
    stream.files[0] = None;
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [4, 5, 6]);
    assert_eq!(found(&verdict), [(1, 0, What::FileMissing, 1, Some(3), false, MAX_SLOT - P)]);

    stream.next.floor = 3;
    stream.frame(&[]);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [4, 5, 6, 7]);
    assert_eq!((found(&verdict), verdict.floor), (Vec::new(), 3));
}

#[test]
fn nothing_up_to_the_floor_is_looked_at() {
    for file in [None, Some(())] {
        let mut stream = two_files();
        stream.next.floor = 4;
        stream.frame(&[]);
        flip(&mut stream, 2, P + BODY);
        flip(&mut stream, 1, 2 * P + HEAD);
        if file.is_none() {
            stream.files[0] = None;
        }
        let scans = stream.scan();
        let verdict = classify(&scans, None);
        assert_eq!(seqs(&scans, &verdict), [5, 6, 7]);
        assert_eq!(found(&verdict), []);
    }
    let mut stream = two_files();
    stream.next.floor = 4;
    stream.frame(&[]);
    flip(&mut stream, 2, 2 * P + HEAD);
    assert_eq!(found(&classify(&stream.scan(), None)).len(), 1, "the first above it is looked at");
}

#[test]
fn a_stream_all_of_whose_files_are_gone_is_damage_when_it_was_closed_with_frames() {
    let close = ClosedAt { frame_seq: 3, crc: 1 };
    let verdict = classify(&[], Some(close));
    assert_eq!(found(&verdict), [(1, 0, What::FileMissing, 1, Some(3), false, MAX_SLOT - P)]);
    let verdict = classify(&[], Some(ClosedAt { frame_seq: 0, crc: 0 }));
    assert_eq!((verdict.damage, verdict.end), (Vec::new(), End::Closed));
}

#[test]
fn a_stream_that_never_wrote_a_frame_is_an_empty_tail() {
    let stream = Stream::new(1, 0);
    let verdict = classify(&stream.scan(), None);
    assert_eq!(tail_at(&verdict), (1, P, 1, false, true));
    assert_eq!(verdict.last, ClosedAt { frame_seq: 0, crc: 0 });
    assert_eq!(tail_at(&classify(&[], None)), (1, P, 1, false, true));
}

#[test]
fn what_lies_beyond_the_close_is_garbage() {
    let mut stream = two_files();
    let first_crc = stream.scan()[0].places[1].head.crc;
    flip(&mut stream, 1, 3 * P + BODY);
    let scans = stream.scan();
    let verdict = classify(&scans, Some(ClosedAt { frame_seq: 2, crc: first_crc }));
    assert_eq!(seqs(&scans, &verdict), [1, 2]);
    assert_eq!((found(&verdict), verdict.end), (Vec::new(), End::Closed));
    let verdict = classify(&scans, Some(ClosedAt { frame_seq: 0, crc: 0 }));
    assert_eq!((verdict.accepted, verdict.damage, verdict.end), (Vec::new(), Vec::new(), End::Closed));
}

#[test]
fn another_frame_than_the_one_closed_is_damage() {
    let stream = two_files();
    let verdict = classify(&stream.scan(), Some(ClosedAt { crc: 1, ..stream.closed_at() }));
    assert_eq!(found(&verdict), [(2, 3 * P, What::CloseCrc, 6, Some(6), true, P)]);
}

#[test]
pub(crate) fn a_frame_that_does_not_follow_is_not_accepted() {
    let mut stream = two_files();
    stream.next.prev_crc ^= 1;
    stream.frame(&data(6, 10));
    assert_eq!(tail_at(&classify(&stream.scan(), None)), (2, 4 * P, 7, true, false));
    stream.frame(&data(7, 10));
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(found(&verdict), [(2, 4 * P, What::Chain, 7, Some(7), true, P)]);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 6, 8], "the first after a break is not compared");
}

#[test]
fn a_bad_header_over_frames_is_damage_even_unproven() {
    let mut stream = two_files();
    flip(&mut stream, 2, 100);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3]);
    let fault = What::FileHeader(HeaderError::Crc);
    assert_eq!(found(&verdict), [4, 5, 6].map(|seq| (2, 0, fault.clone(), seq, Some(seq), true, P)));
    let mut only = Stream::new(1, 0);
    only.begin(Vec::new());
    flip(&mut only, 1, 100);
    assert_eq!(classify(&only.scan(), None).damage.len(), 1);
}

#[test]
fn a_bad_header_over_nothing_is_a_missing_file() {
    let mut stream = two_files();
    stream.rotate();
    flip(&mut stream, 3, 100);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 6]);
    assert_eq!(found(&verdict), []);
    stream.files[2].as_mut().unwrap().truncate(100);
    assert_eq!(found(&classify(&stream.scan(), None)), []);
}

#[test]
fn a_bad_header_over_lost_heads_names_the_header() {
    let mut stream = two_files();
    stream.rotate();
    stream.frame(&data(6, 10));
    flip(&mut stream, 2, 100);
    (1..4).for_each(|page| flip(&mut stream, 2, page * P + HEAD));
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 7]);
    let (file, offset, what, first, last, ..) = found(&verdict).remove(0);
    assert!(matches!(what, What::FileHeader(_)), "{what:?}");
    assert_eq!((file, offset, first, last), (2, 0, 4, Some(6)));
}

#[test]
fn what_cannot_be_read_is_damage_even_at_the_tail() {
    let mut scans = two_files().scan();
    scans[1].unreadable.push((4 * P, 5 * P));
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 2, 3, 4, 5, 6]);
    let bytes = SLOT_NOMINAL - 4 * P;
    assert_eq!(found(&verdict), [(2, 4 * P, What::Unreadable, 7, None, false, bytes)]);
    assert_eq!(verdict.end, End::Unreadable);

    let mut scans = two_files().scan();
    scans[0].unreadable.push((4 * P, 5 * P));
    let verdict = classify(&scans, None);
    assert_eq!((found(&verdict).len(), seqs(&scans, &verdict).len()), (0, 6), "the stream went on in the next file");
    scans[0].unreadable[0] = (2 * P, 3 * P);
    scans[0].places.remove(1);
    let verdict = classify(&scans, None);
    assert_eq!(found(&verdict), [(1, 2 * P, What::Unreadable, 2, Some(2), false, P)]);
}

#[test]
fn a_short_file_counts_with_what_it_could_have_held() {
    let mut stream = two_files();
    stream.files[0].as_mut().unwrap().truncate(2 * PAGE + 100);
    let scans = stream.scan();
    let verdict = classify(&scans, None);
    assert_eq!(seqs(&scans, &verdict), [1, 4, 5, 6]);
    let bytes = SLOT_NOMINAL - 2 * P;
    assert_eq!(found(&verdict), [(1, 2 * P, What::NoHead, 2, Some(3), false, bytes)]);
}

#[test]
fn the_highest_oldest_is_reported() {
    let mut stream = two_files();
    stream.next.oldest = Epoch(1);
    stream.next.oldest_session = 2;
    stream.frame(&[]);
    assert_eq!(classify(&stream.scan(), None).oldest, (Epoch(1), 2));
}
