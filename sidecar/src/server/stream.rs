//! The server's end of a unix socket.
//!
//! A stream of the runtime is registered for reading and writing at once. Every time the peer takes a reply out of the
//! socket it becomes writable anew, and the thread that waits for sockets is woken for nothing: once for each
//! acknowledgement. This one waits for writing only while the socket is full.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// See the module.
pub(crate) struct SocketStream {
    socket: AsyncFd<UnixStream>,
    /// A second descriptor of the socket, while it is full.
    full: Option<AsyncFd<UnixStream>>,
}

#[allow(
    deprecated,
    reason = "what replaces it is unsafe, as a type could lie about its descriptor; a stream of std does not"
)]
fn wait_for(interest: Interest, socket: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

impl SocketStream {
    /// Takes over an accepted connection.
    pub(crate) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Ok(Self { socket: wait_for(Interest::READABLE, stream.into_std()?)?, full: None })
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&mut &UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match send(&mut self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                sent => {
                    self.full = None;
                    return Poll::Ready(sent);
                }
            }
            let full = match &mut self.full {
                Some(full) => full,
                // A descriptor can wait for reading or for both, but not now for one and now for the other.
                none => none.insert(wait_for(Interest::WRITABLE, self.socket.get_ref().try_clone()?)?),
            };
            // It may have become writable meanwhile: forget that before trying again, never after.
            ready!(full.poll_write_ready(context))?.clear_ready();
        }
    }
}

impl AsyncRead for SocketStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(context))?;
            let room = into.initialize_unfilled();
            match ready.try_io(|socket| socket.get_ref().read(room)) {
                Ok(Ok(count)) => {
                    // Less than there was room for: the socket is empty, which need not be asked for.
                    if count > 0 && count < room.len() {
                        ready.clear_ready();
                    }
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(context, |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (SocketStream, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (SocketStream::new(ours).unwrap(), theirs)
    }

    /// Bytes that tell where they stand.
    fn numbered(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n / 251) as u8 ^ (n % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read_whole_and_the_end_is_seen() {
        let (mut ours, mut theirs) = pair();
        let sent = numbered(300_000);
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            for piece in sent.chunks(7_001) {
                theirs.write_all(piece).await.unwrap();
            }
        });
        let mut read = Vec::new();
        ours.read_to_end(&mut read).await.unwrap();
        writer.await.unwrap();
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn a_full_socket_is_written_when_the_peer_reads_on() {
        let (mut ours, mut theirs) = pair();
        // Many times what a socket holds.
        let sent = numbered(4 << 20);
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            ours.write_all(&sent).await.unwrap();
            assert!(ours.full.is_none(), "it waits for writing no more");
            ours.shutdown().await.unwrap();
            // The other direction still works.
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, expected);
        theirs.write_all(b"thanks").await.unwrap();
        drop(theirs);
        assert_eq!(writer.await.unwrap(), b"thanks");
    }

    #[tokio::test]
    async fn slices_are_written_in_order() {
        let (mut ours, mut theirs) = pair();
        let sent = ours.write_vectored(&[IoSlice::new(b"one "), IoSlice::new(b"two")]).await.unwrap();
        assert_eq!(sent, 7);
        let mut read = [0; 7];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
    }

    #[tokio::test]
    async fn a_peer_that_went_away_is_an_error_not_a_wait() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let error = ours.write_all(&numbered(1 << 20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
