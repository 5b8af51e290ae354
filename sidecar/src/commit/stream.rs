//! Where the next frame of a stream goes, and what its head says: the state of one journal being written.
//!
//! 1. `frame_seq` is dense from 1; one frame is in flight at most, so a frame proves that all before it were synced.
//! 2. A page is written once. After any failure the stream is over.
//! 3. A frame never spans files: one that does not fit below the limit of a file that holds a frame goes to a new file.

use crate::format::frame::FrameHeader;
use crate::format::limits::PAGE;
use crate::format::{StreamId, StreamKey};

/// The identity and position of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) key: StreamKey,
    /// The current file; 0 before the first.
    pub(crate) file: u64,
    /// Where the next frame goes in it.
    pub(crate) offset: u64,
    /// `frame_seq` of the last frame written and synced.
    pub(crate) durable_frame: u64,
    /// Its crc.
    pub(crate) prev_crc: u32,
    /// Frames up to here may be gone; what the next frame says.
    pub(crate) floor: u64,
    /// Streams below may be gone; what the next frame says.
    pub(crate) oldest: StreamKey,
    /// Rotate before the next frame whatever its size.
    pub(crate) rotate: bool,
    /// A write to it failed: nothing more is written to it.
    pub(crate) over: bool,
}

/// Where one frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: u64,
    pub(crate) offset: u64,
    /// The file has to be made first.
    pub(crate) new_file: bool,
}

impl Stream {
    pub(crate) fn new(id: StreamId, key: StreamKey, oldest: StreamKey) -> Self {
        Self {
            id,
            key,
            file: 0,
            offset: 0,
            durable_frame: 0,
            prev_crc: 0,
            floor: 0,
            oldest,
            rotate: false,
            over: false,
        }
    }

    /// Where a frame of `len` bytes goes when files are limited to `limit` bytes.
    pub(crate) fn place(&self, len: u64, limit: u64) -> Place {
        let page = PAGE as u64;
        let holds_a_frame = self.offset > page;
        let new_file = self.file == 0 || (holds_a_frame && (self.rotate || self.offset + len > limit));
        if new_file {
            Place { file: self.file + 1, offset: page, new_file }
        } else {
            Place { file: self.file, offset: self.offset, new_file }
        }
    }

    /// The head of the next frame at `place`.
    pub(crate) fn header(&self, place: Place, flags: u32) -> FrameHeader {
        FrameHeader {
            flags,
            stream: self.id,
            file: place.file,
            offset: place.offset,
            frame_seq: self.durable_frame + 1,
            durable_frame: self.durable_frame + u64::from(mutant!(FrameProvesItself)),
            prev_crc: self.prev_crc,
            epoch: self.key.epoch,
            floor: self.floor,
            oldest: self.oldest.epoch,
            oldest_session: self.oldest.session,
        }
    }

    /// The frame at `place` is durable.
    pub(crate) fn advance(&mut self, place: Place, len: u64, crc: u32) {
        self.file = place.file;
        self.offset = place.offset + len;
        self.durable_frame += 1;
        self.prev_crc = crc;
        if place.new_file {
            self.rotate = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const fn key(epoch: u64, session: u32) -> StreamKey {
        StreamKey { epoch: Epoch(epoch), session }
    }

    #[test]
    fn a_frame_that_does_not_fit_goes_to_the_next_file() {
        let mut stream = Stream::new(StreamId([1; 16]), key(1, 0), key(1, 0));
        let limit = 16 << 20;
        let first = stream.place(4096, limit);
        assert_eq!(first, Place { file: 1, offset: 4096, new_file: true });
        stream.advance(first, 4096, 7);
        let second = stream.place(limit - 8192, limit);
        assert_eq!(second, Place { file: 1, offset: 8192, new_file: false }, "fits to the byte");
        assert_eq!(stream.place(limit - 4096, limit), Place { file: 2, offset: 4096, new_file: true });
        stream.advance(second, limit - 8192, 8);
        assert_eq!(stream.place(4096, limit), Place { file: 2, offset: 4096, new_file: true });
    }

    #[test]
    fn a_frame_larger_than_a_file_makes_an_empty_file_longer() {
        let mut stream = Stream::new(StreamId([1; 16]), key(1, 0), key(1, 0));
        let huge = stream.place(40 << 20, 16 << 20);
        assert_eq!(huge, Place { file: 1, offset: 4096, new_file: true });
        stream.advance(huge, 40 << 20, 7);
        assert!(stream.place(4096, 16 << 20).new_file);
    }

    #[test]
    fn a_head_proves_the_frame_before_it() {
        let mut stream = Stream::new(StreamId([1; 16]), key(9, 2), key(3, 1));
        let place = stream.place(4096, 16 << 20);
        let head = stream.header(place, 0);
        assert_eq!((head.frame_seq, head.durable_frame, head.prev_crc), (1, 0, 0));
        stream.advance(place, 4096, 77);
        let head = stream.header(stream.place(4096, 16 << 20), 0);
        assert_eq!((head.frame_seq, head.durable_frame, head.prev_crc), (2, 1, 77));
        assert_eq!((head.epoch, head.oldest, head.oldest_session), (Epoch(9), Epoch(3), 1));
    }
}
