//! Page 0 of a slot: the header of an Avro object container file, padded to 4,096 bytes, with a CRC over all of it.

use super::avro::{Cursor, crc};

/// Bytes of a page; headers have one, frames whole ones.
pub const PAGE: usize = 4096;

/// The metadata of a slot, in the order of the format.
const KEYS: [&str; 13] = [
    "avro.schema",
    "avro.codec",
    "wal.format",
    "wal.features",
    "wal.kind",
    "wal.writer",
    "wal.directory",
    "wal.stream",
    "wal.epoch",
    "wal.session",
    "wal.file",
    "wal.crc",
    "wal.pad",
];

/// A header whose CRC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Uuid text of the writer.
    pub writer: String,
    /// Uuid text of the directory.
    pub directory: String,
    /// The stream that the frames belong to.
    pub stream: [u8; 16],
    /// The process start that wrote it.
    pub epoch: u64,
    /// The session in that epoch.
    pub session: u64,
    /// Number of the file in its stream.
    pub file: u64,
    /// What stands after every block.
    pub marker: [u8; 16],
}

/// The place of a slot in its journal, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName {
    /// The process start.
    pub epoch: u64,
    /// The session in it.
    pub session: u64,
    /// The file in the stream, from 1.
    pub file: u64,
}

/// Reads a slot's name; `None` for all other files.
#[must_use]
pub fn parse_name(name: &str) -> Option<SlotName> {
    let (epoch, rest) = name.strip_suffix(".avro")?.split_once('.')?;
    let (session, file) = rest.split_once('-')?;
    let number = |text: &str, width: usize| {
        (text.len() >= width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse::<u64>().ok()).flatten()
    };
    Some(SlotName { epoch: number(epoch, 13)?, session: number(session, 3)?, file: number(file, 12)? })
}

/// Reads page 0 of a file; `None` when it is not a valid header of the slot that `name` says.
#[must_use]
pub fn parse(name: SlotName, bytes: &[u8]) -> Option<Header> {
    let page = bytes.get(..PAGE)?;
    let mut cursor = Cursor::new(page, 0);
    if cursor.take(4)? != b"Obj\x01" {
        return None;
    }
    let mut values: Vec<&[u8]> = Vec::new();
    let mut crc_at = 0;
    if cursor.natural()? != KEYS.len() as u64 {
        return None;
    }
    for key in KEYS {
        if cursor.string()? != key {
            return None;
        }
        let value = cursor.bytes()?;
        if key == "wal.crc" {
            crc_at = cursor.at() - value.len();
        }
        values.push(value);
    }
    if cursor.long()? != 0 {
        return None;
    }
    let marker = cursor.fixed::<16>()?;
    let [_, codec, format, features, kind, writer, directory, stream, epoch, session, file, stored, pad] = values[..]
    else {
        return None;
    };
    let text = |value| std::str::from_utf8(value).ok();
    let number = |value| text(value)?.parse::<u64>().ok();
    let sound = cursor.at() == PAGE
        && codec == b"null"
        && format == b"1"
        && features.is_empty()
        && kind == b"journal"
        && pad.iter().all(|byte| *byte == b' ')
        && stored.len() == 8
        && stored == format!("{:08x}", crc(&[&page[..crc_at], b"00000000", &page[crc_at + 8..]])).as_bytes();
    let header = Header {
        writer: text(writer)?.to_owned(),
        directory: text(directory)?.to_owned(),
        stream: unhex(stream)?,
        epoch: number(epoch)?,
        session: number(session)?,
        file: number(file)?,
        marker,
    };
    let here = SlotName { epoch: header.epoch, session: header.session, file: header.file };
    (sound && here == name).then_some(header)
}

pub(super) fn unhex(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_numbers_and_have_minimum_widths() {
        let name = SlotName { epoch: 7, session: 1, file: 12 };
        assert_eq!(parse_name("0000000000007.001-000000000012.avro"), Some(name));
        assert_eq!(parse_name("7.001-000000000012.avro"), None);
        assert_eq!(parse_name("00000000000000007.0001-0000000000012.avro"), Some(name));
        assert_eq!(parse_name("lost+found"), None);
        assert_eq!(parse_name("0000000000007.001-+00000000012.avro"), None);
    }
}
