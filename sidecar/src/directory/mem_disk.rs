//! A disk in memory that can be cut off, filled and broken: what is not synced is at the mercy of [`MemDisk::after_cut`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::disk::{Disk, DiskFile, Entry, Lock, LockGuard, Space};

/// A power cut leaves each sector old or new.
const SECTOR: usize = 512;

/// What goes wrong, and when: counts are of calls on this disk from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Every call fails.
    pub(crate) dead: bool,
    /// This many syncs of files succeed, the next one fails.
    pub(crate) syncs_left: Option<u64>,
    /// A sync that fails leaves the pages readable and clean: no later one writes them.
    pub(crate) forgets_pages: bool,
    /// Files can grow by so many bytes still.
    pub(crate) bytes_left: Option<u64>,
    /// This many writes are whole, the next one is cut in the middle.
    pub(crate) whole_writes_left: Option<u64>,
    /// Files cannot be created.
    pub(crate) read_only: bool,
    /// This many calls succeed; from then on every call fails.
    pub(crate) calls_left: Option<u64>,
    /// Another folder is at its place.
    pub(crate) replaced: bool,
    /// Writes and syncs do not return until this is over.
    pub(crate) hangs: bool,
    /// Every call panics.
    pub(crate) panics: bool,
    /// Creating a file panics.
    pub(crate) creating_panics: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
    /// Where they may differ.
    dirty: std::ops::Range<usize>,
    /// `now` is but in the page cache, and nobody will write it.
    forgotten: bool,
}

impl Content {
    fn sync(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        self.durable.resize(self.now.len(), 0);
        self.durable[dirty.clone()].copy_from_slice(&self.now[dirty]);
    }
}

type File = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    calls: u64,
    made: bool,
    now: BTreeMap<PathBuf, File>,
    /// Names as of the last sync of their folder.
    durable: BTreeMap<PathBuf, File>,
    /// Renames since then: a machine has the one name or the other, never both or neither.
    renames: Vec<(PathBuf, PathBuf)>,
    locked: bool,
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct MemDisk {
    root: PathBuf,
    inode: u64,
    state: Arc<Mutex<State>>,
    /// The faults have changed.
    changed: Arc<Condvar>,
}

static INODES: AtomicU64 = AtomicU64::new(1);

impl MemDisk {
    pub(crate) fn new(root: &Path) -> Self {
        let inode = INODES.fetch_add(1, Ordering::Relaxed);
        Self { root: root.to_owned(), inode, state: Arc::default(), changed: Arc::default() }
    }

    pub(crate) fn break_with(&self, faults: Faults) {
        self.state.lock().faults = faults;
        self.changed.notify_all();
    }

    /// Calls so far, those that failed included.
    pub(crate) fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Whether every call fails.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().faults.dead
    }

    /// The disk that a machine finds after a power cut now.
    pub(crate) fn after_cut(&self, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let state = self.state.lock();
        let mut left = State { made: state.made, ..State::default() };
        let names: std::collections::BTreeSet<&PathBuf> = state.now.keys().chain(state.durable.keys()).collect();
        for name in names {
            let (now, durable) = (state.now.get(name), state.durable.get(name));
            let file = if random.random_bool(0.5) { now } else { durable };
            // A name whose folder was synced since is certain.
            let file = if now.is_some() && durable.is_some() { durable } else { file };
            let Some(file) = file else { continue };
            let file = Arc::new(Mutex::new(torn(&file.lock(), &mut random)));
            left.now.insert(name.clone(), Arc::clone(&file));
            left.durable.insert(name.clone(), file);
        }
        for (from, to) in &state.renames {
            let Some(file) = state.durable.get(from) else { continue };
            if !state.now.get(to).is_some_and(|now| Arc::ptr_eq(now, file)) {
                continue;
            }
            let applied = random.random_bool(0.5);
            let made_since = state.now.get(from).filter(|_| applied && random.random_bool(0.5));
            let moved = Arc::new(Mutex::new(torn(&file.lock(), &mut random)));
            let there = if applied { to } else { from };
            let made_since = made_since.map(|file| Arc::new(Mutex::new(torn(&file.lock(), &mut random))));
            for names in [&mut left.now, &mut left.durable] {
                names.remove(from);
                names.remove(to);
                names.insert(there.clone(), Arc::clone(&moved));
                names.extend(made_since.clone().map(|file| (from.clone(), file)));
            }
        }
        Self { root: self.root.clone(), inode: self.inode, state: Arc::new(Mutex::new(left)), changed: Arc::default() }
    }

    /// The files that are there.
    pub(crate) fn files(&self) -> Vec<String> {
        self.state.lock().now.keys().map(|path| path.display().to_string()).collect()
    }

    /// Puts an empty file there, durably, as another process would.
    pub(crate) fn intrude(&self, path: &str) {
        let mut state = self.state.lock();
        let file = File::default();
        state.now.insert(path.into(), Arc::clone(&file));
        state.durable.insert(path.into(), file);
    }

    /// Waits while the device does not answer.
    fn answer(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.enter()?;
        while state.faults.hangs {
            self.changed.wait(&mut state);
        }
        Ok(state)
    }

    fn enter(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        assert!(!state.faults.panics, "a panic that a test asked for");
        state.calls += 1;
        if let Some(left) = state.faults.calls_left {
            state.faults.calls_left = Some(left.saturating_sub(1));
            state.faults.dead |= left == 0;
        }
        if state.faults.dead { Err(io::Error::from_raw_os_error(5)) } else { Ok(state) }
    }
}

/// Each sector that was not synced is old or new; so is the length.
fn torn(content: &Content, random: &mut SmallRng) -> Content {
    let mut bytes = content.durable.clone();
    if content.now.len() > bytes.len() && random.random_bool(0.7) {
        let sectors = (content.now.len() - bytes.len()).div_ceil(SECTOR);
        let grown = (bytes.len() + random.random_range(0..=sectors) * SECTOR).min(content.now.len());
        bytes.resize(grown, 0);
    }
    for start in (0..bytes.len()).step_by(SECTOR) {
        let end = (start + SECTOR).min(bytes.len()).min(content.now.len());
        if start < end && bytes[start..end] != content.now[start..end] && random.random_bool(0.5) {
            bytes[start..end].copy_from_slice(&content.now[start..end]);
        }
    }
    Content { now: bytes.clone(), durable: bytes, dirty: 0..0, forgotten: false }
}

struct MemFile {
    disk: MemDisk,
    file: File,
}

impl DiskFile for MemFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.answer()?;
        let faults = &mut state.faults;
        let mut fits = bytes.len();
        if let Some(left) = &mut faults.bytes_left {
            // What is there already can be written over.
            let there = self.file.lock().now.len().saturating_sub(offset as usize).min(bytes.len());
            let grows = ((bytes.len() - there) as u64).min(*left);
            fits = there + grows as usize;
            if fits == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *left -= grows;
        }
        match &mut faults.whole_writes_left {
            Some(0) => {
                fits /= 2;
                faults.whole_writes_left = None;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        drop(state);
        let mut content = self.file.lock();
        let end = offset as usize + fits;
        if content.now.len() < end {
            content.now.resize(end, 0);
        }
        content.now[offset as usize..end].copy_from_slice(&bytes[..fits]);
        let dirty = if content.dirty.is_empty() { offset as usize..end } else { content.dirty.clone() };
        content.dirty = dirty.start.min(offset as usize)..dirty.end.max(end);
        Ok(fits)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.answer()?;
        if let Some(left) = &mut state.faults.syncs_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    self.file.lock().forgotten |= state.faults.forgets_pages;
                    return Err(io::Error::from_raw_os_error(5));
                }
            }
        }
        drop(state);
        let mut content = self.file.lock();
        if content.forgotten {
            return Ok(());
        }
        content.sync();
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        drop(self.disk.enter()?);
        let content = self.file.lock();
        let rest = content.now.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        drop(self.disk.enter()?);
        self.file.lock().now.resize(len as usize, 0);
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut content = self.file.lock();
        if std::mem::take(&mut content.forgotten) {
            content.now = content.durable.clone();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.lock().now.len() as u64)
    }
}

#[derive(Debug)]
struct MemLock(MemDisk);

impl LockGuard for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.0.state.lock().locked = false;
    }
}

impl Disk for MemDisk {
    fn display(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn exists(&self) -> bool {
        self.state.lock().made
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        if state.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        state.made = true;
        Ok(())
    }

    fn create_excl(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.enter()?;
        assert!(!state.faults.creating_panics, "a panic that a test asked for");
        if state.faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        if state.now.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = File::default();
        state.now.insert(path.to_owned(), Arc::clone(&file));
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.enter()?.now.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile { disk: self.clone(), file }))
    }

    fn open_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        if state.now.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.now.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.now.insert(to.to_owned(), file);
        state.renames.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.enter()?.now.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let full = self.enter()?.now.keys().any(|name| name.parent() == Some(path));
        if full { Err(io::ErrorKind::DirectoryNotEmpty.into()) } else { Ok(()) }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter()?;
        let inside = |name: &PathBuf| name.parent() == Some(path);
        let now: Vec<_> =
            state.now.iter().filter(|(name, _)| inside(name)).map(|(n, f)| (n.clone(), f.clone())).collect();
        state.durable.retain(|name, _| !inside(name));
        state.durable.extend(now);
        state.renames.retain(|(from, _)| !inside(from));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.enter()?;
        if !state.made {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.now.iter().filter(|(name, _)| name.parent() == Some(path));
        let entry = |(name, file): (&PathBuf, &File)| {
            Some(Entry { name: name.file_name()?.to_str()?.to_owned(), len: file.lock().now.len() as u64 })
        };
        Ok(inside.filter_map(entry).collect())
    }

    fn space(&self) -> io::Result<Space> {
        let free = self.enter()?.faults.bytes_left.unwrap_or(1 << 39);
        Ok(Space { capacity: 1 << 40, free })
    }

    fn device_inode(&self) -> io::Result<(u64, u64)> {
        let replaced = self.state.lock().faults.replaced;
        Ok((if replaced { 2 } else { 1 }, self.inode))
    }

    fn lock(&self, _path: &Path) -> io::Result<Lock> {
        let mut state = self.enter()?;
        if std::mem::replace(&mut state.locked, true) {
            return Ok(Lock::Busy(Some(1)));
        }
        Ok(Lock::Held(Box::new(MemLock(self.clone()))))
    }
}
