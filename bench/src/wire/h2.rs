//! Just enough of HTTP/2 for a client that appends: no table of headers, no priorities, nothing that it does not need. Ours
//! and etcd's clients share it, and both are as thin as the one for Redis: what is measured is the server.

/// What a client says first, before its settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest window there is: replies are small, it is never used up in a run.
const WINDOW: u32 = (1 << 31) - 1;

/// What came that an appender cares for.
pub(crate) enum Event<'a> {
    /// Part of a stream's replies.
    Data(&'a [u8]),
    /// A stream has ended, as the server wanted.
    Ended,
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Opens the connection.
pub(crate) fn greet(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let mut settings = vec![0, 4];
    settings.extend_from_slice(&WINDOW.to_be_bytes());
    frame(out, SETTINGS, 0, 0, &settings);
    frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
}

/// Opens a stream for a gRPC method.
pub(crate) fn call(out: &mut Vec<u8>, stream: u32, path: &str) {
    let mut block = Vec::new();
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    for (name, value) in headers {
        // Literal, not indexed; lengths below 127 are one byte.
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(out, HEADERS, END_HEADERS, stream, &block);
}

/// Sends one message of gRPC.
pub(crate) fn message(out: &mut Vec<u8>, stream: u32, last: bool, encode: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    frame(out, DATA, if last { END_STREAM } else { 0 }, stream, &[0; 5]);
    let body = out.len();
    encode(out);
    let len = (out.len() - body) as u32;
    out[body - 4..body].copy_from_slice(&len.to_be_bytes());
    out[start..start + 3].copy_from_slice(&(len + 5).to_be_bytes()[1..]);
}

/// Takes whole frames from `input`, answers what HTTP/2 wants answered, and tells of the rest. Answers how much was taken.
pub(crate) fn take(
    input: &[u8],
    out: &mut Vec<u8>,
    mut tell: impl FnMut(Event<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let mut taken = 0;
    while let Some((head, rest)) = input[taken..].split_at_checked(9) {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = rest.get(..len) else { break };
        taken += 9 + len;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            DATA => tell(Event::Data(payload))?,
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => anyhow::bail!("the server hung up: {payload:?}"),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            tell(Event::Ended)?;
        }
    }
    Ok(taken)
}

/// Counts the messages in the data of a stream, however it is cut.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    head: [u8; 5],
    has: usize,
    missing: usize,
}

impl Messages {
    /// How many ended in this piece.
    pub(crate) fn count(&mut self, mut data: &[u8]) -> usize {
        let mut ended = 0;
        while !data.is_empty() {
            if self.has < 5 {
                self.head[self.has] = data[0];
                self.has += 1;
                data = &data[1..];
                if self.has == 5 {
                    self.missing =
                        u32::from_be_bytes([self.head[1], self.head[2], self.head[3], self.head[4]]) as usize;
                }
            } else {
                let step = self.missing.min(data.len());
                self.missing -= step;
                data = &data[step..];
            }
            if self.has == 5 && self.missing == 0 {
                self.has = 0;
                ended += 1;
            }
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut out = Vec::new();
        for size in [0, 1, 300] {
            message(&mut out, 1, false, |out| out.resize(out.len() + size, 7));
        }
        for cut in 1..40 {
            let (mut messages, mut count) = (Messages::default(), 0);
            let mut data = Vec::new();
            let taken = take(&out, &mut Vec::new(), |event| {
                if let Event::Data(piece) = event {
                    data.extend_from_slice(piece);
                }
                Ok(())
            });
            assert_eq!(taken.unwrap(), out.len());
            for piece in data.chunks(cut) {
                count += messages.count(piece);
            }
            assert_eq!(count, 3, "in pieces of {cut}");
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_is_left() {
        let mut out = Vec::new();
        message(&mut out, 1, true, |out| out.extend_from_slice(b"abc"));
        let whole = out.len();
        out.extend_from_slice(&[0, 0, 9, 0, 0]);
        let mut ended = 0;
        let taken = take(&out, &mut Vec::new(), |event| {
            ended += usize::from(matches!(event, Event::Ended));
            Ok(())
        });
        assert_eq!((taken.unwrap(), ended), (whole, 1));
    }
}
