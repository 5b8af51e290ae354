//! Avro's long: zigzag, then 7 bits a byte, least significant first. Only the shortest form of a number is accepted, so
//! that every value has one encoding.

/// Longest encoding of a long.
pub const MAX_LEN: usize = 10;

/// Why bytes are not a long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// The bytes end before the number does.
    #[error("the bytes end inside a number")]
    End,
    /// The number could be written shorter, or does not fit 64 bits.
    #[error("a number is not in its shortest form")]
    NotMinimal,
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Bytes that [`put`] writes for `value`.
#[must_use]
pub const fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends `value`.
pub fn put(buf: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buf.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    buf.push(rest as u8);
}

/// Reads a long from the start of `bytes`: its value and its length.
///
/// # Errors
/// When the bytes end too early or the number is not in its shortest form.
pub fn get(bytes: &[u8]) -> Result<(i64, usize), VarintError> {
    let mut raw = 0_u64;
    for (index, &byte) in bytes.iter().take(MAX_LEN).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            if (byte == 0 && index > 0) || (index == MAX_LEN - 1 && byte > 1) {
                return Err(VarintError::NotMinimal);
            }
            return Ok(((raw >> 1) as i64 ^ -((raw & 1) as i64), index + 1));
        }
    }
    Err(if bytes.len() < MAX_LEN { VarintError::End } else { VarintError::NotMinimal })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[0x80, 1]),
            (-64, &[127]),
            (-65, &[0x81, 1]),
            (8191, &[0xfe, 0x7f]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut buf = Vec::new();
            put(&mut buf, value);
            assert_eq!(buf, bytes, "{value}");
            assert_eq!(len(value), bytes.len(), "{value}");
            assert_eq!(get(bytes), Ok((value, bytes.len())));
        }
    }

    #[test]
    fn only_the_shortest_form_is_accepted() {
        assert_eq!(get(&[]), Err(VarintError::End));
        assert_eq!(get(&[0x80]), Err(VarintError::End));
        assert_eq!(get(&[0x80, 0]), Err(VarintError::NotMinimal));
        assert_eq!(get(&[0xff, 0x80, 0]), Err(VarintError::NotMinimal));
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(VarintError::NotMinimal));
        assert_eq!(get(&[0xff; 11]), Err(VarintError::NotMinimal));
    }

    proptest! {
        #[test]
        fn every_long_comes_back(value: i64, tail: Vec<u8>) {
            let mut buf = Vec::new();
            put(&mut buf, value);
            let length = buf.len();
            prop_assert_eq!(length, len(value));
            buf.extend(tail);
            prop_assert_eq!(get(&buf), Ok((value, length)));
        }

        #[test]
        fn what_is_accepted_is_the_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, length)) = get(&bytes) {
                let mut buf = Vec::new();
                put(&mut buf, value);
                prop_assert_eq!(&buf[..], &bytes[..length]);
            }
        }
    }
}
