use super::*;
use crate::format::fixture::{collection, entry};
use crate::format::limits::PAGE;

#[test]
fn frames_up_to_the_floor_are_not_looked_at_even_where_they_are_still_there() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&[collection("gone", C, 0, DIRECTORY, Epoch(1)), entry("gone", C, 1, Epoch(1), b"deleted since")]);
    stream.rotate();
    // The deletion itself was in another file, which is gone.
    stream.next.floor = 2;
    let kept = Incarnation(C.0 + 1);
    stream.frame(&[collection("kept", kept, 0, DIRECTORY, Epoch(1)), entry("kept", kept, 1, Epoch(1), b"x")]);
    let journal = loaded(&[&stream]);
    let found = &journal.streams[0].content.found;
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [kept]);
}

#[test]
fn streams_below_the_oldest_are_garbage() {
    let mut first = Stream::new(1, 0);
    first.begin(Vec::new());
    let mut second = Stream::new(2, 0);
    second.next.oldest = Epoch(2);
    second.begin(vec![first.close()]);
    let journal = loaded(&[&first, &second]);
    assert_eq!(journal.streams.iter().map(|stream| stream.key.epoch.0).collect::<Vec<_>>(), [2]);
    assert_eq!(journal.garbage.len(), 1);
}

#[test]
fn what_follows_the_closed_end_does_not_count() {
    let mut first = Stream::new(1, 0);
    first.begin(Vec::new());
    first.frame(&[entry("c", C, 1, Epoch(1), b"acknowledged")]);
    let close = first.close();
    first.frame(&[entry("c", C, 2, Epoch(1), b"a failed write that landed")]);
    let mut second = Stream::new(2, 0);
    second.begin(vec![close]);
    second.frame(&[entry("c", C, 2, Epoch(2), b"another")]);
    let merged = crate::recovery::merge::merge(vec![input(&[&first, &second])], false, false, &|_, _, _| false);
    let c = &merged.collections[0];
    let payloads: Vec<Vec<u8>> = c.entries.iter(Lsn(1)).map(|(_, raw)| raw.to_vec()).collect();
    assert_eq!(payloads, [entry("c", C, 1, Epoch(1), b"acknowledged"), entry("c", C, 2, Epoch(2), b"another")]);
    assert_eq!((merged.contradictions.len(), merged.unresolved.len()), (0, 0));
}

#[test]
fn a_stream_of_which_no_file_is_left_is_damage_when_its_successor_closed_it_behind_a_frame() {
    let mut first = Stream::new(1, 0);
    first.begin(Vec::new());
    let mut second = Stream::new(2, 0);
    second.begin(vec![first.close()]);
    let journal = loaded(&[&second]);
    assert_eq!(journal.streams[1].losses.len(), 1);
    second.files[0].as_mut().unwrap().truncate(PAGE);
    assert!(loaded(&[&second]).streams[0].content.epoch.is_none());
}
