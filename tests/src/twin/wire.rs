//! The kernel's FUSE protocol, version 7.31, as far as a journal needs it: requests parsed, replies built. Numbers are
//! little-endian because the machines are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

use super::files::{Attr, Ino};

/// The largest write that the kernel hands over in one request.
pub(super) const MAX_WRITE: u32 = 1 << 20;
/// Room for a request of [`MAX_WRITE`] and its headers.
pub(super) const MAX_REQUEST: usize = MAX_WRITE as usize + (64 << 10);

/// The head of every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) unique: u64,
    pub(super) node: Ino,
    pub(super) owner: (u32, u32),
}

/// What the kernel asks for; offsets and sizes in bytes.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Init,
    Lookup(OsString),
    GetAttr,
    SetAttr {
        size: Option<u64>,
    },
    MakeDir {
        name: OsString,
        mode: u32,
    },
    Unlink(OsString),
    RemoveDir(OsString),
    Rename {
        from: OsString,
        folder: Ino,
        to: OsString,
        flags: u32,
    },
    Link {
        node: Ino,
        name: OsString,
    },
    Open,
    Create {
        name: OsString,
        mode: u32,
    },
    Read {
        offset: u64,
        size: u32,
    },
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    StatFs,
    Release,
    Sync,
    SyncDir,
    OpenDir,
    ReadDir {
        offset: u64,
        size: u32,
    },
    /// Answered by success without any effect.
    Nothing,
    /// Never answered.
    Silent,
    /// The kernel does without it.
    Unsupported,
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn name(&mut self) -> Option<OsString> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let name = OsStr::from_bytes(self.take(end)?).to_owned();
        self.take(1)?;
        Some(name)
    }
}

/// Parses a request as it was read from the device.
pub(super) fn parse(request: &[u8]) -> Option<(Head, Call)> {
    let mut body = Body(request);
    let _length = body.u32()?;
    let code = body.u32()?;
    let (unique, node) = (body.u64()?, body.u64()?);
    let owner = (body.u32()?, body.u32()?);
    let _pid_and_extensions = body.take(8)?;
    let call = match code {
        1 => Call::Lookup(body.name()?),
        2 | 36 | 42 => Call::Silent,
        3 => Call::GetAttr,
        4 => {
            let valid = body.u64()? as u32;
            let _handle = body.u64()?;
            let size = body.u64()?;
            Call::SetAttr { size: (valid & 8 != 0).then_some(size) }
        }
        9 => {
            let mode = body.u64()? as u32;
            Call::MakeDir { name: body.name()?, mode }
        }
        10 => Call::Unlink(body.name()?),
        11 => Call::RemoveDir(body.name()?),
        12 => {
            let folder = body.u64()?;
            Call::Rename { from: body.name()?, folder, to: body.name()?, flags: 0 }
        }
        45 => {
            let (folder, flags) = (body.u64()?, body.u64()? as u32);
            Call::Rename { from: body.name()?, folder, to: body.name()?, flags }
        }
        13 => Call::Link { node: body.u64()?, name: body.name()? },
        14 => Call::Open,
        15 | 28 => {
            let _handle = body.u64()?;
            let (offset, size) = (body.u64()?, body.u32()?);
            if code == 15 { Call::Read { offset, size } } else { Call::ReadDir { offset, size } }
        }
        16 => {
            let _handle = body.u64()?;
            let (offset, size) = (body.u64()?, body.u32()?);
            let _flags_and_owner = body.take(20)?;
            Call::Write { offset, data: body.take(size as usize)?.to_vec() }
        }
        17 => Call::StatFs,
        18 => Call::Release,
        20 => Call::Sync,
        25 | 29 | 38 => Call::Nothing,
        26 => Call::Init,
        27 => Call::OpenDir,
        30 => Call::SyncDir,
        35 => {
            let _flags = body.u32()?;
            let mode = body.u32()?;
            let _umask_and_flags = body.u64()?;
            Call::Create { name: body.name()?, mode }
        }
        _ => Call::Unsupported,
    };
    Some((Head { unique, node, owner }, call))
}

/// What goes back: the bytes after the head.
#[derive(Debug, Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn u32s(mut self, values: &[u32]) -> Self {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn u64s(mut self, values: &[u64]) -> Self {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    /// The parameters of the connection: no page is written back later, so that every write is seen when it is made.
    pub(super) fn init() -> Self {
        const ATOMIC_TRUNCATE: u32 = 1 << 3;
        const BIG_WRITES: u32 = 1 << 5;
        const MAX_PAGES: u32 = 1 << 22;
        let flags = ATOMIC_TRUNCATE | BIG_WRITES | MAX_PAGES;
        let queue = 64 | 48 << 16;
        Self::default().u32s(&[7, 31, 0, flags, queue, MAX_WRITE, 1, MAX_WRITE / 4096]).u32s(&[0; 8])
    }

    /// Attributes; `valid` for no time, so that every look arrives here.
    pub(super) fn attr(attr: &Attr) -> Self {
        Self::default().u64s(&[0, 0]).put_attr(attr)
    }

    pub(super) fn entry(attr: &Attr) -> Self {
        Self::default().u64s(&[attr.ino, 0, 0, 0, 0]).put_attr(attr)
    }

    fn put_attr(self, attr: &Attr) -> Self {
        let (uid, gid) = attr.owner;
        self.u64s(&[attr.ino, attr.size, attr.size.div_ceil(512), 0, 0, 0])
            .u32s(&[0, 0, 0, attr.mode, attr.links, uid, gid, 0, 4096, 0])
    }

    /// An open file. The pages that the kernel has of it stay, as they do on a real disk: after a failed sync they are
    /// all that is left of what was written.
    pub(super) fn opened() -> Self {
        Self::default().open()
    }

    pub(super) fn created(attr: &Attr) -> Self {
        Self::entry(attr).open()
    }

    fn open(self) -> Self {
        const KEEP_CACHE: u32 = 2;
        self.u64s(&[0]).u32s(&[KEEP_CACHE, 0])
    }

    pub(super) fn bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn written(count: usize) -> Self {
        Self::default().u32s(&[count as u32, 0])
    }

    pub(super) fn space(capacity: u64, free: u64) -> Self {
        let (blocks, free) = (capacity / 4096, free / 4096);
        Self::default().u64s(&[blocks, free, free, 1 << 20, 1 << 20]).u32s(&[4096, 255, 4096, 0]).u32s(&[0; 6])
    }

    /// Names of a folder from `offset` on, as many as fit `size`.
    pub(super) fn names(all: &[(Ino, bool, OsString)], offset: u64, size: u32) -> Self {
        let mut answer = Self::default();
        for (at, (ino, folder, name)) in all.iter().enumerate().skip(offset as usize) {
            let name = name.as_bytes();
            let padded = (24 + name.len()).next_multiple_of(8);
            if answer.0.len() + padded > size as usize {
                break;
            }
            let start = answer.0.len();
            let kind = if *folder { 4 } else { 8 };
            answer = answer.u64s(&[*ino, at as u64 + 1]).u32s(&[name.len() as u32, kind]);
            answer.0.extend(name);
            answer.0.resize(start + padded, 0);
        }
        answer
    }
}

/// The whole reply.
pub(super) fn reply(unique: u64, result: Result<Answer, Errno>) -> Vec<u8> {
    let (error, body) = match result {
        Ok(Answer(body)) => (0, body),
        Err(errno) => (-errno.raw_os_error(), Vec::new()),
    };
    let mut out = Vec::with_capacity(16 + body.len());
    out.extend((16 + body.len() as u32).to_le_bytes());
    out.extend(error.to_le_bytes());
    out.extend(unique.to_le_bytes());
    out.extend(body);
    out
}
