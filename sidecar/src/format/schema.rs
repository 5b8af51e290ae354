//! The one Avro schema of everything on storage. Field order is part of the format; `payload` is last, so that what is
//! known about an entry is found without reading past it.

/// The schema as it stands in every file, byte for byte.
pub const SCHEMA: &str = include_str!("schema.avsc");
