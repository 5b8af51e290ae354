//! The codecs of a segment's blocks, as Avro defines them: nothing; Snappy with a big-endian CRC32 of the plain bytes
//! behind it; Zstandard. Plain bytes are bounded on both sides, so that a small block cannot ask for much memory.

use std::borrow::Cow;
use std::io::Read;

use super::header::Codec;

/// Most plain bytes of a block: one entry of the largest size with all that stands around it fits.
pub const MAX_PLAIN: usize = 32 << 20;
const ZSTD_LEVEL: i32 = 3;

/// Why a block cannot be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More than [`MAX_PLAIN`] plain bytes.
    #[error("the block has more than {MAX_PLAIN} plain bytes")]
    TooLong,
    /// The bytes are not what the codec makes.
    #[error("the block is no valid {codec} data: {what}")]
    Invalid {
        /// The codec's name.
        codec: &'static str,
        /// What it says.
        what: String,
    },
}

impl Codec {
    fn invalid(self, what: impl ToString) -> CodecError {
        CodecError::Invalid { codec: self.as_str(), what: what.to_string() }
    }

    /// Compresses the plain bytes of a block.
    ///
    /// # Errors
    /// When there are more than [`MAX_PLAIN`].
    pub fn compress(self, plain: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
        if plain.len() > MAX_PLAIN {
            return Err(CodecError::TooLong);
        }
        match self {
            Self::Null => Ok(Cow::Borrowed(plain)),
            Self::Snappy => {
                let mut data = snap::raw::Encoder::new().compress_vec(plain).map_err(|error| self.invalid(error))?;
                data.extend_from_slice(&crc32fast::hash(plain).to_be_bytes());
                Ok(Cow::Owned(data))
            }
            Self::Zstandard => {
                let data = zstd::bulk::compress(plain, ZSTD_LEVEL).map_err(|error| self.invalid(error))?;
                Ok(Cow::Owned(data))
            }
        }
    }

    /// The plain bytes of a block.
    ///
    /// # Errors
    /// When the data is not what the codec makes, or too large.
    pub fn decompress(self, data: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
        match self {
            Self::Null if data.len() > MAX_PLAIN => Err(CodecError::TooLong),
            Self::Null => Ok(Cow::Borrowed(data)),
            Self::Snappy => {
                let split = data.len().checked_sub(4).ok_or_else(|| self.invalid("it is too short"))?;
                let (packed, crc) = data.split_at(split);
                if snap::raw::decompress_len(packed).map_err(|error| self.invalid(error))? > MAX_PLAIN {
                    return Err(CodecError::TooLong);
                }
                let plain = snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| self.invalid(error))?;
                if crc32fast::hash(&plain).to_be_bytes() != crc {
                    return Err(self.invalid("its CRC32 does not hold"));
                }
                Ok(Cow::Owned(plain))
            }
            Self::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(|error| self.invalid(error))?;
                let mut plain = Vec::new();
                let limit = MAX_PLAIN as u64 + 1;
                decoder.take(limit).read_to_end(&mut plain).map_err(|error| self.invalid(error))?;
                if plain.len() > MAX_PLAIN { Err(CodecError::TooLong) } else { Ok(Cow::Owned(plain)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Codec; 3] = [Codec::Null, Codec::Snappy, Codec::Zstandard];

    proptest! {
        #[test]
        fn plain_bytes_come_back(plain in proptest::collection::vec(any::<u8>(), 0..5000)) {
            for codec in ALL {
                let data = codec.compress(&plain).unwrap().into_owned();
                prop_assert_eq!(&*codec.decompress(&data).unwrap(), &plain[..]);
            }
        }

        #[test]
        fn noise_never_panics(data: Vec<u8>) {
            for codec in ALL {
                let _ = codec.decompress(&data);
            }
        }
    }

    #[test]
    fn a_small_block_cannot_ask_for_much_memory() {
        let zeros = vec![0; MAX_PLAIN + 1];
        let bomb = zstd::bulk::compress(&zeros, 1).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(Codec::Zstandard.decompress(&bomb), Err(CodecError::TooLong));
        let bomb = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 40]].concat();
        assert_eq!(Codec::Snappy.decompress(&bomb), Err(CodecError::TooLong));
        assert_eq!(Codec::Null.decompress(&zeros), Err(CodecError::TooLong));
        for codec in ALL {
            assert_eq!(codec.compress(&zeros), Err(CodecError::TooLong));
            assert!(codec.compress(&zeros[1..]).is_ok());
        }
    }
}
