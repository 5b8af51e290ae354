//! The choice of a writer for a pod of a pool.

use std::collections::{BTreeSet, HashMap, HashSet};

use walstorage_crds::names;
use walstorage_crds::walwriter::{Identity, Phase, WalWriter, Workload, condition};

use super::classify::Refused;
use super::pod::PodFacts;

/// How long a writer that nobody could be placed with is left alone.
const UNPLACEABLE_MS: i64 = 3_600_000;
/// A list shows a pod that was proposed a writer so much sooner than a cache has to, or it is not coming.
const SOONER: i64 = 10;

/// What the choice is made from, as the caches have it. Wrong or late, it costs a lost race and no entry.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The storage.
    pub storage: &'a str,
    /// Whose pod it is.
    pub workload: &'a Workload,
    /// The writers of the namespace.
    pub writers: &'a [&'a WalWriter],
    /// The labelled pods of the namespace.
    pub pods: &'a [&'a PodFacts],
    /// They are a list that no cache answered.
    pub listed: bool,
    /// Milliseconds.
    pub now: i64,
}

/// Why a writer was chosen; the lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Nobody holds it, and it has entries.
    Entries,
    /// Its holder is on its way out.
    Handover,
    /// Nobody holds it, and it has no entries.
    Drained,
    /// It is new.
    Fresh,
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The writer, without the storage.
    pub writer: String,
    /// Why.
    pub class: Class,
}

/// Writers that were proposed a moment ago and that the caches do not show as taken yet.
#[derive(Clone, Debug)]
pub struct Reservations {
    hold_ms: i64,
    of: HashMap<(String, String), Reservation>,
}

#[derive(Clone, Copy, Debug)]
struct Reservation {
    since: i64,
    /// The ledger's epoch when the writer was proposed. It rises with each grant: a higher one is the proposal's end, and
    /// the pod that has it may have to be replaced long before the time is over.
    epoch: Option<i64>,
}

impl Reservations {
    /// Each one lasts until a grant, and for so many milliseconds at most.
    #[must_use]
    pub fn new(hold_ms: i64) -> Self {
        Self { hold_ms, of: HashMap::new() }
    }

    /// Nobody else here proposes this writer for a while. Not for dry runs.
    pub fn reserve(&mut self, pool: &Pool<'_>, writer: &str) {
        let hold = self.hold_ms;
        self.of.retain(|_, reservation| reservation.since + hold > pool.now);
        let reservation = Reservation { since: pool.now, epoch: pool.epoch(writer) };
        self.of.insert(pool.key(writer), reservation);
    }

    fn is_reserved(&self, pool: &Pool<'_>, writer: &str) -> bool {
        let reservation = self.of.get(&pool.key(writer));
        let hold = if pool.listed { self.hold_ms / SOONER } else { self.hold_ms };
        reservation.is_some_and(|it| it.since + hold > pool.now && pool.epoch(writer) <= it.epoch)
    }

    /// Whether a writer that may have entries is kept for a pod that nobody has seen yet: it may be on its way, or have been
    /// refused after us, by a quota say, and then the entries are the next pod's.
    #[must_use]
    pub fn keep_entries(&self, pool: &Pool<'_>) -> bool {
        let taken = Taken::of(pool);
        let reserved = pool.of_workload().filter(|writer| self.is_reserved(pool, &writer.spec.writer));
        reserved.into_iter().any(|writer| taken.class(writer, pool.now).is_some_and(|class| class <= Class::Handover))
    }
}

impl<'a> Pool<'a> {
    /// The writers that a pod of the pool may have.
    fn of_workload(&self) -> impl Iterator<Item = &'a WalWriter> {
        let Self { storage, workload, .. } = *self;
        self.writers.iter().copied().filter(move |writer| {
            let spec = &writer.spec;
            spec.storage == storage && spec.identity == Identity::Pooled && spec.workload == *workload
        })
    }

    fn key(&self, writer: &str) -> (String, String) {
        (self.namespace.to_owned(), names::wal_writer(self.storage, writer))
    }

    /// The epoch that the ledger of a writer has.
    fn epoch(&self, writer: &str) -> Option<i64> {
        let of = |one: &&&WalWriter| one.spec.storage == self.storage && one.spec.writer == writer;
        self.writers.iter().find(of)?.status.as_ref()?.epoch
    }
}

/// Chooses a writer for a pod of a pool: by class, within a class at random. `below(n)` gives a number below `n`.
pub fn choose(pool: &Pool<'_>, reservations: &Reservations, below: &mut dyn FnMut(usize) -> usize) -> Chosen {
    let taken = Taken::of(pool);
    let candidates: Vec<(Class, &str)> = pool
        .of_workload()
        .filter(|writer| !reservations.is_reserved(pool, &writer.spec.writer))
        .filter_map(|writer| Some((taken.class(writer, pool.now)?, writer.spec.writer.as_str())))
        .collect();
    if let Some(best) = candidates.iter().map(|(class, _)| *class).min() {
        let of_class: Vec<&str> =
            candidates.iter().filter(|(class, _)| *class == best).map(|(_, name)| *name).collect();
        let at = below(of_class.len()).min(of_class.len() - 1);
        return Chosen { writer: of_class[at].to_owned(), class: best };
    }
    fresh(pool, reservations, &taken, below)
}

fn fresh(
    pool: &Pool<'_>,
    reservations: &Reservations,
    taken: &Taken<'_>,
    below: &mut dyn FnMut(usize) -> usize,
) -> Chosen {
    let known: BTreeSet<&str> = pool
        .writers
        .iter()
        .filter(|writer| writer.spec.storage == pool.storage)
        .map(|writer| writer.spec.writer.as_str())
        .collect();
    let mut name = String::new();
    // Fourteen million names; nobody has that many writers, and an equal name would only lose a race.
    for _ in 0..100 {
        let letters = names::POOLED_LETTERS;
        let suffix: String = (0..names::POOLED_SUFFIX)
            .map(|_| char::from(letters[below(letters.len()).min(letters.len() - 1)]))
            .collect();
        name = names::pooled(&pool.workload.name, &suffix);
        let reserved = reservations.is_reserved(pool, &name);
        if !known.contains(name.as_str()) && !taken.named.contains_key(name.as_str()) && !reserved {
            break;
        }
    }
    Chosen { writer: name, class: Class::Fresh }
}

/// Which writers the pods have.
struct Taken<'a> {
    /// Writers that live pods name, and those pods' uids.
    named: HashMap<&'a str, HashSet<&'a str>>,
    /// Pods that are not on their way out.
    live: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn of(pool: &Pool<'a>) -> Self {
        let mut named: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut live = HashSet::new();
        for pod in pool.pods.iter().filter(|pod| pod.storage() == Some(pool.storage)) {
            if !pod.is_ending() {
                live.insert(pod.uid.as_str());
            }
            // One that is being deleted behind its gate can never hold anything.
            if let Some(writer) = pod.writer().filter(|_| !(pod.is_gated() && pod.is_ending())) {
                named.entry(writer).or_default().insert(pod.uid.as_str());
            }
        }
        Self { named, live }
    }

    fn class(&self, writer: &WalWriter, now: i64) -> Option<Class> {
        let status = writer.status.clone().unwrap_or_default();
        let holder = status.holder.as_ref().map(|holder| holder.pod_uid.as_str());
        let others = self.named.get(writer.spec.writer.as_str()).into_iter().flatten();
        if others.clone().any(|uid| Some(*uid) != holder) {
            return None;
        }
        let stuck = status.condition(condition::STUCK).is_some_and(|stuck| stuck.status == "True");
        let unplaceable = status.condition(condition::UNPLACEABLE).is_some_and(|unplaceable| {
            unplaceable.status == "True" && now - unplaceable.last_transition_time.0.as_millisecond() < UNPLACEABLE_MS
        });
        if stuck || unplaceable {
            return None;
        }
        match status.phase {
            Some(Phase::Released | Phase::Orphaned) => Some(Class::Entries),
            Some(Phase::Pending | Phase::Active | Phase::Releasing) => {
                // A holder that the cache does not have is gone, or not there yet: the grant decides.
                let live = holder.is_some_and(|uid| self.live.contains(uid));
                (!live).then_some(Class::Handover)
            }
            Some(Phase::Drained) | None => Some(Class::Drained),
            Some(Phase::Reclaiming | Phase::Lost) => None,
        }
    }
}

/// The writer that a Job is to empty.
///
/// # Errors
/// When there is none of this uid in the storage, or when it is not without a pod.
pub fn to_drain<'a>(writers: &[&'a WalWriter], storage: &str, writer_uid: &str) -> Result<&'a str, Refused> {
    let found = writers.iter().find(|writer| writer.spec.storage == storage && writer.spec.writer_uid == writer_uid);
    let Some(writer) = found else {
        return Err(Refused(format!(
            "{} = {writer_uid:?} is no writer of {storage}: take writerUid from kubectl get walwriters -o yaml",
            names::ANNOTATION_DRAIN
        )));
    };
    match writer.status.as_ref().and_then(|status| status.phase) {
        Some(Phase::Released | Phase::Orphaned) => Ok(&writer.spec.writer),
        phase => Err(Refused(format!(
            "writer {} is {}, and only one that is Released or Orphaned can be emptied: wait until its pod is gone",
            writer.spec.writer,
            phase.map_or("new", Phase::as_str)
        ))),
    }
}
