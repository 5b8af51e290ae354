//! The flush workers of a [`Rig`]: what they write is kept in memory, by LSN.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::rig::Rig;
use crate::commit::collection::DirIx;
use crate::commit::flush_jobs::{FlushJob, FlushPart, FlushWork, Piece, Target};
use crate::commit::flushed::{FlushDone, FlushFailure, PartDone, SealOutcome};
use crate::format::record;
use crate::format::segment::Flushed;
use crate::types::{Incarnation, Lsn};

type Entries = BTreeMap<(Incarnation, Lsn), Vec<u8>>;

/// Segments of a directory: what flushes wrote, by LSN.
#[derive(Default)]
pub(super) struct Files {
    pub(super) files: BTreeMap<Uuid, File>,
    pub(super) sealed: BTreeSet<Uuid>,
}

#[derive(Default)]
pub(super) struct File {
    pub(super) length: u64,
    pub(super) shared: bool,
    pub(super) entries: Entries,
}

impl Files {
    fn write(&mut self, job: &FlushJob, mut piece: impl FnMut(&FlushPart, Lsn) -> Piece) -> Option<FlushDone> {
        let id = job.target.id();
        assert!(!self.sealed.contains(&id), "nothing is added to what is sealed");
        assert_eq!(matches!(job.target, Target::Behind(_)), self.files.contains_key(&id));
        let mut parts = Vec::new();
        let file = self.files.entry(id).or_default();
        file.shared = matches!(job.target, Target::Shared(..));
        for part in &job.parts {
            let mut done: Option<PartDone> = None;
            let mut from = part.first;
            loop {
                match piece(part, from) {
                    Piece::Records(records, first, last) => {
                        let mut at = 0;
                        while at < records.len() {
                            let (record, len) = record::decode(&records[at..]).unwrap();
                            file.entries.insert((record.incarnation, record.lsn), record.raw().to_vec());
                            at += len;
                        }
                        let so_far = done.get_or_insert(PartDone { first, last, bytes: 0 });
                        so_far.last = last;
                        so_far.bytes += records.len() as u64;
                        from = last.next();
                    }
                    Piece::Read(_) | Piece::Journal(_) => panic!("read before"),
                    Piece::End => break,
                    Piece::Stop => return None,
                }
            }
            parts.push(done);
        }
        let bytes: u64 = parts.iter().flatten().map(|part| part.bytes).sum();
        if bytes == 0 {
            return None;
        }
        file.length += bytes + 1000;
        let flushed = Flushed { length: file.length, index_offset: file.length - 500, index_crc: 7 };
        Some(FlushDone { number: job.number, flushed, parts })
    }
}

impl Rig {
    /// Does one piece of the flush worker's work; whether there was one.
    pub(super) fn flush(&mut self, dir: DirIx) -> bool {
        let work = self.log.poll_flush(dir, self.now);
        let worked = !matches!(work, FlushWork::Wait(_) | FlushWork::End);
        self.carry_out(dir, work);
        worked
    }

    /// Does what the log asked of the flush worker.
    pub(super) fn carry_out(&mut self, dir: DirIx, work: FlushWork) {
        let blocked = match &work {
            FlushWork::Flush(job) if matches!(job.target, Target::Shared(..)) => self.shared_blocked,
            FlushWork::Flush(_) | FlushWork::Seal(_) => self.own_blocked,
            FlushWork::Remove(_) | FlushWork::Sweep(_) | FlushWork::Wait(_) | FlushWork::End => false,
        };
        let (log, now) = (&mut self.log, self.now);
        match work {
            FlushWork::Flush(job) if blocked => {
                log.flush_failed(dir, job.number, FlushFailure::Device("not a folder".into()), now);
            }
            FlushWork::Seal(job) if blocked => {
                log.sealed(dir, job.number, SealOutcome::Device("not a folder".into()), now);
            }
            FlushWork::Flush(job) => {
                let copies: Vec<BTreeMap<Uuid, Entries>> = self
                    .segments
                    .iter()
                    .map(|segments| segments.files.iter().map(|(id, file)| (*id, file.entries.clone())).collect())
                    .collect();
                let mut failure = FlushFailure::Void;
                let written =
                    self.segments[dir].write(&job, |part, from| match log.flush_piece(dir, part, from, now) {
                        Piece::Read(wanted) if self.unreadable.contains(&wanted.segment.id) => {
                            let why = "test".to_owned();
                            failure = FlushFailure::Unreadable(wanted.incarnation, wanted.segment.id, why);
                            Piece::Stop
                        }
                        Piece::Read(wanted) => {
                            let entries = &copies[wanted.segment.dir][&wanted.segment.id];
                            let all =
                                entries.range((wanted.incarnation, wanted.from)..=(wanted.incarnation, wanted.to));
                            Piece::Records(all.flat_map(|(_, raw)| raw.clone()).collect(), wanted.from, wanted.to)
                        }
                        other => other,
                    });
                match written {
                    Some(done) => {
                        self.flushed += 1;
                        log.flushed(dir, &done, now);
                    }
                    None => {
                        if !matches!(job.target, Target::Behind(_)) {
                            self.segments[dir].files.remove(&job.target.id());
                        }
                        log.flush_failed(dir, job.number, failure, now);
                    }
                }
            }
            FlushWork::Seal(job) => {
                self.segments[dir].sealed.insert(job.segment.id);
                log.sealed(dir, job.number, SealOutcome::Sealed, now);
            }
            FlushWork::Remove(files) => {
                for (id, _) in files {
                    self.segments[dir].files.remove(&id);
                }
                log.removed(dir, &[]);
            }
            FlushWork::Sweep(_) => log.swept(dir),
            FlushWork::Wait(_) | FlushWork::End => {}
        }
        self.deliver();
    }
}
