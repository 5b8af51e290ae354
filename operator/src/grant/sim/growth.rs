//! Claims that grow under the pods that use them.

use walstorage_crds::walstorage::{UrlSpec, VolumeSpec, WalStorageSpec};
use walstorage_crds::walwriter::Phase;

use super::stage::whatever_fails_and_then;
use super::world::{World, storage_of};
use crate::grant::run::NoteReason;

/// What the disks are raised to.
const LARGER: &str = "20Gi";

/// The user raises the size of each disk.
fn raise(world: &mut World, urls: &[&str]) {
    let urls = urls.iter().map(|name| UrlSpec {
        name: (*name).to_owned(),
        url: format!("file:///wal/{name}"),
        volume: Some(VolumeSpec { size: Some(LARGER.to_owned()), ..VolumeSpec::default() }),
        ..UrlSpec::default()
    });
    world.api.storage =
        Some(storage_of(WalStorageSpec { wal_urls: Some(urls.collect()), ..WalStorageSpec::default() }));
}

/// The sizes that claims and ledgers have.
fn sizes(world: &World) -> Vec<String> {
    let claims = world.api.claims.values().map(|claim| claim.size.clone());
    let ledgers = world.api.writers.values().filter_map(|writer| writer.status.clone()?.volumes);
    claims.chain(ledgers.flatten().filter_map(|volume| volume.size)).collect()
}

#[test]
fn claims_grow_under_their_pod_whatever_call_fails() {
    let grows = |world: &mut World| {
        world.begin(3);
        raise(world, &["a", "b"]);
        world.rounds(6);
    };
    whatever_fails_and_then(&["a", "b"], grows, |world| {
        assert_eq!(sizes(world), [LARGER; 4], "{}", world.shown());
        assert_eq!((world.api.granted, world.phase("db-0")), (1, Some(Phase::Active)), "the pod is the first still");
    });
}

#[test]
fn a_claim_without_a_pod_and_one_behind_a_gate_grow_too() {
    let mut world = World::serving(2, &["a"], 0);
    world.stateful = 0;
    world.rounds(8);
    raise(&mut world, &["a"]);
    world.rounds(2);
    assert_eq!(sizes(&world), [LARGER; 2]);
    assert!(world.notes(NoteReason::ClaimGrown) > 0);
}

#[test]
fn what_a_class_refuses_is_said_holds_nothing_up_and_is_done_once_it_may() {
    let mut world = World::serving(3, &["a"], 2);
    world.api.class_is_rigid = true;
    raise(&mut world, &["a"]);
    world.rounds(4);
    let ready = |world: &World| {
        let ready = world.status("db-0").condition("ClaimsReady").cloned().unwrap();
        (ready.status, ready.reason)
    };
    assert_eq!(ready(&world), ("False".to_owned(), "ClassCannotExpand".to_owned()));
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    // The next pod gets the writer with what there is.
    world.force_delete("db-0");
    world.settle();
    assert_eq!((world.phase("db-0"), sizes(&world)), (Some(Phase::Active), vec!["10Gi".to_owned(); 2]));
    world.rounds(2);
    assert_eq!(ready(&world).0, "False", "it is too small still");
    world.api.class_is_rigid = false;
    world.rounds(2);
    assert_eq!(sizes(&world), [LARGER; 2]);
    assert_eq!(ready(&world).0, "True", "what was refused is done");
}
