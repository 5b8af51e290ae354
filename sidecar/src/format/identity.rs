//! `_wal/identity.json`: which directory this is and whose. Written once and never changed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Whose directory this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of the format.
    format: u64,
    /// The directory.
    pub directory: Uuid,
    /// The writer.
    pub writer: Uuid,
    /// The writer's name, for people and paths; may be empty.
    pub writer_id: String,
}

/// Why an identity is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not what is written there.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// A later version wrote it. The reader must stop.
    #[error("it is of format {0}, and this version reads format 1 only")]
    Format(u64),
}

impl Identity {
    /// Of a directory of format 1.
    #[must_use]
    pub const fn new(directory: Uuid, writer: Uuid, writer_id: String) -> Self {
        Self { format: 1, directory, writer, writer_id }
    }

    /// The file's content.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { format, directory, writer, writer_id } = self;
        let writer_id = serde_json::Value::from(writer_id.as_str());
        format!(r#"{{"format":{format},"directory":"{directory}","writer":"{writer}","writer_id":{writer_id}}}"#)
    }

    /// Reads the file's content. Keys that are not known are ignored.
    ///
    /// # Errors
    /// When it is malformed or of a later format.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Version {
            format: u64,
        }
        let malformed = |error: serde_json::Error| IdentityError::Malformed(error.to_string());
        match serde_json::from_slice(bytes).map_err(malformed)? {
            Version { format: 1 } => serde_json::from_slice(bytes).map_err(malformed),
            Version { format } => Err(IdentityError::Format(format)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_spelled_as_specified() {
        let identity = Identity::new(Uuid::from_u128(1), Uuid::from_u128(2), "pod \"0\"".into());
        assert_eq!(
            identity.to_json(),
            r#"{"format":1,"directory":"00000000-0000-0000-0000-000000000001","writer":"00000000-0000-0000-0000-000000000002","writer_id":"pod \"0\""}"#
        );
        assert_eq!(Identity::parse(identity.to_json().as_bytes()), Ok(identity));
    }

    #[test]
    fn later_formats_and_rot_are_told_apart() {
        assert_eq!(Identity::parse(br#"{"format":2,"other":true}"#), Err(IdentityError::Format(2)));
        for text in ["", "{}", "[]", r#"{"format":1}"#, r#"{"format":1,"directory":"x","writer":"y","writer_id":""}"#] {
            assert!(matches!(Identity::parse(text.as_bytes()), Err(IdentityError::Malformed(_))), "{text}");
        }
    }
}
