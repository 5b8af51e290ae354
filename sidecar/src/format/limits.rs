//! The limits of format 1: one constant each, used by writers and readers alike.

/// Most bytes of an entry, as measured by [`entry_size`].
pub const MAX_ENTRY: usize = 16_777_216;
/// Most bytes of the encoded records of a batch.
pub const MAX_BATCH_ENCODED: usize = 33_554_432;
/// Most bytes of a frame, from its count through its marker.
pub const MAX_FRAME: usize = 48 << 20;
/// Frames of a slot start and end on multiples of this; so long is a slot's header.
pub const PAGE: usize = 4096;
/// A frame that does not fit below this goes to the next slot, unless it would be the first of its slot.
pub const SLOT_NOMINAL: u64 = 16 << 20;
/// Longest slot: its header and one frame.
pub const MAX_SLOT: u64 = (PAGE + MAX_FRAME) as u64;
/// A group of appends is cut at so many encoded bytes.
pub const GROUP_CUT: usize = 1 << 20;
/// Most plain bytes of a segment's block, unless it holds one record only.
pub const SEGMENT_BLOCK: usize = 1 << 20;
/// Bytes counted for a header of an entry beside its name and value.
pub const HEADER_OVERHEAD: usize = 16;
/// Fewest bytes of an encoded record.
pub const MIN_RECORD: usize = 17;
/// Epochs are below this, so that an incarnation fits a long.
pub const MAX_EPOCH: u64 = 1 << 43;

/// The measure of an entry that [`MAX_ENTRY`] bounds: payload, key, and per header its name, its value and
/// [`HEADER_OVERHEAD`]. Saturates.
#[must_use]
pub fn entry_size(payload: usize, key: usize, headers: impl IntoIterator<Item = (usize, usize)>) -> usize {
    headers.into_iter().fold(payload.saturating_add(key), |size, (name, value)| {
        size.saturating_add(name).saturating_add(value).saturating_add(HEADER_OVERHEAD)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_measured_with_its_headers() {
        assert_eq!(entry_size(10, 3, [(1, 2), (0, 0)]), 10 + 3 + 19 + 16);
        assert_eq!(entry_size(usize::MAX, 1, []), usize::MAX);
    }
}
