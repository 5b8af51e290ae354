//! The calls that answer once, free of any transport: gRPC and HTTP both come through here.

use std::time::Instant;

use crate::engine::Reader;
use crate::error::{ApiError, Reason};
use crate::proto;
use crate::server::{Shared, convert, status};
use crate::types::Lsn;

/// Waits for a change until the caller stops waiting; then nobody knows whether it happened.
async fn before<T>(
    deadline: Option<Instant>,
    change: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match deadline {
        None => change.await,
        Some(at) => tokio::time::timeout_at(at.into(), change).await.unwrap_or_else(|_| {
            let message = "the deadline passed before the change was durable: it may or may not become so; repeat it";
            Err(ApiError::new(Reason::UnknownOutcome, message))
        }),
    }
}

pub(crate) async fn append(
    shared: &Shared,
    request: proto::AppendRequest,
    deadline: Option<Instant>,
) -> Result<proto::AppendReply, ApiError> {
    let (id, level, started) = (request.id, convert::level(request.ack), Instant::now());
    let waiting = shared.metrics.waiting();
    waiting.since(Some(started));
    let result = match convert::append(request) {
        Ok(append) => shared.engine.append(append, deadline).await,
        Err(error) => Err(error),
    };
    shared.metrics.appended(level, result.as_ref().map(|_| ()).map_err(|e| e.reason), started);
    match result {
        Ok(appended) => Ok(convert::appended(id, appended)),
        Err(error) => Err(convert::with_request_id(error, id)),
    }
}

pub(crate) fn read(shared: &Shared, request: &proto::ReadRequest) -> Result<Reader, ApiError> {
    let collection = convert::collection_name(&request.collection)?;
    shared.engine.read(&collection, Lsn(request.from), request.limit, request.follow)
}

pub(crate) async fn truncate(
    shared: &Shared,
    request: proto::TruncateRequest,
    deadline: Option<Instant>,
) -> Result<proto::TruncateReply, ApiError> {
    let collection = convert::collection_name(&request.collection)?;
    let truncated_to = before(deadline, shared.engine.truncate(&collection, Lsn(request.up_to))).await?;
    Ok(proto::TruncateReply { truncated_to: truncated_to.0 })
}

pub(crate) async fn flush(
    shared: &Shared,
    request: proto::FlushRequest,
    deadline: Option<Instant>,
) -> Result<proto::FlushReply, ApiError> {
    let collection = convert::collection_name(&request.collection)?;
    let flushed_to = before(deadline, shared.engine.flush(&collection)).await?;
    Ok(proto::FlushReply { flushed_to: flushed_to.0 })
}

pub(crate) async fn delete(
    shared: &Shared,
    request: proto::DeleteCollectionRequest,
    deadline: Option<Instant>,
) -> Result<proto::DeleteCollectionReply, ApiError> {
    let collection = convert::collection_name(&request.collection)?;
    let incarnation = before(deadline, shared.engine.delete(&collection)).await?;
    Ok(proto::DeleteCollectionReply { incarnation: incarnation.0 })
}

pub(crate) fn list(
    shared: &Shared,
    request: &proto::ListCollectionsRequest,
) -> Result<proto::ListCollectionsReply, ApiError> {
    let size = convert::page_size(request.page_size);
    let after = convert::parse_page_token(&request.page_token)?;
    // One more than a page tells whether there is another one.
    let mut page = shared.engine.list(after.as_deref(), size + 1)?;
    let more = page.len() > size;
    page.truncate(size);
    let next_page_token = match page.last() {
        Some(last) if more => convert::page_token(last.name.as_str()),
        _ => String::new(),
    };
    Ok(proto::ListCollectionsReply {
        collections: page.into_iter().map(convert::collection).collect(),
        next_page_token,
    })
}

pub(crate) fn collection(
    shared: &Shared,
    request: &proto::GetCollectionRequest,
) -> Result<proto::Collection, ApiError> {
    let collection = convert::collection_name(&request.collection)?;
    shared.engine.collection(&collection).map(convert::collection)
}

pub(crate) fn directories(shared: &Shared) -> proto::ListDirectoriesReply {
    let directories = shared.engine.status().directories;
    proto::ListDirectoriesReply { directories: directories.into_iter().map(status::directory).collect() }
}

pub(crate) async fn forget(
    shared: &Shared,
    request: proto::ForgetDirectoryRequest,
    deadline: Option<Instant>,
) -> Result<proto::ForgetDirectoryReply, ApiError> {
    let directory = convert::directory_id(&request.uuid)?;
    before(deadline, shared.engine.forget_directory(directory)).await?;
    Ok(proto::ForgetDirectoryReply { uuid: directory.to_string() })
}

pub(crate) fn drain(shared: &Shared) -> Result<proto::DrainReply, ApiError> {
    Ok(proto::DrainReply { bytes_left: shared.engine.drain()? })
}
