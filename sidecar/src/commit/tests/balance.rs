//! LoadBalanced by measurement: a slow, a filling or a busy disk visibly loses traffic, and gets it back.

use std::time::Duration;

use walstorage_crds::config::DistributionStrategy;

use super::rig::{Rig, Setup, name};
use crate::directory::disk::Space;

/// Directories that have been measured once, LoadBalanced.
fn balanced(directories: usize, affinity: bool) -> Rig {
    let setup = Setup { directories, affinity, strategy: DistributionStrategy::LoadBalanced, ..Setup::default() };
    Rig::new(setup)
}

/// Creates `count` collections one after the other; how many each directory got.
fn create(rig: &mut Rig, prefix: &str, count: usize) -> Vec<usize> {
    let mut got = vec![0; rig.frames.len()];
    for n in 0..count {
        let collection = format!("{prefix}{n}");
        rig.send(&collection, &[b"x"]);
        rig.settle();
        got[rig.home(&collection)] += 1;
    }
    got
}

#[test]
fn a_slow_disk_loses_new_collections() {
    let mut rig = balanced(3, true);
    rig.took[1] = Duration::from_millis(20);
    create(&mut rig, "warm", 30);
    let got = create(&mut rig, "c", 300);
    assert_eq!(got[1], 0, "{got:?}");
    assert!(got[0] > 0 && got[2] > 0, "{got:?}");
}

#[test]
fn a_disk_that_was_slow_once_is_tried_again() {
    let mut rig = balanced(2, true);
    rig.took[1] = Duration::from_millis(20);
    create(&mut rig, "warm", 10);
    assert_eq!(create(&mut rig, "slow", 50)[1], 0);
    rig.took[1] = Duration::from_micros(100);
    let mut passed = 0;
    // Each second without a commit there a fifth of the bad memory goes: 20 ms are forgotten well within a minute.
    while create(&mut rig, &format!("later{passed}-"), 1)[1] == 0 {
        rig.pass(Duration::from_secs(1));
        passed += 1;
        assert!(passed < 60, "it is never tried again");
    }
    assert!(passed > 5, "it is not trusted at once: after {passed} s");
    let got = create(&mut rig, "again", 50);
    assert!(got[1] > 40, "measured anew it is the fastest: {got:?}");
}

#[test]
fn a_filling_disk_loses_new_collections() {
    let mut rig = balanced(2, true);
    create(&mut rig, "warm", 10);
    let space = |free: u64| Some(Space { capacity: 100 << 30, free });
    rig.space = vec![space(80 << 30), space(20 << 30)];
    rig.pass(Duration::from_secs(1));
    let got = create(&mut rig, "c", 50);
    assert_eq!(got, [50, 0]);
    rig.space = vec![space(20 << 30), space(80 << 30)];
    rig.pass(Duration::from_secs(1));
    let got = create(&mut rig, "d", 50);
    assert_eq!(got, [0, 50]);
}

#[test]
fn a_disk_with_a_long_queue_loses_new_collections() {
    let mut rig = balanced(2, true);
    create(&mut rig, "warm", 10);
    let big = vec![7; 8 << 20];
    rig.send("heavy", &[&big]);
    let heavy = rig.home("heavy");
    // Nothing is committed meanwhile: what is created goes to the other one.
    for n in 0..20 {
        let collection = format!("c{n}");
        rig.send(&collection, &[b"x"]);
        assert_eq!(rig.home(&collection), 1 - heavy, "{collection}");
    }
    rig.settle();
}

#[test]
fn two_directories_of_one_device_get_the_share_of_one() {
    let setup = Setup { directories: 3, strategy: DistributionStrategy::LoadBalanced, ..Setup::default() };
    let mut rig = Rig::new(setup);
    for dir in [1, 2] {
        rig.log.journals[dir].device = (1, String::new());
    }
    // Equal in all that is measured: each device is the first draw in half of the cases, and wins a tie.
    let mut shares = [0; 3];
    for n in 0..600 {
        for journal in &mut rig.log.journals {
            journal.latency_us = 300.0;
        }
        let collection = format!("c{n}");
        rig.send(&collection, &[b"x"]);
        rig.settle();
        shares[rig.home(&collection)] += 1;
    }
    assert!((240..360).contains(&shares[0]), "{shares:?}");
    assert!(shares[1] > 60 && shares[2] > 60, "the emptier of the two is chosen: {shares:?}");
}

#[test]
fn with_affinity_a_slow_disk_keeps_what_it_has() {
    let mut rig = balanced(2, true);
    create(&mut rig, "c", 20);
    let homes: Vec<usize> = (0..20).map(|n| rig.home(&format!("c{n}"))).collect();
    rig.took[0] = Duration::from_millis(50);
    for _ in 0..5 {
        for n in 0..20 {
            rig.send(&format!("c{n}"), &[b"y"]);
        }
        rig.settle();
    }
    let now: Vec<usize> = (0..20).map(|n| rig.home(&format!("c{n}"))).collect();
    assert_eq!(homes, now);
}

#[test]
fn without_affinity_groups_leave_a_slow_disk_and_order_holds() {
    let mut rig = balanced(2, false);
    let data = |rig: &Rig, dir: usize| rig.frames[dir].iter().map(|frame| frame.data("c").len()).sum::<usize>();
    for _ in 0..20 {
        rig.send("c", &[b"x"]);
        rig.settle();
    }
    let at = rig.home("c");
    let before = data(&rig, at);
    rig.took[at] = Duration::from_millis(50);
    for _ in 0..50 {
        rig.send("c", &[b"x"]);
        rig.settle();
    }
    assert!(data(&rig, at) - before <= 2, "one commit shows that it is slow, {} went there", data(&rig, at) - before);
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head.0, 70);
}

#[test]
fn without_affinity_a_small_difference_moves_nothing() {
    let mut rig = balanced(2, false);
    rig.took = vec![Duration::from_micros(300), Duration::from_micros(270)];
    for n in 0..2 {
        rig.log.journals[n].latency_us = rig.took[n].as_secs_f64() * 1e6;
    }
    rig.send("c", &[b"x"]);
    rig.settle();
    let at = rig.home("c");
    let mut moves = 0;
    for _ in 0..50 {
        rig.send("c", &[b"x"]);
        rig.settle();
        moves += usize::from(rig.home("c") != at);
    }
    assert_eq!(moves, 0, "10 % less is not 20 % less");
}
