//! Storage URLs: where a directory of the log lives.
//!
//! A [`WalUrl`] is parsed once, at the edge, and is canonical from then on; two spellings of one place compare equal:
//!
//! 1. scheme and host are lower case; `gs` becomes `gcs`, and `abfss://container@host/p` becomes `adls://host/container/p`;
//! 2. escapes of unreserved characters are decoded, all other escapes have upper-case digits;
//! 3. repeated and trailing slashes are removed;
//! 4. there is no user info, port, query or fragment, and no path segment is `.` or `..`, however it was escaped;
//! 5. parsing a canonical form gives the same canonical form.
//!
//! Nothing here asks whether the place exists.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A storage URL in canonical form. Cheap to clone; equal when the canonical forms are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalUrl(Arc<str>);

/// The kind of storage behind a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `file://`
    File,
    /// `s3://`
    S3,
    /// `gcs://`, `gs://`
    Gcs,
    /// `adls://`, `abfss://`
    Adls,
}

impl Scheme {
    /// The canonical name, without `://`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Adls => "adls",
        }
    }

    /// Whether it names an object store.
    #[must_use]
    pub const fn is_bucket(self) -> bool {
        !matches!(self, Self::File)
    }

    /// How URLs of this kind are written.
    const fn form(self) -> &'static str {
        match self {
            Self::File => "file:///absolute/path",
            Self::S3 => "s3://bucket/prefix",
            Self::Gcs => "gcs://bucket/prefix",
            Self::Adls => "adls://account.dfs.core.windows.net/container/prefix",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All forms, for messages.
const FORMS: &str = "file:///absolute/path, s3://bucket/prefix, gcs://bucket/prefix, adls://account.dfs.core.windows.net/container/prefix";

/// What is left as it is when a path is made a URL; the rest is escaped.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Why a text is not a storage URL. The message says what is wrong, [`UrlError::allowed`] what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Nothing there.
    #[error("the URL is empty")]
    Empty,
    /// No `://`.
    #[error("not a URL")]
    NotAUrl {
        /// The `file://` form, where the text is an absolute path.
        suggestion: Option<String>,
    },
    /// A scheme that names no storage.
    #[error("unknown scheme {scheme:?}")]
    UnknownScheme {
        /// As written.
        scheme: String,
    },
    /// `file://host/path`, mostly a forgotten slash.
    #[error("a file URL names no host, this one names {host:?}")]
    FileHost {
        /// As written.
        host: String,
        /// With the forgotten slash.
        suggestion: Option<String>,
    },
    /// `file:///`.
    #[error("the root directory cannot hold a log")]
    FileRoot,
    /// No bucket or container.
    #[error("the {what} is empty")]
    EmptyBucket {
        /// Of which scheme.
        scheme: Scheme,
        /// `bucket`, `account` or `container`.
        what: &'static str,
    },
    /// A host that cannot be one.
    #[error("{host:?} is not a {what}")]
    BadHost {
        /// Of which scheme.
        scheme: Scheme,
        /// As written.
        host: String,
        /// `bucket name` or `storage account host`.
        what: &'static str,
    },
    /// `user@` or `user:password@`; never shown.
    #[error("user info is not allowed in a storage URL")]
    UserInfo,
    /// `:port`.
    #[error("a port is not allowed in a storage URL")]
    Port,
    /// `?…`.
    #[error("a query is not allowed in a storage URL")]
    Query,
    /// `#…`.
    #[error("a fragment is not allowed in a storage URL")]
    Fragment,
    /// `.` or `..`, escaped or not.
    #[error("the path segment {segment:?} is not allowed")]
    DotSegment {
        /// Decoded.
        segment: String,
    },
    /// `%` without two hexadecimal digits.
    #[error("the escape {escape:?} is not % and two hexadecimal digits")]
    BadEscape {
        /// As written.
        escape: String,
    },
    /// An escaped slash or control character.
    #[error("the escape {escape:?} is not allowed")]
    ForbiddenEscape {
        /// Upper case.
        escape: String,
    },
    /// Escapes that are no text.
    #[error("the path is not UTF-8 when decoded")]
    NotUtf8,
    /// A character that a URL cannot hold.
    #[error("the character {character:?} must be escaped")]
    BadCharacter {
        /// As written.
        character: char,
    },
}

impl UrlError {
    /// What would be right: ends a sentence that begins with "allowed: ".
    #[must_use]
    pub fn allowed(&self) -> String {
        match self {
            Self::Empty | Self::UnknownScheme { .. } | Self::NotAUrl { suggestion: None } => FORMS.to_owned(),
            Self::NotAUrl { suggestion: Some(url) } | Self::FileHost { suggestion: Some(url), .. } => url.clone(),
            Self::FileHost { suggestion: None, .. } => Scheme::File.form().to_owned(),
            Self::FileRoot => "a folder below it, file:///absolute/path".to_owned(),
            Self::EmptyBucket { scheme, .. } | Self::BadHost { scheme, .. } => scheme.form().to_owned(),
            Self::UserInfo => "credentials in files, named by url_options credentials_dir".to_owned(),
            Self::Port => "the default port, or url_options endpoint".to_owned(),
            Self::Query | Self::Fragment => "scheme, host and path only; settings go into url_options".to_owned(),
            Self::DotSegment { .. } => "a path without . and ..".to_owned(),
            Self::BadEscape { .. } => "%25 for a percent sign".to_owned(),
            Self::ForbiddenEscape { .. } => "no escaped slash and no control characters".to_owned(),
            Self::NotUtf8 => "escapes that decode to UTF-8".to_owned(),
            Self::BadCharacter { character } => {
                let mut buffer = [0; 4];
                utf8_percent_encode(character.encode_utf8(&mut buffer), NON_ALPHANUMERIC).to_string()
            }
        }
    }
}

impl WalUrl {
    /// Parses and normalises.
    ///
    /// # Errors
    /// When the text is not one of the four forms; see [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.is_empty() {
            return Err(UrlError::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let suggestion = Self::from_file_path(Path::new(text));
            return Err(UrlError::NotAUrl { suggestion: suggestion.map(|url| url.to_string()) });
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('?') {
            return Err(UrlError::Query);
        }
        if path.contains('#') {
            return Err(UrlError::Fragment);
        }
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Self::parse_file(authority, path),
            "s3" => Self::parse_bucket(Scheme::S3, authority, path),
            "gcs" | "gs" => Self::parse_bucket(Scheme::Gcs, authority, path),
            "adls" => Self::parse_adls(authority, path),
            "abfss" => Self::parse_abfss(authority, path),
            _ => Err(UrlError::UnknownScheme { scheme: scheme.to_owned() }),
        }
    }

    fn parse_file(authority: &str, path: &str) -> Result<Self, UrlError> {
        if !authority.is_empty() {
            refuse_user_info(authority)?;
            let with_slash = format!("file:///{authority}{path}");
            let suggestion = Self::parse(&with_slash).ok().map(|url| url.to_string());
            return Err(UrlError::FileHost { host: authority.to_owned(), suggestion });
        }
        let path = normalise_path(path)?;
        if path.is_empty() {
            return Err(UrlError::FileRoot);
        }
        Ok(Self(format!("file://{path}").into()))
    }

    fn parse_bucket(scheme: Scheme, authority: &str, path: &str) -> Result<Self, UrlError> {
        refuse_user_info(authority)?;
        let host = normalise_host(scheme, authority, "bucket", "bucket name")?;
        let path = normalise_path(path)?;
        Ok(Self(format!("{scheme}://{host}{path}").into()))
    }

    fn parse_adls(authority: &str, path: &str) -> Result<Self, UrlError> {
        refuse_user_info(authority)?;
        let host = adls_host(authority)?;
        let path = normalise_path(path)?;
        if path.is_empty() {
            return Err(UrlError::EmptyBucket { scheme: Scheme::Adls, what: "container" });
        }
        Ok(Self(format!("adls://{host}{path}").into()))
    }

    /// `container@host` is the container here, not a user.
    fn parse_abfss(authority: &str, path: &str) -> Result<Self, UrlError> {
        let Some((container, host)) = authority.rsplit_once('@') else {
            return Err(UrlError::EmptyBucket { scheme: Scheme::Adls, what: "container" });
        };
        if container.contains(['@', ':']) {
            return Err(UrlError::UserInfo);
        }
        let host = adls_host(host)?;
        let container = normalise_path(&format!("/{container}"))?;
        if container.is_empty() {
            return Err(UrlError::EmptyBucket { scheme: Scheme::Adls, what: "container" });
        }
        let path = normalise_path(path)?;
        Ok(Self(format!("adls://{host}{container}{path}").into()))
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of storage.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match self.0.split_once("://") {
            Some(("s3", _)) => Scheme::S3,
            Some(("gcs", _)) => Scheme::Gcs,
            Some(("adls", _)) => Scheme::Adls,
            _ => Scheme::File,
        }
    }

    /// The decoded path of a `file://` URL, `None` for buckets.
    #[must_use]
    pub fn file_path(&self) -> Option<PathBuf> {
        let path = self.0.strip_prefix("file://")?;
        Some(PathBuf::from(percent_decode_str(path).decode_utf8_lossy().into_owned()))
    }

    /// The `file://` URL of an absolute path; `None` where [`Self::parse_file_path`] says why not.
    #[must_use]
    pub fn from_file_path(path: &Path) -> Option<Self> {
        Self::parse_file_path(path).ok()
    }

    /// The `file://` URL of an absolute path.
    ///
    /// # Errors
    /// When the path is relative, not UTF-8, the root, or has `.`, `..` or control characters.
    pub fn parse_file_path(path: &Path) -> Result<Self, UrlError> {
        let text = path.to_str().ok_or(UrlError::NotUtf8)?;
        if !text.starts_with('/') {
            return Err(UrlError::NotAUrl { suggestion: None });
        }
        Self::parse_file("", &utf8_percent_encode(text, PATH).to_string())
    }

    /// Whether this lies below `other`, by whole path segments. No URL is inside itself.
    #[must_use]
    pub fn is_inside(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The URLs that this one lies inside of, nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let start = self.0.find("://").map_or(0, |at| at + 3);
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let cut = rest[start..].rfind('/')? + start;
            rest = &rest[..cut];
            (cut > start).then_some(rest)
        })
    }
}

impl fmt::Display for WalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WalUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl std::borrow::Borrow<str> for WalUrl {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The text with what stands before an `@` in its host part replaced, so that it can be shown.
#[must_use]
pub fn mask_user_info(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // A password may hold a slash that was not escaped, so the last @ of the whole text counts.
    match rest.rsplit_once('@') {
        Some((_, after)) if !scheme.eq_ignore_ascii_case("abfss") || rest.contains(':') => {
            format!("{scheme}://***@{after}")
        }
        _ => text.to_owned(),
    }
}

fn refuse_user_info(authority: &str) -> Result<(), UrlError> {
    if authority.contains('@') { Err(UrlError::UserInfo) } else { Ok(()) }
}

fn normalise_host(scheme: Scheme, host: &str, part: &'static str, what: &'static str) -> Result<String, UrlError> {
    if host.is_empty() {
        return Err(UrlError::EmptyBucket { scheme, what: part });
    }
    if host.contains(':') {
        return Err(UrlError::Port);
    }
    let fits = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !fits || host.starts_with(['.', '-']) || host.ends_with(['.', '-']) || host.contains("..") {
        return Err(UrlError::BadHost { scheme, host: host.to_owned(), what });
    }
    Ok(host.to_ascii_lowercase())
}

/// `<account>.dfs.<cloud>`: the account and its cloud both stand in the host.
fn adls_host(authority: &str) -> Result<String, UrlError> {
    let what = "storage account host";
    let host = normalise_host(Scheme::Adls, authority, "account", what)?;
    if host.split('.').nth(1) == Some("dfs") && host.split('.').count() > 3 {
        Ok(host)
    } else {
        Err(UrlError::BadHost { scheme: Scheme::Adls, host, what })
    }
}

/// Empty, or `/` and segments without a slash at the end.
fn normalise_path(path: &str) -> Result<String, UrlError> {
    let mut canonical = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let segment = normalise_segment(segment)?;
        canonical.push('/');
        canonical.push_str(&segment);
    }
    Ok(canonical)
}

fn normalise_segment(segment: &str) -> Result<String, UrlError> {
    let mut canonical = String::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(character) = rest.chars().next() {
        let (piece, after) = rest.split_at(character.len_utf8());
        rest = after;
        if character != '%' {
            if !is_path_character(character) {
                return Err(UrlError::BadCharacter { character });
            }
            canonical.push_str(piece);
            continue;
        }
        let digits: String = rest.chars().take(2).collect();
        let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2 && !digits.starts_with('+'));
        let Some(byte) = byte else {
            return Err(UrlError::BadEscape { escape: format!("%{digits}") });
        };
        rest = &rest[2..];
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            canonical.push(char::from(byte));
        } else if byte == b'/' || byte.is_ascii_control() {
            return Err(UrlError::ForbiddenEscape { escape: format!("%{byte:02X}") });
        } else {
            canonical.push_str(&format!("%{byte:02X}"));
        }
    }
    if canonical == "." || canonical == ".." {
        return Err(UrlError::DotSegment { segment: canonical });
    }
    if percent_decode_str(&canonical).decode_utf8().is_err() {
        return Err(UrlError::NotUtf8);
    }
    Ok(canonical)
}

/// `pchar` of RFC 3986 without the percent sign.
const fn is_path_character(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || matches!(
            character,
            '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';' | '=' | ':' | '@'
        )
}

#[cfg(test)]
mod tests;
