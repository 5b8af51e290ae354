//! What a file holds: on the device, in the page cache, and what of the cache the device has not been told to keep.
//!
//! 1. Only what a sync that succeeded covered survives a cut for certain; of the rest each sector of each write is there
//!    or not, independently of all others.
//! 2. After a failed sync the pages stay readable and are clean: a later sync that succeeds says nothing about them.

use rand::RngExt;
use rand::rngs::SmallRng;

/// A power cut leaves each sector of a write old or new.
pub(super) const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// The bytes of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    device: Vec<u8>,
    cache: Vec<u8>,
    pending: Vec<Change>,
    /// The cache shows what the device does not have and will not get.
    stale: bool,
    /// It does not hold what was written to it: bits flipped, or writes went astray.
    pub(super) harmed: bool,
}

/// How much of what was not synced a cut leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaves {
    Nothing,
    Everything,
    /// The first sector of each write: heads without what they announce.
    Heads,
    /// Each part with this chance.
    Some(f64),
}

impl Leaves {
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        match random.random_range(0..12) {
            0 | 1 => Self::Nothing,
            2 | 3 => Self::Everything,
            4 => Self::Some(0.1),
            5 => Self::Some(0.9),
            6 | 7 => Self::Heads,
            _ => Self::Some(0.5),
        }
    }

    pub(super) fn keeps(self, random: &mut SmallRng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything | Self::Heads => true,
            Self::Some(chance) => random.random_bool(chance),
        }
    }
}

impl Content {
    /// The bytes that a reader sees.
    pub(super) fn visible(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.cache, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    /// A write that is on the device when it returns, with whatever older of it was under way, and nothing else.
    pub(super) fn write_sync(&mut self, offset: usize, bytes: &[u8]) {
        let range = offset..offset + bytes.len();
        let touches = |change: &Change| match change {
            Change::Write { offset, bytes } => *offset < range.end && range.start < offset + bytes.len(),
            Change::SetLen(_) => true,
        };
        let (below, others) = std::mem::take(&mut self.pending).into_iter().partition(touches);
        self.pending = below;
        self.sync();
        self.pending = others;
        put(&mut self.cache, offset, bytes);
        put(&mut self.device, offset, bytes);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.pending.push(Change::SetLen(len));
    }

    /// A sync that succeeds: everything written since the last sync, well or badly ended, is on the device.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.device, offset, &bytes),
                Change::SetLen(len) => self.device.resize(len, 0),
            }
        }
    }

    /// A sync that fails: some of it is on the device, and the kernel takes all of it for written.
    pub(super) fn fail_sync(&mut self, leaves: Leaves, random: &mut SmallRng) {
        self.settle(leaves, random);
        self.stale = true;
    }

    /// Clean pages go: the next read comes from the device.
    pub(super) fn drop_cache(&mut self) {
        if std::mem::take(&mut self.stale) {
            self.cache = self.device.clone();
            for change in &self.pending {
                match change {
                    Change::Write { offset, bytes } => put(&mut self.cache, *offset, bytes),
                    Change::SetLen(len) => self.cache.resize(*len, 0),
                }
            }
        }
    }

    /// What a machine finds after the power went.
    pub(super) fn cut(&mut self, leaves: Leaves, random: &mut SmallRng) {
        self.settle(leaves, random);
        self.cache = self.device.clone();
        self.stale = false;
    }

    /// Some of what is pending reaches the device, the rest never will.
    fn settle(&mut self, leaves: Leaves, random: &mut SmallRng) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::SetLen(len) => {
                    if leaves.keeps(random) {
                        self.device.resize(len, 0);
                    }
                }
                Change::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let end = ((offset + at) / SECTOR * SECTOR + SECTOR - offset).min(bytes.len());
                        if leaves.keeps(random) && (at == 0 || leaves != Leaves::Heads) {
                            put(&mut self.device, offset + at, &bytes[at..end]);
                        }
                        at = end;
                    }
                    // The length is written apart from the data.
                    let longer = offset + bytes.len();
                    if self.device.len() < longer && leaves.keeps(random) {
                        self.device.resize(longer, 0);
                    }
                }
            }
        }
    }

    /// Rot: a bit flips where it is kept.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) {
        self.harmed = true;
        for bytes in [&mut self.device, &mut self.cache] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << bit;
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, what: &[u8]) {
    let end = offset + what.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(what);
}
