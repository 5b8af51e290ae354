//! What a flush is written to: a file, or an object that is sent as a whole.

use std::io;
use std::path::PathBuf;

use crate::commit::flushed::FlushFailure;
use crate::directory::disk::DiskFile;
use crate::format::record;
use crate::format::segment::FlushBuilder;

/// What a flush is written to.
pub(super) enum Sink {
    File(Box<dyn DiskFile>),
    /// An object is sent as a whole, when all of it is there.
    Object(Vec<u8>),
}

/// Where a flush goes on.
pub(super) struct Place {
    pub(super) sink: Sink,
    pub(super) path: PathBuf,
    /// The file was made for this flush.
    pub(super) new: bool,
    pub(super) builder: FlushBuilder,
    pub(super) at: u64,
}

pub(super) fn device(what: &'static str) -> impl Fn(io::Error) -> FlushFailure {
    move |error| FlushFailure::Device(format!("cannot {what}: {error}"))
}

impl Place {
    /// Lays out records and writes what is ready.
    pub(super) fn push(&mut self, records: &[u8]) -> Result<(), FlushFailure> {
        let mut rest = records;
        while !rest.is_empty() {
            let broken = |what: String| FlushFailure::Device(format!("an entry in memory is damaged: {what}"));
            let (record, length) = record::decode(rest).map_err(|error| broken(error.to_string()))?;
            self.builder.push(&record).map_err(|error| broken(error.to_string()))?;
            rest = &rest[length..];
        }
        let ready = self.builder.take();
        self.write(&ready)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FlushFailure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = match &mut self.sink {
            Sink::Object(object) => {
                object.extend_from_slice(bytes);
                self.at += bytes.len() as u64;
                return Ok(());
            }
            Sink::File(file) => file,
        };
        let written = file.write_at(self.at, bytes).map_err(device("write a segment"))?;
        if written != bytes.len() {
            let rest = file.write_at(self.at + written as u64, &bytes[written..]).err();
            return Err(match rest {
                Some(error) => device("write a segment")(error),
                None => FlushFailure::Device(format!("a write of {} bytes ended after {written}", bytes.len())),
            });
        }
        self.at += bytes.len() as u64;
        Ok(())
    }
}
