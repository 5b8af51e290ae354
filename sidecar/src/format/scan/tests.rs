use super::*;
use crate::format::fixture::{Stream, entry};
use crate::format::frame::FrameBuilder;
use crate::types::Incarnation;
use proptest::prelude::*;

const INCARNATION: Incarnation = Incarnation(1 << 20);

/// One slot: EPOCH, then frames of one, two and three entries; the second of two pages.
fn small() -> (Stream, Vec<u64>) {
    let mut stream = Stream::new(1, 0);
    let mut offsets = vec![stream.begin(Vec::new())];
    let mut lsn = 0;
    for (count, bytes) in [(1, 10), (2, 2500), (3, 100)] {
        let records: Vec<_> = (0..count)
            .map(|_| {
                lsn += 1;
                entry("c", INCARNATION, lsn, Epoch(1), &vec![lsn as u8; bytes])
            })
            .collect();
        offsets.push(stream.frame(&records));
    }
    (stream, offsets)
}

/// Frame numbers and LSNs of the whole frames that a scan of these bytes visits.
fn visited(bytes: &[u8], name: SlotName) -> (SlotScan, Vec<(u64, Vec<u64>)>) {
    let mut frames = Vec::new();
    let mut source = bytes;
    let scan = scan_slot(&mut source, name, None, |frame| {
        let lsns = frame.records().map(|record| record.unwrap().lsn.0).collect();
        frames.push((frame.head.header.frame_seq, lsns));
    });
    (scan.unwrap(), frames)
}

#[test]
fn a_whole_slot_gives_all_its_frames() {
    let (stream, offsets) = small();
    let bytes = stream.files[0].clone().unwrap();
    let (scan, frames) = visited(&bytes, stream.name(1));
    assert_eq!(frames, [(1, vec![0]), (2, vec![1]), (3, vec![2, 3]), (4, vec![4, 5, 6])]);
    assert_eq!(scan.places.iter().map(|place| place.offset).collect::<Vec<_>>(), offsets);
    assert_eq!(scan.places.iter().map(|place| place.head.entries).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(scan.places.iter().all(|place| place.fault.is_none()));
    assert_eq!(scan.header.unwrap().stream, stream.id);
    assert_eq!((scan.len, scan.blank_from), (bytes.len() as u64, bytes.len() as u64));
}

#[test]
fn zeros_behind_the_frames_are_blank() {
    let (mut stream, _) = small();
    let end = stream.files[0].as_ref().unwrap().len() as u64;
    stream.zeros(5);
    let scan = &stream.scan()[0];
    assert_eq!((scan.blank_from, scan.len), (end, end + 5 * PAGE as u64));
    stream.files[0].as_mut().unwrap()[end as usize + 2 * PAGE] = 1;
    assert_eq!(stream.scan()[0].blank_from, end + 3 * PAGE as u64);
}

#[test]
fn every_changed_bit_of_a_slot_is_noticed_and_no_wrong_record_is_given() {
    let (stream, offsets) = small();
    let good = stream.files[0].clone().unwrap();
    let (_, whole) = visited(&good, stream.name(1));
    let last = (offsets.len() - 1, good.len() as u64);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (scan, frames) = visited(&bytes, stream.name(1));
        let at = (bit / 8) as u64;
        if at < PAGE as u64 {
            assert!(scan.header.is_err(), "bit {bit}");
            assert!(frames.is_empty(), "bit {bit}");
            assert_eq!(scan.places.len(), offsets.len(), "heads are found without a header");
            continue;
        }
        let hit = offsets.iter().rposition(|offset| *offset <= at).unwrap_or(last.0);
        let expected: Vec<_> =
            whole.iter().enumerate().filter(|(index, _)| *index != hit).map(|(_, f)| f.clone()).collect();
        assert_eq!(frames, expected, "bit {bit}: all but the frame that was hit");
    }
}

#[test]
fn a_slot_cut_anywhere_gives_the_frames_before_the_cut() {
    let (stream, offsets) = small();
    let good = stream.files[0].clone().unwrap();
    let (_, whole) = visited(&good, stream.name(1));
    let ends: Vec<_> = offsets.iter().skip(1).copied().chain([good.len() as u64]).collect();
    for length in 0..good.len() {
        let (scan, frames) = visited(&good[..length], stream.name(1));
        if length < PAGE {
            assert_eq!(scan.header, Err(HeaderError::Short(length)));
            assert!(frames.is_empty());
        } else {
            let full = ends.iter().filter(|end| **end <= length as u64).count();
            assert_eq!(frames, whole[..full], "{length} bytes");
            assert!(scan.places[full..].iter().all(|place| matches!(place.fault, Some(FrameError::Short { .. }))));
        }
    }
}

#[test]
fn frames_of_an_earlier_life_of_the_file_are_not_seen() {
    let (stream, _) = small();
    let (mut other, offsets) = (Stream::new(2, 0), small().1);
    let begun = other.begin(Vec::new());
    // The file was recycled: new header, new first frame, and behind it what the old stream wrote.
    let mut bytes = other.files[0].clone().unwrap();
    bytes.extend_from_slice(&stream.files[0].as_ref().unwrap()[bytes.len()..]);
    let (scan, frames) = visited(&bytes, other.name(1));
    assert_eq!(frames, [(1, vec![0])]);
    assert_eq!(scan.places.iter().map(|place| place.offset).collect::<Vec<_>>(), [begun]);
    assert!(scan.blank_from > offsets[3]);
    // Before the new header was written: the name says one thing, the header another.
    let old = stream.files[0].as_ref().unwrap();
    let (scan, frames) = visited(old, other.name(1));
    assert_eq!(scan.header, Err(HeaderError::Place { key: stream.key, file: 1 }));
    assert!(frames.is_empty() && scan.places.is_empty());
}

#[test]
fn a_frame_at_another_place_is_not_seen() {
    let (stream, offsets) = small();
    let good = stream.files[0].clone().unwrap();
    let moved = [&good[..offsets[1] as usize], &vec![0; PAGE], &good[offsets[1] as usize..]].concat();
    let (scan, frames) = visited(&moved, stream.name(1));
    assert_eq!((frames.len(), scan.places.len()), (1, 1));
    let mut two = stream;
    two.rotate();
    two.frame(&[]);
    let mut wrong = two.files[1].clone().unwrap();
    wrong.truncate(PAGE);
    wrong.extend_from_slice(&good[PAGE..]);
    assert!(visited(&wrong, two.name(2)).0.places.is_empty(), "file 1's frames in file 2");
}

#[test]
fn unknown_flags_stop_the_scan_only_where_the_head_holds_and_is_in_place() {
    let mut stream = Stream::new(1, 0);
    let begun = stream.begin(Vec::new());
    let bytes = stream.files[0].clone().unwrap();
    let mut builder = FrameBuilder::new();
    builder.start(0, 0);
    let header = FrameHeader { flags: 64, offset: begun, frame_seq: 1, ..stream.next };
    let built = builder.finish_slot(&header, &[0; 16]).unwrap();
    let mut later = bytes.clone();
    later[begun as usize..].copy_from_slice(built.bytes);
    let stopped = scan_slot(&mut later.as_slice(), stream.name(1), None, |_| {});
    assert_eq!(stopped, Err(MustStop::Flags(UnknownFlags { file: 1, offset: begun, flags: 64 })));

    let elsewhere = [&bytes[..], built.bytes].concat();
    assert!(scan_slot(&mut elsewhere.as_slice(), stream.name(1), None, |_| {}).is_ok());
    let mut torn = later;
    torn[begun as usize + 60] ^= 1;
    assert!(scan_slot(&mut torn.as_slice(), stream.name(1), None, |_| {}).unwrap().places.is_empty());
}

/// A source some of whose bytes cannot be read.
struct Rotten<'a>(&'a [u8], std::ops::Range<u64>);

impl Source for Rotten<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        if offset < self.1.end && offset + length as u64 > self.1.start {
            return Err(ReadFailed("input/output error".into()));
        }
        let rest = &self.0[offset as usize..];
        Ok(&rest[..length.min(rest.len())])
    }
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_read() {
    let (stream, offsets) = small();
    let good = stream.files[0].clone().unwrap();
    let second_page = offsets[2] + PAGE as u64;
    let mut seen = Vec::new();
    let mut source = Rotten(&good, second_page..second_page + 512);
    let scan = scan_slot(&mut source, stream.name(1), None, |frame| seen.push(frame.head.header.frame_seq)).unwrap();
    assert_eq!(seen, [1, 2, 4]);
    assert_eq!(scan.unreadable, [(second_page, second_page + PAGE as u64)]);
    assert_eq!(scan.places[2].fault, Some(FrameError::Unreadable));

    let mut source = Rotten(&good, 0..1);
    let scan = scan_slot(&mut source, stream.name(1), Some(stream.id), |_| {}).unwrap();
    assert_eq!(scan.unreadable, [(0, PAGE as u64)]);
    assert_eq!(scan.places.len(), 4);
    assert!(scan.places.iter().all(|place| place.fault == Some(FrameError::FileHeader)));
}

#[test]
fn entries_of_a_damaged_frame_can_be_saved() {
    let (stream, offsets) = small();
    let mut bytes = stream.files[0].clone().unwrap();
    // In the payload of the second of the last frame's three entries.
    let at = offsets[3] as usize;
    let payload = bytes[at..].windows(20).position(|window| window == [5; 20]).unwrap();
    bytes[at + payload] ^= 1;
    let expected = Expected { stream: Some(stream.id), epoch: Epoch(1), file: 1 };
    let head = parse_head(&bytes[at..], &expected, at as u64).unwrap().unwrap();
    let marker = SlotHeader::parse_slot(&bytes).unwrap().marker;
    assert_eq!(parse_frame(&bytes[at..], &head, &marker).unwrap_err(), FrameError::Crc);
    let kept: Vec<_> =
        salvage(&bytes[at..], &head).flatten().filter(|record| record.crc_holds()).map(|record| record.lsn.0).collect();
    assert_eq!(kept, [4, 6]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), page in 0_usize..5) {
        let (stream, _) = small();
        let _ = visited(&bytes, stream.name(1));
        let _ = crate::format::object::parse_object(&bytes, None);
        // Noise over a part of a good slot.
        let mut slot = stream.files[0].clone().unwrap();
        for (to, from) in slot[page * 4096..].iter_mut().zip(&bytes) {
            *to = *from;
        }
        let _ = visited(&slot, stream.name(1));
    }

    #[test]
    fn noise_in_a_head_never_panics(changes in proptest::collection::vec((0_usize..200, any::<u8>()), 1..30)) {
        let (stream, offsets) = small();
        let good = stream.files[0].clone().unwrap();
        let at = offsets[3] as usize;
        let expected = Expected { stream: Some(stream.id), epoch: Epoch(1), file: 1 };
        let head = parse_head(&good[at..], &expected, at as u64).unwrap().unwrap();
        let mut bytes = good[at..].to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        salvage(&bytes, &head).flatten().for_each(|record| { let _ = record.crc_holds(); });
        // A head that holds and a block that does not belong to it.
        let mut other = head;
        other.length = u32::from_le_bytes([bytes[0], bytes[1], 0, 0]);
        other.count = u64::from(bytes[2]) << 40;
        let _ = parse_frame(&bytes, &other, &[0; 16]);
        let _ = salvage(&bytes, &other).count();
    }
}
