//! Typed access to a parsed document: whatever has the wrong type becomes an error with its place, and reading goes on.

use std::ops::Range;

use toml_edit::{Item, TableLike, Value};

use super::choices::Choice;
use super::error::{ConfigError, Warning, WarningKind};
use crate::quantity::{ByteSize, QuantityError};
use crate::url::mask_user_info;

/// Longest value that a message shows, in characters.
const SHOWN: usize = 120;

/// A value and the line it stands in.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: Option<usize>,
}

/// Collects everything there is to say about one text.
pub(super) struct Findings {
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    strict: bool,
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<Warning>,
}

impl Findings {
    pub(super) fn new(text: &str, strict: bool) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { lines, strict, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The line of a byte range, counted from 1.
    pub(super) fn line(&self, span: Option<Range<usize>>) -> Option<usize> {
        let start = span?.start;
        Some(self.lines.partition_point(|line| *line <= start))
    }

    pub(super) fn error(
        &mut self,
        line: Option<usize>,
        key: &str,
        value: Option<String>,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let (problem, allowed) = (problem.into(), allowed.into());
        self.errors.push(ConfigError { line, key: key.to_owned(), value, problem, allowed });
    }

    pub(super) fn warn(&mut self, kind: WarningKind, line: Option<usize>, key: &str, message: impl Into<String>) {
        self.warnings.push(Warning { kind, line, key: key.to_owned(), message: message.into() });
    }

    /// A warning, or under `--strict` an error.
    fn unknown_key(&mut self, line: Option<usize>, key: &str, hint: &str) {
        if self.strict {
            self.error(line, key, None, format!("unknown key{hint}"), "");
        } else {
            self.warn(WarningKind::UnknownKey, line, key, format!("unknown key, ignored{hint}"));
        }
    }
}

/// A table of the document, there or not.
pub(super) struct Section<'d> {
    path: String,
    table: Option<&'d dyn TableLike>,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub(super) fn root(table: &'d dyn TableLike) -> Self {
        Self { path: String::new(), table: Some(table) }
    }

    /// The whole path of a key of this section.
    pub(super) fn path(&self, key: &str) -> String {
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain { key.to_owned() } else { cut(&format!("{:?}", mask_user_info(key))) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// The section below; an absent one is empty.
    pub(super) fn section(&self, findings: &mut Findings, key: &str) -> Self {
        let path = self.path(key);
        let table = self.get(key).and_then(|item| {
            let table = item.as_table_like();
            if table.is_none() {
                let line = self.line(findings, key);
                findings.error(line, &path, shown(item), "not a table", format!("a table [{path}]"));
            }
            table
        });
        Self { path, table }
    }

    /// Every key, in the order of the file.
    pub(super) fn keys(&self) -> Vec<&'d str> {
        self.table.map(|table| table.iter().map(|(key, _)| key).collect()).unwrap_or_default()
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&'d Item> {
        self.table?.get(key).filter(|item| !item.is_none())
    }

    /// The line of a key.
    pub(super) fn line(&self, findings: &Findings, key: &str) -> Option<usize> {
        let (name, item) = self.table?.get_key_value(key)?;
        findings.line(name.span().or_else(|| item.span()))
    }

    fn wrong(&self, findings: &mut Findings, key: &str, problem: &str, allowed: impl Into<String>) {
        let line = self.line(findings, key);
        findings.error(line, &self.path(key), self.get(key).and_then(shown), problem, allowed);
    }

    fn read<T>(
        &self,
        findings: &mut Findings,
        key: &str,
        convert: impl FnOnce(&'d Item) -> Result<T, (String, String)>,
    ) -> Option<At<T>> {
        match convert(self.get(key)?) {
            Ok(value) => Some(At { value, line: self.line(findings, key) }),
            Err((problem, allowed)) => {
                self.wrong(findings, key, &problem, allowed);
                None
            }
        }
    }

    /// A text without control characters, not empty.
    pub(super) fn text(&self, findings: &mut Findings, key: &str, what: &str) -> Option<At<&'d str>> {
        self.read(findings, key, |item| {
            let text = item.as_str().ok_or_else(|| ("not a string".to_owned(), what.to_owned()))?;
            if text.is_empty() {
                Err(("empty".to_owned(), what.to_owned()))
            } else if text.contains(char::is_control) {
                Err(("control characters".to_owned(), what.to_owned()))
            } else {
                Ok(text)
            }
        })
    }

    /// The text of an absolute path.
    pub(super) fn absolute_path(&self, findings: &mut Findings, key: &str) -> Option<At<&'d str>> {
        let path = self.text(findings, key, "an absolute path")?;
        if path.value.starts_with('/') {
            return Some(path);
        }
        self.wrong(findings, key, "not an absolute path", "an absolute path");
        None
    }

    pub(super) fn boolean(&self, findings: &mut Findings, key: &str) -> Option<bool> {
        let what = || ("not a boolean".to_owned(), "true or false".to_owned());
        Some(self.read(findings, key, |item| item.as_bool().ok_or_else(what))?.value)
    }

    /// One of a few names.
    pub(super) fn choice<T: Choice>(&self, findings: &mut Findings, key: &str) -> Option<T> {
        let allowed = || T::ALL.iter().map(|choice| choice.name()).collect::<Vec<_>>().join(", ");
        let choice = self.read(findings, key, |item| {
            let text = item.as_str().ok_or_else(|| ("not a string".to_owned(), allowed()))?;
            let found = T::ALL.iter().find(|choice| choice.name() == text);
            found.copied().ok_or_else(|| ("unknown value".to_owned(), allowed()))
        });
        Some(choice?.value)
    }

    /// Bytes above zero: an integer, or a quantity in a string.
    pub(super) fn size(&self, findings: &mut Findings, key: &str) -> Option<At<ByteSize>> {
        self.read(findings, key, |item| {
            let problem = |error: QuantityError| (error.to_string(), error.allowed().to_owned());
            let size = match (item.as_integer(), item.as_str()) {
                (Some(bytes), _) => u64::try_from(bytes).map(ByteSize).map_err(|_| problem(QuantityError::Negative))?,
                (None, Some(text)) => ByteSize::parse(text).map_err(problem)?,
                (None, None) => return Err(problem(QuantityError::Malformed)),
            };
            if size.0 == 0 { Err(("zero".to_owned(), "at least 1 byte".to_owned())) } else { Ok(size) }
        })
    }

    /// Milliseconds above zero.
    pub(super) fn milliseconds(&self, findings: &mut Findings, key: &str) -> Option<std::time::Duration> {
        // What the resource can say: six digits of seconds.
        const MOST: u64 = 999_999_000;
        let what = || ("not a time".to_owned(), format!("milliseconds, an integer from 1 to {MOST}"));
        let time = self.read(findings, key, |item| {
            let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
            number.filter(|number| (1..=MOST).contains(number)).ok_or_else(what)
        });
        Some(std::time::Duration::from_millis(time?.value))
    }

    /// Says which keys nothing reads.
    pub(super) fn warn_of_unknown_keys(&self, findings: &mut Findings, known: &[&str]) {
        for key in self.keys() {
            if !known.contains(&key) {
                let hint = similar(key, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                findings.unknown_key(self.line(findings, key), &self.path(key), &hint);
            }
        }
    }

    /// Refuses keys that nothing reads.
    pub(super) fn refuse_unknown_keys(&self, findings: &mut Findings, known: &[&str]) {
        for key in self.keys() {
            if !known.contains(&key) {
                let line = self.line(findings, key);
                findings.error(line, &self.path(key), None, "unknown key", known.join(", "));
            }
        }
    }
}

/// A value as a message shows it.
pub(super) fn shown(item: &Item) -> Option<String> {
    let text = match item.as_value()? {
        Value::String(text) => format!("{:?}", mask_user_info(text.value())),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => number.value().to_string(),
        Value::Boolean(yes) => yes.value().to_string(),
        Value::Datetime(time) => time.value().to_string(),
        Value::Array(array) if array.is_empty() => "[]".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        Value::InlineTable(_) => "{…}".to_owned(),
    };
    Some(cut(&text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The known key that differs by at most two letters.
fn similar<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > 64 {
        return None;
    }
    let near = known.iter().map(|name| (distance(key, name), *name)).min()?;
    (near.0 <= 2).then_some(near.1)
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
