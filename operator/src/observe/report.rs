//! What a sidecar said, cut down to what is shown, and whether it is worth telling. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use walstorage_crds::buckets;

/// Directories of one writer: 16 URLs, a journal, and as many that drain.
const DIRECTORIES: usize = 64;
/// Characters of a state: as the schemas have it.
const STATE: usize = 64;
/// Characters of a sentence.
const SENTENCE: usize = 512;
/// Use that changed by less than this part of the space is not told.
const STEP: u64 = 50;
/// Use that changed by less is never told: a file system moves so much by itself.
const LEAST_STEP: u64 = 1 << 20;

/// The state of a directory of which nothing is to be told.
pub const HEALTHY: &str = "healthy";
/// The phase of a sidecar that reads its log.
const RECOVERING: &str = "recovering";

/// What is known of the sidecar of one writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The pod that was asked.
    pub pod_uid: String,
    /// What it said last; empty before it said anything.
    pub directories: Vec<Directory>,
    /// Why it has not answered for long.
    pub silent: Option<String>,
    /// It had not started when it said that.
    pub starting: bool,
}

/// A directory, as its sidecar sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// As in `config.toml`.
    pub url: String,
    /// One of the sidecar's words; of a bucket with which something is wrong, the name of that.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// Bytes of its file system; nothing of a bucket.
    pub capacity: Option<u64>,
    /// Bytes used there.
    pub used: u64,
    /// It was to be emptied, and is.
    pub emptied: bool,
}

impl Observation {
    /// Whether it has been heard.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.silent.is_some() || !self.directories.is_empty()
    }

    /// Whether somebody should be told that this came after `before`: sentences may count bytes, so they alone do not.
    #[must_use]
    pub fn is_news(&self, before: &Self) -> bool {
        let Self { pod_uid, directories, silent, starting: _ } = self;
        let same = |(now, before): (&Directory, &Directory)| {
            let moved = has_moved(before.used, now.used, now.capacity.unwrap_or_default());
            now.url == before.url && now.state == before.state && now.emptied == before.emptied && !moved
        };
        *pod_uid != before.pod_uid
            || silent.is_some() != before.silent.is_some()
            || directories.len() != before.directories.len()
            || !directories.iter().zip(&before.directories).all(same)
    }
}

/// Whether the use of a space changed by so much that it is shown.
#[must_use]
pub fn has_moved(before: u64, now: u64, capacity: u64) -> bool {
    before.abs_diff(now) >= (capacity / STEP).max(LEAST_STEP)
}

/// The answer of `/status`, as far as it is read. What a newer sidecar says besides is nothing to this one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    writer: Option<Writer>,
    phase: String,
    directories: Option<Vec<Shown>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Writer {
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Shown {
    url: String,
    state: String,
    reason: Option<String>,
    remedy: Option<String>,
    in_use: bool,
    draining: bool,
    #[serde(deserialize_with = "number")]
    capacity_bytes: u64,
    #[serde(deserialize_with = "number")]
    free_bytes: u64,
}

/// A 64-bit number, which JSON has as a text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| serde::de::Error::custom(format!("{value} is no number of bytes")))
}

/// Reads what the sidecar of this writer answered.
///
/// # Errors
/// A sentence, when it is no status, or another's.
pub(super) fn read(body: &[u8], writer_uid: &str) -> Result<Vec<Directory>, String> {
    let Answer { writer, phase, directories } =
        serde_json::from_slice(body).map_err(|error| format!("it answers with no status ({error})"))?;
    let uid = writer.unwrap_or_default().uid;
    // A sidecar without a grant does not know who it is until it has read that.
    if uid.is_empty() {
        return Err("it has not read its directories yet".to_owned());
    }
    if uid != writer_uid {
        return Err(format!("writer {} answers there", short(&uid, STATE)));
    }
    let mut shown: Vec<Directory> =
        directories.unwrap_or_default().into_iter().take(DIRECTORIES).map(directory).collect();
    if phase == RECOVERING {
        // Nobody has looked yet: only what is wrong is known.
        shown.retain(|directory| directory.state != HEALTHY);
    }
    shown.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(shown)
}

fn directory(shown: Shown) -> Directory {
    let Shown { url, state, reason, remedy, in_use, draining, capacity_bytes, free_bytes } = shown;
    let reason = reason.unwrap_or_default();
    let (sentence, name) = if url.starts_with("file:") { (reason.as_str(), None) } else { buckets::split(&reason) };
    let name = name.filter(|name| state == "failed" || state == "slow" && *name != "throttled");
    Directory {
        url: short(&url, 512),
        state: short(name.unwrap_or(&state), STATE),
        // Where it is stands beside it.
        reason: short(sentence.strip_prefix(&format!("{url}: ")).unwrap_or(sentence), SENTENCE),
        remedy: short(&remedy.unwrap_or_default(), SENTENCE),
        capacity: (capacity_bytes > 0).then_some(capacity_bytes),
        used: capacity_bytes.saturating_sub(free_bytes),
        emptied: draining && !in_use,
    }
}

/// On one line, and not longer.
fn short(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const UID: &str = "0d2f6f3e-9b1f-4b58-9c53-2f36f1b6a9aa";

    fn status(directories: &Value) -> Vec<u8> {
        // With what is not read, as a sidecar prints it.
        let status = json!({"writer": {"uid": UID, "id": "shop/orders.orders-0", "epoch": "17"}, "phase": "ready",
            "directories": directories, "memory": {"usedBytes": "1"}, "newer": true});
        status.to_string().into_bytes()
    }

    #[test]
    fn an_answer_is_cut_down_to_what_is_shown() {
        let body = status(&json!([
            {"url": "file:///wal/b", "state": "draining", "inUse": false, "draining": true, "capacityBytes": "1000",
                "freeBytes": "400", "reason": "", "remedy": "it may\nbe removed", "since": "2026-01-01T00:00:00Z"},
            {"url": "file:///wal/a", "state": "healthy", "inUse": true, "draining": false, "capacityBytes": 7},
            {"url": "s3://bucket/wal", "state": "x".repeat(99), "reason": null},
        ]));
        let read = read(&body, UID).unwrap();
        let urls: Vec<&str> = read.iter().map(|one| one.url.as_str()).collect();
        assert_eq!(urls, ["file:///wal/a", "file:///wal/b", "s3://bucket/wal"]);
        assert_eq!((read[0].capacity, read[0].used, read[0].emptied), (Some(7), 7, false));
        assert_eq!((read[1].capacity, read[1].used, read[1].emptied), (Some(1000), 600, true));
        assert_eq!(read[1].remedy, "it may be removed");
        assert_eq!((read[2].capacity, read[2].state.len()), (None, 64));
    }

    #[test]
    fn what_is_no_status_or_anothers_is_not_believed() {
        let table: [(Vec<u8>, &str); 5] = [
            (b"<html>".to_vec(), "it answers with no status"),
            (b"7".to_vec(), "it answers with no status"),
            (br#"{"phase": "recovering", "writer": null}"#.to_vec(), "it has not read its directories yet"),
            (br#"{"writer": {"uid": "another"}}"#.to_vec(), "writer another answers there"),
            (status(&json!([{"capacityBytes": "much"}])), "is no number of bytes"),
        ];
        for (body, sentence) in table {
            let error = read(&body, UID).unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
        assert_eq!(read(&status(&json!(null)), UID), Ok(Vec::new()));
        let many: Vec<Value> = (0..99).map(|at| json!({"url": format!("file:///{at}")})).collect();
        assert_eq!(read(&status(&json!(many)), UID).unwrap().len(), DIRECTORIES);
    }

    #[test]
    fn what_is_wrong_with_a_bucket_is_its_state_by_name() {
        let said = |url: &str, state: &str, reason: &str| json!({"url": url, "state": state, "reason": reason});
        let body = status(&json!([
            said("file:///a", "failed", "no such bucket (missing_bucket)"),
            said("s3://a", "failed", "s3://a: no such bucket (missing_bucket)"),
            said("s3://b", "failed", "something else (os error 5)"),
            said("s3://c", "slow", "no connection (unreachable)"),
            said("s3://d", "slow", "fewer requests (throttled)"),
            said("s3://e", "full", "no room (refused)"),
        ]));
        let states: Vec<(String, String)> =
            read(&body, UID).unwrap().into_iter().map(|one| (one.state, one.reason)).collect();
        let expected = [
            ("failed", "no such bucket (missing_bucket)"),
            ("missing_bucket", "no such bucket"),
            ("failed", "something else (os error 5)"),
            ("unreachable", "no connection"),
            ("slow", "fewer requests"),
            ("full", "no room"),
        ];
        assert_eq!(states, expected.map(|(state, reason)| (state.to_owned(), reason.to_owned())));
    }

    #[test]
    fn of_a_sidecar_that_reads_its_log_only_what_is_wrong_is_known() {
        let of = |phase: &str| {
            let directories = json!([{"url": "file:///a", "state": "healthy"},
                {"url": "s3://b", "state": "slow", "reason": "no connection (unreachable)"}]);
            let body = json!({"writer": {"uid": UID}, "phase": phase, "directories": directories}).to_string();
            read(body.as_bytes(), UID).unwrap().into_iter().map(|one| one.state).collect::<Vec<_>>()
        };
        assert_eq!(of("recovering"), ["unreachable"]);
        assert_eq!(of("waiting"), ["healthy", "unreachable"]);
    }

    #[test]
    fn only_what_a_user_would_see_is_news() {
        let directory = |used| Directory {
            url: "file:///a".into(),
            state: "healthy".into(),
            capacity: Some(100 << 20),
            used,
            ..Directory::default()
        };
        let of =
            |directory| Observation { pod_uid: "u".into(), directories: vec![directory], ..Observation::default() };
        let before = of(directory(10 << 20));
        type Edit = fn(&mut Observation);
        let table: [(Edit, bool); 9] = [
            (|_| {}, false),
            (|now| now.directories[0].reason = "commits take 812 us".into(), false),
            (|now| now.directories[0].remedy = "7 bytes are left".into(), false),
            (|now| now.directories[0].used += 2 << 20, true),
            (|now| now.directories[0].used += (2 << 20) - 1, false),
            (|now| now.directories[0].used -= 2 << 20, true),
            (|now| now.directories[0].state = "full".into(), true),
            (|now| now.silent = Some("no answer".into()), true),
            (|now| now.pod_uid = "v".into(), true),
        ];
        for (at, (edit, news)) in table.into_iter().enumerate() {
            let mut now = before.clone();
            edit(&mut now);
            assert_eq!(now.is_news(&before), news, "{at}");
        }
        // The reason of a silence may change with every try.
        let silent = |why: &str| Observation { silent: Some(why.into()), ..before.clone() };
        assert!(!silent("refused").is_news(&silent("no route")));
        assert!(before.is_news(&silent("refused")));
        // A small volume moves by megabytes at the least, a large one by its fiftieth.
        assert!(!has_moved(0, (1 << 20) - 1, 1 << 20) && has_moved(0, 1 << 20, 1 << 20));
        assert!(!has_moved(0, 1 << 30, 1 << 40) && has_moved(0, 1 << 35, 1 << 40));
    }
}
