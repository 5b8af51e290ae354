//! How the process ends: the exit codes of api.md and what is said about them.

use std::process::ExitCode;

use crate::engine::Ended;

/// The end of `serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    code: u8,
    /// What is wrong, a line each; empty after a clean end.
    pub messages: Vec<String>,
}

impl Exit {
    /// Everything accepted is durable.
    #[must_use]
    pub const fn clean() -> Self {
        Self { code: 0, messages: Vec::new() }
    }

    /// Neither of the others.
    #[must_use]
    pub fn other(message: impl Into<String>) -> Self {
        Self { code: 1, messages: vec![message.into()] }
    }

    /// The configuration cannot be used.
    #[must_use]
    pub const fn configuration(messages: Vec<String>) -> Self {
        Self { code: 2, messages }
    }

    /// Another process has taken over, or storage knows a newer grant.
    #[must_use]
    pub fn fenced(message: impl Into<String>) -> Self {
        Self { code: 3, messages: vec![message.into()] }
    }

    /// There is no valid grant.
    #[must_use]
    pub fn no_grant(message: impl Into<String>) -> Self {
        Self { code: 4, messages: vec![message.into()] }
    }

    /// The exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }
}

impl From<Ended> for Exit {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Clean => Self::clean(),
            Ended::Fenced(message) => Self::fenced(message),
            Ended::Refused(message) => Self::other(message),
            Ended::Configuration(message) => Self::configuration(vec![message]),
        }
    }
}

impl From<&Exit> for ExitCode {
    fn from(exit: &Exit) -> Self {
        Self::from(exit.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_code() {
        let ends = [
            (Ended::Clean, 0),
            (Ended::Refused("r".into()), 1),
            (Ended::Configuration("c".into()), 2),
            (Ended::Fenced("f".into()), 3),
        ];
        for (ended, code) in ends {
            assert_eq!(Exit::from(ended).code(), code);
        }
        assert_eq!(Exit::no_grant("g").code(), 4);
    }
}
