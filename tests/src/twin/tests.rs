use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::fs::{OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::harness::skip::skipped;
use crate::twin::{Op, What};

/// An empty disk, after the folder of its mount point so that it is dropped before it.
fn disk(test: &str) -> Option<(TempDir, TwinDisk)> {
    let folder = tempfile::tempdir().expect("a folder");
    let namespace = Namespace::of_root();
    match namespace.and_then(|namespace| TwinDisk::mount(&namespace, &folder.path().join("point"), 64 << 20)) {
        Ok(disk) => Some((folder, disk)),
        Err(why) => {
            skipped(test, &why);
            None
        }
    }
}

fn cut(disk: &mut TwinDisk, seed: u64) {
    disk.cut(seed);
    disk.power_off();
    disk.power_on().expect("mounted again");
}

fn sync_dir(path: &Path) {
    File::open(path).expect("a folder").sync_all().expect("synced");
}

#[test]
fn what_was_synced_survives_every_cut_and_the_rest_some() {
    let Some((_folder, mut disk)) = disk("what_was_synced_survives_every_cut_and_the_rest_some") else { return };
    let (mut names, mut lengths, mut sectors) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..24 {
        let here = disk.path().join(format!("{seed}"));
        fs::create_dir(&here).expect("a folder");
        sync_dir(&disk.path());
        let file = File::create_new(here.join("file")).expect("a file");
        file.write_all_at(&[1; 4096], 0).expect("written");
        file.sync_data().expect("synced");
        sync_dir(&here);
        fs::write(here.join("name"), "x").expect("a name that is not synced");
        file.write_all_at(&[2; 8192], 0).expect("written, not synced");
        assert_eq!(fs::read(here.join("file")).expect("read"), [2; 8192], "seen at once");
        drop(file);
        cut(&mut disk, seed);
        let left = fs::read(here.join("file")).expect("synced with its name");
        assert!(left.len() == 4096 || left.len() == 8192, "{}", left.len());
        for (at, sector) in left.chunks(512).enumerate() {
            let uniform = sector.iter().all(|byte| *byte == sector[0]);
            let old = u8::from(at < 8);
            assert!(uniform && (sector[0] == 2 || sector[0] == old), "seed {seed}, sector {at}: old or new");
            sectors.insert(sector[0]);
        }
        names.insert(here.join("name").exists());
        lengths.insert(left.len());
    }
    assert_eq!((names.len(), lengths.len(), sectors.len()), (2, 2, 3), "each outcome happened");
}

#[test]
fn a_rename_and_a_removal_are_certain_only_after_their_folder_was_synced() {
    let Some((_folder, mut disk)) = disk("a_rename_and_a_removal_are_certain_only_after_their_folder_was_synced")
    else {
        return;
    };
    let here = disk.path();
    let mut outcomes = BTreeSet::new();
    for seed in 0..24 {
        for name in ["a", "gone"] {
            fs::write(here.join(name), name).expect("written");
            File::open(here.join(name)).expect("a file").sync_all().expect("synced");
        }
        sync_dir(&here);
        fs::rename(here.join("a"), here.join("b")).expect("renamed");
        fs::remove_file(here.join("gone")).expect("removed");
        cut(&mut disk, seed);
        let there = ["a", "b", "gone"].map(|name| here.join(name).exists());
        assert!(there[0] != there[1], "seed {seed}: one of the two names");
        outcomes.insert((there[0], there[2]));
        let _ = fs::remove_file(here.join("b"));
    }
    assert_eq!(outcomes.len(), 4, "each outcome happened: {outcomes:?}");
    fs::write(here.join("a"), "a").expect("written");
    fs::rename(here.join("a"), here.join("b")).expect("renamed");
    sync_dir(&here);
    for seed in 0..8 {
        cut(&mut disk, seed);
        assert!(here.join("b").exists() && !here.join("a").exists());
    }
}

#[test]
fn after_a_failed_sync_pages_stay_readable_and_no_later_sync_saves_them() {
    let Some((_folder, mut disk)) = disk("after_a_failed_sync_pages_stay_readable") else { return };
    let mut left = BTreeSet::new();
    for seed in 0..24 {
        let name = disk.path().join(format!("{seed}"));
        let file = File::create_new(&name).expect("a file");
        file.write_all_at(&[1; 4096], 0).expect("written");
        file.sync_all().expect("synced");
        sync_dir(&disk.path());
        disk.inject(Rule::new(&[Op::Sync], What::Error(Errno::IO)).times(1));
        file.write_all_at(&[2; 4096], 0).expect("written");
        assert_eq!(file.sync_data().expect_err("a failed sync").raw_os_error(), Some(5));
        file.sync_data().expect("the next says it is well");
        drop(file);
        assert_eq!(fs::read(&name).expect("read"), [2; 4096], "the page cache has it");
        let file = File::open(&name).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("dropped");
        let there = fs::read(&name).expect("read");
        drop(file);
        cut(&mut disk, seed);
        assert_eq!(fs::read(&name).expect("read"), there, "what the device had is what it has");
        left.extend(there);
    }
    assert_eq!(left, BTreeSet::from([1, 2]), "old or new");
}

#[test]
fn synced_writes_are_durable_when_they_return_with_and_without_a_page_cache() {
    let Some((_folder, mut disk)) = disk("synced_writes_are_durable_when_they_return") else { return };
    for (seed, flags) in [OFlags::DSYNC, OFlags::DSYNC | OFlags::DIRECT].into_iter().cycle().take(12).enumerate() {
        let name = disk.path().join(format!("{seed}"));
        let flags = flags.bits() as i32;
        let file = OpenOptions::new().write(true).create_new(true).custom_flags(flags).open(&name).expect("a file");
        sync_dir(&disk.path());
        for fill in 0..4 {
            file.write_all_at(&[fill; 4096], 0).expect("written");
        }
        drop(file);
        cut(&mut disk, seed as u64);
        assert_eq!(fs::read(&name).expect("read"), [3; 4096], "{flags:o}");
    }
}

#[test]
fn faults_strike_the_calls_they_name_when_they_say() {
    let Some((_folder, disk)) = disk("faults_strike_the_calls_they_name_when_they_say") else { return };
    let name = disk.path().join("file");
    let mut file = File::create_new(&name).expect("a file");
    disk.inject(Rule::new(&[Op::Write], What::Error(Errno::IO)).on("fil").after(1).times(1));
    assert_eq!(file.write(&[1; 100]).expect("the first passes"), 100);
    assert_eq!(file.write(&[1; 100]).expect_err("the second is struck").raw_os_error(), Some(5));
    assert_eq!((file.write(&[1; 100]).expect("the third passes"), disk.struck()), (100, 1));
    disk.inject(Rule::new(&[Op::Write], What::Short).times(1));
    assert_eq!(file.write(&[1; 100]).expect("a short write"), 50);
    disk.inject(Rule::new(&[Op::Write], What::DoneAndError(Errno::IO)).times(1));
    file.write_all_at(&[7; 10], 0).expect_err("an error");
    assert_eq!(&fs::read(&name).expect("read")[..10], [7; 10], "that landed all the same");
    disk.inject(Rule::new(&[Op::Create], What::Error(Errno::IO)).on("other"));
    File::create_new(disk.path().join("other")).expect_err("struck");
    File::create_new(disk.path().join("another")).expect_err("struck");
    File::create_new(disk.path().join("third")).expect("not meant");
    disk.inject(Rule::dead());
    assert_eq!(fs::metadata(&name).expect_err("dead").raw_os_error(), Some(5));
    disk.heal();
    fs::metadata(&name).expect("healed");
}

#[test]
fn a_stalled_call_returns_when_the_disk_is_healed_and_others_go_on() {
    let Some((_folder, disk)) = disk("a_stalled_call_returns_when_the_disk_is_healed") else { return };
    let file = File::create_new(disk.path().join("file")).expect("a file");
    disk.inject(Rule::new(&[Op::Sync], What::Stall));
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        disk.wait_stalled();
        fs::write(disk.path().join("other"), "x").expect("others go on");
        assert!(!sync.is_finished());
        disk.heal();
        sync.join().expect("no panic").expect("synced");
    });
    assert_eq!(disk.counts().1, 1);
}

#[test]
fn a_full_disk_takes_what_fits_and_says_no_space() {
    let Some((_folder, disk)) = disk("a_full_disk_takes_what_fits_and_says_no_space") else { return };
    disk.set_capacity(12_500);
    let file = File::create_new(disk.path().join("file")).expect("a file");
    file.write_all_at(&[1; 8192], 0).expect("it fits");
    assert_eq!(file.write_at(&[1; 8192], 8192).expect("a block fits"), 4096);
    assert_eq!(file.write_at(&[1; 1], 12_288).expect_err("full").kind(), ErrorKind::StorageFull);
    assert_eq!(File::create_new(disk.path().join("other")).expect_err("full").kind(), ErrorKind::StorageFull);
    file.write_all_at(&[2; 8192], 0).expect("what is there can be overwritten");
    assert_eq!(disk.space(), (12_500, 0));
    file.set_len(5000).expect("shorter");
    assert_eq!(disk.space(), (12_500, 4096));
}

/// One random step; what it shows, errors included.
fn step(root: &Path, rng: &mut StdRng) -> String {
    let name = |rng: &mut StdRng| root.join(["a", "b", "c", "d/a", "d/b", "e/a"][rng.random_range(0..6)]);
    let said = |result: io::Result<String>| match result {
        Ok(text) => text,
        Err(error) => format!("{:?}", error.kind()),
    };
    let (one, two) = (name(rng), name(rng));
    let (offset, size, fill) = (rng.random_range(0..9000), rng.random_range(1..5000), rng.random());
    said(match rng.random_range(0..12) {
        0 => File::create_new(&one).map(|_| String::new()),
        1..4 => OpenOptions::new().write(true).open(&one).and_then(|file| {
            file.write_all_at(&vec![fill; size], offset)?;
            file.sync_data()?;
            Ok(file.metadata()?.len().to_string())
        }),
        4 => fs::read(&one).map(|bytes| format!("{} {}", bytes.len(), crc32c::crc32c(&bytes))),
        5 => OpenOptions::new().write(true).open(&one).and_then(|file| file.set_len(offset)).map(|()| String::new()),
        6 => {
            let here = rustix::fs::CWD;
            renameat_with(here, &one, here, &two, RenameFlags::NOREPLACE).map(|()| String::new()).map_err(Into::into)
        }
        7 => fs::rename(&one, &two).map(|()| String::new()),
        8 => fs::remove_file(&one).map(|()| String::new()),
        9 => fs::create_dir(root.join("d")).map(|()| String::new()),
        10 => fs::remove_dir(root.join("d")).map(|()| String::new()),
        _ => fs::read_dir(root.join("d")).and_then(|names| {
            let names = names.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
            names.collect::<io::Result<BTreeSet<_>>>().map(|names| format!("{names:?}"))
        }),
    })
}

#[test]
fn it_shows_what_a_real_file_system_shows() {
    let Some((_folder, disk)) = disk("it_shows_what_a_real_file_system_shows") else { return };
    for seed in 0..4 {
        let real = tempfile::tempdir().expect("a folder");
        let twin = disk.path().join(format!("{seed}"));
        fs::create_dir(&twin).expect("a folder");
        let (mut one, mut two) = (StdRng::seed_from_u64(seed), StdRng::seed_from_u64(seed));
        for number in 0..800 {
            let (here, there) = (step(real.path(), &mut one), step(&twin, &mut two));
            assert_eq!(here, there, "seed {seed}, step {number}");
        }
    }
}
