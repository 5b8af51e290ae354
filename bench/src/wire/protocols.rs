//! What each server is asked for one append, and how its answers are told apart.

use prost::Message as _;
use walstorage_sidecar::proto::{AppendRequest, Entry};

use super::Protocol;
use super::h2::{self, Event, Messages};
use crate::PAYLOAD;

/// A gRPC stream of ours.
pub(crate) struct Wal {
    request: AppendRequest,
    collections: Vec<String>,
    turn: usize,
    messages: Messages,
}

impl Wal {
    /// Client `number` of several, which goes through the collections in turn.
    pub(crate) fn new(number: usize, collections: usize) -> Self {
        let entries = vec![Entry { payload: vec![b'x'; PAYLOAD].into(), ..Entry::default() }];
        let request = AppendRequest { entries, ..AppendRequest::default() };
        let collections = (0..collections).map(|n| format!("bench-{n}")).collect();
        Self { request, collections, turn: number * 31, messages: Messages::default() }
    }
}

impl Protocol for Wal {
    fn greet(&mut self, out: &mut Vec<u8>) {
        h2::greet(out);
        h2::call(out, 1, "/walstorage.v1.Wal/Append");
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        self.request.id += 1;
        self.request.collection.clone_from(&self.collections[self.turn % self.collections.len()]);
        self.turn += 1;
        let request = &self.request;
        h2::message(out, 1, false, |out| {
            // A vector takes everything.
            let _ = request.encode(out);
        });
    }

    fn replies(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)> {
        let (messages, mut acks) = (&mut self.messages, 0);
        let taken = h2::take(input, out, |event| match event {
            Event::Data(data) => {
                acks += messages.count(data);
                Ok(())
            }
            Event::Ended => anyhow::bail!("the sidecar ended the stream"),
        })?;
        Ok((taken, acks))
    }
}

/// etcd: a Put for each append, as its API has no other.
pub(crate) struct Etcd {
    key: String,
    stream: u32,
    messages: Messages,
    pending: usize,
}

impl Etcd {
    pub(crate) fn new(number: usize) -> Self {
        Self { key: format!("client-{number:03}"), stream: 1, messages: Messages::default(), pending: 0 }
    }
}

impl Protocol for Etcd {
    fn greet(&mut self, out: &mut Vec<u8>) {
        h2::greet(out);
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        h2::call(out, self.stream, "/etcdserverpb.KV/Put");
        let key = self.key.as_bytes();
        h2::message(out, self.stream, true, |out| {
            out.extend([0x0a, key.len() as u8]);
            out.extend_from_slice(key);
            out.push(0x12);
            prost::encoding::encode_varint(PAYLOAD as u64, out);
            out.resize(out.len() + PAYLOAD, b'x');
        });
        self.stream += 2;
    }

    fn replies(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)> {
        let (messages, pending, mut acks) = (&mut self.messages, &mut self.pending, 0);
        let taken = h2::take(input, out, |event| match event {
            Event::Data(data) => {
                *pending += messages.count(data);
                Ok(())
            }
            Event::Ended => {
                // An error ends a stream without a message.
                anyhow::ensure!(*pending > 0, "etcd refused a Put");
                *pending -= 1;
                acks += 1;
                Ok(())
            }
        })?;
        Ok((taken, acks))
    }
}

/// Redis: RPUSH, its cheapest way to append.
pub(crate) struct Redis {
    request: Vec<u8>,
}

impl Redis {
    pub(crate) fn new() -> Self {
        let mut request = format!("*3\r\n$5\r\nRPUSH\r\n$3\r\nlog\r\n${PAYLOAD}\r\n").into_bytes();
        request.resize(request.len() + PAYLOAD, b'x');
        request.extend_from_slice(b"\r\n");
        Self { request }
    }
}

/// The first line of `input` and how long it is with its end.
fn line(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&input[..end], end + 2))
}

impl Protocol for Redis {
    fn greet(&mut self, _out: &mut Vec<u8>) {}

    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    fn replies(&mut self, input: &[u8], _out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)> {
        let (mut taken, mut acks) = (0, 0);
        while let Some((text, len)) = line(&input[taken..]) {
            anyhow::ensure!(text.first() == Some(&b':'), "Redis: {}", String::from_utf8_lossy(text));
            taken += len;
            acks += 1;
        }
        Ok((taken, acks))
    }
}

/// NATS JetStream: a publish with a subject for its acknowledgement.
pub(crate) struct Nats {
    inbox: String,
    request: Vec<u8>,
}

impl Nats {
    pub(crate) fn new(number: usize) -> Self {
        let inbox = format!("_INBOX.bench.{number}");
        let mut request = format!("PUB log {inbox} {PAYLOAD}\r\n").into_bytes();
        request.resize(request.len() + PAYLOAD, b'x');
        request.extend_from_slice(b"\r\n");
        Self { inbox, request }
    }
}

impl Protocol for Nats {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n");
        out.extend_from_slice(format!("SUB {} 1\r\n", self.inbox).as_bytes());
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    fn replies(&mut self, input: &[u8], out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)> {
        let (mut taken, mut acks) = (0, 0);
        while let Some((text, len)) = line(&input[taken..]) {
            if text.starts_with(b"MSG ") {
                let text = std::str::from_utf8(text)?;
                let bytes: usize = text.rsplit(' ').next().unwrap_or_default().parse()?;
                let Some(body) = input.get(taken + len..taken + len + bytes + 2) else { break };
                let body = String::from_utf8_lossy(body);
                anyhow::ensure!(!body.contains("\"error\""), "JetStream: {body}");
                taken += len + bytes + 2;
                acks += 1;
                continue;
            }
            anyhow::ensure!(!text.starts_with(b"-ERR"), "NATS: {}", String::from_utf8_lossy(text));
            if text == b"PING" {
                out.extend_from_slice(b"PONG\r\n");
            }
            taken += len;
        }
        Ok((taken, acks))
    }
}

/// One request that is no append.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    greeting: Vec<u8>,
    request: Vec<u8>,
    /// What every answer that is no refusal holds.
    refusal: &'static str,
    /// How the line before an answer begins.
    answer: &'static [u8],
}

impl Ask {
    /// A command of Redis.
    pub(crate) fn redis(words: &[&str]) -> Self {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        Self { greeting: Vec::new(), request: request.into_bytes(), refusal: "-", answer: b"" }
    }

    /// A call of JetStream's API.
    pub(crate) fn nats(subject: &str, body: &str) -> Self {
        let greeting = b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB _INBOX.ask 1\r\n".to_vec();
        let request = format!("PUB {subject} _INBOX.ask {}\r\n{body}\r\n", body.len()).into_bytes();
        Self { greeting, request, refusal: "\"error\"", answer: b"MSG " }
    }
}

impl Protocol for Ask {
    fn greet(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.greeting);
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    fn replies(&mut self, input: &[u8], _out: &mut Vec<u8>) -> anyhow::Result<(usize, usize)> {
        let Some(at) = input.windows(self.answer.len().max(1)).position(|w| w.starts_with(self.answer)) else {
            return Ok((0, 0));
        };
        let text = String::from_utf8_lossy(&input[at..]);
        let complete = if self.answer.is_empty() { text.ends_with("\r\n") } else { text.matches("\r\n").count() >= 2 };
        if !complete {
            return Ok((0, 0));
        }
        let refused = if self.answer.is_empty() { text.starts_with(self.refusal) } else { text.contains(self.refusal) };
        anyhow::ensure!(!refused, "refused: {text}");
        Ok((input.len(), 1))
    }
}
