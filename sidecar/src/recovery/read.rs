//! Reading the files of a stream: each is synced, dropped from the page cache and read from the device, a piece at a
//! time on a thread of its own, a few pieces ahead of the scanner; another thread syncs the next file. The device idles
//! neither for a sync nor for the scanner, and where it is read around the page cache no processor copies.
//!
//! Memory: [`AHEAD`] pieces and one frame, whatever the size of a file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::load::LoadError;
use crate::ambient;
use crate::directory::aligned::Aligned;
use crate::directory::disk::{Disk, DiskFile};
use crate::directory::identity::JOURNAL;
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::format::scan::{ReadFailed, Source};

/// Bytes read at a time.
const READ: usize = 2 << 20;
/// Pieces between the device and the scanner, the ones being filled and looked through included.
const AHEAD: usize = 4;
/// A window that a large frame has widened beyond this does not keep its memory.
const WINDOW: usize = 4 * READ;

/// Puts the next piece of a file behind the bytes it is given, and adds the ranges that are bad in it; whether there was
/// one.
type More<'a> = dyn FnMut(&mut Vec<u8>, &mut Vec<(u64, u64)>) -> bool + 'a;

/// A piece of a file.
struct Piece {
    memory: Aligned,
    /// So much of the memory was read, or is bad.
    len: usize,
    /// Ranges (from, to) of the file that the device refused.
    bad: Vec<(u64, u64)>,
}

impl Piece {
    fn new() -> Self {
        Self { memory: Aligned::zeros(READ), len: 0, bad: Vec::new() }
    }
}

/// A file being read from its start.
struct Reading {
    file: Box<dyn DiskFile>,
    len: u64,
    at: u64,
}

pub(super) fn io_error(
    disk: &dyn Disk,
    what: &'static str,
    name: SlotName,
) -> impl FnOnce(io::Error) -> LoadError + use<> {
    let path = disk.display(&path_of(name));
    move |source| LoadError::Io { what, path, source }
}

pub(super) fn path_of(name: SlotName) -> PathBuf {
    Path::new(JOURNAL).join(name.to_string())
}

impl Reading {
    fn begin(disk: &dyn Disk, name: SlotName) -> Result<Self, LoadError> {
        let file = disk.open_scan(&path_of(name)).map_err(io_error(disk, "open", name))?;
        // After a SIGKILL an unsynced frame is readable, would be served, and could vanish in a later power cut.
        file.sync_data().map_err(io_error(disk, "sync", name))?;
        // Where the advice is refused the pages are those just synced.
        let _ = file.drop_cache();
        let len = file.len().map_err(io_error(disk, "measure", name))?;
        Ok(Self { file, len, at: 0 })
    }

    /// Reads the next piece; what the device refuses is noted page by page. Whether there was one.
    fn fill(&mut self, piece: &mut Piece) -> bool {
        piece.bad.clear();
        piece.len = (self.len - self.at).min(READ as u64) as usize;
        let memory = piece.memory.as_mut();
        // Whole pages: the last one may end beyond the file.
        if !self.read(0, &mut memory[..piece.len.next_multiple_of(PAGE)], piece.len) {
            for from in (0..piece.len).step_by(PAGE) {
                let end = (from + PAGE).min(piece.len);
                if !self.read(from, &mut memory[from..from + PAGE], end - from) {
                    memory[from..end].fill(0);
                    add(&mut piece.bad, (self.at + from as u64, self.at + end as u64));
                }
            }
        }
        self.at += piece.len as u64;
        piece.len > 0
    }

    /// Whether at least `wanted` bytes are read, `from` bytes into the next piece: the file has them, and does not shrink.
    fn read(&self, from: usize, bytes: &mut [u8], wanted: usize) -> bool {
        self.file.read_at(self.at + from as u64, bytes).is_ok_and(|read| read >= wanted)
    }
}

fn add(ranges: &mut Vec<(u64, u64)>, range: (u64, u64)) {
    match ranges.last_mut() {
        Some((_, end)) if *end == range.0 => *end = range.1,
        _ => ranges.push(range),
    }
}

/// A file as the scanner sees it: offsets that never fall.
pub(super) struct Window<'a> {
    len: u64,
    /// What is held of the file: `bytes` from `start` on.
    start: u64,
    bytes: &'a mut Vec<u8>,
    bad: Vec<(u64, u64)>,
    more: &'a mut More<'a>,
}

impl Source for Window<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        let end = offset.saturating_add(length as u64).min(self.len);
        while self.start + (self.bytes.len() as u64) < end {
            let passed = offset.saturating_sub(self.start).min(self.bytes.len() as u64);
            self.bytes.drain(..passed as usize);
            self.start += passed;
            if !(self.more)(self.bytes, &mut self.bad) {
                break;
            }
        }
        if let Some((from, to)) = self.bad.iter().find(|(from, to)| *from < end && offset < *to) {
            return Err(ReadFailed(format!("bytes {from} to {to}")));
        }
        let from = offset.checked_sub(self.start).and_then(|from| usize::try_from(from).ok()).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest))
    }
}

/// Shows the files of a stream in order to `look`, each from its start to its end.
pub(super) fn in_order(
    disk: &dyn Disk,
    slots: &[(SlotName, u64)],
    progress: &(dyn Fn(u64) + Sync),
    mut look: impl FnMut(SlotName, &mut Window<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut bytes = Vec::new();
    let mut show = |name, len, more: &mut More<'_>| {
        bytes.clear();
        let mut window = Window { len, start: 0, bytes: &mut bytes, bad: Vec::new(), more };
        look(name, &mut window)?;
        // What is beyond the longest slot is not looked at.
        while more(&mut bytes, &mut Vec::new()) {
            bytes.clear();
        }
        bytes.clear();
        bytes.shrink_to(WINDOW);
        Ok(())
    };
    if ambient::on_one_thread() {
        let mut piece = Piece::new();
        return slots.iter().try_for_each(|&(name, _)| {
            let mut reading = Reading::begin(disk, name)?;
            show(name, reading.len, &mut |bytes, bad| {
                let some = reading.fill(&mut piece);
                progress(piece.len as u64);
                take(&piece, bytes, bad);
                some
            })
        });
    }
    std::thread::scope(|scope| {
        let (filled, pieces) = sync_channel(AHEAD - 2);
        let (emptied, empty) = channel();
        let (begun, beginning) = sync_channel(0);
        // Whoever looked may have given up, and then whoever reads.
        scope.spawn(move || slots.iter().all(|&(name, _)| begun.send(Reading::begin(disk, name)).is_ok()));
        scope.spawn(move || read_ahead(&beginning, progress, &filled, &empty));
        for &(name, _) in slots {
            let len = match pieces.recv() {
                Ok(Message::Begin(len)) => len,
                Ok(Message::Failed(error)) => return Err(error),
                Ok(Message::Piece(_) | Message::End) | Err(_) => return Err(gone(disk, name)),
            };
            let mut lost = false;
            let mut ended = false;
            show(name, len, &mut |bytes, bad| match (!ended).then(|| pieces.recv()) {
                Some(Ok(Message::Piece(piece))) => {
                    take(&piece, bytes, bad);
                    // The reader may be done.
                    let _ = emptied.send(piece);
                    true
                }
                Some(Ok(Message::End)) => {
                    ended = true;
                    false
                }
                None => false,
                Some(_) => {
                    (lost, ended) = (true, true);
                    false
                }
            })?;
            if lost {
                return Err(gone(disk, name));
            }
        }
        Ok(())
    })
}

fn take(piece: &Piece, bytes: &mut Vec<u8>, bad: &mut Vec<(u64, u64)>) {
    bytes.extend_from_slice(&piece.memory.as_ref()[..piece.len]);
    piece.bad.iter().for_each(|range| add(bad, *range));
}

fn gone(disk: &dyn Disk, name: SlotName) -> LoadError {
    io_error(disk, "read", name)(io::Error::other("its reader gave up"))
}

/// What the reader tells.
enum Message {
    /// A file has so many bytes; its pieces follow.
    Begin(u64),
    Piece(Piece),
    End,
    /// Nothing follows.
    Failed(LoadError),
}

/// `None` when nobody listens any more.
fn read_ahead(
    begun: &Receiver<Result<Reading, LoadError>>,
    progress: &(dyn Fn(u64) + Sync),
    filled: &SyncSender<Message>,
    emptied: &Receiver<Piece>,
) -> Option<()> {
    for reading in begun {
        let mut reading = match reading {
            Ok(reading) => reading,
            Err(error) => return filled.send(Message::Failed(error)).ok(),
        };
        filled.send(Message::Begin(reading.len)).ok()?;
        loop {
            let mut piece = emptied.try_recv().unwrap_or_else(|_| Piece::new());
            if !reading.fill(&mut piece) {
                break;
            }
            progress(piece.len as u64);
            filled.send(Message::Piece(piece)).ok()?;
        }
        filled.send(Message::End).ok()?;
    }
    Some(())
}

/// The bytes of one frame, again.
///
/// # Errors
/// Any error of the device.
pub(super) fn frame(disk: &dyn Disk, name: SlotName, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let mut block = vec![0; length as usize];
    let read = disk.open(&path_of(name))?.read_at(offset, &mut block)?;
    block.truncate(read);
    Ok(block)
}
