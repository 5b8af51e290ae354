//! The codec of service `Wal`: prost, with an undecodable message answered as the typed INVALID_REQUEST.

use std::any::TypeId;
use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::error::{ApiError, Reason};
use crate::proto::AppendRequest;
use crate::proto::errors::to_status;

/// See the module.
#[derive(Clone, Debug)]
pub struct WalCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WalCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for WalCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WalEncoder<T>;
    type Decoder = WalDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        WalEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        WalDecoder(PhantomData)
    }
}

/// Encodes messages.
#[derive(Clone, Debug)]
pub struct WalEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for WalEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|e| Status::new(Code::Internal, format!("the message cannot be encoded: {e}")))
    }
}

/// Decodes messages.
#[derive(Clone, Debug)]
pub struct WalDecoder<U>(PhantomData<U>);

impl<U: Message + Default + 'static> Decoder for WalDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if TypeId::of::<U>() == TypeId::of::<AppendRequest>() && buffer.remaining() > MAX_PARTS {
            // Two bytes on the wire become an entry of some ninety in memory: count before decoding.
            let parts = count_parts(buffer.chunk(), 2);
            if parts > MAX_PARTS {
                return Err(to_status(&too_many_parts(parts)));
            }
        }
        U::decode(buffer)
            .map(Some)
            .map_err(|e| to_status(&ApiError::new(Reason::InvalidRequest, format!("not a valid message: {e}"))))
    }
}

/// Most entries and headers of one request. Each takes at least 32 bytes of a batch, so that no batch within its limit
/// has more.
pub const MAX_PARTS: usize = 1 << 20;

/// The refusal of a request with more than [`MAX_PARTS`].
#[must_use]
pub fn too_many_parts(parts: usize) -> ApiError {
    let message = format!("a request has at most {MAX_PARTS} entries and headers, this one has {parts}");
    ApiError::new(Reason::BatchTooLarge, message)
}

/// Counts the fields 3 of a message and of its fields 3, `depth` levels down: entries of a request, headers of entries.
/// Stops at the first thing that is no valid message: decoding will say so.
fn count_parts(mut message: &[u8], depth: u32) -> usize {
    let mut parts = 0;
    while let Ok((tag, wire_type)) = decode_key(&mut message) {
        if wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let Ok(length) = decode_varint(&mut message) else { break };
        let Some((field, rest)) = usize::try_from(length).ok().and_then(|n| message.split_at_checked(n)) else { break };
        message = rest;
        if tag == 3 {
            parts += 1;
            if depth > 1 {
                parts += count_parts(field, depth - 1);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Entry, Header};

    #[test]
    fn entries_and_headers_are_counted_on_the_wire() {
        let header = || Header { name: "n".into(), value: "v".into() };
        let entry = |headers: usize| Entry {
            payload: "x".into(),
            key: Some("k".into()),
            headers: (0..headers).map(|_| header()).collect(),
        };
        let request = AppendRequest {
            id: 7,
            collection: "c".into(),
            entries: vec![entry(0), entry(2), Entry::default()],
            ack: 1,
            producer_id: "p".into(),
            producer_seq: u64::MAX,
        };
        assert_eq!(count_parts(&request.encode_to_vec(), 2), 5);
        assert_eq!(count_parts(&[], 2), 0);
        assert_eq!(count_parts(&[0x1a, 0xff], 2), 0);
        assert_eq!(count_parts(&[0x1a, 0, 0x1b], 2), 1);
    }
}
