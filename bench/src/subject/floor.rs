//! The raw floor: what one file on this disk can do for clients that wait for each other's syncs, with nothing else to do.
//!
//! The waiting threads commit in groups: one of them leads, writes the group to a file that was written before, page-aligned,
//! with O_DIRECT and RWF_DSYNC, and wakes exactly those whose entries it wrote and the next leader.

use std::fs::File;
use std::io::IoSlice;
use std::path::Path;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::io::{ReadWriteFlags, pwritev2};

use super::Log;

const PAGE: usize = 4096;
/// The file is overwritten from its start when its end is reached.
const FILE: u64 = 64 << 20;
/// A group takes no more than this.
const GROUP: usize = 1 << 20;

/// Memory that begins at a page.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Self { memory, start, len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = self.start + self.len;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn pages(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len.next_multiple_of(PAGE)]
    }
}

struct State {
    /// The group that gathers; its number.
    gathering: Option<Aligned>,
    group: u64,
    /// Groups below this number are durable.
    durable: u64,
    leading: bool,
    /// The buffer that is not gathering, while nobody leads.
    other: Option<Aligned>,
    offset: u64,
}

pub(crate) struct Floor {
    file: File,
    state: Mutex<State>,
    /// Even and odd groups.
    done: [Condvar; 2],
}

impl Floor {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("floor");
        let zeroes = vec![0; 1 << 20];
        {
            use std::os::unix::fs::FileExt as _;
            let file = File::create(&path)?;
            for at in (0..FILE).step_by(zeroes.len()) {
                file.write_all_at(&zeroes, at)?;
            }
            file.sync_all()?;
        }
        let open = |flags| rustix::fs::open(&path, OFlags::WRONLY | flags, Mode::empty());
        // A file system without O_DIRECT has another floor, and the report names the file system.
        let file = File::from(open(OFlags::DIRECT).or_else(|_| open(OFlags::empty()))?);
        let state = State {
            gathering: Some(Aligned::new(GROUP)),
            group: 0,
            durable: 0,
            leading: false,
            other: Some(Aligned::new(GROUP)),
            offset: 0,
        };
        Ok(Self { file, state: Mutex::new(state), done: [Condvar::new(), Condvar::new()] })
    }
}

impl Log for Floor {
    fn append(&self, _client: usize, _turn: u64, payload: &[u8]) -> anyhow::Result<()> {
        let mut state = self.state.lock();
        if let Some(gathering) = &mut state.gathering {
            gathering.push(payload);
        }
        let mine = state.group;
        loop {
            if state.durable > mine {
                return Ok(());
            }
            if state.leading {
                self.done[(mine % 2) as usize].wait(&mut state);
                continue;
            }
            state.leading = true;
            state.group += 1;
            let other = state.other.take();
            let Some(mut group) = std::mem::replace(&mut state.gathering, other) else { anyhow::bail!("two leaders") };
            let offset = if state.offset + group.pages().len() as u64 > FILE { 0 } else { state.offset };
            state.offset = offset + group.pages().len() as u64;
            drop(state);
            let written = pwritev2(&self.file, &[IoSlice::new(group.pages())], offset, ReadWriteFlags::DSYNC)?;
            anyhow::ensure!(written == group.pages().len(), "a short write");
            group.len = 0;
            state = self.state.lock();
            state.other = Some(group);
            state.durable = mine + 1;
            state.leading = false;
            self.done[(mine % 2) as usize].notify_all();
            self.done[((mine + 1) % 2) as usize].notify_one();
        }
    }
}
