//! Reads over gRPC: one message per part that the engine hands out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Code, Status};

use crate::engine::Reader;
use crate::proto::ReadReply;
use crate::proto::errors::to_status;
use crate::server::problem::panicked;
use crate::server::{Shared, convert};

/// The parts of a read.
pub(crate) type ReadReplies = Pin<Box<dyn Stream<Item = Result<ReadReply, Status>> + Send>>;

pub(crate) fn replies(shared: Arc<Shared>, reader: Reader, deadline: Option<Instant>) -> ReadReplies {
    let replies = stream::unfold(Some((shared, reader)), move |state| async move {
        let (shared, mut reader) = state?;
        let part = match deadline {
            None => reader.next().await,
            Some(at) => match tokio::time::timeout_at(at.into(), reader.next()).await {
                Ok(part) => part,
                Err(_) => {
                    let status = Status::new(Code::DeadlineExceeded, "the deadline of the call passed");
                    return Some((Err(status), None));
                }
            },
        };
        match part? {
            Ok(items) => {
                shared.count_gaps(&items);
                let items = items.into_iter().map(convert::item).collect();
                Some((Ok(ReadReply { items }), Some((shared, reader))))
            }
            Err(error) => Some((Err(to_status(&error)), None)),
        }
    });
    let guarded = std::panic::AssertUnwindSafe(replies).catch_unwind();
    Box::pin(guarded.map(|reply| reply.unwrap_or_else(|_| Err(to_status(&panicked())))))
}
