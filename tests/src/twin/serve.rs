//! Answers the kernel: one request at a time against the files, with the faults that are in force.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::faults::{Faults, Op, What};
use super::files::Files;
use super::wire::{Answer, Call, Head, MAX_REQUEST, parse, reply};

/// Requests answered at a time, those that are stalled not counted.
const THREADS: usize = 3;

/// What outlives a mount.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Signalled when a call stalls.
    pub(super) stalled: Condvar,
}

/// The files and what is wrong with them.
pub(super) struct State {
    pub(super) files: Files,
    pub(super) faults: Faults,
    /// The power is gone: nothing is answered any more.
    pub(super) frozen: bool,
    /// Unanswered, in order of arrival.
    pub(super) waiting: VecDeque<(Head, Call)>,
    /// Calls answered, and syncs of files among them that succeeded.
    pub(super) calls: u64,
    pub(super) syncs: u64,
}

/// One mount: the device and the threads that read from it until it is unmounted.
pub(super) struct Server {
    device: Arc<File>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves a device that is mounted already.
    pub(super) fn start(device: File, shared: &Arc<Shared>) -> Self {
        let device = Arc::new(device);
        let serve = |_| {
            let (device, shared) = (Arc::clone(&device), Arc::clone(shared));
            std::thread::spawn(move || shared.serve(&device))
        };
        Self { threads: (0..THREADS).map(serve).collect(), device }
    }

    /// Waits for the threads; they end when the mount is gone.
    pub(super) fn join(&mut self) {
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }

    /// Does and answers what was stalled, in order; nothing without power.
    pub(super) fn resume(&self, shared: &Shared) {
        let mut state = shared.state.lock();
        while !state.frozen {
            let Some((head, call)) = state.waiting.pop_front() else { return };
            let result = state.perform(head, call);
            send(&self.device, head, result);
        }
    }
}

/// The kernel may have lost interest in the request: that is no error of ours.
fn send(mut device: &File, head: Head, result: Result<Answer, Errno>) {
    let _ = device.write_all(&reply(head.unique, result));
}

impl Shared {
    fn serve(&self, mut device: &File) {
        let mut buffer = vec![0; MAX_REQUEST];
        loop {
            let read = match device.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => match Errno::from_io_error(&error) {
                    // Interrupted before it was handed over.
                    Some(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
                    _ => return,
                },
            };
            let Some((head, call)) = parse(&buffer[..read]) else { continue };
            if let Some(result) = self.decide(head, call) {
                send(device, head, result);
            }
        }
    }

    /// The answer; none when the call stalls or needs none.
    fn decide(&self, head: Head, call: Call) -> Option<Result<Answer, Errno>> {
        let mut state = self.state.lock();
        match call {
            Call::Silent => return None,
            Call::Init => return Some(Ok(Answer::init())),
            Call::Nothing => return Some(Ok(Answer::default())),
            Call::Unsupported => return Some(Err(Errno::NOSYS)),
            Call::Release => {
                state.files.release(head.node);
                return Some(Ok(Answer::default()));
            }
            _ => {}
        }
        if state.frozen {
            state.waiting.push_back((head, call));
            return None;
        }
        let struck = op(&call).and_then(|op| {
            let State { files, faults, .. } = &mut *state;
            faults.strike(op, named(files, head, &call))
        });
        match struck {
            None => Some(state.perform(head, call)),
            Some(What::Error(errno)) => {
                if matches!(call, Call::Sync) {
                    state.files.fail_sync(head.node, head.unique);
                }
                Some(Err(errno))
            }
            Some(What::DoneAndError(errno)) => Some(state.perform(head, call).and(Err(errno))),
            Some(What::Short) => {
                let call = match call {
                    Call::Write { offset, mut data } => {
                        data.truncate((data.len() / 2).max(1));
                        Call::Write { offset, data }
                    }
                    whole => whole,
                };
                Some(state.perform(head, call))
            }
            Some(What::Lie) => Some(Ok(Answer::default())),
            Some(What::Stall) => {
                state.waiting.push_back((head, call));
                self.stalled.notify_all();
                None
            }
            Some(What::Slow(time)) => {
                drop(state);
                std::thread::sleep(time);
                let mut state = self.state.lock();
                if state.frozen {
                    state.waiting.push_back((head, call));
                    return None;
                }
                Some(state.perform(head, call))
            }
        }
    }
}

/// The kind of call that rules speak of; none for what only opens a folder.
const fn op(call: &Call) -> Option<Op> {
    Some(match call {
        Call::Lookup(_) | Call::GetAttr => Op::Look,
        Call::SetAttr { size: Some(_) } => Op::SetLen,
        Call::MakeDir { .. } | Call::Create { .. } | Call::Link { .. } => Op::Create,
        Call::Unlink(_) | Call::RemoveDir(_) => Op::Unlink,
        Call::Rename { .. } => Op::Rename,
        Call::Open | Call::OpenDir => Op::Open,
        Call::Read { .. } => Op::Read,
        Call::Write { .. } => Op::Write,
        Call::StatFs => Op::Space,
        Call::Sync => Op::Sync,
        Call::SyncDir => Op::SyncDir,
        Call::ReadDir { .. } => Op::List,
        Call::Init
        | Call::SetAttr { size: None }
        | Call::Release
        | Call::Nothing
        | Call::Silent
        | Call::Unsupported => return None,
    })
}

fn named<'a>(files: &'a Files, head: Head, call: &'a Call) -> &'a OsStr {
    match call {
        Call::Lookup(name) | Call::Unlink(name) | Call::RemoveDir(name) => name,
        Call::MakeDir { name, .. } | Call::Create { name, .. } | Call::Link { name, .. } => name,
        Call::Rename { from, .. } => from,
        _ => files.name(head.node),
    }
}

impl State {
    fn perform(&mut self, head: Head, call: Call) -> Result<Answer, Errno> {
        let result = self.try_to(head, call);
        self.calls += 1;
        // A full disk is a fault like those that were ordered.
        self.faults.struck += u64::from(matches!(result, Err(Errno::NOSPC)));
        result
    }

    fn try_to(&mut self, head: Head, call: Call) -> Result<Answer, Errno> {
        let (files, node) = (&mut self.files, head.node);
        let done = |()| Answer::default();
        match call {
            Call::Init => Ok(Answer::init()),
            Call::Lookup(name) => Ok(Answer::entry(&files.lookup(node, &name)?)),
            Call::GetAttr => Ok(Answer::attr(&files.attr(node)?)),
            Call::SetAttr { size } => {
                if let Some(size) = size {
                    files.set_len(node, size)?;
                }
                Ok(Answer::attr(&files.attr(node)?))
            }
            Call::MakeDir { name, mode } => Ok(Answer::entry(&files.make_dir(node, &name, mode, head.owner)?)),
            Call::Create { name, mode } => Ok(Answer::created(&files.create(node, &name, mode, head.owner)?)),
            Call::Unlink(name) => files.unlink(node, &name).map(done),
            Call::RemoveDir(name) => files.remove_dir(node, &name).map(done),
            Call::Rename { from, folder, to, flags } => files.rename((node, &from), (folder, &to), flags).map(done),
            Call::Link { node: ino, name } => Ok(Answer::entry(&files.link(node, &name, ino)?)),
            Call::Open => files.open(node).map(|()| Answer::opened()),
            Call::OpenDir => Ok(Answer::opened()),
            Call::Read { offset, size } => Ok(Answer::bytes(files.read(node, offset, size)?)),
            Call::Write { offset, data } => Ok(Answer::written(files.write(node, offset, &data)?)),
            Call::StatFs => {
                let (capacity, free) = files.space();
                Ok(Answer::space(capacity, free))
            }
            Call::Sync => {
                files.sync(node)?;
                self.syncs += 1;
                Ok(Answer::default())
            }
            Call::SyncDir => files.sync(node).map(done),
            Call::ReadDir { offset, size } => Ok(Answer::names(&files.list(node)?, offset, size)),
            Call::Release | Call::Nothing | Call::Silent => Ok(Answer::default()),
            Call::Unsupported => Err(Errno::NOSYS),
        }
    }
}
