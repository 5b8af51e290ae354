//! Buckets in a start: what a disk is asked by its lock and its folder is asked of the store, and before a journal is read
//! its directory is taken over.
//!
//! 1. One epoch is claimed in every bucket that is open: above all that any directory has, and at least the grant's. Where
//!    one of them has it already, the next one is claimed in all.
//!    Before that, no claim that is there may have a newer grant: a start that is not the holder's writes nothing.
//! 2. A bucket's journal is read only behind the fences of its streams.
//! 3. What was taken over stays so for all attempts of the process, until a higher epoch is needed.
//! 4. A store that gives no answer is, when that has been waited for, one that refuses: an attempt ends, whatever a store does.

use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;
use walstorage_crds::url::WalUrl;

use super::open::{DiskHandle, Opened, Unusable, Wanted};
use super::{Attempt, Stop};
use crate::ambient;
use crate::api::DirectoryState;
use crate::directory::bucket::Denied;
use crate::directory::disk::{Lock, Space};
use crate::directory::identity::{self, JOURNAL};
use crate::engine::Ended;
use crate::fencing::Lost;
use crate::fencing::directory::{Buckets, Objects};
use crate::fencing::object::Author;
use crate::format::StreamId;
use crate::format::facts::EpochFact;
use crate::format::limits::MAX_EPOCH;
use crate::format::names::SlotName;
use crate::types::Epoch;

/// What to do about a store that refuses: its own sentence says what is wrong.
const REPAIR: &str = "it is tried again by itself; nothing has to be restarted";

/// What to do about a store that gives no answer.
pub(super) const SILENT: &str = "it is tried again by itself; if it is gone for good, its URL may be removed, and what it \
                                 held given up with: walctl directory forget <uuid>";

/// Opens one bucket. Writes nothing but the probe's object, which it removes.
///
/// # Errors
/// What it is instead of open.
pub(super) fn open(wanted: Wanted, buckets: &Buckets) -> Result<Opened, Box<Unusable>> {
    let failed = |reason: String, remedy: &str| wanted.unusable(DirectoryState::Failed, reason, remedy, true);
    let refused = |lost: &Lost| {
        let reason = without(&wanted.url, &lost.sentence());
        let unusable = failed(reason, REPAIR);
        if lost.passes() { Box::new(unusable.silent()) } else { unusable }
    };
    let disk = buckets.disk(&wanted.url).map_err(|trouble| refused(&Lost::from(Denied(trouble))))?;
    let Some(objects) = disk.objects() else { return Err(failed("it is no bucket".to_owned(), REPAIR)) };
    objects.begin();
    objects.probe().map_err(|lost| refused(&lost))?;
    let identity = identity::read(disk.as_ref()).map_err(|error| match &error {
        identity::IdentityError::Io { source, .. } if source.kind() == ErrorKind::TimedOut => {
            Box::new(failed(error.to_string(), REPAIR).silent())
        }
        identity::IdentityError::Io { .. } => failed(error.to_string(), REPAIR),
        identity::IdentityError::Damaged { .. } | identity::IdentityError::Format { .. } => {
            failed(error.to_string(), "restore the object, or forget the directory")
        }
    })?;
    if identity.is_none() {
        let highest = objects.highest().map_err(|lost| refused(&lost))?;
        if highest > Epoch(0) {
            let path = disk.display(Path::new(identity::IDENTITY));
            let reason = format!("{} is missing beside a journal", path.display());
            return Err(failed(reason, "restore it from a copy, or forget the directory"));
        }
        if !wanted.may_create {
            let reason = format!("{} holds no write-ahead log", disk.display(Path::new("")).display());
            let mut unusable = wanted.unusable(DirectoryState::Lost, reason, LOST, false);
            unusable.absent = true;
            return Err(unusable);
        }
    }
    let lock = match disk.lock(Path::new(identity::LOCK)) {
        Ok(Lock::Held(lock)) => lock,
        Ok(Lock::Busy(_)) => return Err(failed("it is locked".to_owned(), REPAIR)),
        Err(error) => return Err(failed(error.to_string(), REPAIR)),
    };
    let device_inode = disk.device_inode().map_err(|error| failed(error.to_string(), REPAIR))?;
    let device = wanted.url.scheme().as_str().to_owned();
    Ok(Opened { wanted, disk: DiskHandle(disk), lock, identity, device_inode, device, space: Space::default() })
}

/// What to do about a bucket that came up empty.
const LOST: &str = "bring its objects back, or give it up with: walctl directory forget <uuid>";

/// A sentence names its place; who shows it has named that.
fn without(url: &WalUrl, sentence: &str) -> String {
    sentence.strip_prefix(&format!("{url}: ")).unwrap_or(sentence).to_owned()
}

/// Why a bucket cannot be taken over.
enum Failed {
    /// This one: its place among those that are open.
    One(usize, Lost),
    All(Stop),
}

impl Attempt<'_> {
    /// Takes every open bucket over that has an identity. One that refuses is not open any more.
    pub(super) fn take_over(&mut self) -> Result<(), Stop> {
        loop {
            let Err(failed) = self.take_all_over() else { return Ok(()) };
            let (index, lost) = match failed {
                Failed::One(index, lost) => (index, lost),
                Failed::All(stop) => return Err(stop),
            };
            let dir = &self.opened[index].opened;
            match lost {
                Lost::Fenced { by } => {
                    return Err(Stop::Ended(Ended::Fenced(format!(
                        "{}: the stream {by} is another process's: it has taken over this writer",
                        dir.wanted.url
                    ))));
                }
                lost @ (Lost::Denied(Denied(_)) | Lost::Unconditional | Lost::Damage { .. }) => {
                    let dir = self.opened.remove(index);
                    let reason = without(&dir.opened.wanted.url, &lost.sentence());
                    let unusable = Unusable::of(&dir.opened, DirectoryState::Failed, reason, REPAIR);
                    let unusable = if lost.passes() { unusable.silent() } else { unusable };
                    self.unusable.push(Unusable { unseen: true, ..unusable });
                }
            }
        }
    }

    /// What is taken over now is read behind that.
    fn take_all_over(&mut self) -> Result<(), Failed> {
        let taken = self.take_epoch();
        let again: Vec<usize> = match &taken {
            Ok(taken) => taken.clone(),
            // Some may be taken over: what was read of them before says nothing of a writer in between.
            Err(_) => (0..self.opened.len()).filter(|at| self.opened[*at].opened.disk.0.objects().is_some()).collect(),
        };
        for index in again {
            self.opened[index].journal = None;
        }
        taken.map(drop)
    }

    /// Claims one epoch in all; answers those that were taken over.
    fn take_epoch(&self) -> Result<Vec<usize>, Failed> {
        let buckets: Vec<(usize, Uuid, Uuid, &dyn Objects)> = self
            .opened
            .iter()
            .enumerate()
            .filter_map(|(index, dir)| {
                let identity = dir.opened.identity.as_ref()?;
                Some((index, identity.writer, identity.directory, dir.opened.disk.0.objects()?))
            })
            .collect();
        let epoch_of = |objects: &dyn Objects| objects.taken().map(|taken| taken.stream.epoch);
        let known = buckets.iter().filter_map(|(.., objects)| epoch_of(*objects)).max();
        let least = self.least_epoch();
        // Where some were taken over before, the others follow, if they can.
        let mut epoch = known.filter(|known| *known >= least).unwrap_or(least).max(Epoch(1));
        let wanted = epoch;
        for (index, .., objects) in buckets.iter().filter(|(.., objects)| epoch_of(*objects) != Some(wanted)) {
            if self.context.grant.is_some() {
                let granted = objects.granted().map_err(|lost| Failed::One(*index, lost))?;
                self.check_grant(granted.as_ref()).map_err(Failed::All)?;
            }
            let highest = objects.highest().map_err(|lost| Failed::One(*index, lost))?;
            epoch = epoch.max(Epoch(highest.0.saturating_add(1)));
        }
        let all_ours = |epoch: Epoch| {
            for (index, writer, directory, objects) in &buckets {
                let author = || self.author(*writer, *directory);
                let ours = epoch_of(*objects) == Some(epoch)
                    || objects.claim(author(), epoch).map_err(|lost| Failed::One(*index, lost))?;
                if !ours {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        loop {
            if epoch.0 >= MAX_EPOCH {
                return Err(Failed::All(Stop::Ended(Ended::Refused(format!(
                    "the next epoch would be {epoch}, but epochs are below {MAX_EPOCH}: take away objects of journals \
                     that this writer did not write"
                )))));
            }
            if all_ours(epoch)? {
                break;
            }
            epoch.0 = epoch.0.saturating_add(1);
        }
        let mut taken = Vec::new();
        for (index, .., objects) in buckets.iter().filter(|(.., objects)| objects.taken().is_none()) {
            objects.take_over().map_err(|lost| Failed::One(*index, lost))?;
            taken.push(*index);
        }
        Ok(taken)
    }

    /// The least epoch that will do: the grant's, above all that disks have by the names of their files, and above what an
    /// attempt before this one has read.
    fn least_epoch(&self) -> Epoch {
        let granted = self.context.grant.as_ref().map_or(0, |grant| grant.epoch);
        let disks = self.opened.iter().map(|dir| &dir.opened.disk.0).filter(|disk| disk.objects().is_none());
        let listed = disks.filter_map(|disk| disk.list(Path::new(JOURNAL)).ok()).flatten();
        let seen = listed.filter_map(|entry| SlotName::parse(&entry.name)).map(|name| name.key.epoch.0);
        let above = seen.max().map_or(0, |epoch| epoch.saturating_add(1));
        Epoch(granted.max(above).max(self.least_epoch.0))
    }

    /// What the objects say of this process before its journal does.
    fn author(&self, writer: Uuid, directory: Uuid) -> Author {
        let grant = self.context.grant.as_ref();
        Author {
            writer,
            directory,
            stream: StreamId(*ambient::uuid().as_bytes()),
            marker: *ambient::uuid().as_bytes(),
            epoch: EpochFact::of_a_claim(
                ambient::uuid(),
                grant.map_or(0, |grant| grant.epoch),
                grant.map(|grant| grant.holder.clone()).unwrap_or_default(),
            ),
        }
    }

    /// The epoch that is claimed in the buckets, where there are any.
    pub(super) fn claimed_epoch(&self) -> Option<Epoch> {
        let claimed = |dir: &super::Directory| Some(dir.opened.disk.0.objects()?.taken()?.stream.epoch);
        self.opened.iter().filter_map(claimed).max()
    }
}
