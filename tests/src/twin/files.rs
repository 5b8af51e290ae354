//! Files in memory that know what of them is synced, and a cut that decides about the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::io::Errno;

use super::folder::Folder;

/// The number of a file or folder; never used twice.
pub(super) type Ino = u64;

/// The number of the root folder.
pub(super) const ROOT: Ino = 1;

const SECTOR: u64 = 512;
/// Space is given out in blocks of so many bytes.
const BLOCK: u64 = 4096;
const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// What `stat` shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attr {
    pub(super) ino: Ino,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) owner: (u32, u32),
}

#[derive(Clone, Debug, Default)]
struct Content {
    data: Vec<u8>,
    durable_len: u64,
    /// Sectors changed since the last sync, as they were then.
    dirty: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    fn allocated(&self) -> u64 {
        (self.data.len() as u64).next_multiple_of(BLOCK)
    }

    fn sector(&self, number: u64) -> Vec<u8> {
        let start = ((number * SECTOR) as usize).min(self.data.len());
        let end = (start + SECTOR as usize).min(self.data.len());
        let mut bytes = self.data[start..end].to_vec();
        bytes.resize(SECTOR as usize, 0);
        bytes
    }

    /// Keeps what lies in a range for the case that it comes back.
    fn remember(&mut self, from: u64, to: u64) {
        for number in from / SECTOR..to.div_ceil(SECTOR) {
            if !self.dirty.contains_key(&number) {
                self.dirty.insert(number, self.sector(number));
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.remember(offset, end);
        if self.data.len() < end as usize {
            self.data.resize(end as usize, 0);
        }
        self.data[offset as usize..end as usize].copy_from_slice(bytes);
    }

    fn set_len(&mut self, len: u64) {
        self.remember(len, self.data.len() as u64);
        self.data.resize(len as usize, 0);
    }

    fn sync(&mut self) {
        self.dirty.clear();
        self.durable_len = self.data.len() as u64;
    }

    /// Each sector that was not synced is as it was or as it is.
    fn decide(&mut self, len: usize, mut survives: impl FnMut() -> bool) {
        let cut_away = (self.data.len() as u64).div_ceil(SECTOR);
        self.data.resize(self.data.len().max(len).next_multiple_of(SECTOR as usize), 0);
        for (number, old) in std::mem::take(&mut self.dirty) {
            // What only a shorter length took away is there whenever the length is.
            if !survives() || number >= cut_away {
                let start = (number * SECTOR) as usize;
                if let Some(place) = self.data.get_mut(start..start + SECTOR as usize) {
                    place.copy_from_slice(&old);
                }
            }
        }
        self.data.resize(len, 0);
    }

    fn fail_sync(&mut self, survives: impl FnMut() -> bool) {
        self.decide(self.data.len(), survives);
    }

    fn cut(&mut self, mut survives: impl FnMut() -> bool) {
        let len = if survives() { self.data.len() } else { self.durable_len as usize };
        self.decide(len, survives);
        self.durable_len = len as u64;
    }
}

#[derive(Clone, Debug)]
enum Body {
    File(Content),
    Folder(Folder),
}

#[derive(Clone, Debug)]
struct Node {
    body: Body,
    mode: u32,
    owner: (u32, u32),
    /// The last name it had; for rules that look at names.
    name: OsString,
    opened: u64,
}

/// Decides about one thing after the other.
fn chance(seed: u64) -> impl FnMut() -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    let chance = [0.0, 0.5, 1.0, 0.9][rng.random_range(0..4)];
    move || rng.random_bool(chance)
}

/// A file system.
#[derive(Clone, Debug)]
pub(super) struct Files {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    capacity: u64,
    used: u64,
    removed: u64,
}

type Done<T> = Result<T, Errno>;

impl Files {
    pub(super) fn new(capacity: u64) -> Self {
        let body = Body::Folder(Folder::default());
        let root = Node { body, mode: FOLDER | 0o755, owner: (0, 0), name: OsString::new(), opened: 0 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, capacity, used: 0, removed: 0 }
    }

    pub(super) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Capacity and what is free of it.
    pub(super) fn space(&self) -> (u64, u64) {
        (self.capacity, self.capacity.saturating_sub(self.used) / BLOCK * BLOCK)
    }

    fn node(&self, ino: Ino) -> Done<&Node> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    fn folder(&self, ino: Ino) -> Done<&Folder> {
        match &self.node(ino)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn folder_mut(&mut self, ino: Ino) -> Done<&mut Folder> {
        match &mut self.nodes.get_mut(&ino).ok_or(Errno::STALE)?.body {
            Body::Folder(folder) => Ok(folder),
            Body::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn content(&mut self, ino: Ino) -> Done<&mut Content> {
        match &mut self.nodes.get_mut(&ino).ok_or(Errno::STALE)?.body {
            Body::File(content) => Ok(content),
            Body::Folder(_) => Err(Errno::ISDIR),
        }
    }

    pub(super) fn name(&self, ino: Ino) -> &OsStr {
        self.nodes.get(&ino).map_or(OsStr::new(""), |node| &node.name)
    }

    pub(super) fn attr(&self, ino: Ino) -> Done<Attr> {
        let node = self.node(ino)?;
        let (size, links) = match &node.body {
            Body::File(content) => (content.data.len() as u64, 1),
            Body::Folder(_) => (4096, 2),
        };
        Ok(Attr { ino, size, mode: node.mode, links, owner: node.owner })
    }

    pub(super) fn lookup(&self, folder: Ino, name: &OsStr) -> Done<Attr> {
        self.attr(self.folder(folder)?.get(name).ok_or(Errno::NOENT)?)
    }

    /// Number, whether it is a folder, and name.
    pub(super) fn list(&self, folder: Ino) -> Done<Vec<(Ino, bool, OsString)>> {
        let names = self.folder(folder)?.names();
        Ok(names.map(|(name, ino)| (ino, self.folder(ino).is_ok(), name.clone())).collect())
    }

    fn make(&mut self, folder: Ino, name: &OsStr, body: Body, mode: u32, owner: (u32, u32)) -> Done<Attr> {
        if self.folder(folder)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        if self.space().1 == 0 {
            return Err(Errno::NOSPC);
        }
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, Node { body, mode, owner, name: name.to_owned(), opened: 0 });
        self.folder_mut(folder)?.add(name.to_owned(), ino);
        self.attr(ino)
    }

    pub(super) fn create(&mut self, folder: Ino, name: &OsStr, mode: u32, owner: (u32, u32)) -> Done<Attr> {
        let attr = self.make(folder, name, Body::File(Content::default()), REGULAR | mode & 0o7777, owner)?;
        self.open(attr.ino)?;
        Ok(attr)
    }

    pub(super) fn make_dir(&mut self, folder: Ino, name: &OsStr, mode: u32, owner: (u32, u32)) -> Done<Attr> {
        self.make(folder, name, Body::Folder(Folder::default()), FOLDER | mode & 0o7777, owner)
    }

    pub(super) fn link(&mut self, folder: Ino, name: &OsStr, ino: Ino) -> Done<Attr> {
        if self.folder(folder)?.get(name).is_some() {
            return Err(Errno::EXIST);
        }
        self.folder_mut(folder)?.add(name.to_owned(), ino);
        self.attr(ino)
    }

    pub(super) fn unlink(&mut self, folder: Ino, name: &OsStr) -> Done<()> {
        let ino = self.folder(folder)?.get(name).ok_or(Errno::NOENT)?;
        if self.folder(ino).is_ok() {
            return Err(Errno::ISDIR);
        }
        self.folder_mut(folder)?.remove(name.to_owned());
        self.collect();
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, folder: Ino, name: &OsStr) -> Done<()> {
        let ino = self.folder(folder)?.get(name).ok_or(Errno::NOENT)?;
        if !self.folder(ino)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.folder_mut(folder)?.remove(name.to_owned());
        Ok(())
    }

    /// `flags` as of renameat2; only NOREPLACE is known.
    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Done<()> {
        if flags & !1 != 0 {
            return Err(Errno::INVAL);
        }
        let ino = self.folder(from.0)?.get(from.1).ok_or(Errno::NOENT)?;
        if let Some(there) = self.folder(to.0)?.get(to.1) {
            if flags & 1 != 0 {
                return Err(Errno::EXIST);
            }
            match self.folder(there) {
                Ok(folder) if !folder.is_empty() => return Err(Errno::NOTEMPTY),
                Ok(_) if self.folder(ino).is_err() => return Err(Errno::ISDIR),
                _ => {}
            }
        }
        if from.0 == to.0 {
            self.folder_mut(from.0)?.rename(from.1.to_owned(), to.1.to_owned(), ino);
        } else {
            self.folder_mut(to.0)?.add(to.1.to_owned(), ino);
            self.folder_mut(from.0)?.remove(from.1.to_owned());
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            to.1.clone_into(&mut node.name);
        }
        self.collect();
        Ok(())
    }

    pub(super) fn open(&mut self, ino: Ino) -> Done<()> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)?.opened += 1;
        Ok(())
    }

    pub(super) fn release(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opened = node.opened.saturating_sub(1);
        }
    }

    pub(super) fn read(&mut self, ino: Ino, offset: u64, size: u32) -> Done<Vec<u8>> {
        let data = &self.content(ino)?.data;
        let start = (offset as usize).min(data.len());
        Ok(data[start..(start + size as usize).min(data.len())].to_vec())
    }

    /// Writes what there is room for.
    pub(super) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Done<usize> {
        let free = self.space().1;
        let content = self.content(ino)?;
        let allocated = content.allocated();
        let fits = (allocated + free).saturating_sub(offset).min(bytes.len() as u64) as usize;
        if fits == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC);
        }
        content.write(offset, &bytes[..fits]);
        let grown = content.allocated() - allocated;
        self.used += grown;
        Ok(fits)
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> Done<()> {
        let content = self.content(ino)?;
        let old = content.allocated();
        content.set_len(len);
        let new = content.allocated();
        self.used = self.used + new - old;
        Ok(())
    }

    /// Makes a file's data and length durable, or a folder's names.
    pub(super) fn sync(&mut self, ino: Ino) -> Done<()> {
        match &mut self.nodes.get_mut(&ino).ok_or(Errno::STALE)?.body {
            Body::File(content) => content.sync(),
            Body::Folder(folder) => folder.sync(),
        }
        Ok(())
    }

    /// A sync that failed: of what was written the seed keeps nothing, all, or a part, and no later sync changes that.
    /// The kernel still has all of it in its page cache.
    pub(super) fn fail_sync(&mut self, ino: Ino, seed: u64) {
        let mut survives = chance(seed);
        if let Ok(content) = self.content(ino) {
            content.fail_sync(&mut survives);
        }
    }

    /// Forgets nodes that nothing leads to any more; now and then, as it looks at all of them.
    fn collect(&mut self) {
        self.removed += 1;
        if self.removed.is_multiple_of(64) {
            self.forget_unreachable();
        }
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut next = vec![ROOT];
        while let Some(ino) = next.pop() {
            if let Ok(folder) = self.folder(ino) {
                next.extend(folder.reaches().filter(|found| reached.insert(*found)));
            }
        }
        self.nodes.retain(|ino, node| node.opened > 0 || reached.contains(ino));
        let lens = self.nodes.values().map(|node| match &node.body {
            Body::File(content) => content.allocated(),
            Body::Folder(_) => 0,
        });
        self.used = lens.sum();
    }

    /// The power is gone: of everything that was not synced the seed keeps nothing, all, or a part.
    pub(super) fn cut(&mut self, seed: u64) {
        let mut survives = chance(seed);
        for node in self.nodes.values_mut() {
            node.opened = 0;
            match &mut node.body {
                Body::File(content) => content.cut(&mut survives),
                Body::Folder(folder) => folder.cut(&mut survives),
            }
        }
        self.forget_unreachable();
    }
}
