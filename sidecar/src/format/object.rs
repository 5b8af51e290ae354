//! A bucket's commit object: a header and one frame without padding.

use super::StreamId;
use super::frame::{FLAG_CLAIM, FLAG_FENCE};
use super::header::{HeaderError, SlotHeader};
use super::names::SlotName;
use super::scan::{
    Expected, Frame, FrameError, Head, MustStop, Place, SlotScan, UnknownFlags, parse_head, parse_object_frame,
};

/// Reads a bucket's commit object: its header, and its one frame.
///
/// # Errors
/// What is wrong with it.
pub fn parse_object(bytes: &[u8], stream: Option<StreamId>) -> Result<(SlotHeader, Frame<'_>), ObjectError> {
    let (header, length) = SlotHeader::parse_object(bytes)?;
    let stream = stream.unwrap_or(header.stream);
    let expected = Expected { stream: Some(stream), epoch: header.key.epoch, file: header.file };
    let block = bytes.get(length..).unwrap_or_default();
    let head = parse_head(block, &expected, length as u64)?.ok_or(ObjectError::NoFrame)?;
    let frame = parse_object_frame(block, &head, &header.marker)?;
    Ok((header, frame))
}

/// Scans a bucket's commit object, all of it: its header and its one frame, which `visit` sees where it is whole. As
/// [`super::scan::scan_slot`] does for a slot; what the object says of its place must be what its name says.
///
/// # Errors
/// When a later version wrote the object.
pub fn scan_object(
    bytes: &[u8],
    name: SlotName,
    stream: Option<StreamId>,
    mut visit: impl FnMut(&Frame<'_>),
) -> Result<SlotScan, MustStop> {
    let len = bytes.len() as u64;
    let mut scan = SlotScan {
        file: name.file,
        len,
        header: Err(HeaderError::Short(bytes.len())),
        places: Vec::new(),
        unreadable: Vec::new(),
        blank_from: len,
        used_before: false,
    };
    let (header, length) = match SlotHeader::parse_object(bytes) {
        Ok((header, _)) if (header.key, header.file) != (name.key, name.file) => {
            scan.header = Err(HeaderError::Place { key: header.key, file: header.file });
            return Ok(scan);
        }
        Ok((header, _)) if stream.is_some_and(|stream| stream != header.stream) => {
            scan.header = Err(HeaderError::Stream(header.stream));
            return Ok(scan);
        }
        Ok(found) => found,
        Err(error) if error.must_stop() => return Err(MustStop::Header(error)),
        Err(error) => {
            scan.header = Err(error);
            return Ok(scan);
        }
    };
    let block = bytes.get(length..).unwrap_or_default();
    let expected = Expected { stream: Some(header.stream), epoch: name.key.epoch, file: name.file };
    let ordinary = |head: &Head| head.header.flags & (FLAG_CLAIM | FLAG_FENCE) == 0;
    if let Some(head) = parse_head(block, &expected, length as u64)?.filter(ordinary) {
        let fault = match parse_object_frame(block, &head, &header.marker) {
            Ok(frame) => {
                visit(&frame);
                None
            }
            Err(fault) => Some(fault),
        };
        scan.places.push(Place { offset: length as u64, head, fault });
    }
    scan.header = Ok(header);
    Ok(scan)
}

/// Why a bucket's commit object is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Its header.
    #[error("the header: {0}")]
    Header(#[from] HeaderError),
    /// A later version wrote it.
    #[error(transparent)]
    Flags(#[from] UnknownFlags),
    /// No frame of the stream follows the header.
    #[error("no frame of the stream follows the header")]
    NoFrame,
    /// The frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::fixture::{Stream, entry};
    use crate::format::frame::{FrameBuilder, FrameHeader};
    use crate::types::{Epoch, Incarnation};

    const INCARNATION: Incarnation = Incarnation(1 << 20);

    #[test]
    fn a_commit_object_is_its_header_and_one_frame() {
        let stream = Stream::new(1, 0);
        let header = SlotHeader::parse_slot(stream.files[0].as_ref().unwrap()).unwrap();
        let header = SlotHeader { file: 2, ..header };
        let mut bytes = header.build_object();
        let record = entry("c", INCARNATION, 1, Epoch(1), b"x");
        let mut builder = FrameBuilder::new();
        builder.start(1, record.len());
        builder.push(&record, 1, 1);
        let offset = bytes.len() as u64;
        let frame = FrameHeader { file: 2, offset, frame_seq: 2, ..stream.next };
        bytes.extend_from_slice(builder.finish_object(&frame, &header.marker).unwrap().bytes);
        let (read, frame) = parse_object(&bytes, None).unwrap();
        assert_eq!(read, header);
        assert_eq!(frame.records().map(|record| record.unwrap().raw().to_vec()).collect::<Vec<_>>(), [record]);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_object(&changed, None).is_err(), "bit {bit}");
            let name = SlotName { key: header.key, file: 2 };
            let mut whole = 0;
            let scan = scan_object(&changed, name, Some(stream.next.stream), |_| whole += 1);
            assert_eq!(whole, 0, "bit {bit}: {scan:?}");
        }
        let name = SlotName { key: header.key, file: 2 };
        for (name, wholes) in [(name, 1), (SlotName { file: 3, ..name }, 0)] {
            let mut whole = 0;
            let scan = scan_object(&bytes, name, None, |_| whole += 1).unwrap();
            assert_eq!((whole, scan.places.len(), scan.header.is_ok()), (wholes, wholes, wholes == 1));
        }
        for length in 0..bytes.len() {
            assert!(parse_object(&bytes[..length], None).is_err(), "{length} bytes");
        }
        assert!(parse_object(&[&bytes[..], &[0]].concat(), None).is_err(), "one byte more");
    }
}
