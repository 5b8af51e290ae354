//! The hash that tells two renderings of `config.toml` apart: SHA-256 over all bytes after the first line, where that
//! line is the hash line, else over the whole text. So a rendered file has the hash that it carries, wherever it is read.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// How the first line of a rendered file begins.
pub const HASH_LINE_PREFIX: &str = "# walstorage v1 sha256:";

/// `sha256:` and 64 hexadecimal digits for the text of a file, its hash line left out.
#[must_use]
pub fn hash_of(text: &str) -> String {
    let body = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with(HASH_LINE_PREFIX) => rest,
        _ => text,
    };
    format!("sha256:{}", sha256_hex(body.as_bytes()))
}

/// The first line of a file with this body, line feed included.
#[must_use]
pub fn hash_line(body: &str) -> String {
    format!("{HASH_LINE_PREFIX}{}\n", sha256_hex(body.as_bytes()))
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
