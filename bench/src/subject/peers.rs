//! Write-ahead logs that an application could link instead, each as fast as its options make it while an append returns
//! only when it is synced.

use std::io;
use std::path::Path;

use okaywal::{Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use raft_engine::{Config, LogBatch, ReadableSize};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::Log;

/// Everything checkpointed has been applied elsewhere.
#[derive(Debug)]
struct Applied;

impl LogManager for Applied {
    fn recover(&mut self, _entry: &mut Entry<'_>) -> io::Result<()> {
        Ok(())
    }

    fn checkpoint_to(&mut self, _last: EntryId, _entries: &mut SegmentReader, _wal: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct OkayWal(WriteAheadLog);

impl OkayWal {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        // Files as large as our slots. With its default of 1 MiB it would checkpoint sixteen times as often.
        let configuration = okaywal::Configuration::default_for(folder.join("okaywal"))
            .preallocate_bytes(16 << 20)
            .checkpoint_after_bytes(14 << 20)
            .buffer_bytes(256 << 10);
        Ok(Self(configuration.open(Applied)?))
    }
}

impl Log for OkayWal {
    fn append(&self, _client: usize, _turn: u64, payload: &[u8]) -> anyhow::Result<()> {
        let mut entry = self.0.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }
}

pub(crate) struct RaftEngine(raft_engine::Engine);

impl RaftEngine {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        // Recycled files, some of them prepared before the start: it overwrites, as we do. No compression, as we.
        let config = Config {
            dir: folder.join("raft-engine").to_string_lossy().into_owned(),
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(16),
            purge_threshold: ReadableSize::mb(64),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            ..Config::default()
        };
        Ok(Self(raft_engine::Engine::open(config)?))
    }
}

impl Log for RaftEngine {
    fn append(&self, client: usize, _turn: u64, payload: &[u8]) -> anyhow::Result<()> {
        let mut batch = LogBatch::default();
        // One key for each client: its index does not grow, as ours does not.
        batch.put(1, client.to_be_bytes().to_vec(), payload.to_vec())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn tidy(&self, _all: bool) -> anyhow::Result<()> {
        self.0.purge_expired_files()?;
        Ok(())
    }
}

pub(crate) struct Walrus1(Walrus);

impl Walrus1 {
    /// Its folder comes from the environment: see [`super::Subject::start`].
    pub(crate) fn open() -> anyhow::Result<Self> {
        let schedule = FsyncSchedule::SyncEach;
        Ok(Self(Walrus::with_consistency_and_schedule(ReadConsistency::StrictlyAtOnce, schedule)?))
    }
}

impl Log for Walrus1 {
    fn append(&self, client: usize, _turn: u64, payload: &[u8]) -> anyhow::Result<()> {
        // A topic for each client: appends to one topic wait for each other's syncs.
        self.0.append_for_topic(&format!("client-{client}"), payload)?;
        Ok(())
    }
}
