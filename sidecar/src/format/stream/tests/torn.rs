//! Frames that a crash has torn, at any place and over anything: a tail, and never damage.

use super::*;

/// Sectors that a crash leaves as they were, the others as the writer wanted them.
fn tear(stream: &mut Stream, offset: u64, keep_new: impl Fn(u64) -> bool, stale: &[u8]) {
    let bytes = stream.files[0].as_mut().unwrap();
    for (index, sector) in bytes[offset as usize..].chunks_mut(512).enumerate() {
        if !keep_new(index as u64) {
            let at = index * 512;
            sector.copy_from_slice(&stale[at..at + sector.len()]);
        }
    }
}

#[test]
fn schedule_2_a_torn_frame_of_any_length_and_any_subset_of_sectors_is_cut_and_never_damage() {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for pages in 1..=40_usize {
        // Over zeros, over a stale lap of another stream, over a stale lap that has frames at the same pages.
        let mut old = Stream::new(9, 0);
        old.begin(Vec::new());
        while old.files[0].as_ref().unwrap().len() < (pages + 3) * PAGE {
            old.frame(&data(1, 3000));
        }
        let lap = old.files[0].clone().unwrap();
        // Over a stale lap of the same stream, from when the file had another number.
        let mut own = Stream::new(1, 0);
        own.rotate();
        own.begin(Vec::new());
        while own.files[1].as_ref().unwrap().len() < lap.len() {
            own.frame(&data(1, 3000));
        }
        let own = own.files[1].clone().unwrap();
        let zeros = vec![0; lap.len()];
        for (round, stale) in (0..24).flat_map(|round| [(round, &lap), (round, &own), (round, &zeros)]) {
            let mut stream = Stream::new(1, 0);
            stream.begin(Vec::new());
            let offset = stream.frame(&data(1, pages * PAGE - 400));
            let sectors = stream.files[0].as_ref().unwrap()[offset as usize..].len() as u64 / 512;
            assert_eq!(sectors, pages as u64 * 8);
            let subset: Vec<bool> = match round {
                0 => vec![false; sectors as usize],
                1 => (0..sectors).map(|index| index + 1 < sectors).collect(),
                2 => (0..sectors).map(|index| index > 0).collect(),
                _ => (0..sectors).map(|_| random() % 2 == 0).collect(),
            };
            let whole = subset.iter().all(|new| *new);
            tear(&mut stream, offset, |index| subset[index as usize], &stale[offset as usize..]);
            let scans = stream.scan();
            let verdict = classify(&scans, None);
            assert_eq!(found(&verdict), [], "{pages} pages, round {round}");
            let same = stream.files[0].as_ref().unwrap()[offset as usize..] == intact(pages)[offset as usize..];
            assert_eq!(seqs(&scans, &verdict).len(), if whole || same { 2 } else { 1 }, "{pages} pages, round {round}");
        }
    }
}

/// The file as the next stream stamps and writes it: what lies behind stays.
fn stamped_over(stale: &[u8], stream: &mut Stream) {
    let bytes = stream.files.last_mut().unwrap().as_mut().unwrap();
    let end = bytes.len();
    bytes.extend_from_slice(&stale[end..]);
}

#[test]
fn schedule_3_a_shorter_frame_over_a_torn_one_of_an_earlier_use_is_followed_by_nothing() {
    for torn_pages in 2..=12_usize {
        for short_pages in 1..torn_pages {
            // The first use ends in a torn frame: its head is there, and its end.
            let mut first = Stream::new(1, 0);
            first.begin(Vec::new());
            let torn = first.frame(&data(1, torn_pages * PAGE - 400));
            let middle = torn as usize + PAGE / 2;
            first.files[0].as_mut().unwrap()[middle..middle + 512].fill(0);
            assert_eq!(classify(&first.scan(), None).accepted.len(), 1);
            let stale = first.files[0].clone().unwrap();
            // The second use writes a shorter frame at the same place, then one that is torn to nothing.
            let mut second = Stream::new(2, 0);
            second.begin(vec![first.close()]);
            let short = second.frame(&data(1, short_pages * PAGE - 400));
            assert_eq!(short, torn);
            stamped_over(&stale, &mut second);
            let scans = second.scan();
            for close in [None, Some(second.closed_at())] {
                let verdict = classify(&scans, close);
                assert_eq!(found(&verdict), [], "{torn_pages} pages, {short_pages} over it");
                assert_eq!(seqs(&scans, &verdict), [1, 2]);
            }
        }
    }
}

#[test]
fn a_file_whose_header_was_not_stamped_yet_counts_as_absent_whatever_it_held() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&data(1, 9000));
    stream.rotate();
    stream.frame(&data(2, 9000));
    // File 1 of the same stream, and one of another, under the name of file 3.
    let mut other = Stream::new(2, 0);
    other.begin(Vec::new());
    for stale in [stream.files[0].clone(), other.files[0].clone()] {
        let mut renamed = Stream::new(1, 0);
        renamed.files = vec![stream.files[0].clone(), stream.files[1].clone(), stale];
        let scans = renamed.scan();
        assert!(scans[2].header.is_err() && scans[2].places.is_empty() && scans[2].used_before);
        let verdict = classify(&scans, None);
        assert_eq!(found(&verdict), []);
        assert_eq!(seqs(&scans, &verdict), [1, 2, 3]);
        assert!(matches!(verdict.end, End::Tail(_)));
    }
}

fn intact(pages: usize) -> Vec<u8> {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&data(1, pages * PAGE - 400));
    stream.files[0].clone().unwrap()
}

/// Schedule 3: a shorter frame after a torn one, and another crash. The second process writes a stream of its own, so that
/// the torn bytes stay where they are and stay unproven.
#[test]
fn a_torn_frame_stays_torn_after_the_next_process_closed_its_stream() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    let close = stream.closed_at();
    let offset = stream.frame(&data(1, 10 * PAGE));
    flip(&mut stream, 1, offset + 5 * P);
    let scans = stream.scan();
    assert_eq!(tail_at(&classify(&scans, None)).1, offset);
    let verdict = classify(&scans, Some(close));
    assert_eq!((seqs(&scans, &verdict), verdict.damage, verdict.end), (vec![1], Vec::new(), End::Closed));
}
