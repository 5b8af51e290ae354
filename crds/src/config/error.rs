//! What is wrong with a file, and what is only worth a word.

use std::fmt;

/// One thing that is wrong. Shown as
/// `line 4: storage.wal_config.compression = "gzip": unknown value; allowed: null, snappy, zstandard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Counted from 1; `None` where no line is to blame.
    pub line: Option<usize>,
    /// The whole path of the key; empty where the file is no TOML.
    pub key: String,
    /// As written, without user info and cut to a readable length; `None` where showing it would not help.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub allowed: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.line, &self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.key.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.problem)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// At least one.
    pub errors: Vec<ConfigError>,
    /// What was worth a word besides.
    pub warnings: Vec<Warning>,
}

/// One line for each error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Why a warning is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WarningKind {
    /// A key that nothing reads; an error under `--strict`.
    UnknownKey,
    /// `wal_dir` was taken over or ignored.
    Migration,
    /// It loads, but it will hardly do what is wanted.
    Doubtful,
}

/// Something that loads, and that somebody should look at. Shown as `line 9: storage.wal_config.sync_mode: unknown key, ignored`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Why.
    pub kind: WarningKind,
    /// Counted from 1; `None` where no line is to blame.
    pub line: Option<usize>,
    /// The whole path of the key.
    pub key: String,
    /// What there is to say; never shows the value of an unknown key.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, self.line, &self.key)?;
        write!(f, ": {}", self.message)
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, line: Option<usize>, key: &str) -> fmt::Result {
    if let Some(line) = line {
        write!(f, "line {line}: ")?;
    }
    f.write_str(key)
}
