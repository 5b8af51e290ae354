//! Why a command did not do what was asked, and the exit code that says so.

use std::io::Write as _;
use std::process::ExitCode;

use tonic::Status;
use walstorage_sidecar::error::Reason;
use walstorage_sidecar::proto::errors::error_info;

/// The end of a command that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    pub(crate) fn not_ready(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// Says something more.
    pub(crate) fn and(mut self, more: impl AsRef<str>) -> Self {
        self.message.push_str(more.as_ref());
        self
    }

    /// Whoever read our output went away: there is nothing left to do.
    pub(crate) const fn nobody_reads() -> Self {
        Self { code: 0, message: String::new() }
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) {
        if !self.message.is_empty() {
            let _ = writeln!(std::io::stderr(), "error: {}", self.message);
        }
    }

    pub(crate) fn report(&self) -> ExitCode {
        self.tell();
        ExitCode::from(self.code)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        match error_info(&status) {
            Some((reason, _)) if reason == Reason::NotReady.as_str() => {
                Self::not_ready(format!("{reason}: {}", status.message()))
            }
            Some((reason, _)) => Self::failed(format!("{reason}: {}", status.message())),
            None => Self::failed(format!("the call failed ({:?}): {}", status.code(), status.message())),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::nobody_reads();
        }
        Self::failed(error.to_string())
    }
}
