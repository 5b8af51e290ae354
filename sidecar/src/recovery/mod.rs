//! Recovery: from directories to a log that may serve. One [`attempt`] opens, reads, merges and decides; it writes
//! nothing but folders and identities of new directories. The first frames of the new streams, written by the engine,
//! make its decisions durable before anything is served.
//!
//! 1. Every member that was in use is present, or given up by name; else the attempt answers *waiting*.
//! 2. Nothing is served while damage is unaccounted for: it becomes gaps (`on_damage = "gap"`), or the attempt waits.
//! 3. A directory known to have been in use that comes up empty is lost, never new. With a grant only what it names is new.
//! 4. Nothing written before is written over.

pub(crate) mod buckets;
pub(crate) mod budget;
pub(crate) mod content;
mod damage;
mod decide;
mod freed;
mod granted;
mod home;
mod identities;
pub(crate) mod load;
mod members;
pub(crate) mod merge;
pub(crate) mod noted;
pub(crate) mod objects;
pub(crate) mod open;
mod read;
pub(crate) mod released;
pub(crate) mod salvage;
mod shared;
pub(crate) mod shelf;
mod stamps;
mod unnamed;

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;

use self::budget::Budget;
use self::load::{LoadError, LoadedJournal};
use self::merge::Input;
use self::open::{DiskFactory, DiskHandle, Opened, Rules, Unusable, Wanted};
use crate::ambient;
use crate::api::{DamageReport, DirectoryState};
use crate::commit::log::Start;
use crate::directory::disk::LockGuard;
use crate::directory::identity::{self, Identity};
use crate::directory::mounts;
use crate::engine::{Ended, Grant};
use crate::fencing::directory::Buckets;
use crate::format::facts::EpochFact;
use crate::format::limits::MAX_EPOCH;
use crate::types::Epoch;

/// What an attempt works from.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) require_mounts: bool,
    pub(crate) grant: Option<Grant>,
    pub(crate) disks: DiskFactory,
    pub(crate) buckets: Arc<Buckets>,
    /// Directories that an administrator gives up.
    pub(crate) forget: BTreeSet<Uuid>,
    /// Bound of the memory that entries may hold.
    pub(crate) memory_limit: u64,
}

/// How far the reading is, bytes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) total: AtomicU64,
    pub(crate) done: AtomicU64,
}

/// A directory that takes part.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) disk: DiskHandle,
    #[allow(dead_code, reason = "held for the life of the process")]
    pub(crate) lock: Box<dyn LockGuard>,
    pub(crate) identity: Identity,
    /// Device and inode of its root when it was opened.
    pub(crate) place: (u64, u64),
}

/// A log that may serve once its first frames are durable.
pub(crate) struct Ready {
    pub(crate) start: Start,
    /// In the order of the log's journals.
    pub(crate) handles: Vec<Handle>,
    pub(crate) unusable: Vec<Unusable>,
    pub(crate) damage: Vec<DamageReport>,
    pub(crate) warnings: Vec<String>,
}

/// Why the log cannot serve yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// A sentence each, with what to do.
    pub(crate) reasons: Vec<String>,
    pub(crate) unusable: Vec<Unusable>,
    /// Directories that are open: URL, uuid, in use.
    pub(crate) present: Vec<(WalUrl, Option<Uuid>)>,
    pub(crate) damage: Vec<DamageReport>,
    pub(crate) warnings: Vec<String>,
    pub(crate) writer: Option<Uuid>,
}

/// How an attempt ended.
pub(crate) enum Outcome {
    Ready(Box<Ready>),
    Waiting(Waiting),
    Ended(Ended),
}

/// One try to recover.
pub(crate) fn attempt(context: &Context, progress: &Progress) -> Outcome {
    let mut least_epoch = Epoch(0);
    loop {
        match attempt_with(context, progress, least_epoch) {
            Ok(outcome) => return outcome,
            // What was read needs a higher one than was claimed before it could be read.
            Err(epoch) => least_epoch = epoch,
        }
    }
}

/// [`attempt`] at an epoch not below this one; `Err`: a higher one is needed.
fn attempt_with(context: &Context, progress: &Progress, least_epoch: Epoch) -> Result<Outcome, Epoch> {
    progress.total.store(0, Ordering::Relaxed);
    progress.done.store(0, Ordering::Relaxed);
    let mut attempt = Attempt {
        context,
        progress,
        rules: Rules {
            require_mounts: context.require_mounts,
            allow_ephemeral: context.config.wal.allow_ephemeral,
            mounts: mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        },
        opened: Vec::new(),
        unusable: Vec::new(),
        warnings: Vec::new(),
        forget: BTreeSet::new(),
        relied_on: BTreeSet::new(),
        budget: Arc::new(Budget::keeping(context.memory_limit)),
        least_epoch,
    };
    Ok(match attempt.run() {
        Ok(ready) => Outcome::Ready(Box::new(ready)),
        Err(Stop::Ended(ended)) => Outcome::Ended(ended),
        Err(Stop::Again(epoch)) => return Err(epoch),
        Err(Stop::Waiting(mut waiting)) => {
            waiting.present.extend(
                attempt
                    .opened
                    .iter()
                    .map(|dir| (dir.opened.wanted.url.clone(), dir.opened.identity.as_ref().map(|id| id.directory))),
            );
            let identity = attempt.opened.iter().find_map(|dir| dir.opened.identity.as_ref());
            waiting.writer = waiting.writer.or(identity.map(|identity| identity.writer));
            waiting.unusable = attempt.unusable;
            waiting.warnings.append(&mut attempt.warnings);
            Outcome::Waiting(*waiting)
        }
    })
}

/// Whether an unusable directory would be judged the same now: a cheap look between attempts.
pub(crate) fn unchanged(context: &Context, before: &[Unusable]) -> bool {
    let rules = Rules {
        require_mounts: context.require_mounts,
        allow_ephemeral: context.config.wal.allow_ephemeral,
        mounts: mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
    };
    // What this pod does not have was not looked at.
    let looked_at = |unusable: &&Unusable| unusable.opens || !unusable.found.is_empty();
    before.iter().filter(looked_at).all(|unusable| {
        let wanted = Wanted {
            url: unusable.wanted_url.clone(),
            root: unusable.root.clone(),
            position: unusable.position,
            takes_all_commits: false,
            draining: false,
            may_create: false,
        };
        match open::open(wanted, &context.disks, &context.buckets, &rules, &mut Vec::new()) {
            Ok(_) => unusable.opens,
            Err(now) => !unusable.opens && now.reason == unusable.found,
        }
    })
}

/// Why an attempt did not end in a log.
enum Stop {
    Waiting(Box<Waiting>),
    Ended(Ended),
    /// An epoch not below this one is to be claimed, and all read again.
    Again(Epoch),
}

impl Stop {
    fn wait(reason: impl Into<String>) -> Self {
        Self::Waiting(Box::new(Waiting { reasons: vec![reason.into()], ..Waiting::default() }))
    }
}

/// A directory that is given up may have been through so many starts that the others have not heard of.
const UNHEARD_EPOCHS: u64 = 1 << 16;

/// An open directory and what its journal says.
struct Directory {
    opened: Opened,
    journal: Option<LoadedJournal>,
}

struct Attempt<'a> {
    context: &'a Context,
    progress: &'a Progress,
    rules: Rules,
    opened: Vec<Directory>,
    unusable: Vec<Unusable>,
    warnings: Vec<String>,
    /// What is given up of what an administrator named: what came back is not.
    forget: BTreeSet<Uuid>,
    /// Journals were read without what segments in these hold.
    relied_on: BTreeSet<Uuid>,
    /// Memory for the entries of all journals.
    budget: Arc<Budget>,
    /// An epoch below this one will not do.
    least_epoch: Epoch,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<Ready, Stop> {
        self.open_all(self.wanted());
        self.open_granted_only();
        self.name_what_is_not_granted();
        self.open_legacy();
        self.refuse_locked()?;
        self.load()?;
        self.open_removed_members()?;
        let epoch = self.newest_epoch();
        let readable = |uuid: &Uuid| self.find(*uuid).is_some_and(|index| self.has_streams(index));
        let given_up = self.context.forget.iter().copied().chain(self.given_up(epoch.as_ref()));
        self.forget = given_up.filter(|uuid| !readable(uuid)).collect();
        self.set_aside_forgotten(epoch.as_ref())?;
        self.check_grant(epoch.as_ref())?;
        self.await_members(epoch.as_ref())?;
        self.keep_to_the_grant(epoch.as_ref())?;
        self.begin_only_what_was_seen(epoch.as_ref())?;
        self.make_new_directories()?;
        if self.claimed_epoch().is_none() {
            return self.decide(epoch.as_ref());
        }
        // Buckets may have been taken over once more, and one of them refused: who has to be here is asked again.
        let epoch = self.newest_epoch();
        self.await_members(epoch.as_ref())?;
        self.decide(epoch.as_ref())
    }

    /// The roots below a path: with the writer's id, where there is one.
    fn root(&self, path: &Path) -> PathBuf {
        match &self.context.config.wal.writer_id {
            Some(id) => path.join(id),
            None => path.to_owned(),
        }
    }

    /// What the configuration names, as far as it is granted.
    fn wanted(&self) -> Vec<Wanted> {
        let wal = &self.context.config.wal;
        let urls = wal.wal_urls.iter().enumerate().map(|(position, url)| (url, Some(position)));
        urls.chain(wal.journal_url.iter().map(|url| (url, None)))
            .filter(|(url, _)| self.is_granted(url))
            .map(|(url, position)| Wanted {
                url: url.clone(),
                root: self.root(&url.file_path().unwrap_or_default()),
                position,
                takes_all_commits: position.is_none(),
                draining: wal.url_options.get(url).is_some_and(|options| options.drain),
                may_create: false,
            })
            .collect()
    }

    /// `wal_dir` beside WAL URLs counts only where it holds a log of this writer; then it is opened draining.
    fn open_legacy(&mut self) {
        let Some(url) = self.context.config.legacy_wal_dir.clone() else { return };
        let path = url.file_path().unwrap_or_default();
        let mut roots = vec![self.root(&path)];
        if roots[0] != path {
            roots.push(path.clone());
        }
        for root in roots {
            let disk = (self.context.disks)(&root);
            let found = match identity::read(disk.as_ref()) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    self.warnings.push(format!("{url} (wal_dir) is ignored: {error}"));
                    continue;
                }
            };
            let ours = self.opened.iter().find_map(|dir| dir.opened.identity.as_ref());
            let same_id = self.context.config.wal.writer_id.as_deref().unwrap_or_default() == found.writer_id;
            if ours.is_some_and(|ours| ours.writer != found.writer) || !(same_id || found.writer_id.is_empty()) {
                self.warnings.push(format!("{url} (wal_dir) belongs to another writer and is ignored"));
                continue;
            }
            let may_create = false;
            self.open(Wanted {
                url: url.clone(),
                root,
                position: None,
                takes_all_commits: false,
                draining: true,
                may_create,
            });
            return;
        }
    }

    /// While another process holds a lock nothing is known of that directory: nothing can be decided.
    fn refuse_locked(&self) -> Result<(), Stop> {
        let reasons: Vec<String> =
            self.unusable.iter().filter(|unusable| unusable.locked).map(Unusable::sentence).collect();
        if reasons.is_empty() {
            return Ok(());
        }
        for locked in self.unusable.iter().filter(|unusable| unusable.locked) {
            // This process itself may hold it, by another URL.
            let place = (self.context.disks)(&locked.root).device_inode().ok();
            if let Some(held) = self.opened.iter().find(|dir| Some(dir.opened.device_inode) == place) {
                return Err(identities::one_directory(&held.opened.wanted.url, &locked.wanted_url));
            }
        }
        Err(Stop::Waiting(Box::new(Waiting { reasons, ..Waiting::default() })))
    }

    /// Checks who the open directories are, then reads those that are not read yet, in parallel.
    fn load(&mut self) -> Result<(), Stop> {
        self.check_identities()?;
        self.take_over()?;
        self.load_within_budget()?;
        if self.budget.is_over() {
            tracing::info!(
                bound = self.context.memory_limit,
                "the journals hold more than memory may hold: read again, to note where entries are"
            );
            self.read_anew(Budget::noting(self.context.memory_limit));
            self.load_within_budget()?;
        }
        // A thread that panicked left its directory unread.
        match self.opened.iter().find(|dir| dir.journal.is_none()) {
            Some(dir) => Err(Stop::wait(format!("reading {} was given up", dir.opened.wanted.url))),
            None => Ok(()),
        }
    }

    /// The open directories that have an identity.
    fn identities(&self) -> impl Iterator<Item = Uuid> {
        self.opened.iter().filter_map(|dir| dir.opened.identity.as_ref()).map(|identity| identity.directory)
    }

    /// Every journal is to be read again, within `budget`.
    fn read_anew(&mut self, budget: Budget) {
        self.opened.iter_mut().for_each(|dir| dir.journal = None);
        self.progress.total.store(0, Ordering::Relaxed);
        self.progress.done.store(0, Ordering::Relaxed);
        self.budget = Arc::new(budget);
    }

    /// Reads the journals that are not read yet, until there is no memory for more.
    fn load_within_budget(&mut self) -> Result<(), Stop> {
        let progress = self.progress;
        let here: HashSet<Uuid> = self.identities().collect();
        self.relied_on.extend(&here);
        let here = Arc::new(here);
        let jobs = self.opened.iter().enumerate().filter(|(_, dir)| dir.journal.is_none()).map(|(index, dir)| {
            let disk = dir.opened.disk.0.clone();
            let ours = dir.opened.identity.as_ref().map(|identity| identity.directory).unwrap_or_default();
            let (here, budget) = (&here, &self.budget);
            move || {
                let total = |bytes| {
                    progress.total.fetch_add(bytes, Ordering::Relaxed);
                };
                let done = |bytes| {
                    progress.done.fetch_add(bytes, Ordering::Relaxed);
                };
                (index, load::load(disk.as_ref(), ours, here, budget, &total, &done))
            }
        });
        let loaded = ambient::in_parallel(jobs.collect());
        let mut broken = Vec::new();
        for (index, result) in loaded.into_iter().flatten() {
            match result {
                Ok(journal) => {
                    if self.opened[index].opened.identity.is_none() && !journal.streams.is_empty() {
                        let path = self.opened[index].opened.disk.0.display(Path::new(identity::IDENTITY));
                        let reason = format!("{} is missing beside a journal", path.display());
                        broken.push((index, reason, "restore it from a copy, or forget the directory", false));
                    }
                    self.opened[index].journal = Some(journal);
                }
                Err(LoadError::TooMuch) => {}
                Err(LoadError::Fenced(why)) => return Err(Stop::Ended(Ended::Fenced(why))),
                Err(LoadError::Misplaced { path, theirs, ours }) => {
                    let error = LoadError::Misplaced { path, theirs, ours };
                    return Err(Stop::wait(error.to_string()));
                }
                Err(error @ (LoadError::Newer { .. } | LoadError::Content { .. })) => {
                    return Err(Stop::Ended(Ended::Refused(error.to_string())));
                }
                Err(LoadError::Io { what, path, source }) => {
                    let silent = source.kind() == ErrorKind::TimedOut;
                    let error = LoadError::Io { what, path, source };
                    broken.push((index, error.to_string(), "repair the device, or forget the directory", silent));
                }
            }
        }
        broken.sort_by_key(|(index, ..)| std::cmp::Reverse(*index));
        for (index, reason, remedy, silent) in broken {
            let dir = self.opened.remove(index);
            let unusable = Unusable::of(&dir.opened, DirectoryState::Failed, reason, remedy);
            let unusable = if silent && dir.opened.disk.0.objects().is_some() { unusable.silent() } else { unusable };
            self.unusable.push(Unusable { unseen: true, ..unusable });
        }
        Ok(())
    }

    /// Merges what was read and decides what the new streams will say.
    fn decide(&mut self, epoch: Option<&EpochFact>) -> Result<Ready, Stop> {
        let claimed = self.claimed_epoch();
        let mut inputs = Vec::new();
        let mut places = Vec::new();
        for dir in std::mem::take(&mut self.opened) {
            let Some(identity) = dir.opened.identity.clone() else { continue };
            let mut journal = dir.journal.unwrap_or_default();
            let stale = epoch.is_some_and(|epoch| journal.is_stale(epoch, identity.directory));
            places.push(decide::Place::new(dir.opened, identity.clone(), &mut journal, !stale));
            inputs.push(Input { directory: identity.directory, journal });
        }
        let highest = inputs.iter().map(|input| input.journal.highest_epoch).max().unwrap_or(0);
        let granted = self.context.grant.as_ref().map_or(0, |grant| grant.epoch);
        let step = if self.forget.is_empty() || self.least_epoch > Epoch(0) || mutant!(EpochsOfTheLostAgain) {
            1
        } else {
            UNHEARD_EPOCHS
        };
        if highest.saturating_add(step).max(granted) >= MAX_EPOCH {
            return Err(Stop::Ended(Ended::Refused(format!(
                "the highest epoch is {} in the journals and {granted} in the grant, but epochs are below {MAX_EPOCH}: \
                 take away files of journals that this writer did not write",
                highest
            ))));
        }
        // What disks say of epochs is known only now; in buckets ours is claimed.
        let needed = Epoch(highest.saturating_add(step).max(granted));
        if let Some(claimed) = claimed.filter(|claimed| *claimed < needed) {
            tracing::info!(%claimed, %needed, "a higher epoch is needed than was claimed");
            return Err(Stop::Again(needed));
        }
        let decided =
            decide::decide(self.context, &self.forget, places, inputs, epoch, claimed.unwrap_or(needed), &self.budget)
                .map_err(Stop::Waiting)?;
        let (start, handles, damage, mut warnings) = decided;
        self.warnings.append(&mut warnings);
        Ok(Ready {
            start,
            handles,
            unusable: std::mem::take(&mut self.unusable),
            damage,
            warnings: std::mem::take(&mut self.warnings),
        })
    }
}

#[cfg(test)]
mod tests;
