//! A create whose outcome is known in the end.

use super::object::{HEAD, Object, ObjectKey, Seen};
use crate::directory::bucket::{Bucket, CreateError, Denied};

/// What an object's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none.
    Absent,
    /// They hold.
    Valid(Seen),
    /// They do not.
    Invalid,
}

/// Reads what is at a key.
pub(super) async fn look(bucket: &impl Bucket, key: ObjectKey) -> Result<Found, Denied> {
    let bytes = bucket.read(&key.to_string(), 0..HEAD as u64).await?;
    Ok(bytes.map_or(Found::Absent, |bytes| Seen::parse(&bytes, key).map_or(Found::Invalid, Found::Valid)))
}

/// How a create ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The object is there, and it is ours.
    Ours,
    /// Another object is there, for ever; what it says where it holds.
    Taken(Option<Seen>),
}

/// Creates the object, as often as it takes to know who created its key. An answer other than success says nothing: an
/// earlier attempt may have landed, or lands later, and it is the same object then.
///
/// # Errors
/// When the store refuses. Whether the object is there, or will be, is not known then.
pub(super) async fn put(bucket: &impl Bucket, object: &Object) -> Result<Put, Denied> {
    let key = object.key.to_string();
    let mut attempt = 0;
    loop {
        match bucket.create(&key, object.bytes.clone()).await {
            Ok(()) => return Ok(Put::Ours),
            Err(CreateError::Denied(why)) => return Err(why),
            Err(CreateError::Taken | CreateError::Unclear(_)) => {}
        }
        match look(bucket, object.key).await? {
            Found::Absent => {}
            Found::Valid(found) if object.seen.is(&found) => return Ok(Put::Ours),
            Found::Valid(found) => return Ok(Put::Taken(Some(found))),
            Found::Invalid => return Ok(Put::Taken(None)),
        }
        attempt += 1;
        bucket.back_off(attempt).await;
    }
}
