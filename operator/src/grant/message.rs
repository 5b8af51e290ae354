//! The termination message: what a stopped sidecar says is left.

use serde::Deserialize;

/// What stands in `/dev/termination-log` of a sidecar that chose to end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// 1.
    pub v: u32,
    /// The writer's uid.
    pub writer_uid: String,
    /// The epoch of the grant that it had.
    pub granted: i64,
    /// How it ended.
    pub exit: Exit,
    /// Entries that the application has not applied.
    pub unapplied_entries: i64,
    /// Their bytes.
    pub unapplied_bytes: i64,
    /// Names of the URLs where nothing is left.
    #[serde(default)]
    pub empty: Vec<String>,
}

/// How a sidecar ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    /// After it was told to.
    Clean,
    /// Another process took over.
    Fenced,
    /// It never served.
    Refused,
}

impl Exit {
    /// The name in the message.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Fenced => "fenced",
            Self::Refused => "refused",
        }
    }
}

impl TerminationMessage {
    /// Reads a message, and believes it only from the process that had this grant and served under it.
    #[must_use]
    pub fn believed(text: &str, writer_uid: &str, epoch: i64) -> Option<Self> {
        let message: Self = serde_json::from_str(text).ok()?;
        let ours = message.v == 1 && message.writer_uid == writer_uid && message.granted == epoch;
        let counted = message.unapplied_entries >= 0 && message.unapplied_bytes >= 0;
        (ours && counted && message.exit != Exit::Refused).then_some(message)
    }
}
