//! Clients of servers: one thread drives all connections through epoll, as `redis-benchmark` does. The same loop for every
//! server, with a protocol of a few lines each, so that a client costs alike and little, and the servers are compared.

mod h2;
pub(crate) mod protocols;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use crate::measured::Measured;

/// A server that answers nothing for so long is broken.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// What is said on one connection. Replies come in the order of the requests.
pub(crate) trait Protocol {
    /// What comes before the first request.
    fn greet(&mut self, out: &mut Vec<u8>);
    /// One append.
    fn request(&mut self, out: &mut Vec<u8>);
    /// Takes whole messages: how many bytes were taken, how many appends were acknowledged.
    fn replies(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)>;
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Address {
    fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Tcp(socket))
            }
        }
    }

    /// Whether somebody listens there.
    pub(crate) fn answers(&self) -> bool {
        self.connect().is_ok()
    }
}

impl Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(into),
            Self::Tcp(socket) => socket.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

struct Connection {
    socket: Socket,
    protocol: Box<dyn Protocol>,
    /// When each request under way was handed in.
    under_way: VecDeque<Instant>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Connection {
    fn open(address: &Address, protocol: Box<dyn Protocol>, poll: &impl AsFd, number: usize) -> anyhow::Result<Self> {
        let socket = address.connect()?;
        epoll::add(poll, socket.as_fd(), epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        let (under_way, input) = (VecDeque::new(), Vec::new());
        let mut connection = Self { socket, protocol, under_way, input, output: Vec::new() };
        connection.protocol.greet(&mut connection.output);
        connection.flush()?;
        Ok(connection)
    }

    fn request(&mut self) {
        self.protocol.request(&mut self.output);
        self.under_way.push_back(Instant::now());
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                // The socket is full: the server reads on, and says so by what it answers.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }

    /// Reads what is there; the number of acknowledgements in it.
    fn receive(&mut self, scratch: &mut [u8]) -> anyhow::Result<usize> {
        let count = match self.socket.read(scratch) {
            Ok(0) => anyhow::bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        // Most often a reply is whole.
        if self.input.is_empty() {
            let (taken, acks) = self.protocol.replies(&scratch[..count], &mut self.output)?;
            self.input.extend_from_slice(&scratch[taken..count]);
            return Ok(acks);
        }
        self.input.extend_from_slice(&scratch[..count]);
        let (taken, acks) = self.protocol.replies(&self.input, &mut self.output)?;
        self.input.drain(..taken);
        Ok(acks)
    }
}

/// Appends one after the other on one connection: when each was handed in and acknowledged, in seconds since 1970.
pub(crate) fn times(address: &Address, count: usize, protocol: Box<dyn Protocol>) -> anyhow::Result<Vec<(f64, f64)>> {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs_f64());
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connection = Connection::open(address, protocol, &poll, 0)?;
    let mut windows = Vec::new();
    let mut events = Vec::with_capacity(1);
    let mut scratch = vec![0; 64 << 10];
    while windows.len() < count {
        let handed_in = now()?;
        connection.request();
        connection.flush()?;
        loop {
            events.clear();
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&PATIENCE))?;
            anyhow::ensure!(!events.is_empty(), "the server answered nothing");
            let acks = connection.receive(&mut scratch)?;
            connection.flush()?;
            if acks > 0 {
                break;
            }
        }
        windows.push((handed_in, now()?));
    }
    Ok(windows)
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this time.
    Passed(Duration),
    /// After so many acknowledgements.
    Acked(u64),
}

/// A closed loop: `clients` connections with `in_flight` appends under way on each.
pub(crate) fn load(
    address: &Address,
    clients: usize,
    in_flight: usize,
    until: Until,
    protocol: impl Fn(usize) -> Box<dyn Protocol>,
) -> anyhow::Result<Measured> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::new();
    for number in 0..clients {
        connections.push(Connection::open(address, protocol(number), &poll, number)?);
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    let mut scratch = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(clients);
    let begun = Instant::now();
    for connection in &mut connections {
        for _ in 0..in_flight {
            connection.request();
        }
        connection.flush()?;
    }
    let mut open = clients * in_flight;
    let mut handed_in = open as u64;
    while open > 0 {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&PATIENCE))?;
        anyhow::ensure!(!events.is_empty(), "the server answered nothing");
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            for _ in 0..connection.receive(&mut scratch)? {
                let now = Instant::now();
                let Some(started) = connection.under_way.pop_front() else { anyhow::bail!("an answer too many") };
                latencies.record((now - started).as_nanos() as u64)?;
                let goes_on = match until {
                    Until::Passed(time) => now - begun < time,
                    Until::Acked(count) => handed_in < count,
                };
                if goes_on {
                    connection.request();
                    handed_in += 1;
                } else {
                    open -= 1;
                }
            }
            connection.flush()?;
        }
    }
    Ok(Measured::of(&latencies, begun.elapsed()))
}
