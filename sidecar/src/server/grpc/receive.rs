//! Bodies of gRPC requests on their way in. A message above 64 KiB is counted against the engine's memory bound from the
//! moment its length is known, before it is buffered; one above the limit is refused then. Smaller ones are bounded by the
//! window of their HTTP/2 stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tonic::Status;

use crate::engine::{Engine, ReceivePermit};
use crate::error::{ApiError, Reason};
use crate::proto::MAX_MESSAGE_BYTES;
use crate::proto::errors::to_status;
use crate::server::convert::with_request_id;

/// Messages up to this size are not counted one by one.
const UNCOUNTED: usize = 64 << 10;

/// Bytes before each message: a flag and the length.
const HEADER: usize = 5;

/// The permits of the messages of one call, from the body that takes them to the handler that gives them back.
#[derive(Clone, Default)]
pub(crate) struct Permits(Arc<Mutex<VecDeque<(u64, ReceivePermit)>>>);

impl Permits {
    /// The permit of the `n`-th message of the call, from 0; small messages have none.
    pub(crate) fn take(&self, n: u64) -> Option<ReceivePermit> {
        let mut permits = self.0.lock();
        match permits.front() {
            Some((of, _)) if *of == n => permits.pop_front().map(|(_, permit)| permit),
            _ => None,
        }
    }
}

type Acquire = Pin<Box<dyn Future<Output = Result<ReceivePermit, ApiError>> + Send>>;

/// A request's body that asks before it takes.
pub(crate) struct Counted<B> {
    body: B,
    engine: Engine,
    deadline: Option<Instant>,
    permits: Permits,
    scanner: Scanner,
    /// Data that waits for a permit.
    held: Option<(Bytes, Acquire, u64)>,
}

impl<B> Counted<B> {
    pub(crate) fn new(body: B, engine: Engine, deadline: Option<Instant>, permits: Permits) -> Self {
        Self { body, engine, deadline, permits, scanner: Scanner::default(), held: None }
    }

    fn scan(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let Some(Large { bytes, id }) = self.scanner.next_large(&data) else { return Ok(Some(data)) };
        if bytes > MAX_MESSAGE_BYTES {
            let message = format!("a gRPC message has at most {MAX_MESSAGE_BYTES} bytes, this one has {bytes}");
            return Err(to_status(&with_request_id(ApiError::new(Reason::BatchTooLarge, message), id)));
        }
        let (engine, deadline) = (self.engine.clone(), self.deadline);
        let acquire = Box::pin(async move { engine.receive(bytes as u64, deadline).await });
        self.held = Some((data, acquire, id));
        Ok(None)
    }
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some((_, acquire, id)) = &mut this.held {
                let id = *id;
                let permit = match ready!(acquire.as_mut().poll(context)) {
                    Ok(permit) => permit,
                    Err(error) => {
                        this.held = None;
                        return Poll::Ready(Some(Err(to_status(&with_request_id(error, id)))));
                    }
                };
                this.permits.0.lock().push_back((this.scanner.message - 1, permit));
                let data = this.held.take().map(|(data, ..)| data).unwrap_or_default();
                match this.scan(data) {
                    Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(None) => continue,
                    Err(status) => return Poll::Ready(Some(Err(status))),
                }
            }
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                Some(Ok(frame)) => frame,
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            this.scanner.start(&data);
            match this.scan(data) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A message that is to be counted.
#[derive(Debug, PartialEq, Eq)]
struct Large {
    bytes: usize,
    /// Its request's id, as far as it can be seen already; else 0.
    id: u64,
}

/// Finds the messages in the data of a call. Pure.
#[derive(Default)]
struct Scanner {
    /// Messages whose header is complete.
    message: u64,
    header: [u8; HEADER],
    header_len: usize,
    /// What is missing of the message under way.
    missing: usize,
    /// Where the scan of the current data stands, and how much it has.
    at: usize,
    end: usize,
}

impl Scanner {
    fn start(&mut self, data: &[u8]) {
        self.at = 0;
        self.end = data.len();
    }

    /// Goes on in the current data to the next message that is to be counted; `None`: there is none in it.
    fn next_large(&mut self, data: &[u8]) -> Option<Large> {
        while self.at < self.end {
            if self.missing > 0 {
                let step = self.missing.min(self.end - self.at);
                self.missing -= step;
                self.at += step;
                continue;
            }
            self.header[self.header_len] = data[self.at];
            self.header_len += 1;
            self.at += 1;
            if self.header_len < HEADER {
                continue;
            }
            self.header_len = 0;
            self.message += 1;
            let [_, a, b, c, d] = self.header;
            self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
            if self.missing > UNCOUNTED {
                return Some(Large { bytes: self.missing, id: leading_id(&data[self.at..self.end]) });
            }
        }
        None
    }
}

/// Field 1 of a message when it stands first, as encoders write it; else 0.
fn leading_id(mut message: &[u8]) -> u64 {
    match message.split_first() {
        Some((0x08, rest)) => {
            message = rest;
            prost::encoding::decode_varint(&mut message).unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(sizes: &[usize]) -> Vec<u8> {
        let mut data = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            data.push(0);
            data.extend((*size as u32).to_be_bytes());
            let mut message = vec![0x08, i as u8 + 1];
            message.resize(*size, 0xaa);
            message.truncate(*size);
            data.extend(message);
        }
        data
    }

    #[test]
    fn the_id_of_a_large_message_is_seen_in_its_first_bytes() {
        let data = encode(&[3, UNCOUNTED + 1]);
        let mut scanner = Scanner::default();
        scanner.start(&data);
        assert_eq!(scanner.next_large(&data), Some(Large { bytes: UNCOUNTED + 1, id: 2 }));
        assert_eq!(scanner.message, 2);
        assert_eq!(leading_id(&[]), 0);
        assert_eq!(leading_id(&[0x08]), 0);
        assert_eq!(leading_id(&[0x12, 1, b'c']), 0);
    }

    proptest! {
        #[test]
        fn every_large_message_is_found_however_the_data_is_cut(
            sizes in prop::collection::vec(prop_oneof![0usize..10, UNCOUNTED - 2..UNCOUNTED + 3], 1..12),
            cut in prop_oneof![1usize..8, 1000usize..40_000],
        ) {
            let data = encode(&sizes);
            let mut scanner = Scanner::default();
            let mut found = Vec::new();
            for piece in data.chunks(cut) {
                scanner.start(piece);
                while let Some(large) = scanner.next_large(piece) {
                    found.push((scanner.message - 1, large.bytes));
                }
            }
            let expected: Vec<(u64, usize)> = sizes
                .iter()
                .enumerate()
                .filter(|(_, size)| **size > UNCOUNTED)
                .map(|(i, size)| (i as u64, *size))
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(scanner.message, sizes.len() as u64);
        }
    }
}
