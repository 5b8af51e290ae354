//! Opening directories: mount, folder, lock, identity. What cannot be opened is a state with a reason and a remedy, never
//! a reason to exit, except where going on could mix two writers or two names of one place.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use walstorage_crds::config::IoMode;
use walstorage_crds::url::WalUrl;

use super::{Attempt, Directory, buckets};
use crate::ambient;
use crate::api::DirectoryState;
use crate::directory::disk::{Lock, LockGuard, SharedDisk, Space};
use crate::directory::identity::{self, Identity};
use crate::directory::mounts::{self, Mount, Verdict};
use crate::directory::real_disk::RealDisk;
use crate::fencing::directory::Buckets;

/// Makes the file system below a path: the seam for tests.
pub(crate) type DiskFactory = Arc<dyn Fn(&Path) -> SharedDisk + Send + Sync>;

/// The operating system's files, journals written as the `io` setting says.
pub(crate) fn real_disks(mode: IoMode) -> DiskFactory {
    Arc::new(move |root| Arc::new(RealDisk::new(root.to_owned(), mode)))
}

/// A directory that is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) url: WalUrl,
    /// Below the URL's path, with the writer's id.
    pub(crate) root: PathBuf,
    /// Its place in `wal_urls`.
    pub(crate) position: Option<usize>,
    pub(crate) takes_all_commits: bool,
    pub(crate) draining: bool,
    /// It may be made where it is missing.
    pub(crate) may_create: bool,
}

/// A directory that is open and locked.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) wanted: Wanted,
    pub(crate) disk: DiskHandle,
    pub(crate) lock: Box<dyn LockGuard>,
    /// `None`: it is empty.
    pub(crate) identity: Option<Identity>,
    pub(crate) device_inode: (u64, u64),
    pub(crate) device: String,
    pub(crate) space: Space,
}

/// A shared disk that can be printed.
#[derive(Clone)]
pub(crate) struct DiskHandle(pub(crate) SharedDisk);

impl std::fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// Why a directory is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub(crate) wanted_url: WalUrl,
    pub(crate) root: PathBuf,
    pub(crate) position: Option<usize>,
    pub(crate) uuid: Option<Uuid>,
    pub(crate) state: DirectoryState,
    pub(crate) reason: String,
    pub(crate) remedy: String,
    /// What opening said, to see whether it says the same later; empty: that is not looked at.
    pub(crate) found: String,
    /// It could be opened, and is unusable for another reason.
    pub(crate) opens: bool,
    /// Another process has the lock: nothing at all may be done until it ends.
    pub(crate) locked: bool,
    /// There is nothing there: it may be made, unless it was in use.
    pub(crate) absent: bool,
    /// Nobody could look whether it holds a log.
    pub(crate) unseen: bool,
}

impl Unusable {
    /// A sentence for people: which, how, why, what to do.
    pub(crate) fn sentence(&self) -> String {
        let uuid = self.uuid.map(|uuid| format!(" ({uuid})")).unwrap_or_default();
        format!("{}{uuid} is {}: {}; {}", self.wanted_url, self.state.as_str(), self.reason, self.remedy)
    }

    /// A store that gives no answer. It is not looked at between attempts: to learn that it still gives none takes too long.
    pub(super) fn silent(self) -> Self {
        Self { found: String::new(), opens: false, remedy: buckets::SILENT.to_owned(), ..self }
    }

    /// One that could be opened.
    pub(super) fn of(opened: &Opened, state: DirectoryState, reason: String, remedy: &str) -> Self {
        Self {
            wanted_url: opened.wanted.url.clone(),
            root: opened.wanted.root.clone(),
            position: opened.wanted.position,
            uuid: opened.identity.as_ref().map(|identity| identity.directory),
            state,
            found: String::new(),
            reason,
            remedy: remedy.to_owned(),
            locked: false,
            absent: false,
            unseen: false,
            opens: true,
        }
    }
}

/// What opening is to respect.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) require_mounts: bool,
    pub(crate) allow_ephemeral: bool,
    pub(crate) mounts: Vec<Mount>,
}

impl Wanted {
    pub(super) fn unusable(
        &self,
        state: DirectoryState,
        reason: impl Into<String>,
        remedy: &str,
        unseen: bool,
    ) -> Box<Unusable> {
        let reason = reason.into();
        Box::new(Unusable {
            wanted_url: self.url.clone(),
            root: self.root.clone(),
            position: self.position,
            uuid: None,
            state,
            found: reason.clone(),
            opens: false,
            reason,
            remedy: remedy.to_owned(),
            locked: false,
            absent: false,
            unseen,
        })
    }
}

/// What to do about a directory that is not where it was.
pub(crate) const MISSING: &str = "mount it again, or give it up with: walctl directory forget <uuid>";

/// What to do about a bucket that is not named any more and cannot be reached without its options.
pub(crate) const REMOVED_BUCKET: &str = "name it and its url_options again, with drain = true until it is empty, or give it up \
                                         with: walctl directory forget <uuid>";

/// Opens and locks one directory. Makes folders where that is allowed; writes nothing else.
///
/// # Errors
/// What it is instead of open. A warning is pushed to `warnings`.
pub(crate) fn open(
    wanted: Wanted,
    disks: &DiskFactory,
    all_buckets: &Buckets,
    rules: &Rules,
    warnings: &mut Vec<String>,
) -> Result<Opened, Box<Unusable>> {
    let Some(path) = wanted.url.file_path() else { return buckets::open(wanted, all_buckets) };
    // The mount is that of the deepest folder which is there, links resolved.
    let resolved = resolve(&path);
    match mounts::judge(&rules.mounts, &resolved, rules.require_mounts, rules.allow_ephemeral) {
        Verdict::Accepted => {}
        Verdict::Warn(warning) => {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Verdict::Refused(reason) => {
            let remedy = "mount a volume there (the operator does it when the pod is created anew)";
            return Err(wanted.unusable(DirectoryState::NotMounted, reason, remedy, true));
        }
    }
    let disk = disks(&wanted.root);
    let exists = disk.exists();
    let listed = disk.list(Path::new(identity::JOURNAL)).map_err(|error| error.kind());
    let holds_a_log = exists && listed.is_ok();
    let unseen = !matches!(listed, Err(ErrorKind::NotFound | ErrorKind::NotADirectory));
    let may_create = wanted.may_create && (!rules.require_mounts || path.is_dir());
    if !holds_a_log && !may_create {
        // A volume that is there, without the writer's folder, was emptied as much as the folder.
        let (state, reason) = if exists || path.is_dir() {
            (DirectoryState::Lost, format!("{} holds no write-ahead log", wanted.root.display()))
        } else {
            (DirectoryState::Missing, format!("{} does not exist", wanted.root.display()))
        };
        let mut unusable = wanted.unusable(state, reason, MISSING, unseen);
        unusable.absent = true;
        return Err(unusable);
    }
    let failed = |what: &str, error: std::io::Error| {
        let reason = format!("cannot {what} {}: {error}", disk.display(Path::new(identity::WAL_DIR)).display());
        let remedy = "make the folder writable for this process; it is tried again every second";
        wanted.unusable(DirectoryState::Failed, reason, remedy, unseen)
    };
    if !holds_a_log {
        disk.create_dir_all(Path::new(identity::JOURNAL)).map_err(|e| failed("create", e))?;
    }
    let lock = match disk.lock(Path::new(identity::LOCK)).map_err(|e| failed("lock", e))? {
        Lock::Held(lock) => lock,
        Lock::Busy(pid) => {
            let pid = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            let reason = format!("LOCKED: {pid} holds {}", disk.display(Path::new(identity::LOCK)).display());
            let remedy = "it is taken when that process has ended";
            let mut unusable = wanted.unusable(DirectoryState::Failed, reason, remedy, false);
            unusable.locked = true;
            return Err(unusable);
        }
    };
    let identity = identity::read(disk.as_ref()).map_err(|error| {
        let remedy = "restore the file, or forget the directory";
        wanted.unusable(DirectoryState::Failed, error.to_string(), remedy, unseen)
    })?;
    let device_inode = disk.device_inode().map_err(|e| failed("look at", e))?;
    let space = disk.space().map_err(|e| failed("measure", e))?;
    let device = mounts::mount_of(&rules.mounts, &resolved).map(|mount| mount.device.clone()).unwrap_or_default();
    Ok(Opened { wanted, disk: DiskHandle(disk), lock, identity, device_inode, device, space })
}

impl Attempt<'_> {
    pub(super) fn open(&mut self, wanted: Wanted) {
        let found = open(wanted, &self.context.disks, &self.context.buckets, &self.rules, &mut self.warnings);
        self.keep(found);
    }

    /// Opens several; buckets at the same time, as each may take long to say nothing.
    pub(super) fn open_all(&mut self, wanted: Vec<Wanted>) {
        let (disks, buckets, rules) = (&self.context.disks, &self.context.buckets, &self.rules);
        let of_buckets = wanted.iter().filter(|wanted| wanted.url.scheme().is_bucket()).cloned();
        let jobs = of_buckets.map(|wanted| move || open(wanted, disks, buckets, rules, &mut Vec::new()));
        let mut opened = ambient::in_parallel(jobs.collect()).into_iter();
        for wanted in wanted {
            if !wanted.url.scheme().is_bucket() {
                self.open(wanted);
                continue;
            }
            let given_up = || wanted.unusable(DirectoryState::Failed, "opening it was given up", "see the log", true);
            let found = opened.next().flatten().unwrap_or_else(|| Err(given_up()));
            self.keep(found);
        }
    }

    fn keep(&mut self, found: Result<Opened, Box<Unusable>>) {
        match found {
            Ok(opened) => self.opened.push(Directory { opened, journal: None }),
            Err(unusable) => self.unusable.push(*unusable),
        }
    }
}

/// `path` with links resolved as far as it exists.
fn resolve(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return real.join(rest);
        }
    }
    path.to_owned()
}
