//! The last words of the process, for the operator: one JSON object of at most 2 KiB where the kubelet looks for the
//! termination message.
//!
//! 1. It is written at every end that the process chooses, after the directories have heard everything. An end that it
//!    did not choose leaves nothing, which means "unknown, has data": the file is emptied at the start.
//! 2. What is left is said after a clean end only, and only where recovery had ended. Everywhere else these members are
//!    absent: nobody may take an unknown number for none.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::Exit;
use crate::engine::{Grant, Leftover};

/// Where the kubelet puts the file that it reads.
const DEFAULT: &str = "/dev/termination-log";
/// Most bytes that are read of it.
const MAX_BYTES: usize = 2048;

/// What is said.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    v: u8,
    writer_uid: uuid::Uuid,
    granted: u64,
    exit: &'static str,
    #[serde(flatten)]
    left: Option<Left>,
    /// For people; absent after a clean end.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    unapplied_entries: u64,
    unapplied_bytes: u64,
    empty: Vec<String>,
}

/// The file, open since the start: what may be written then can still be written at the end.
#[derive(Debug)]
pub(super) struct Termination(Option<File>);

impl Termination {
    /// Opens and empties the file: the one that was named, which is made where it is missing, else the kubelet's, if it
    /// is there.
    pub(super) fn open(named: Option<&PathBuf>) -> Self {
        let path = named.map_or(Path::new(DEFAULT), PathBuf::as_path);
        if named.is_none() && !path.exists() {
            return Self(None);
        }
        match OpenOptions::new().write(true).create(named.is_some()).truncate(true).open(path) {
            Ok(file) => Self(Some(file)),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no termination message can be left");
                Self(None)
            }
        }
    }

    /// Says how the process ends.
    pub(super) fn write(self, exit: &Exit, grant: Option<&Grant>, leftover: Option<&Leftover>) {
        let Some(mut file) = self.0 else { return };
        let text = message(exit, grant, leftover);
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, "the termination message could not be written");
        }
    }
}

/// The text. Pure.
fn message(exit: &Exit, grant: Option<&Grant>, leftover: Option<&Leftover>) -> String {
    let known = leftover.filter(|_| exit.code() == 0);
    let exit_word = match (exit.code(), known) {
        (0, Some(_)) => "clean",
        (3, _) => "fenced",
        // A stop before recovery has ended is clean, but nobody knows what is left.
        _ => "refused",
    };
    let names = |left: &Leftover| {
        let urls = grant.into_iter().flat_map(|grant| &grant.urls);
        urls.filter(|granted| !left.holding.contains(&granted.url)).map(|granted| granted.name.clone()).collect()
    };
    let mut message = Message {
        v: 1,
        writer_uid: grant.map(|grant| grant.writer_uid).or(leftover.map(|left| left.writer_uid)).unwrap_or_default(),
        granted: grant.map_or(0, |grant| grant.epoch),
        exit: exit_word,
        left: known.map(|left| Left {
            unapplied_entries: left.unapplied_entries,
            unapplied_bytes: left.unapplied_bytes,
            empty: names(left),
        }),
        reason: exit.messages.join("; "),
    };
    loop {
        // Numbers, ids and text always have a JSON form.
        let text = serde_json::to_string(&message).unwrap_or_default();
        if text.len() <= MAX_BYTES {
            return text;
        }
        if message.reason.is_empty() {
            // A name that is left out counts as not empty.
            message.left.as_mut().map(|left| left.empty.pop());
        } else {
            let half = message.reason.floor_char_boundary(message.reason.len() / 2);
            message.reason.truncate(half);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use walstorage_crds::url::WalUrl;

    use super::*;
    use crate::engine::GrantedUrl;

    const UID: uuid::Uuid = uuid::uuid!("6f2c6d0e-5c55-4f5e-9d5a-0f6f6e3f8a11");

    fn url(n: usize) -> WalUrl {
        WalUrl::parse(&format!("file:///wal/{n}")).unwrap()
    }

    fn grant(urls: usize) -> Grant {
        let urls = (0..urls).map(|n| GrantedUrl { name: format!("directory{n:07}"), url: url(n) }).collect();
        Grant { writer_uid: UID, epoch: 7, holder: "pod".into(), urls, init: [].into(), forget: [].into() }
    }

    fn leftover(unapplied: u64, holding: &[usize]) -> Leftover {
        let holding = holding.iter().map(|n| url(*n)).collect();
        Leftover { writer_uid: UID, unapplied_entries: unapplied, unapplied_bytes: unapplied * 9, holding }
    }

    fn said(exit: &Exit, grant: Option<&Grant>, leftover: Option<&Leftover>) -> Value {
        serde_json::from_str(&message(exit, grant, leftover)).unwrap()
    }

    #[test]
    fn a_clean_end_says_what_is_left_and_which_directories_are_empty() {
        let said = said(&Exit::clean(), Some(&grant(2)), Some(&leftover(3, &[0])));
        let expected = json!({"v": 1, "writerUid": UID.to_string(), "granted": 7, "exit": "clean",
            "unappliedEntries": 3, "unappliedBytes": 27, "empty": ["directory0000001"]});
        assert_eq!(said, expected);
    }

    #[test]
    fn an_end_that_does_not_know_what_is_left_does_not_say_none() {
        let grant = grant(1);
        let left = leftover(0, &[]);
        let table = [
            (Exit::clean(), None, "refused"),
            (Exit::fenced("newer"), None, "fenced"),
            (Exit::fenced("newer"), Some(&left), "fenced"),
            (Exit::other("no"), Some(&left), "refused"),
            (Exit::configuration(vec!["a".into(), "b".into()]), None, "refused"),
            (Exit::no_grant("none"), None, "refused"),
        ];
        for (exit, left, word) in table {
            let said = said(&exit, Some(&grant), left);
            assert_eq!(said["exit"], word, "{said}");
            for member in ["unappliedEntries", "unappliedBytes", "empty"] {
                assert!(said.get(member).is_none(), "{said}");
            }
            assert_eq!(said.get("reason").and_then(Value::as_str).unwrap_or_default(), exit.messages.join("; "));
        }
    }

    #[test]
    fn it_never_exceeds_what_is_read_of_it() {
        let text = message(&Exit::other("ä".repeat(5000)), Some(&grant(16)), None);
        assert!(text.len() <= MAX_BYTES && text.contains("refused") && text.contains("ää"), "{text}");
        let said = said(&Exit::clean(), Some(&grant(500)), Some(&leftover(0, &[])));
        assert!(said["empty"].as_array().unwrap().len() > 50, "{said}");
    }

    #[test]
    fn the_file_is_emptied_at_the_start_and_only_a_named_one_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("message");
        Termination::open(Some(&path)).write(&Exit::other("a long reason"), None, None);
        assert!(std::fs::read_to_string(&path).unwrap().contains("a long reason"));
        let open = Termination::open(Some(&path));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "an end by SIGKILL says nothing");
        open.write(&Exit::fenced("x"), None, None);
        assert!(std::fs::read_to_string(&path).unwrap().contains("fenced"));
    }
}
