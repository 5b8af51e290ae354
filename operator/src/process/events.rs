//! Events of `events.k8s.io`: what `kubectl describe` shows.
//!
//! 1. Publishing never waits and never fails a reconciliation: the queue is bounded, what does not fit is counted.
//! 2. The same event of the same object within [`KEPT`] is one object with a series, patched at once for the second
//!    time and then at most every [`HEARTBEAT`]: a pod that waits for an hour is no storm of writes.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long an event is remembered after it was last seen.
pub const KEPT: Duration = Duration::from_secs(6 * 60);
/// Least time between patches of a series, after the first.
pub const HEARTBEAT: Duration = Duration::from_secs(60);
/// Events remembered.
const KNOWN_MAX: usize = 4096;
/// Events that wait to be published.
const QUEUE: usize = 1024;
/// Longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;
/// How long one write may take, and how long the last ones may at the end.
const WRITE: Duration = Duration::from_secs(5);
/// How often one is tried that is not answered: most events are said once.
const TRIES: usize = 3;

/// Whether somebody has to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody has.
    Normal,
    /// Somebody has, or entries are at stake.
    Warning,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note {
    /// Whether somebody has to do something.
    pub kind: Kind,
    /// One word, in upper camel case.
    pub reason: &'static str,
    /// What was done or tried, in upper camel case.
    pub action: &'static str,
    /// A sentence, with the remedy where there is one.
    pub text: String,
}

impl Note {
    /// An event that asks nothing of anybody.
    #[must_use]
    pub fn normal(reason: &'static str, action: &'static str, text: impl Into<String>) -> Self {
        Self { kind: Kind::Normal, reason, action, text: text.into() }
    }

    /// An event that somebody should act on.
    #[must_use]
    pub fn warning(reason: &'static str, action: &'static str, text: impl Into<String>) -> Self {
        Self { kind: Kind::Warning, reason, action, text: text.into() }
    }
}

/// Where events are handed in. Cloned freely.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Note)>,
    dropped: Counter,
}

impl Events {
    /// Starts the task that publishes, until the token is cancelled; what waits then is still published. `reporter` is the
    /// controller's name and this process's.
    #[must_use]
    pub fn start(
        client: Client,
        reporter: (&'static str, String),
        dropped: Counter,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (controller, mut instance) = reporter;
        instance.truncate(instance.floor_char_boundary(128));
        let publisher = Publisher { client, controller, instance, dropped: dropped.clone() };
        (Self { queue, dropped }, tokio::spawn(publisher.run(waiting, stop)))
    }

    /// Publishes an event about an object, some time soon.
    pub fn publish(&self, object: ObjectReference, note: Note) {
        let Note { kind: _, reason, action: _, text } = &note;
        let (kind, namespace, name) = (&object.kind, &object.namespace, &object.name);
        tracing::info!(reason, kind, namespace, name, "{text}");
        if self.queue.try_send((object, note)).is_err() {
            self.dropped.inc();
        }
    }
}

struct Publisher {
    client: Client,
    controller: &'static str,
    instance: String,
    dropped: Counter,
}

impl Publisher {
    async fn run(self, mut waiting: mpsc::Receiver<(ObjectReference, Note)>, stop: CancellationToken) {
        let origin = Instant::now();
        let mut known = Known::default();
        loop {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                () = stop.cancelled() => waiting.try_recv().ok(),
            };
            let Some((object, note)) = next else { return };
            let key = Key::of(&object, &note);
            let step = known.observe(origin.elapsed(), &key, Timestamp::now());
            let mut done = timeout(WRITE, self.write(&object, &note, &step)).await;
            for _ in 1..TRIES {
                if done.is_ok() || stop.is_cancelled() {
                    break;
                }
                done = match timeout(WRITE, self.write(&object, &note, &step)).await {
                    // It was done, and nobody heard of it: nobody else makes such a name.
                    Ok(Err(Error::Api(status))) if status.is_already_exists() => Ok(Ok(())),
                    done => done,
                };
            }
            match done {
                Ok(Ok(())) => {}
                // It expired: the next time it is a new one.
                Ok(Err(Error::Api(status))) if status.is_not_found() => known.forget(&key),
                Ok(Err(error)) => {
                    tracing::debug!(%error, reason = note.reason, "an event was not published");
                    self.dropped.inc();
                    known.forget(&key);
                }
                Err(_) => {
                    self.dropped.inc();
                }
            }
            if stop.is_cancelled() && origin.elapsed() > WRITE && waiting.is_empty() {
                return;
            }
        }
    }

    async fn write(&self, object: &ObjectReference, note: &Note, step: &Step) -> Result<(), Error> {
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let now = MicroTime(Timestamp::now());
        match step {
            Step::Hold => {}
            Step::Create { name } => {
                let mut text = note.text.clone();
                if text.len() > NOTE_MAX {
                    text.truncate(text.floor_char_boundary(NOTE_MAX - 3));
                    text.push('…');
                }
                let event = Event {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        namespace: Some(namespace.to_owned()),
                        ..ObjectMeta::default()
                    },
                    event_time: Some(now),
                    action: Some(note.action.to_owned()),
                    reason: Some(note.reason.to_owned()),
                    note: Some(text),
                    regarding: Some(object.clone()),
                    type_: Some(if note.kind == Kind::Normal { "Normal" } else { "Warning" }.to_owned()),
                    reporting_controller: Some(self.controller.to_owned()),
                    reporting_instance: Some(self.instance.clone()),
                    ..Event::default()
                };
                api.create(&PostParams::default(), &event).await?;
            }
            Step::Patch { name, count } => {
                let patch = json!({"series": {"count": count, "lastObservedTime": now}});
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }
}

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    note: Note,
}

impl Key {
    fn of(object: &ObjectReference, note: &Note) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            kind: text(&object.kind),
            namespace: text(&object.namespace),
            name: text(&object.name),
            uid: text(&object.uid),
            note: note.clone(),
        }
    }
}

/// What to write for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A new one.
    Create {
        /// Its name.
        name: String,
    },
    /// The series of one that is there.
    Patch {
        /// Its name.
        name: String,
        /// How often it was seen.
        count: i32,
    },
    /// Nothing: it was written a moment ago.
    Hold,
}

#[derive(Debug)]
struct Series {
    name: String,
    count: i32,
    seen: Duration,
    written: Duration,
}

/// The events of the last minutes.
#[derive(Debug, Default)]
struct Known {
    series: HashMap<Key, Series>,
}

impl Known {
    /// Takes an event at a time, of a monotonic clock; `stamp` makes the name of a new one unique.
    fn observe(&mut self, now: Duration, key: &Key, stamp: Timestamp) -> Step {
        self.series.retain(|_, series| now < series.seen + KEPT);
        if let Some(series) = self.series.get_mut(key) {
            series.count = series.count.saturating_add(1);
            series.seen = now;
            if series.count > 2 && now < series.written + HEARTBEAT {
                return Step::Hold;
            }
            series.written = now;
            return Step::Patch { name: series.name.clone(), count: series.count };
        }
        if self.series.len() >= KNOWN_MAX
            && let Some(oldest) = self.series.iter().min_by_key(|(_, series)| series.seen).map(|(key, _)| key.clone())
        {
            self.series.remove(&oldest);
        }
        let mut name = if key.name.is_empty() { "walstorage".to_owned() } else { key.name.clone() };
        name.truncate(name.floor_char_boundary(220));
        let name = format!("{}.{:x}", name.trim_end_matches(['-', '.']), stamp.as_nanosecond());
        self.series.insert(key.clone(), Series { name: name.clone(), count: 1, seen: now, written: now });
        Step::Create { name }
    }

    fn forget(&mut self, key: &Key) {
        self.series.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, text: &str) -> Key {
        let object = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        Key::of(&object, &Note::normal("Accepted", "Validate", text))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_event_again_is_a_series_that_is_written_once_a_minute() {
        let (mut known, stamp) = (Known::default(), Timestamp::UNIX_EPOCH);
        let name = "a.0".to_owned();
        assert_eq!(known.observe(at(0), &key("a", "x"), stamp), Step::Create { name: name.clone() });
        assert_eq!(known.observe(at(1), &key("a", "x"), stamp), Step::Patch { name: name.clone(), count: 2 });
        for now in 2..61 {
            assert_eq!(known.observe(at(now), &key("a", "x"), stamp), Step::Hold, "{now}");
        }
        assert_eq!(known.observe(at(61), &key("a", "x"), stamp), Step::Patch { name, count: 62 });
    }

    #[test]
    fn another_sentence_is_another_event() {
        let (mut known, stamp) = (Known::default(), Timestamp::UNIX_EPOCH);
        for text in ["x", "y"] {
            assert!(matches!(known.observe(at(0), &key("a", text), stamp), Step::Create { .. }));
        }
    }

    #[test]
    fn an_event_is_forgotten_after_a_while_and_memory_is_bounded() {
        let (mut known, stamp) = (Known::default(), Timestamp::UNIX_EPOCH);
        known.observe(at(0), &key("a", "x"), stamp);
        assert!(matches!(known.observe(KEPT, &key("a", "x"), stamp), Step::Create { .. }));
        for index in 0..KNOWN_MAX + 10 {
            known.observe(KEPT, &key(&index.to_string(), "x"), stamp);
        }
        assert!(known.series.len() <= KNOWN_MAX);
    }

    #[test]
    fn the_name_of_an_event_is_one_that_the_api_takes() {
        let mut known = Known::default();
        let long = format!("{}.{}", "a".repeat(219), "b".repeat(30));
        let Step::Create { name } = known.observe(at(0), &key(&long, "x"), Timestamp::MAX) else { panic!() };
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
    }
}
