//! The codec of service `Wal`: prost, with an undecodable message answered as the typed INVALID_REQUEST.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

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
        item.encode(buffer).map_err(|e| Status::new(Code::Internal, format!("the message cannot be encoded: {e}")))
    }
}

/// Decodes messages.
#[derive(Clone, Debug)]
pub struct WalDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for WalDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|e| Status::new(Code::InvalidArgument, format!("not a valid message: {e}")))
    }
}
