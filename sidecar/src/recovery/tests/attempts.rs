use super::*;
use crate::commit::collection::Collection;
use crate::commit::frames::Work;
use crate::engine::Ended;
use crate::format::fixture::{collection, entry};
use crate::format::frame::FrameBuilder;
use crate::types::CollectionName;

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

/// Directories `a` with an entry of `c`, and `b` with one of `d`, each known to the other.
fn both(root: &Path) -> (Stream, Stream) {
    let d = Incarnation(C.0 + 1);
    let mut a = Stream::new(1, 0);
    begin_both(&mut a, root);
    let (of_c, of_d) = (collection("c", C, 0, DIRECTORY, Epoch(1)), collection("d", d, 1, OTHER, Epoch(1)));
    a.frame(&[of_c.clone(), entry("c", C, 1, Epoch(1), b"x")]);
    a.frame(std::slice::from_ref(&of_d));
    let mut b = other(1);
    begin_both(&mut b, root);
    b.frame(&[of_d, entry("d", d, 1, Epoch(1), b"x")]);
    (a, b)
}

#[test]
fn claim_1_every_member_in_use_is_present_or_given_up() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = both(root.path());
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let mut context = context(root.path(), &["a", "b"], "");
    assert!(waits(&context)[0].contains(&OTHER.to_string()));
    assert!(!root.path().join("b").exists(), "nothing is made in its place");
    context.forget.insert(OTHER);
    let log = ready(&context);
    assert_eq!(log.forgotten.iter().map(|id| id.0).collect::<Vec<_>>(), [OTHER]);
    assert_eq!(log.find(&name("d")).unwrap().gaps.len(), 1);
    assert!(log.find(&name("c")).unwrap().gaps.is_empty());
    drop((log, b));
}

#[test]
fn a_directory_that_came_back_is_not_given_up_whatever_was_asked_before() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = both(root.path());
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let mut context = context(root.path(), &["a", "b"], "");
    context.forget.insert(OTHER);
    lay(&root.path().join("b"), OTHER, &[&b]);
    let log = ready(&context);
    assert!(log.forgotten.is_empty());
    assert_eq!(log.find(&name("d")).unwrap().buffer.entries(), 1);
    drop(log);
    // The same of one that left the configuration.
    let urls = format!("wal_urls = [\"file://{}/a\"]", root.path().display());
    context.config =
        Config::parse(&format!("[storage.wal_config]\nallow_ephemeral = true\n{urls}\n"), true).unwrap().config;
    let log = ready(&context);
    assert_eq!((log.forgotten.len(), log.journals.len()), (0, 2));
}

#[test]
fn a_directory_that_was_never_told_of_a_collection_is_told_at_the_start() {
    let root = tempfile::tempdir().unwrap();
    let mut a = Stream::new(1, 0);
    begin_both(&mut a, root.path());
    a.frame(&[collection("c", C, 0, DIRECTORY, Epoch(1)), entry("c", C, 1, Epoch(1), b"x")]);
    // The process was killed before the other directory heard of it.
    let mut b = other(1);
    begin_both(&mut b, root.path());
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    lay(&root.path().join("b"), OTHER, &[&b]);
    let log = ready(&context(root.path(), &["a", "b"], ""));
    let told: Vec<usize> = log.journals.iter().map(|journal| journal.facts.len()).collect();
    assert_eq!(told, [0, 1]);
    assert!(log.journals[1].commit_at.is_some(), "without waiting for another reason");
}

#[test]
fn claim_2_damage_is_waited_for_or_becomes_gaps() {
    let root = tempfile::tempdir().unwrap();
    let mut a = Stream::new(1, 0);
    a.begin(Vec::new());
    a.frame(&[collection("c", C, 0, DIRECTORY, Epoch(1)), entry("c", C, 1, Epoch(1), b"x")]);
    let lost = a.frame(&[entry("c", C, 2, Epoch(1), b"x")]);
    a.frame(&[]);
    a.files[0].as_mut().unwrap()[lost as usize + 150] ^= 1;
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let reasons = waits(&context(root.path(), &["a"], ""));
    assert!(reasons[0].contains(&format!("offset {lost}")), "{reasons:?}");
    let log = ready(&context(root.path(), &["a"], "on_damage = \"gap\""));
    let c = log.find(&name("c")).unwrap();
    assert_eq!((c.gaps.len(), c.gaps[0].first, c.gaps[0].last, c.assigned_head), (1, Lsn(2), Lsn(2), Lsn(2)));
    // Frame 1 makes it durable in every directory.
    assert!(log.opening_record_count >= 1);
}

#[test]
fn claim_3_a_directory_in_use_that_comes_up_empty_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let (a, _) = both(root.path());
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    std::fs::create_dir(root.path().join("b")).unwrap();
    let reasons = waits(&context(root.path(), &["a", "b"], ""));
    assert!(reasons[0].contains("lost"), "{reasons:?}");
    assert_eq!(std::fs::read_dir(root.path().join("b")).unwrap().count(), 0);
}

#[test]
fn claim_3_who_the_members_are_is_known_from_what_is_left_of_a_damaged_file_too() {
    let root = tempfile::tempdir().unwrap();
    let (mut a, _) = both(root.path());
    a.files[0].as_mut().unwrap()[100] ^= 1;
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let reasons = waits(&context(root.path(), &["a", "b"], "on_damage = \"gap\""));
    assert!(reasons.iter().any(|reason| reason.contains(&OTHER.to_string())), "{reasons:?}");
    assert!(!root.path().join("b").exists());
}

#[test]
fn claim_4_nothing_written_before_is_written_over() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = both(root.path());
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    lay(&root.path().join("b"), OTHER, &[&b]);
    let before = files(root.path());
    let mut log = ready(&context(root.path(), &["a", "b"], ""));
    assert_eq!(files(root.path()), before);
    assert_eq!(log.identity.epoch, Epoch(2));
    // The first frame goes to a file of its own, and closes the old stream.
    let work = log.poll(0, std::time::Instant::now(), &mut FrameBuilder::new());
    assert!(matches!(work, Work::Frame(job) if job.place.new_file && job.place.file == 1));
    assert_eq!(log.journals[0].closes, [a.close()]);
}

#[test]
fn an_epoch_that_no_incarnation_can_hold_is_refused() {
    for epoch in [1_u64 << 43, u64::MAX] {
        let root = tempfile::tempdir().unwrap();
        let (a, _) = both(root.path());
        lay(&root.path().join("a"), DIRECTORY, &[&a]);
        let stray = root.path().join("a").join(JOURNAL).join(format!("{epoch:013}.000-000000000001.avro"));
        std::fs::write(&stray, b"").unwrap();
        let mut context = context(root.path(), &["a", "b"], "");
        context.forget.insert(OTHER);
        match run(&context) {
            Outcome::Ended(Ended::Refused(why)) => assert!(why.contains("epoch"), "{why}"),
            Outcome::Ended(ended) => panic!("{ended:?}"),
            Outcome::Waiting(waiting) => panic!("{:?}", waiting.reasons),
            Outcome::Ready(ready) => panic!("epoch {}", ready.start.identity.epoch),
        }
    }
}

#[test]
fn holes_in_a_collection_are_explained_by_the_directory_that_is_given_up_whatever_affinity_says_now() {
    let root = tempfile::tempdir().unwrap();
    let mut a = Stream::new(1, 0);
    begin_both(&mut a, root.path());
    a.frame(&[collection("c", C, 0, DIRECTORY, Epoch(1)), entry("c", C, 1, Epoch(1), b"x")]);
    // Without affinity LSN 2 went to the other directory, and whatever came after 3 may have.
    a.frame(&[entry("c", C, 3, Epoch(1), b"x")]);
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let mut context = context(root.path(), &["a", "b"], "collection_affinity = true");
    context.forget.insert(OTHER);
    let log = ready(&context);
    let c = log.find(&name("c")).unwrap();
    let gaps: Vec<_> = c.gaps.iter().map(|gap| (gap.first.0, gap.last.0, gap.cause)).collect();
    let cause = GapCause::DirectoryForgotten;
    assert_eq!(gaps, [(2, 2, cause), (4, 3 + (1 << 40), cause)]);
}

/// A stream of `a` that tells of a collection of `a` and one of `b`, and says what the EPOCH says of mixing.
fn tells_of_both(root: &Path, version: u64, mixed: Vec<Uuid>) -> Stream {
    let mut a = Stream::new(1, 0);
    let url = |name: &str| format!("file://{}/{name}", root.display());
    let mut fact = a.epoch_fact(Vec::new());
    fact.members = vec![
        Member { uuid: DIRECTORY, url: url("a"), in_use: true },
        Member { uuid: OTHER, url: url("b"), in_use: true },
    ];
    (fact.version, fact.mixed) = (version, mixed);
    let mut buf = Vec::new();
    fact.encode_record(&mut buf);
    a.frame(&[buf]);
    let d = Incarnation::new(Epoch(1), 1);
    a.frame(&[collection("c", C, 0, DIRECTORY, Epoch(1)), entry("c", C, 1, Epoch(1), b"x")]);
    a.frame(&[collection("d", d, 3, OTHER, Epoch(1))]);
    a
}

/// The collections that have a gap when `b` is given up.
fn gapped_by_forgetting_b(version: u64, mixed: Vec<Uuid>, urls: &[&str], more: &str) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let a = tells_of_both(root.path(), version, mixed);
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    let mut context = context(root.path(), urls, more);
    context.forget.insert(OTHER);
    let log = ready(&context);
    let forgotten = |c: &&Collection| c.gaps.iter().any(|gap| gap.cause == GapCause::DirectoryForgotten);
    log.iter().filter(forgotten).map(|c| c.name.as_str().to_owned()).collect()
}

#[test]
fn whoever_may_have_entries_in_a_directory_that_is_given_up_is_told_by_the_epoch_not_by_the_configuration() {
    for affinity in ["collection_affinity = true", "collection_affinity = false"] {
        for urls in [&["a", "b"][..], &["a"]] {
            let gapped = |version, mixed| gapped_by_forgetting_b(version, mixed, urls, affinity);
            assert_eq!(gapped(1, vec![]), ["d"], "it never held entries of others: {affinity}, {urls:?}");
            assert_eq!(gapped(1, vec![DIRECTORY]), ["d"]);
            assert_eq!(gapped(1, vec![OTHER]), ["c", "d"], "it was written without affinity once, or for all");
            assert_eq!(gapped(0, vec![]), ["c", "d"], "nobody knows");
        }
    }
}

#[test]
fn what_an_epoch_of_a_higher_version_says_of_the_members_counts_wherever_it_stands() {
    let root = tempfile::tempdir().unwrap();
    let mut a = Stream::new(1, 0);
    begin_both(&mut a, root.path());
    let mut b = other(1);
    begin_both(&mut b, root.path());
    // The first went on for long, with what it knew; the other one was told later that it holds nothing any more.
    for _ in 0..5 {
        a.frame(&[]);
    }
    let says = |version: u64, in_use: bool| {
        let mut fact = b.epoch_fact(Vec::new());
        let url = |name: &str| format!("file://{}/{name}", root.path().display());
        fact.members = vec![
            Member { uuid: DIRECTORY, url: url("a"), in_use: true },
            Member { uuid: OTHER, url: url("b"), in_use },
        ];
        fact.version = version;
        let mut buf = Vec::new();
        fact.encode_record(&mut buf);
        buf
    };
    let (later, earlier) = (says(3, false), says(2, true));
    b.frame(&[later]);
    a.frame(&[earlier]);
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    lay(&root.path().join("b"), OTHER, &[&b]);
    let log = ready(&context(root.path(), &["a", "b"], ""));
    let in_use: Vec<bool> = log.journals.iter().map(|journal| journal.in_use).collect();
    assert_eq!(in_use, [true, false]);
}

#[test]
fn what_does_not_fit_into_memory_is_left_in_the_journal_and_counted_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let mut a = Stream::new(1, 0);
    a.begin(Vec::new());
    a.frame(&[collection("c", C, 0, DIRECTORY, Epoch(1))]);
    for lsn in 1..=20 {
        a.frame(&[entry("c", C, lsn, Epoch(1), &[7; 4000])]);
    }
    lay(&root.path().join("a"), DIRECTORY, &[&a]);
    // 172 KiB of files, 79 KiB of entries, which take 128 KiB of memory: not tried; tried and given up; kept.
    for (limit, kept) in [(60 << 10, false), (100 << 10, false), (200 << 10, true)] {
        let context = Context { memory_limit: limit, ..context(root.path(), &["a"], "") };
        let log = ready(&context);
        let c = log.find(&name("c")).unwrap();
        assert_eq!((log.has_shelves(), c.buffer.entries() == 20, c.durable_head), (!kept, kept, Lsn(20)), "{limit}");
        assert!(log.memory() <= limit, "{} of {limit}", log.memory());
        assert!(kept || c.shelf.bytes() > 20 * 4000, "{}", c.shelf.bytes());
    }
}
