use proptest::prelude::*;

use super::*;

const TIMES: Times =
    Times { duration: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn stored(holder: &str, transitions: i32, version: &str) -> Stored {
    Stored {
        record: Record { holder: holder.to_owned(), duration_seconds: 15, transitions },
        version: version.to_owned(),
    }
}

fn leader(now: u64) -> Election {
    let mut election = Election::new("a".to_owned(), TIMES);
    assert_eq!(election.step(at(now), Event::Tick), [Effect::Read]);
    let made = election.step(at(now), Event::Read(None));
    let record = Record { holder: "a".to_owned(), duration_seconds: 15, transitions: 0 };
    assert_eq!(made, [Effect::Write { record, over: None }]);
    assert_eq!(election.step(at(now), Event::Written(stored("a", 0, "1"))), [Effect::Lead]);
    election
}

#[test]
fn where_there_is_no_lease_the_first_makes_it_and_leads() {
    let election = leader(0);
    assert!(election.leads());
    assert_eq!((election.wake(), election.deadline()), (at(2), Some(at(10))));
}

#[test]
fn another_ones_lease_is_waited_for_from_when_it_was_first_seen_as_it_is() {
    let mut election = Election::new("a".to_owned(), TIMES);
    election.step(at(0), Event::Tick);
    assert_eq!(election.step(at(0), Event::Read(Some(stored("b", 3, "7")))), []);
    for now in (2..14).step_by(2) {
        assert_eq!(election.step(at(now), Event::Tick), [Effect::Read]);
        let version = if now < 6 { "7" } else { "8" };
        assert_eq!(election.step(at(now), Event::Read(Some(stored("b", 3, version)))), []);
    }
    // It was renewed at 6.
    election.step(at(20), Event::Tick);
    assert_eq!(election.step(at(20), Event::Read(Some(stored("b", 3, "8")))), []);
    election.step(at(22), Event::Tick);
    let record = Record { holder: "a".to_owned(), duration_seconds: 15, transitions: 4 };
    let taken = election.step(at(22), Event::Read(Some(stored("b", 3, "8"))));
    assert_eq!(taken, [Effect::Write { record, over: Some("8".to_owned()) }]);
}

#[test]
fn a_lease_that_was_let_go_of_is_taken_at_once() {
    let mut election = Election::new("a".to_owned(), TIMES);
    election.step(at(0), Event::Tick);
    let taken = election.step(at(0), Event::Read(Some(stored("", 3, "7"))));
    assert!(matches!(&taken[..], [Effect::Write { over: Some(version), .. }] if version == "7"), "{taken:?}");
}

#[test]
fn a_leader_without_answers_stops_before_others_take_over() {
    let mut election = leader(0);
    assert_eq!(election.step(at(2), Event::Tick), [Effect::Read]);
    assert_eq!(election.wake(), at(10), "a request that hangs does not keep it leading");
    assert_eq!(election.step(at(10), Event::Tick), [Effect::Stop]);
    assert!(!election.leads());
}

#[test]
fn the_time_of_a_renewal_is_that_of_sending_it() {
    let mut election = leader(0);
    election.step(at(2), Event::Tick);
    election.step(at(2), Event::Read(Some(stored("a", 0, "1"))));
    election.step(at(9), Event::Written(stored("a", 0, "2")));
    assert_eq!(election.deadline(), Some(at(12)));
}

#[test]
fn a_write_whose_answer_comes_too_late_makes_no_leader() {
    let mut election = Election::new("a".to_owned(), TIMES);
    election.step(at(0), Event::Tick);
    election.step(at(0), Event::Read(None));
    assert_eq!(election.step(at(11), Event::Written(stored("a", 0, "1"))), []);
    assert!(!election.leads());
}

#[test]
fn a_leader_that_sees_anothers_name_stops_at_once() {
    let mut election = leader(0);
    election.step(at(2), Event::Tick);
    let seen = election.step(at(2), Event::Read(Some(stored("b", 1, "2"))));
    assert_eq!(seen, [Effect::Stop]);
}

#[test]
fn a_refused_write_is_followed_by_a_read() {
    let mut election = leader(0);
    election.step(at(2), Event::Tick);
    election.step(at(2), Event::Read(Some(stored("a", 0, "1"))));
    assert_eq!(election.step(at(3), Event::Refused), [Effect::Read]);
}

#[test]
fn only_the_holder_lets_go() {
    let record = Record { holder: String::new(), duration_seconds: 1, transitions: 0 };
    assert_eq!(leader(0).release(), Some(Effect::Write { record, over: Some("1".to_owned()) }));
    let mut election = Election::new("a".to_owned(), TIMES);
    election.step(at(0), Event::Tick);
    election.step(at(0), Event::Read(Some(stored("b", 1, "2"))));
    assert_eq!(election.release(), None);
}

/// An API server with one Lease.
#[derive(Default)]
struct Server {
    lease: Option<Stored>,
    version: u64,
}

impl Server {
    fn answer(&mut self, effect: &Effect) -> Event {
        match effect {
            Effect::Read => Event::Read(self.lease.clone()),
            Effect::Write { record, over } => {
                if self.lease.as_ref().map(|stored| &stored.version) != over.as_ref() {
                    return Event::Refused;
                }
                self.version += 1;
                let stored = Stored { record: record.clone(), version: self.version.to_string() };
                self.lease = Some(stored.clone());
                Event::Written(stored)
            }
            Effect::Lead | Effect::Stop => panic!("not a request"),
        }
    }
}

proptest! {
    /// Three processes, requests that are lost, answers that are lost, answers that are late: never two leaders at a time.
    #[test]
    fn two_never_lead_at_the_same_time(fates in proptest::collection::vec((0..3_usize, 0..6_u8, 0..9000_u64), 1..600)) {
        let mut server = Server::default();
        let mut processes: Vec<Election> =
            ["a", "b", "c"].iter().map(|name| Election::new((*name).to_owned(), TIMES)).collect();
        // Answers under way, each with the time at which it arrives.
        let mut answers: Vec<Option<(u64, Event)>> = vec![None, None, None];
        let mut now = 0;
        let mut led = false;
        for (process, fate, delay) in fates {
            now += delay % 1500;
            for index in 0..3 {
                // Whoever is due acts, as the driver does it.
                let mut queue = Vec::new();
                match &answers[index] {
                    Some((when, _)) if *when <= now => queue.extend(answers[index].take().map(|(_, event)| event)),
                    _ => queue.push(Event::Tick),
                }
                while let Some(event) = queue.pop() {
                    for effect in processes[index].step(Duration::from_millis(now), event) {
                        if matches!(effect, Effect::Lead | Effect::Stop) {
                            continue;
                        }
                        let unlucky = index == process;
                        match fate {
                            0 if unlucky => answers[index] = Some((now + delay, Event::Failed)),
                            1 if unlucky => {
                                server.answer(&effect);
                                answers[index] = Some((now + delay, Event::Failed));
                            }
                            2 if unlucky => answers[index] = Some((now + delay, server.answer(&effect))),
                            _ => queue.push(server.answer(&effect)),
                        }
                    }
                }
            }
            // A leader counts until its own deadline, whether or not its clock was looked at.
            let leads = |election: &&Election| election.deadline().is_some_and(|end| Duration::from_millis(now) < end);
            let leaders = processes.iter().filter(leads).count();
            led |= leaders == 1;
            prop_assert!(leaders <= 1, "{leaders} leaders at {now} ms");
        }
        let _ = led;
    }
}
