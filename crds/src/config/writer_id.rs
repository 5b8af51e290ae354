//! The writer id: the path below every URL where a writer keeps its directories.

/// Longest writer id, in bytes.
const MAX: usize = 255;

/// Why a text is not a writer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct WriterIdError {
    problem: &'static str,
}

impl WriterIdError {
    /// What would be right: ends a sentence that begins with "allowed: ".
    #[must_use]
    pub const fn allowed(self) -> &'static str {
        "segments of a-z, A-Z, 0-9, ., _ and - joined by /, like \"shop/orders.orders-0\", at most 255 bytes"
    }
}

/// Whether a text can be a writer id, from whichever source (file, flag, environment).
///
/// # Errors
/// When it is not a relative path of plain segments.
pub fn check_writer_id(id: &str) -> Result<(), WriterIdError> {
    let refuse = |problem| Err(WriterIdError { problem });
    if id.is_empty() {
        return refuse("the writer id is empty");
    }
    if id.len() > MAX {
        return refuse("the writer id is too long");
    }
    for segment in id.split('/') {
        match segment {
            "" => return refuse("the writer id has an empty segment"),
            "." | ".." => return refuse("the writer id has the segment . or .."),
            "_wal" => return refuse("the writer id has the segment _wal, which is the directory's own"),
            _ => {}
        }
        if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return refuse("the writer id has a character that a path must not have");
        }
    }
    Ok(())
}
