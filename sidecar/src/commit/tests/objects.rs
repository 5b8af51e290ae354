//! What differs in the journal of a bucket.

use super::rig::{Rig, Setup, batch};
use crate::commit::upkeep::Upkeep;

const MAX: u64 = 64 << 20;

fn with_garbage(of_objects: bool) -> Rig {
    let mut rig = Rig::new(Setup { journal_max: MAX, ..Setup::default() });
    rig.log.journals[0].of_objects = of_objects;
    let name = |n: u64| format!("0000000000004.000-{n:012}.avro");
    rig.log.journals[0].garbage = (1..=1000).map(|n| (name(n), MAX / 1000)).collect();
    rig
}

#[test]
fn objects_that_are_still_to_be_deleted_take_no_room_from_others() {
    for (of_objects, accepted) in [(true, true), (false, false)] {
        let mut rig = with_garbage(of_objects);
        assert_eq!(rig.submit(batch("c", &[b"x"])).is_ok(), accepted, "of objects: {of_objects}");
    }
}

#[test]
fn objects_are_deleted_in_pieces_between_which_others_get_their_turn() {
    let mut rig = with_garbage(true);
    rig.log.journals[0].list_at = rig.now + std::time::Duration::from_secs(60);
    let mut left = 1000;
    while left > 0 {
        let Upkeep::Unlink(files) = rig.log.poll_upkeep(0, rig.now) else { panic!("{left} are left") };
        assert!((1..=256).contains(&files.len()), "{}", files.len());
        left -= files.len();
        rig.log.unlinked(0);
    }
}
